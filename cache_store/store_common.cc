#include "cache_store/store_common.h"

#include <chrono>

#include <fmt/format.h>

namespace finchkv::cache_store {

std::uint64_t unix_ms_now() {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count());
}

Status about_entry(const CacheId& id, const Status& status) {
  if (status.is_ok()) return status;
  return {status.code(), fmt::format("entry {}: {}", id.hex(), status.message())};
}

Status no_such_entry(const CacheId& id) { return Status::not_found(fmt::format("there is no entry {}", id.hex())); }

Status wrong_tenant_key(const Tenant& tenant) {
  return Status::permission_denied(
      fmt::format("tenant {} has entries under another key; use the key they were stored with", tenant.name));
}

Status check_page_limit(std::size_t limit) {
  if (limit >= 1 && limit <= kMaxPage) return Status::ok();
  return Status::invalid_argument(fmt::format("a page has 1 to {} entries, not {}", kMaxPage, limit));
}

Result<IdPrefix> IdPrefix::parse(std::string_view hex) {
  std::string padded(hex);
  if (padded.size() < 64) padded.resize(64, '0');
  auto lowest = CacheId::from_hex(padded);
  if (hex.empty() || !lowest.is_ok()) {
    return Status::invalid_argument(
        fmt::format("\"{}\" is not the start of a cache id: 1 to 64 hex digits", hex.substr(0, 80)));
  }
  IdPrefix prefix;
  prefix.lowest_ = *lowest;
  prefix.hex_ = lowest->hex().substr(0, hex.size());  // lower case
  return prefix;
}

bool IdPrefix::matches(const CacheId& id) const { return id.hex().compare(0, hex_.size(), hex_) == 0; }

Result<CacheId> IdPrefix::choose(const std::vector<CacheId>& matches) const {
  if (matches.empty()) return Status::not_found(fmt::format("no entry starts with {}", hex_));
  if (matches.size() == 1) return matches.front();
  std::string names;
  for (std::size_t i = 0; i < matches.size() && i < kEnough; ++i) {
    if (i != 0) names += ", ";
    names += matches[i].hex();
  }
  return Status::invalid_argument(fmt::format("{} is the start of several ids ({}{}); give more digits", hex_, names,
                                              matches.size() > kEnough ? ", ..." : ""));
}

}  // namespace finchkv::cache_store
