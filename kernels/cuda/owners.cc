#include "kernels/cuda/owners.h"

#include <fmt/format.h>

namespace finchkv::kernels::cuda {

bool succeeded(cudaError_t error) {
  if (error == cudaSuccess) return true;
  static_cast<void>(cudaGetLastError());
  return false;
}

Status cuda_status(cudaError_t error, const char* what) {
  if (succeeded(error)) return Status::ok();
  if (error == cudaErrorMemoryAllocation) {
    return Status::resource_exhausted(
        fmt::format("no GPU memory for {}; free some, or keep fewer entries and read in smaller chunks", what));
  }
  return Status::internal(
      fmt::format("CUDA failed at {}: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error)));
}

Result<Stream> make_stream() {
  cudaStream_t stream = nullptr;
  FINCHKV_RETURN_IF_ERROR(cuda_status(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream"));
  return Stream(stream);
}

Result<Event> make_event() {
  cudaEvent_t event = nullptr;
  FINCHKV_RETURN_IF_ERROR(cuda_status(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event"));
  return Event(event);
}

Result<Pinned> make_pinned(std::size_t bytes) {
  void* memory = nullptr;
  FINCHKV_RETURN_IF_ERROR(cuda_status(cudaMallocHost(&memory, bytes), "page-locked host memory"));
  return Pinned(memory);
}

}  // namespace finchkv::kernels::cuda
