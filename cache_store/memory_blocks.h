// The blocks of one put in memory, and reading them.
//
// Internal to cache_store. Immutable once made, thread-safe.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "cache_store/codec.h"
#include "cache_store/entry_reader.h"

namespace finchkv::cache_store {

class MemoryBlocks {
 public:
  /// A copy of its own. resource_exhausted when there is no memory.
  [[nodiscard]] static Result<std::shared_ptr<const MemoryBlocks>> copy_of(const EncodedEntry& entry);

  /// As BlockSource::read(), and read_with() where there is work.
  [[nodiscard]] Status read(const BlockRef& ref, std::span<std::byte> into, BlockWork* work = nullptr) const;

 private:
  MemoryBlocks() = default;

  std::shared_ptr<std::byte> memory_;
  std::vector<std::span<const std::byte>> blocks_;  // by ordinal
};

/// Reads blocks for as long as somebody else keeps them: a reader whose lease has run out must not keep memory that
/// counts as free. `progress` is the lease's, asked after each block.
[[nodiscard]] std::unique_ptr<BlockSource> make_memory_source(std::weak_ptr<const MemoryBlocks> blocks,
                                                              std::function<Status()> progress);

}  // namespace finchkv::cache_store
