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

/// The message alone.
[[nodiscard]] std::vector<std::byte> encode_head_message(const EntryHead& head);
/// Digest, message, wrapped key: the bytes that a store keeps under the entry's key.
[[nodiscard]] std::vector<std::byte> make_head_record(std::span<const std::byte> message,
                                                      std::span<const std::byte> wrapped_key);
[[nodiscard]] std::vector<std::byte> encode_head(const EntryHead& head);
/// The same record with its data key wrapped otherwise; the message stays byte for byte.
[[nodiscard]] std::vector<std::byte> replace_wrapped_key(std::span<const std::byte> record,
                                                         std::span<const std::byte> wrapped_key);

/// The rows of EntryHead::plan_blocks with their digests.
[[nodiscard]] std::vector<std::byte> encode_table(const std::vector<BlockRef>& blocks);
/// `bytes` passed the table root's digest; rows are compared with the head's plan.
[[nodiscard]] Result<std::vector<BlockRef>> decode_table(const EntryHead& head, std::span<const std::byte> bytes);

}  // namespace finchkv::cache_store
