// gelu_and_mul for NVIDIA GPUs: one block per row, looping where there are more rows than blocks.

#include <algorithm>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "cuda.h"
#include "gelu.h"

// Named, because nvcc derives the name of an anonymous namespace from where the build happens.
namespace gelu_and_mul {

constexpr int64_t kMaxBlocks = 65535;
constexpr int64_t kMaxThreads = 1024;
constexpr int64_t kWarp = 32;

__device__ inline float widen(float value) { return value; }
__device__ inline float widen(__half value) { return __half2float(value); }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

__device__ inline void narrow(float value, float* result) { *result = value; }
__device__ inline void narrow(float value, __half* result) { *result = __float2half_rn(value); }
__device__ inline void narrow(float value, __nv_bfloat16* result) {
  *result = __float2bfloat16_rn(value);
}

template <typename T>
__global__ void gelu_and_mul_kernel(
    T* __restrict__ out, const T* __restrict__ x, int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* const gate = x + row * 2 * width;
    const T* const up = gate + width;
    T* const result = out + row * width;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      narrow(gelu_times(widen(gate[i]), widen(up[i])), result + i);
    }
  }
}

template <typename T>
void launch(void* out, const void* x, int64_t rows, int64_t width, cudaStream_t stream) {
  const int64_t blocks = std::min(rows, kMaxBlocks);
  const int64_t threads = std::min(kMaxThreads, (width + kWarp - 1) / kWarp * kWarp);
  gelu_and_mul_kernel<T>
      <<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0, stream>>>(
          static_cast<T*>(out), static_cast<const T*>(x), rows, width);
}

}  // namespace gelu_and_mul

const char* launch_gelu_and_mul(
    void* out, const void* x, int64_t rows, int64_t width, Element element, void* stream) {
  const cudaStream_t queue = static_cast<cudaStream_t>(stream);
  switch (element) {
    case Element::kFloat:
      gelu_and_mul::launch<float>(out, x, rows, width, queue);
      break;
    case Element::kHalf:
      gelu_and_mul::launch<__half>(out, x, rows, width, queue);
      break;
    case Element::kBFloat16:
      gelu_and_mul::launch<__nv_bfloat16>(out, x, rows, width, queue);
      break;
  }
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}
