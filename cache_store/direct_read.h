// Reading a large value of a RocksDB table straight to where it is wanted.
//
// RocksDB reads a table block into memory of its own, from where its value would be copied again, through cold memory
// both times. A block that holds one large value is instead read, in tiles, to the place that the calling thread has
// named, and its digest is taken while each tile is in cache: one pass, no map (a bad sector under a map is a SIGBUS,
// and a map dies with its file). RocksDB is given the block where it lies, as it would be for a mapped file.
//
// RocksDB would check its own checksum over all of the block before it parses it: a second hash over every byte. It may
// be told not to, because what it parses, the few bytes around the value, is compared here with what a table of ours
// has there. Where they differ (damage, or a form of table that is not known here) the read fails and irregular() says
// so: the caller reads again, checked by RocksDB and without this. The file system also counts what is written through
// it. Thread-safe; a DirectRead belongs to its thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <rocksdb/file_system.h>

#include "base/digest.h"
#include "cache_store/entry_reader.h"

namespace finchkv::cache_store {

/// Names the place of the next large value that this thread reads; ends with its scope. One at a time per thread.
class DirectRead {
 public:
  /// Room that is written before and behind the value's place.
  static constexpr std::size_t kSlack = 64;

  /// Values from here on are worth it; below, a copy in cache costs nothing.
  static constexpr std::size_t kSmallest = 16 << 10;

  /// `into` has the value's size, from kSmallest on, with kSlack on both sides. `key`: the value's, as the user gave
  /// it. `work`, where there is some, is done on the value tile by tile, behind its digest.
  DirectRead(std::string_view key, std::span<std::byte> into, BlockHasher& hasher, BlockWork* work = nullptr);
  ~DirectRead();
  DirectRead(const DirectRead&) = delete;
  DirectRead& operator=(const DirectRead&) = delete;

  /// The digest of the value, if it was read to its place.
  [[nodiscard]] std::optional<BlockDigest> took(const char* value, std::size_t bytes);

  /// The value's block was read, and is not what a table of ours has there.
  [[nodiscard]] bool irregular() const { return irregular_; }

 private:
  friend class DirectFile;
  std::string before_;  ///< what stands before the value in its block
  std::span<std::byte> into_;
  BlockHasher& hasher_;
  BlockWork* work_;
  std::optional<BlockDigest> digest_;
  bool irregular_ = false;
};

struct WriteCounter {
  std::atomic<std::uint64_t> bytes{0};  ///< appended to files since it was made
};

/// `base` with both abilities.
[[nodiscard]] std::shared_ptr<rocksdb::FileSystem> make_direct_file_system(
    const std::shared_ptr<rocksdb::FileSystem>& base, std::shared_ptr<WriteCounter> counter);

}  // namespace finchkv::cache_store
