// MemoryPool: large pieces of memory that have been touched before, handed out again.
//
// Fresh memory costs a page fault and a zeroing every few KiB, more than reading the bytes from the page cache. Pieces
// lie in huge pages where the system has them, and are kept when they come back: up to `keep_bytes`, the ones that came
// last, until release_idle() finds that nobody wanted them for a while. (MADV_FREE in place of that was tried: under a
// busy page cache the system takes such pages first, and every reuse faulted again.)
// Thread-safe. Pieces may outlive the pool.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/host_memory.h"

namespace finchkv {

/// Where a pool gets memory from and gives it back to. Thread-safe.
class PageSource {
 public:
  virtual ~PageSource() = default;
  /// A multiple of 64 KiB, aligned to a page; nullptr when there is none left.
  [[nodiscard]] virtual std::byte* map(std::size_t bytes) = 0;
  virtual void unmap(std::byte* at, std::size_t bytes) = 0;
};

/// Memory of the process's own, in huge pages where the system has them.
class AnonymousPages final : public PageSource {
 public:
  [[nodiscard]] std::byte* map(std::size_t bytes) override;
  void unmap(std::byte* at, std::size_t bytes) override;
};

class MemoryPool final : public HostMemory {
 public:
  explicit MemoryPool(std::size_t keep_bytes);
  MemoryPool(std::size_t keep_bytes, std::shared_ptr<PageSource> pages);
  /// The process's own; keeps up to 512 MiB.
  [[nodiscard]] static MemoryPool& shared();

  [[nodiscard]] std::shared_ptr<std::byte> take(std::size_t bytes) override;

  /// Gives pieces back to the system that have been kept for at least this long.
  void release_idle(std::chrono::milliseconds age);
  [[nodiscard]] std::size_t kept_bytes() const;

 private:
  struct Shelf;
  std::shared_ptr<Shelf> shelf_;
};

}  // namespace finchkv
