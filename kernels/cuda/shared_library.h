// NVIDIA's libraries, opened when a CUDA device is made: the same binary starts where they are missing.
#pragma once

#include <string>

#include "base/status.h"

namespace finchkv::kernels::cuda {

/// The handle of a library that stays open for good; unavailable, with the loader's words, when it cannot be opened.
[[nodiscard]] Result<void*> open_library(const char* name);
/// The address of a function; unavailable when the library lacks it.
[[nodiscard]] Result<void*> find_function(void* library, const char* name);

}  // namespace finchkv::kernels::cuda
