// PinnedMemory: host memory that a GPU fetches from by itself, while nobody waits.
//
// Page-locking costs more than a copy, so pieces are pooled: pages are touched and locked once, and what comes back is
// kept, up to a limit, for the next reload. Beyond another limit, or where the system refuses to lock, pieces are
// ordinary memory: they serve as well, and slower. Thread-safe; pieces may outlive it, and the GPU's device.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "base/memory_pool.h"

namespace finchkv::kernels::cuda {

class PinnedMemory final : public HostMemory {
 public:
  /// `ordinal`: the GPU whose driver context locks the pages; they serve every GPU.
  explicit PinnedMemory(int ordinal);

  [[nodiscard]] std::shared_ptr<std::byte> take(std::size_t bytes) override;
  /// All of it lies in page-locked memory of this pool's.
  [[nodiscard]] bool holds(std::span<const std::byte> bytes) const;
  /// Unlocks what nobody has wanted for a while.
  void trim();

 private:
  class Pages;
  std::shared_ptr<Pages> pages_;
  MemoryPool pool_;
};

}  // namespace finchkv::kernels::cuda
