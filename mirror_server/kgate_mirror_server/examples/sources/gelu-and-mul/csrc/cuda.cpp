// Host part of the CUDA variant: checks, device, PyTorch's current stream. It needs no CUDA build of
// PyTorch to compile: the stream's handle comes through the stable C interface of PyTorch 2.13.

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/core/ScalarType.h>

#include "cuda.h"
#include "operators.h"
#include "shape.h"

namespace {

Element element_of(const torch::stable::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case torch::headeronly::ScalarType::Float:
      return Element::kFloat;
    case torch::headeronly::ScalarType::Half:
      return Element::kHalf;
    case torch::headeronly::ScalarType::BFloat16:
      return Element::kBFloat16;
    default:
      STD_TORCH_CHECK(false, "gelu_and_mul takes float32, float16 or bfloat16");
  }
}

void gelu_and_mul(torch::stable::Tensor& out, const torch::stable::Tensor& x) {
  const Shape shape = check_shape(out, x);
  STD_TORCH_CHECK(out.get_device_index() == x.get_device_index(), "x and out need the same device");
  if (shape.rows == 0) {
    return;
  }
  const auto device = x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const auto stream = torch::stable::accelerator::getCurrentStream(device);
  const char* const error = launch_gelu_and_mul(
      out.mutable_data_ptr(), x.const_data_ptr(), shape.rows, shape.width, element_of(x),
      stream.nativeHandle());
  STD_TORCH_CHECK(error == nullptr, "gelu_and_mul was not launched: ", error);
}

}  // namespace

DEFINE_OPERATORS(OPS_NAMESPACE, library) {
  library.def("gelu_and_mul(Tensor! out, Tensor x) -> ()");
}

IMPLEMENT_OPERATORS(OPS_NAMESPACE, CUDA, library) {
  library.impl("gelu_and_mul", TORCH_BOX(&gelu_and_mul));
}
