// The activation itself, the same text for host and device: gelu(a) * b with the exact (erf) GELU.
#pragma once

#include <cmath>

#ifdef __CUDACC__
#define GELU_FN __host__ __device__ inline
#else
#define GELU_FN inline
#endif

// 1 / sqrt(2)
constexpr float kInverseSqrt2 = 0.70710678118654752440f;

GELU_FN float gelu_times(float gate, float up) {
  return 0.5f * gate * (1.0f + erff(gate * kInverseSqrt2)) * up;
}
