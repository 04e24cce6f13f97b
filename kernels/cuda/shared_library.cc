#include "kernels/cuda/shared_library.h"

#include <dlfcn.h>

#include <fmt/format.h>

namespace finchkv::kernels::cuda {

Result<void*> open_library(const char* name) {
  if (void* handle = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return handle;
  const char* why = dlerror();
  return Status::unavailable(
      fmt::format("{} cannot be opened ({}); install the CUDA 13 libraries, or name their folder "
                  "in LD_LIBRARY_PATH",
                  name, why == nullptr ? "no reason given" : why));
}

Result<void*> find_function(void* library, const char* name) {
  if (void* function = dlsym(library, name)) return function;
  return Status::unavailable(fmt::format("an NVIDIA library lacks {}; install CUDA 13's", name));
}

}  // namespace finchkv::kernels::cuda
