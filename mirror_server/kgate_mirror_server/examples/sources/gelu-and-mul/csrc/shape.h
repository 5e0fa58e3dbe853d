// Checks the operator's arguments once for every backend. Uses PyTorch's stable C interface only.
#pragma once

#include <cstdint>

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

struct Shape {
  int64_t rows;
  int64_t width;  // of one output row; an input row is twice as wide
};

inline Shape check_shape(const torch::stable::Tensor& out, const torch::stable::Tensor& x) {
  STD_TORCH_CHECK(x.dim() >= 1 && out.dim() == x.dim(), "x and out need the same rank, at least 1");
  const int64_t last = x.dim() - 1;
  const int64_t width = out.size(last);
  STD_TORCH_CHECK(x.size(last) == 2 * width, "the last dimension of x must be twice that of out");
  for (int64_t i = 0; i < last; ++i) {
    STD_TORCH_CHECK(x.size(i) == out.size(i), "x and out must agree in every other dimension");
  }
  STD_TORCH_CHECK(x.scalar_type() == out.scalar_type(), "x and out need the same data type");
  STD_TORCH_CHECK(x.is_contiguous() && out.is_contiguous(), "x and out must be contiguous");
  return {width == 0 ? 0 : out.numel() / width, width};
}
