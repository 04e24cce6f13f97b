// Keys and small records of the RocksDB store (docs/formats.md).
//
// Column family "default": 'H' head, 'A' access record, 'T' tenant key check, each followed by the owner's name with
// its length before it, H and A also by the 32-byte id; 'S' settings and 'C' counters, one record each. Owners are
// tenants, and "*" for what is shared, which no tenant can be called.
// Blocks: put id, ordinal (big-endian), in column family "blocks", or in one of the table families.
// Internal to cache_store. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "cache_store/codec.h"
#include "cache_store/identity.h"
#include "cache_store/ledger_types.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {

inline constexpr std::string_view kSettingsKey = "S";
inline constexpr std::string_view kCountersKey = "C";

[[nodiscard]] std::string head_prefix(std::string_view owner);
[[nodiscard]] std::string head_key(std::string_view owner, const CacheId& id);
[[nodiscard]] std::string access_key(std::string_view owner, const CacheId& id);
[[nodiscard]] std::string tenant_key(const Tenant& tenant);
/// The id at the end of a head key; nullopt when the key is not one of this prefix.
[[nodiscard]] std::optional<CacheId> id_of_head_key(std::string_view key, std::string_view prefix);

/// What a head's or access record's key says; nullopt when it is neither.
struct EntryKey {
  std::string_view owner;  ///< points into the key
  CacheId id;
};
[[nodiscard]] std::optional<EntryKey> parse_entry_key(std::string_view key);
/// The smallest key that is larger than all keys with this prefix.
[[nodiscard]] std::string prefix_end(std::string prefix);

/// Bytes as RocksDB takes them.
[[nodiscard]] inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline constexpr std::string_view kAllHeads = "H";
inline constexpr std::string_view kAllAccess = "A";

[[nodiscard]] std::string block_key(const PutId& put_id, std::uint32_t ordinal);
/// nullopt when the key has another length.
[[nodiscard]] std::optional<PutId> put_id_of_block_key(std::string_view key);
[[nodiscard]] std::string after_put(const PutId& put_id);  ///< larger than every block key of this put

/// Says under which key a tenant's entries were stored, without saying the key.
[[nodiscard]] std::string tenant_check(const Tenant& tenant);

/// What may change while an entry lives, and what its limits and eviction need to know of it without its head.
struct AccessRecord {
  PutId put_id;  ///< the head's
  std::uint64_t bytes = 0;
  std::uint64_t cost_ms = 0;
  std::uint64_t hits = 0;
  std::uint64_t created_unix_ms = 0;
  std::uint64_t last_used_unix_ms = 0;
  std::uint64_t expires_unix_ms = 0;  ///< 0: never
  std::uint64_t rank_in_account = 0;  ///< as the ledger gave them
  std::uint64_t rank_in_store = 0;
  bool pinned = false;
  bool quarantined = false;
  bool sealed_label = false;
  std::string label;  ///< text, or a sealed record

  bool operator==(const AccessRecord&) const = default;
};
/// What the ledger knows of it.
[[nodiscard]] EntryRecord ledger_record(AccountId account, const CacheId& id, const AccessRecord& access);
[[nodiscard]] std::string encode_access(const AccessRecord& record);
[[nodiscard]] std::optional<AccessRecord> decode_access(std::string_view bytes);

/// The access record of format 1: hits, last use and label. The rest is its head's.
[[nodiscard]] std::optional<AccessRecord> decode_access_1(std::string_view bytes);

/// Sums since the store was made.
struct Counters {
  std::uint64_t lookups = 0;
  std::uint64_t misses = 0;
  std::uint64_t evictions = 0;
  std::uint64_t put_bytes = 0;
  std::uint64_t written_bytes = 0;

  bool operator==(const Counters&) const = default;
};
[[nodiscard]] std::string encode_counters(const Counters& counters);
[[nodiscard]] std::optional<Counters> decode_counters(std::string_view bytes);

}  // namespace finchkv::cache_store
