// TenantStanding: under which names, keys and ids a tenant meets its own entries and the shared ones.
//
// Internal to cache_store. Immutable, thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "cache_store/identity.h"
#include "cache_store/store.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {

class TenantStanding {
 public:
  TenantStanding(Tenant tenant, ViewOptions options) : tenant_(std::move(tenant)), options_(std::move(options)) {}

  [[nodiscard]] const Tenant& tenant() const { return tenant_; }
  [[nodiscard]] const ViewOptions& options() const { return options_; }
  [[nodiscard]] std::string owner_for(Sharing sharing) const {
    return sharing == Sharing::kShared ? std::string(kSharedOwner) : tenant_.name;
  }
  /// What seals an owner's entries; null for nothing: what is shared has to be open to all.
  [[nodiscard]] const KeyRing* keys_of(std::string_view owner) const {
    return owner == kSharedOwner ? nullptr : options_.keys.get();
  }
  /// The tenant that an owner's ids and token hashes are made for.
  [[nodiscard]] const Tenant& ids_of(std::string_view owner) const { return owner == kSharedOwner ? kNobody : tenant_; }
  /// corrupt for what is not sealed where this tenant seals: whoever can write to the disk could put it there.
  [[nodiscard]] Status may_serve(std::string_view owner, bool sealed) const {
    if (sealed || keys_of(owner) == nullptr) return Status::ok();
    return Status::corrupt("it is not sealed, as this tenant's entries are: make it again");
  }
  [[nodiscard]] Status may_change(std::string_view owner) const {
    if (owner != kSharedOwner || options_.publisher) return Status::ok();
    return Status::permission_denied("shared entries are changed by publishers only: open the store with that right");
  }

 private:
  static inline const Tenant kNobody{};

  Tenant tenant_;
  ViewOptions options_;
};

}  // namespace finchkv::cache_store
