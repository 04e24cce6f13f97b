// StoreLimits: a store's settings and the ledger that keeps to them, by the names of owners.
//
// An owner is a tenant, or "*" for what all share. Internal to cache_store. Thread-safe. Left out: keeping the
// settings.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/status.h"
#include "cache_store/ledger.h"
#include "cache_store/store.h"

namespace finchkv::cache_store {

class StoreLimits {
 public:
  [[nodiscard]] static Result<std::unique_ptr<StoreLimits>> create(const StoreSettings& settings);

  [[nodiscard]] Ledger& ledger() { return *ledger_; }
  [[nodiscard]] const Ledger& ledger() const { return *ledger_; }
  /// Made, with its quota, when it is first asked for.
  [[nodiscard]] AccountId account(std::string_view owner);
  [[nodiscard]] std::string owner_of(AccountId account) const;

  [[nodiscard]] StoreSettings settings() const;
  /// What has to go for them goes with the ledger's next trim(). invalid_argument, and nothing has changed, for
  /// settings that do not validate().
  [[nodiscard]] Status set(const StoreSettings& settings);

 private:
  explicit StoreLimits(std::unique_ptr<Ledger> ledger) : ledger_(std::move(ledger)) {}
  void apply_quota(const std::string& owner, AccountId account);

  const std::unique_ptr<Ledger> ledger_;
  mutable std::mutex mutex_;
  StoreSettings settings_;
  std::map<std::string, AccountId, std::less<>> accounts_;
  std::map<AccountId, std::string> owners_;
};

}  // namespace finchkv::cache_store
