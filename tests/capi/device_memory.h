/* What a test reads a device's memory by: CUDA's runtime where the library was built with it. */
#ifndef FINCHKV_TESTS_CAPI_DEVICE_MEMORY_H
#define FINCHKV_TESTS_CAPI_DEVICE_MEMORY_H

#include <dlpack/dlpack.h>

#ifdef FINCHKV_TEST_CUDA
#include <cuda_runtime_api.h>
#endif

#include "tests/capi/check.h"

static inline size_t tensor_bytes(const DLTensor* t) {
  size_t bytes = t->dtype.bits / 8;
  int32_t i;
  for (i = 0; i < t->ndim; ++i) bytes *= (size_t)t->shape[i];
  return bytes;
}

/* The bytes of a dense tensor. */
static inline void read_tensor(const DLTensor* t, void* to) {
  const size_t bytes = tensor_bytes(t);
  if (t->device.device_type == kDLCPU) {
    memcpy(to, t->data, bytes);
    return;
  }
#ifdef FINCHKV_TEST_CUDA
  CHECK(cudaMemcpy(to, t->data, bytes, cudaMemcpyDeviceToHost) == cudaSuccess);
#else
  CHECK(0 && "a tensor on a GPU from a library without CUDA");
#endif
}

#endif
