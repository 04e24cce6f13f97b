// Keys and small records of the RocksDB store (docs/formats.md).
//
// Column family "default": 'H' head, 'A' access record, 'T' tenant key check, each followed by the tenant's name with
// its length before it, H and A also by the 32-byte id. Column family "blocks": put id, ordinal (big-endian).
// Internal to cache_store. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "cache_store/codec.h"
#include "cache_store/identity.h"

namespace finchkv::cache_store {

[[nodiscard]] std::string head_prefix(const Tenant& tenant);
[[nodiscard]] std::string head_key(const Tenant& tenant, const CacheId& id);
[[nodiscard]] std::string access_key(const Tenant& tenant, const CacheId& id);
[[nodiscard]] std::string tenant_key(const Tenant& tenant);
/// The id at the end of a head key; nullopt when the key is not one of this prefix.
[[nodiscard]] std::optional<CacheId> id_of_head_key(std::string_view key, std::string_view prefix);
/// The smallest key that is larger than all keys with this prefix.
[[nodiscard]] std::string prefix_end(std::string prefix);

inline constexpr std::string_view kAllHeads = "H";

[[nodiscard]] std::string block_key(const PutId& put_id, std::uint32_t ordinal);
/// nullopt when the key has another length.
[[nodiscard]] std::optional<PutId> put_id_of_block_key(std::string_view key);
[[nodiscard]] std::string after_put(const PutId& put_id);  ///< larger than every block key of this put

/// Says under which key a tenant's entries were stored, without saying the key.
[[nodiscard]] std::string tenant_check(const Tenant& tenant);

struct AccessRecord {
  std::uint64_t hits = 0;
  std::uint64_t last_used_unix_ms = 0;
  std::string label;
};
[[nodiscard]] std::string encode_access(const AccessRecord& record);
[[nodiscard]] std::optional<AccessRecord> decode_access(std::string_view bytes);

}  // namespace finchkv::cache_store
