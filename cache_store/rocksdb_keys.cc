#include "cache_store/rocksdb_keys.h"

#include <cstring>

namespace finchkv::cache_store {
namespace {

constexpr char kAccessVersion = 1;
constexpr std::size_t kAccessFixed = 1 + 8 + 8;
constexpr std::string_view kTenantCheck{"finchkv-tenant-1\0", 17};

std::string tenant_prefixed(char kind, const Tenant& tenant) {
  std::string key(1, kind);
  key += static_cast<char>(tenant.name.size());  // names have at most 64 bytes
  key += tenant.name;
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

std::string head_prefix(const Tenant& tenant) { return tenant_prefixed('H', tenant); }

std::string head_key(const Tenant& tenant, const CacheId& id) {
  std::string key = head_prefix(tenant);
  append(key, id.bytes);
  return key;
}

std::string access_key(const Tenant& tenant, const CacheId& id) {
  std::string key = tenant_prefixed('A', tenant);
  append(key, id.bytes);
  return key;
}

std::string tenant_key(const Tenant& tenant) { return tenant_prefixed('T', tenant); }

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

std::string encode_access(const AccessRecord& record) {
  std::string out(1, kAccessVersion);
  append_u64(out, record.hits);
  append_u64(out, record.last_used_unix_ms);
  out += record.label;
  return out;
}

std::optional<AccessRecord> decode_access(std::string_view bytes) {
  if (bytes.size() < kAccessFixed || bytes[0] != kAccessVersion) return std::nullopt;
  return AccessRecord{.hits = load_u64(bytes.substr(1)),
                      .last_used_unix_ms = load_u64(bytes.substr(9)),
                      .label = std::string(bytes.substr(kAccessFixed))};
}

}  // namespace finchkv::cache_store
