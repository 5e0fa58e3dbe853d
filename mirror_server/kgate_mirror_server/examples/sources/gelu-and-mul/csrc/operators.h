// PyTorch's registration macros quote their first argument; one more level lets a -D name it.
#pragma once

#include <torch/csrc/stable/library.h>

#define DEFINE_OPERATORS(name, library) STABLE_TORCH_LIBRARY(name, library)
#define IMPLEMENT_OPERATORS(name, key, library) STABLE_TORCH_LIBRARY_IMPL(name, key, library)
