// gelu_and_mul for the CPU, on the threads that PyTorch already has.

#include <algorithm>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "gelu.h"
#include "operators.h"
#include "shape.h"

namespace {

// Elements that one thread should at least get: below this, starting it costs more than it saves.
constexpr int64_t kGrain = 16384;

template <typename T>
void run(torch::stable::Tensor& out, const torch::stable::Tensor& x, Shape shape) {
  const T* const source = static_cast<const T*>(x.const_data_ptr());
  T* const target = static_cast<T*>(out.mutable_data_ptr());
  const int64_t width = shape.width;
  const int64_t grain = std::max<int64_t>(1, kGrain / width);
  torch::stable::parallel_for(0, shape.rows, grain, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* const gate = source + row * 2 * width;
      const T* const up = gate + width;
      T* const result = target + row * width;
      for (int64_t i = 0; i < width; ++i) {
        result[i] = static_cast<T>(
            gelu_times(static_cast<float>(gate[i]), static_cast<float>(up[i])));
      }
    }
  });
}

void gelu_and_mul(torch::stable::Tensor& out, const torch::stable::Tensor& x) {
  const Shape shape = check_shape(out, x);
  if (shape.rows == 0) {
    return;
  }
  switch (x.scalar_type()) {
    case torch::headeronly::ScalarType::Float:
      return run<float>(out, x, shape);
    case torch::headeronly::ScalarType::Half:
      return run<torch::headeronly::Half>(out, x, shape);
    case torch::headeronly::ScalarType::BFloat16:
      return run<torch::headeronly::BFloat16>(out, x, shape);
    default:
      STD_TORCH_CHECK(false, "gelu_and_mul takes float32, float16 or bfloat16");
  }
}

}  // namespace

DEFINE_OPERATORS(OPS_NAMESPACE, library) {
  library.def("gelu_and_mul(Tensor! out, Tensor x) -> ()");
}

IMPLEMENT_OPERATORS(OPS_NAMESPACE, CPU, library) {
  library.impl("gelu_and_mul", TORCH_BOX(&gelu_and_mul));
}
