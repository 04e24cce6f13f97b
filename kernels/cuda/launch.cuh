// Kernels that follow one another closely: the next one starts while this one ends, and waits where it needs its
// results.
//
// A kernel launched by launch_early() may only read what no kernel before it writes (weights, caches of earlier steps)
// until wait_for_inputs(); every block that goes on past its first lines calls it. start_next() lets the next kernel's
// blocks take places that this one no longer fills. Both do nothing in a kernel that was launched the plain way, as all
// are where kernels_can_wait() says no.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "kernels/cuda/runtime.h"

namespace finchkv::kernels::cuda {

__device__ __forceinline__ void start_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_inputs() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Launches without waiting for the kernel before to end. `what` names it where it fails.
template <typename... Params, typename... Args>
void launch_early(Runtime& rt, const char* what, void (*kernel)(Params...), dim3 blocks, int threads, int shared_bytes,
                  Args&&... args) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = rt.stream();
  config.attrs = &early;
  config.numAttrs = rt.early_launches() ? 1 : 0;
  rt.check(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...), what);
}

}  // namespace finchkv::kernels::cuda
