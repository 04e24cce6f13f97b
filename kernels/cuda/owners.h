// Move-only owners of what the CUDA runtime hands out: streams, events, page-locked memory.
//
// Each destroys what it holds on the device that was current when it was made; failures while destroying are not told,
// because the context may be gone by then. Making one can fail and returns a Result.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

#include "base/status.h"

namespace finchkv::kernels::cuda {

/// Whether a call succeeded. The runtime also keeps a failure for cudaGetLastError(), where the next launch would take
/// it for its own: that is forgotten, because whoever asks deals with the failure.
[[nodiscard]] bool succeeded(cudaError_t error);

/// internal, with the call and CUDA's own words; resource_exhausted when it is about memory. Forgets as succeeded().
[[nodiscard]] Status cuda_status(cudaError_t error, const char* what);

/// A handle of type T that Destroy gives back.
template <typename T, cudaError_t (*Destroy)(T)>
class Owned {
 public:
  Owned() = default;
  explicit Owned(T handle) : handle_(handle) {}
  ~Owned() { reset(); }
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, T{})) {}
  Owned& operator=(Owned&& other) noexcept {
    if (this != &other) {
      reset();
      handle_ = std::exchange(other.handle_, T{});
    }
    return *this;
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;

  [[nodiscard]] T get() const { return handle_; }

 private:
  void reset() {
    if (handle_ != T{}) static_cast<void>(succeeded(Destroy(std::exchange(handle_, T{}))));
  }
  T handle_{};
};

using Stream = Owned<cudaStream_t, cudaStreamDestroy>;
using Event = Owned<cudaEvent_t, cudaEventDestroy>;
using Pinned = Owned<void*, cudaFreeHost>;

[[nodiscard]] Result<Stream> make_stream();
[[nodiscard]] Result<Event> make_event();  ///< for ordering, without timing
[[nodiscard]] Result<Pinned> make_pinned(std::size_t bytes);

}  // namespace finchkv::kernels::cuda
