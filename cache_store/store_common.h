// What the Store implementations share: id prefixes, the clock, and sentences about entries.
//
// Internal to cache_store. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "cache_store/identity.h"

namespace finchkv::cache_store {

inline constexpr std::size_t kMaxPage = 10000;

[[nodiscard]] std::uint64_t unix_ms_now();

/// "entry 3fa9...: " before the message. The full id, so that it can be pasted into another command.
[[nodiscard]] Status about_entry(const CacheId& id, const Status& status);
[[nodiscard]] Status no_such_entry(const CacheId& id);
[[nodiscard]] Status wrong_tenant_key(const Tenant& tenant);
[[nodiscard]] Status check_page_limit(std::size_t limit);

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
