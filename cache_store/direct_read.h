// Reading a large value of a RocksDB table straight to where it is wanted.
//
// RocksDB reads a table block into memory of its own, from where its value would be copied again, through cold memory
// both times. A block that holds one large value is instead read, in tiles, to the place that the calling thread has
// named, and its digest is taken while each tile is in cache: one pass, no map (a bad sector under a map is a SIGBUS,
// and a map dies with its file). RocksDB is given the block where it lies, as it would be for a mapped file. How a
// value lies within its block is assumed here and checked by took(): when it is not as assumed, the value is where
// RocksDB put it and nothing is lost but time. The file system also counts what is written through it. Thread-safe; a
// DirectRead belongs to its thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include <rocksdb/file_system.h>

#include "base/digest.h"

namespace finchkv::cache_store {

/// Names the place of the next large value that this thread reads; ends with its scope. One at a time per thread.
class DirectRead {
 public:
  /// Room that is written before and behind the value's place.
  static constexpr std::size_t kSlack = 64;

  /// `into` has the value's size, with kSlack on both sides.
  explicit DirectRead(std::span<std::byte> into, BlockHasher& hasher);
  ~DirectRead();
  DirectRead(const DirectRead&) = delete;
  DirectRead& operator=(const DirectRead&) = delete;

  /// The digest of the value, if it was read to its place.
  [[nodiscard]] std::optional<BlockDigest> took(const char* value, std::size_t bytes);

 private:
  friend class DirectFile;
  std::span<std::byte> into_;
  BlockHasher& hasher_;
  std::optional<BlockDigest> digest_;
};

struct WriteCounter {
  std::atomic<std::uint64_t> bytes{0};  ///< appended to files since it was made
};

/// `base` with both abilities.
[[nodiscard]] std::shared_ptr<rocksdb::FileSystem> make_direct_file_system(
    const std::shared_ptr<rocksdb::FileSystem>& base, std::shared_ptr<WriteCounter> counter);

}  // namespace finchkv::cache_store
