// What the Store implementations share: the clock, sentences about entries, sums, id prefixes.
//
// Internal to cache_store. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "cache_store/identity.h"
#include "cache_store/store.h"

namespace finchkv::cache_store {

struct EntryHead;

inline constexpr std::size_t kMaxPage = 10000;
/// Whose entries all tenants find: no tenant can be called so.
inline constexpr std::string_view kSharedOwner = "*";
/// Whose blocks are left over from puts that came to nothing. Nor so.
inline constexpr std::string_view kNobodysOwner = "?";

[[nodiscard]] std::uint64_t unix_ms_now();
/// When an entry that is put now ends; 0: never.
[[nodiscard]] std::uint64_t expiry_of(const PutOptions& options, const StoreSettings& settings, std::uint64_t now_ms);

/// "entry 3fa9...: " before the message. The full id, so that it can be pasted into another command.
[[nodiscard]] Status about_entry(const CacheId& id, const Status& status);
[[nodiscard]] Status no_such_entry(const CacheId& id);
[[nodiscard]] Status wrong_tenant_key(const Tenant& tenant);
[[nodiscard]] Status in_quarantine();
[[nodiscard]] Status check_page_limit(std::size_t limit);

/// The head with its data key under the current one of `keys`; nullopt where it is so already, or nothing is sealed.
[[nodiscard]] Result<std::optional<EntryHead>> rewrapped(const EntryHead& head, const std::string& tenant,
                                                         const KeyRing& keys);
/// The sums over all pages of a list.
[[nodiscard]] Result<StoreStats> sum_of_list(Store& store);

/// Adds a readable entry to the sums of a report.
void add_to_report(StoreReport& report, const std::string& owner, const EntryInfo& entry, std::uint64_t now_unix_ms);

/// The start of an id, down to a nibble.
class IdPrefix {
 public:
  /// invalid_argument unless it is 1 to 64 hex digits.
  [[nodiscard]] static Result<IdPrefix> parse(std::string_view hex);

  [[nodiscard]] const CacheId& lowest() const { return lowest_; }  ///< the smallest id that starts so
  [[nodiscard]] bool matches(const CacheId& id) const;
  /// The one match; not_found for none, invalid_argument naming them for several (only the first few are needed).
  [[nodiscard]] Result<CacheId> choose(const std::vector<CacheId>& matches) const;
  static constexpr std::size_t kEnough = 5;  ///< matches worth collecting

 private:
  std::string hex_;
  CacheId lowest_;
};

}  // namespace finchkv::cache_store
