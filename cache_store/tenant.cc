#include <algorithm>

#include <fmt/format.h>

#include "cache_store/identity.h"

namespace finchkv::cache_store {

Status Tenant::validate() const {
  constexpr std::size_t kMaxName = 64;
  constexpr std::size_t kMinKey = 16;
  constexpr std::size_t kMaxKey = 4096;
  if (name.empty()) {
    if (!key.empty()) return Status::invalid_argument("the default tenant has no key: give the tenant a name");
    return Status::ok();
  }
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  if (name.size() > kMaxName || !std::all_of(name.begin(), name.end(), allowed)) {
    return Status::invalid_argument(
        fmt::format("a tenant's name is 1 to {} letters, digits, dots, underscores or dashes", kMaxName));
  }
  if (key.size() < kMinKey || key.size() > kMaxKey) {
    return Status::invalid_argument(
        fmt::format("tenant {} needs a key of {} to {} bytes, not {}", name, kMinKey, kMaxKey, key.size()));
  }
  return Status::ok();
}

}  // namespace finchkv::cache_store
