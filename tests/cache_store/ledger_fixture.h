// A ledger with two tenants and a host that remembers what it was told to delete.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cache_store/ledger.h"
#include "tests/cache_store/ledger_records.h"

namespace finchkv::cache_store::testing {

inline constexpr std::uint64_t kNow = 1'700'000'000'000;

class LedgerTest : public ::testing::Test {
 protected:
  void open(std::optional<std::uint64_t> limit, const LedgerOptions& base = {}) {
    LedgerOptions options = base;
    options.limit = limit;
    auto made = Ledger::create(options);
    ASSERT_TRUE(made.is_ok()) << made.status().message();
    ledger_ = *std::move(made);
    alice_ = ledger_->account("alice");
    bob_ = ledger_->account("bob");
  }

  // A put id is the number of its entry unless told.
  Status put(AccountId account, std::uint64_t id, std::uint64_t bytes, std::uint64_t put_number = 0,
             std::uint64_t cost_ms = 10) {
    FINCHKV_ASSIGN_OR_RETURN(Reservation room, ledger_->reserve(account, bytes, kNow, remove()));
    EntryRecord record = make_record(account, id, put_number == 0 ? id : put_number, bytes);
    record.cost_ms = cost_ms;
    return room.commit(record).status();
  }
  Status reserve_status(AccountId account, std::uint64_t bytes, std::uint64_t now = kNow) {
    return ledger_->reserve(account, bytes, now, remove()).status();
  }
  Remove remove() {
    return [this](std::span<const Removal> removals) {
      for (const Removal& r : removals) removed_.push_back(number_of(r.put_id));
      return remove_status_;
    };
  }
  std::vector<std::uint64_t> removed() { return std::exchange(removed_, {}); }
  [[nodiscard]] bool has(AccountId account, std::uint64_t id) const {
    return ledger_->find(account, numbered_id(id)).has_value();
  }
  Result<Lease> lease(AccountId account, std::uint64_t id, std::uint64_t now = kNow) {
    return ledger_->lease(account, numbered_id(id), numbered_put(id), now);
  }

  std::unique_ptr<Ledger> ledger_;
  AccountId alice_{}, bob_{};
  Status remove_status_;
  std::vector<std::uint64_t> removed_;
};

}  // namespace finchkv::cache_store::testing
