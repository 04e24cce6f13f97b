#include "kernels/cuda/pinned_memory.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <map>
#include <mutex>

namespace finchkv::kernels::cuda {
namespace {

constexpr std::size_t kKeep = std::size_t{512} << 20;
constexpr std::size_t kMost = std::size_t{2} << 30;  // locked at once, in use or kept
constexpr std::chrono::seconds kIdle{60};
constexpr std::size_t kPage = 4096;

}  // namespace

class PinnedMemory::Pages final : public PageSource {
 public:
  explicit Pages(int ordinal) : ordinal_(ordinal) {}

  std::byte* map(std::size_t bytes) override {
    {
      const std::lock_guard lock(mutex_);
      if (locked_ + bytes > kMost) return nullptr;
      locked_ += bytes;
    }
    std::byte* const at = lock_pages(bytes);
    const std::lock_guard lock(mutex_);
    if (at == nullptr) {
      locked_ -= bytes;
    } else {
      ranges_.emplace(at, bytes);
    }
    return at;
  }

  void unmap(std::byte* at, std::size_t bytes) override {
    {
      const std::lock_guard lock(mutex_);
      ranges_.erase(at);
      locked_ -= bytes;
    }
    static_cast<void>(cudaHostUnregister(at));  // fails where the driver is gone, and the locks with it
    memory_.unmap(at, bytes);
  }

  [[nodiscard]] bool holds(std::span<const std::byte> bytes) const {
    const std::lock_guard lock(mutex_);
    const auto behind = ranges_.upper_bound(bytes.data());
    if (behind == ranges_.begin()) return false;
    const auto& [start, size] = *std::prev(behind);
    return bytes.data() + bytes.size() <= start + size;
  }

 private:
  std::byte* lock_pages(std::size_t bytes) {
    std::byte* const at = memory_.map(bytes);
    if (at == nullptr) return nullptr;
    // Touched here, by the thread that will use it: the driver would do it under a lock of its own.
    for (std::size_t i = 0; i < bytes; i += kPage) at[i] = std::byte{0};
    if (cudaSetDevice(ordinal_) == cudaSuccess &&
        cudaHostRegister(at, bytes, cudaHostRegisterPortable) == cudaSuccess) {
      return at;
    }
    static_cast<void>(cudaGetLastError());  // ordinary memory does as well
    memory_.unmap(at, bytes);
    return nullptr;
  }

  const int ordinal_;
  AnonymousPages memory_;
  mutable std::mutex mutex_;
  std::map<const std::byte*, std::size_t> ranges_;
  std::size_t locked_ = 0;
};

PinnedMemory::PinnedMemory(int ordinal) : pages_(std::make_shared<Pages>(ordinal)), pool_(kKeep, pages_) {}

std::shared_ptr<std::byte> PinnedMemory::take(std::size_t bytes) {
  std::shared_ptr<std::byte> piece = pool_.take(bytes);
  return piece ? piece : MemoryPool::shared().take(bytes);
}

bool PinnedMemory::holds(std::span<const std::byte> bytes) const { return pages_->holds(bytes); }

void PinnedMemory::trim() { pool_.release_idle(kIdle); }

}  // namespace finchkv::kernels::cuda
