// What the host part asks of the device part. No CUDA or PyTorch type appears here, so that each
// side is compiled with its own headers only.
#pragma once

#include <cstdint>

enum class Element { kFloat, kHalf, kBFloat16 };

// Queues the kernel on `stream` (a cudaStream_t) of the current device; returns null or CUDA's text.
const char* launch_gelu_and_mul(
    void* out, const void* x, int64_t rows, int64_t width, Element element, void* stream);
