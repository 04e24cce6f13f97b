#include "cache_store/store_limits.h"

#include <optional>
#include <utility>

#include "cache_store/settings.h"
#include "cache_store/store_common.h"

namespace finchkv::cache_store {
namespace {

std::optional<std::uint64_t> limit_of(std::uint64_t bytes) { return bytes == 0 ? std::nullopt : std::optional(bytes); }

}  // namespace

Result<std::unique_ptr<StoreLimits>> StoreLimits::create(const StoreSettings& settings) {
  FINCHKV_ASSIGN_OR_RETURN(auto ledger, Ledger::create());
  std::unique_ptr<StoreLimits> limits(new StoreLimits(std::move(ledger)));
  FINCHKV_RETURN_IF_ERROR(limits->set(settings));
  return limits;
}

AccountId StoreLimits::account(std::string_view owner) {
  const std::lock_guard lock(mutex_);
  if (const auto it = accounts_.find(owner); it != accounts_.end()) return it->second;
  const std::string name(owner);
  const AccountId account = owner == kSharedOwner ? AccountId::kShared : ledger_->account(owner);
  accounts_[name] = account;
  owners_[account] = name;
  apply_quota(name, account);
  return account;
}

std::string StoreLimits::owner_of(AccountId account) const {
  const std::lock_guard lock(mutex_);
  return owners_.at(account);
}

StoreSettings StoreLimits::settings() const {
  const std::lock_guard lock(mutex_);
  return settings_;
}

Status StoreLimits::set(const StoreSettings& settings) {
  FINCHKV_RETURN_IF_ERROR(settings.validate());
  const std::lock_guard lock(mutex_);
  FINCHKV_RETURN_IF_ERROR(ledger_->set_pin_percent(settings.pinned_percent));
  FINCHKV_RETURN_IF_ERROR(ledger_->set_lease_ms(settings.lease_ms));
  settings_ = settings;
  ledger_->set_limit(limit_of(settings.max_bytes));
  for (const auto& [owner, account] : accounts_) apply_quota(owner, account);
  return Status::ok();
}

void StoreLimits::apply_quota(const std::string& owner, AccountId account) {
  std::uint64_t quota = 0;  // nobody's puts count for the store alone
  if (owner == kSharedOwner) {
    quota = settings_.shared_max_bytes;
  } else if (owner != kNobodysOwner) {
    quota = quota_of(settings_, owner);
  }
  ledger_->set_quota(account, limit_of(quota));
}

}  // namespace finchkv::cache_store
