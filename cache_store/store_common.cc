#include "cache_store/store_common.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>

#include <fmt/format.h>

#include "cache_store/codec.h"
#include "cache_store/key_ring.h"

namespace finchkv::cache_store {

std::uint64_t unix_ms_now() {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count());
}

std::uint64_t expiry_of(const PutOptions& options, const StoreSettings& settings, std::uint64_t now_ms) {
  const std::uint64_t ttl = options.ttl_ms != 0 ? options.ttl_ms : settings.default_ttl_ms;
  if (ttl == 0) return 0;
  return now_ms + std::min(ttl, std::numeric_limits<std::uint64_t>::max() - now_ms);
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

Status in_quarantine() {
  return Status::corrupt("it is in quarantine, found damaged by a scrub: remove it, or make it again");
}

Status check_page_limit(std::size_t limit) {
  if (limit >= 1 && limit <= kMaxPage) return Status::ok();
  return Status::invalid_argument(fmt::format("a page has 1 to {} entries, not {}", kMaxPage, limit));
}

Result<std::optional<EntryHead>> rewrapped(const EntryHead& head, const std::string& tenant, const KeyRing& keys) {
  if (!head.sealed) return std::optional<EntryHead>();
  FINCHKV_ASSIGN_OR_RETURN(const WrappedKey old, WrappedKey::decode(head.wrapped_key));
  const PutContext context{.tenant = tenant, .put_id = head.put_id};
  FINCHKV_ASSIGN_OR_RETURN(const WrappedKey renewed,
                           keys.rewrap(old, context, std::as_bytes(std::span(head.message_digest))));
  if (renewed == old) return std::optional<EntryHead>();
  EntryHead out = head;
  const auto bytes = renewed.encode();
  out.wrapped_key.assign(bytes.begin(), bytes.end());
  return std::optional(std::move(out));
}

Result<StoreStats> sum_of_list(Store& store) {
  StoreStats total;
  std::optional<CacheId> after;
  do {
    FINCHKV_ASSIGN_OR_RETURN(const EntryPage page, store.list(after, kMaxPage));
    for (const EntryInfo& entry : page.entries) total.add(entry);
    total.unreadable += page.unreadable.size();
    after = page.next;
  } while (after);
  return total;
}

void add_to_report(StoreReport& report, const std::string& owner, const EntryInfo& entry, std::uint64_t now_unix_ms) {
  constexpr std::uint64_t kMinute = 60'000;
  constexpr std::array<std::uint64_t, 6> kAges = {
      kMinute, 60 * kMinute, 24 * 60 * kMinute, 7 * 1440 * kMinute, 30 * 1440 * kMinute, 365 * 1440 * kMinute};
  const std::uint64_t age = now_unix_ms - std::min(now_unix_ms, entry.created_unix_ms);
  const auto bound = std::ranges::lower_bound(kAges, age);
  const std::uint64_t age_group = bound == kAges.end() ? std::numeric_limits<std::uint64_t>::max() : *bound;
  report.total.add(entry);
  for (GroupStats* group : {&report.by_tenant[owner], &report.by_model[to_hex(entry.identity.model_fingerprint)],
                            &report.by_age[age_group]}) {
    ++group->entries;
    group->stored_bytes += entry.stored_bytes;
    group->raw_bytes += entry.raw_bytes;
    group->hits += entry.hits;
  }
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
