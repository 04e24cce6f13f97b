// MemoryPool: large pieces of memory that have been touched before, handed out again.
//
// Fresh memory costs a page fault and a zeroing every few KiB, more than reading the bytes from the page cache. Pieces
// lie in huge pages where the system has them, and are kept when they come back: up to `keep_bytes`, until
// release_idle() finds that nobody wanted them for a while. (MADV_FREE in place of that was tried: under a busy page
// cache the system takes such pages first, and every reuse faulted again.)
// Thread-safe. Pieces may outlive the pool. Left out: memory that is page-locked for a GPU.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

namespace finchkv {

class MemoryPool {
 public:
  explicit MemoryPool(std::size_t keep_bytes);
  /// The process's own; keeps up to 512 MiB.
  [[nodiscard]] static MemoryPool& shared();

  /// At least `bytes`, uninitialised, aligned to 64 bytes (to 4 KiB from 64 KiB on). nullptr when there is none left.
  [[nodiscard]] std::shared_ptr<std::byte> take(std::size_t bytes);

  /// Gives pieces back to the system that have been kept for at least this long.
  void release_idle(std::chrono::milliseconds age);
  [[nodiscard]] std::size_t kept_bytes() const;

 private:
  struct Shelf;
  std::shared_ptr<Shelf> shelf_;
};

}  // namespace finchkv
