#include "kernels/cuda/pinned_memory.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "kernels/cuda/owners.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr std::size_t kKeep = std::size_t{512} << 20;
constexpr std::size_t kMost = std::size_t{2} << 30;  // locked at once, in use or kept
constexpr std::chrono::seconds kIdle{60};
constexpr std::size_t kPage = 4096;
using Clock = std::chrono::steady_clock;

class DriverLock final : public PageLock {
 public:
  explicit DriverLock(int ordinal) : ordinal_(ordinal) {}
  bool lock(std::byte* at, std::size_t bytes) override {
    return succeeded(cudaSetDevice(ordinal_)) && succeeded(cudaHostRegister(at, bytes, cudaHostRegisterPortable));
  }
  void unlock(std::byte* at) override {
    static_cast<void>(succeeded(cudaHostUnregister(at)));  // fails where the driver is gone, and the locks with it
  }

 private:
  const int ordinal_;
};

}  // namespace

class PinnedMemory::Pages final : public PageSource {
 public:
  Pages(std::shared_ptr<PageLock> lock, std::chrono::milliseconds refused)
      : lock_(std::move(lock)), refused_for_(refused) {}

  std::byte* map(std::size_t bytes) override {
    {
      const std::lock_guard lock(mutex_);
      if (locked_ + bytes > kMost || Clock::now() < refused_until_) return nullptr;
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
    lock_->unlock(at);
    memory_.unmap(at, bytes);
  }

  [[nodiscard]] bool was_refused() const {
    const std::lock_guard lock(mutex_);
    return was_refused_;
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
    if (lock_->lock(at, bytes)) return at;
    memory_.unmap(at, bytes);  // ordinary memory does as well
    const std::lock_guard lock(mutex_);
    was_refused_ = true;
    refused_until_ = Clock::now() + refused_for_;
    return nullptr;
  }

  const std::shared_ptr<PageLock> lock_;
  const std::chrono::milliseconds refused_for_;
  AnonymousPages memory_;
  mutable std::mutex mutex_;
  std::map<const std::byte*, std::size_t> ranges_;
  std::size_t locked_ = 0;
  bool was_refused_ = false;
  Clock::time_point refused_until_;
};

PinnedMemory::PinnedMemory(int ordinal) : PinnedMemory(std::make_shared<DriverLock>(ordinal)) {}
PinnedMemory::PinnedMemory(std::shared_ptr<PageLock> lock, std::chrono::milliseconds refused)
    : pages_(std::make_shared<Pages>(std::move(lock), refused)), pool_(kKeep, pages_) {}

std::shared_ptr<std::byte> PinnedMemory::take(std::size_t bytes) {
  std::shared_ptr<std::byte> piece = pool_.take(bytes);
  return piece ? piece : MemoryPool::shared().take(bytes);
}

bool PinnedMemory::holds(std::span<const std::byte> bytes) const { return pages_->holds(bytes); }

bool PinnedMemory::was_refused() const { return pages_->was_refused(); }

void PinnedMemory::trim() { pool_.release_idle(kIdle); }

}  // namespace finchkv::kernels::cuda
