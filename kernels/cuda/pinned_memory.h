// PinnedMemory: host memory that a GPU fetches from by itself, while nobody waits.
//
// Page-locking costs more than a copy, so pieces are pooled: pages are touched and locked once, and what comes back is
// kept, up to a limit, for the next reload. Beyond another limit, or where the system refuses to lock, pieces are
// ordinary memory: they serve as well, and slower. A refusal is remembered, so that not every piece pays for asking
// again. Thread-safe; pieces may outlive it, and the GPU's device.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>

#include "base/memory_pool.h"

namespace finchkv::kernels::cuda {

/// What locks pages and lets them go again. Thread-safe.
class PageLock {
 public:
  virtual ~PageLock() = default;
  [[nodiscard]] virtual bool lock(std::byte* at, std::size_t bytes) = 0;
  virtual void unlock(std::byte* at) = 0;
};

class PinnedMemory final : public HostMemory {
 public:
  /// After a refusal nothing is locked for this long.
  static constexpr std::chrono::milliseconds kRefused = std::chrono::minutes(1);

  /// `ordinal`: the GPU whose driver context locks the pages; they serve every GPU.
  explicit PinnedMemory(int ordinal);
  explicit PinnedMemory(std::shared_ptr<PageLock> lock, std::chrono::milliseconds refused = kRefused);

  [[nodiscard]] std::shared_ptr<std::byte> take(std::size_t bytes) override;
  /// All of it lies in page-locked memory of this pool's.
  [[nodiscard]] bool holds(std::span<const std::byte> bytes) const;
  /// Unlocks what nobody has wanted for a while.
  void trim();
  /// The system has refused to lock pages, now or before: reloads are slower than they could be.
  [[nodiscard]] bool was_refused() const;

 private:
  class Pages;
  std::shared_ptr<Pages> pages_;
  MemoryPool pool_;
};

}  // namespace finchkv::kernels::cuda
