// One stored block through zstd and back, where that makes it smaller.
//
// A compressed block is one zstd frame with its content size and without zstd's own checksum: blocks have digests.
// Contexts are kept per thread and reused (some 100 KiB to a few MiB each, by the level). Thread-safe. Whether a block
// is compressed is for the caller to remember: nothing here guesses it from the bytes.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"

namespace finchkv::cache_store {

inline constexpr int kDefaultZstdLevel = 1;

/// nullopt when the block does not become smaller by a sixteenth at least (or when memory is short): store it as it is.
/// `level` is zstd's, 1 to 19.
[[nodiscard]] std::optional<std::vector<std::byte>> compress_block(std::span<const std::byte> block,
                                                                   int level = kDefaultZstdLevel);

/// `out` has the size that the block had. corrupt unless `stored` is one whole frame of exactly that content.
[[nodiscard]] Status decompress_block(std::span<const std::byte> stored, std::span<std::byte> out);

}  // namespace finchkv::cache_store
