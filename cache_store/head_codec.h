// Heads and block tables as Cap'n Proto messages: the part of the codec that knows the schema.
//
// Internal to cache_store. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/status.h"
#include "cache_store/codec.h"

namespace finchkv::cache_store {

/// What every head must fulfil, whoever made it. corrupt otherwise.
[[nodiscard]] Status check_head(const EntryHead& head);

/// Digest and message: the bytes that a store keeps under the entry's key.
[[nodiscard]] std::vector<std::byte> encode_head(const EntryHead& head);

/// The rows of EntryHead::plan_blocks with their digests.
[[nodiscard]] std::vector<std::byte> encode_table(const std::vector<BlockRef>& blocks);
/// `bytes` passed the table root's digest; rows are compared with the head's plan.
[[nodiscard]] Result<std::vector<BlockRef>> decode_table(const EntryHead& head, std::span<const std::byte> bytes);

}  // namespace finchkv::cache_store
