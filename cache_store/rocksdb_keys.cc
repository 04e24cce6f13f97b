#include "cache_store/rocksdb_keys.h"

#include <cstring>

namespace finchkv::cache_store {
namespace {

constexpr char kAccessVersion = 2;
constexpr std::size_t kAccessFixed = 1 + 1 + 16 + 8 * 8;
constexpr std::size_t kAccessFixed1 = 1 + 8 + 8;
constexpr char kCountersVersion = 1;
constexpr std::size_t kCountersBytes = 1 + 5 * 8;
enum AccessFlag : unsigned { kPinned = 1, kQuarantined = 2, kSealedLabel = 4 };
constexpr std::string_view kTenantCheck{"finchkv-tenant-1\0", 17};

std::string owner_prefixed(char kind, std::string_view owner) {
  std::string key(1, kind);
  key += static_cast<char>(owner.size());  // names have at most 64 bytes
  key += owner;
  return key;
}

template <std::size_t N>
void append(std::string& to, const std::array<std::uint8_t, N>& bytes) {
  to.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void append_u64(std::string& to, std::uint64_t v) {
  for (int i = 0; i < 8; ++i, v >>= 8) to += static_cast<char>(v & 0xffU);
}

std::uint64_t load_u64(std::string_view from) {
  std::uint64_t v = 0;
  for (int i = 7; i >= 0; --i) v = v << 8 | static_cast<std::uint8_t>(from[static_cast<std::size_t>(i)]);
  return v;
}

}  // namespace

std::string head_prefix(std::string_view owner) { return owner_prefixed('H', owner); }

std::string head_key(std::string_view owner, const CacheId& id) {
  std::string key = head_prefix(owner);
  append(key, id.bytes);
  return key;
}

std::string access_key(std::string_view owner, const CacheId& id) {
  std::string key = owner_prefixed('A', owner);
  append(key, id.bytes);
  return key;
}

std::string tenant_key(const Tenant& tenant) { return owner_prefixed('T', tenant.name); }

std::optional<EntryKey> parse_entry_key(std::string_view key) {
  EntryKey out;
  if (key.size() < 2 || (key[0] != 'H' && key[0] != 'A')) return std::nullopt;
  const auto length = static_cast<std::uint8_t>(key[1]);
  if (key.size() != 2 + length + out.id.bytes.size()) return std::nullopt;
  out.owner = key.substr(2, length);
  std::memcpy(out.id.bytes.data(), key.data() + 2 + length, out.id.bytes.size());
  return out;
}

std::optional<CacheId> id_of_head_key(std::string_view key, std::string_view prefix) {
  CacheId id;
  if (key.size() != prefix.size() + id.bytes.size() || key.substr(0, prefix.size()) != prefix) return std::nullopt;
  std::memcpy(id.bytes.data(), key.data() + prefix.size(), id.bytes.size());
  return id;
}

std::string prefix_end(std::string prefix) {
  while (!prefix.empty() && static_cast<std::uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) ++prefix.back();
  return prefix;
}

std::string block_key(const PutId& put_id, std::uint32_t ordinal) {
  std::string key;
  append(key, put_id.bytes);
  for (int shift = 24; shift >= 0; shift -= 8) key += static_cast<char>(ordinal >> shift & 0xffU);
  return key;
}

std::optional<PutId> put_id_of_block_key(std::string_view key) {
  PutId id;
  if (key.size() != id.bytes.size() + 4) return std::nullopt;
  std::memcpy(id.bytes.data(), key.data(), id.bytes.size());
  return id;
}

std::string after_put(const PutId& put_id) {
  std::string key = block_key(put_id, 0xffffffffU);
  key += '\0';
  return key;
}

std::string tenant_check(const Tenant& tenant) {
  const Sha256 check = hmac_sha256(tenant.key, {as_byte_span(kTenantCheck), as_byte_span(tenant.name)});
  std::string out;
  append(out, check);
  return out;
}

EntryRecord ledger_record(AccountId account, const CacheId& id, const AccessRecord& access) {
  EntryRecord record;
  record.account = account;
  record.id = id;
  record.put_id = access.put_id;
  record.bytes = access.bytes;
  record.cost_ms = access.cost_ms;
  record.hits = access.hits;
  record.last_used_unix_ms = access.last_used_unix_ms;
  record.created_unix_ms = access.created_unix_ms;
  record.expires_unix_ms = access.expires_unix_ms;
  record.ranks = {.in_account = access.rank_in_account, .in_store = access.rank_in_store};
  record.pinned = access.pinned;
  return record;
}

std::string encode_access(const AccessRecord& record) {
  std::string out(1, kAccessVersion);
  out += static_cast<char>((record.pinned ? kPinned : 0U) | (record.quarantined ? kQuarantined : 0U) |
                           (record.sealed_label ? kSealedLabel : 0U));
  append(out, record.put_id.bytes);
  for (const std::uint64_t v :
       {record.bytes, record.cost_ms, record.hits, record.created_unix_ms, record.last_used_unix_ms,
        record.expires_unix_ms, record.rank_in_account, record.rank_in_store}) {
    append_u64(out, v);
  }
  out += record.label;
  return out;
}

std::optional<AccessRecord> decode_access(std::string_view bytes) {
  if (bytes.size() < kAccessFixed || bytes[0] != kAccessVersion) return std::nullopt;
  AccessRecord record;
  const auto flags = static_cast<unsigned>(bytes[1]);
  record.pinned = (flags & kPinned) != 0;
  record.quarantined = (flags & kQuarantined) != 0;
  record.sealed_label = (flags & kSealedLabel) != 0;
  std::memcpy(record.put_id.bytes.data(), bytes.data() + 2, record.put_id.bytes.size());
  std::size_t at = 2 + record.put_id.bytes.size();
  for (std::uint64_t* v :
       {&record.bytes, &record.cost_ms, &record.hits, &record.created_unix_ms, &record.last_used_unix_ms,
        &record.expires_unix_ms, &record.rank_in_account, &record.rank_in_store}) {
    *v = load_u64(bytes.substr(at));
    at += 8;
  }
  record.label = std::string(bytes.substr(kAccessFixed));
  return record;
}

std::optional<AccessRecord> decode_access_1(std::string_view bytes) {
  if (bytes.size() < kAccessFixed1 || bytes[0] != 1) return std::nullopt;
  AccessRecord record;
  record.hits = load_u64(bytes.substr(1));
  record.last_used_unix_ms = load_u64(bytes.substr(9));
  record.label = std::string(bytes.substr(kAccessFixed1));
  return record;
}

std::string encode_counters(const Counters& counters) {
  std::string out(1, kCountersVersion);
  for (const std::uint64_t v :
       {counters.lookups, counters.misses, counters.evictions, counters.put_bytes, counters.written_bytes}) {
    append_u64(out, v);
  }
  return out;
}

std::optional<Counters> decode_counters(std::string_view bytes) {
  if (bytes.size() != kCountersBytes || bytes[0] != kCountersVersion) return std::nullopt;
  Counters counters;
  std::size_t at = 1;
  for (std::uint64_t* v :
       {&counters.lookups, &counters.misses, &counters.evictions, &counters.put_bytes, &counters.written_bytes}) {
    *v = load_u64(bytes.substr(at));
    at += 8;
  }
  return counters;
}

}  // namespace finchkv::cache_store
