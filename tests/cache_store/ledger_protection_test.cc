// What keeps an entry from going: leases and pins; and what makes it go: its time.
#include "cache_store/ledger.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/cache_store/ledger_fixture.h"

namespace finchkv::cache_store {
namespace {

using LedgerProtection = testing::LedgerTest;
using testing::kNow;
using testing::make_record;
using testing::numbered_id;
using testing::numbered_put;

TEST_F(LedgerProtection, ErasedUnderALeaseIsHeldUntilItEnds) {
  open(100);
  ASSERT_TRUE(put(alice_, 1, 40).is_ok());
  {
    const auto first = lease(alice_, 1);
    const auto second = lease(alice_, 1);
    ASSERT_TRUE(first.is_ok() && second.is_ok());
    ASSERT_TRUE(ledger_->erase(alice_, numbered_id(1), numbered_put(1)).is_ok());
    EXPECT_FALSE(has(alice_, 1));
    EXPECT_EQ(lease(alice_, 1).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(ledger_->usage(alice_).held, 40U);
    ASSERT_TRUE(ledger_->delete_released(kNow, remove()).is_ok());
    EXPECT_TRUE(removed().empty());
    EXPECT_EQ(reserve_status(bob_, 61).code(), StatusCode::kResourceExhausted);
  }
  ASSERT_TRUE(ledger_->delete_released(kNow, remove()).is_ok());
  EXPECT_EQ(removed(), std::vector<std::uint64_t>{1});
  EXPECT_EQ(ledger_->usage().used(), 0U);
  EXPECT_EQ(ledger_->erase(alice_, numbered_id(1), numbered_put(1)).code(), StatusCode::kNotFound);
}

TEST_F(LedgerProtection, ReplacedUnderALeaseIsHeldUntilItEnds) {
  open(100);
  ASSERT_TRUE(put(alice_, 1, 40).is_ok());
  auto reading = std::make_unique<Result<Lease>>(lease(alice_, 1));
  ASSERT_TRUE(reading->is_ok());
  ASSERT_TRUE(put(alice_, 1, 30, 2).is_ok());
  EXPECT_EQ(ledger_->find(alice_, numbered_id(1))->put_id, numbered_put(2));
  EXPECT_EQ(ledger_->usage().live, 30U);
  EXPECT_EQ(ledger_->usage().held, 40U);
  EXPECT_EQ(lease(alice_, 1).status().code(), StatusCode::kNotFound);  // under the old put id
  EXPECT_EQ(ledger_->erase(alice_, numbered_id(1), numbered_put(1)).code(), StatusCode::kNotFound);
  reading.reset();
  ASSERT_TRUE(ledger_->delete_released(kNow, remove()).is_ok());
  EXPECT_EQ(removed(), std::vector<std::uint64_t>{1});
  EXPECT_EQ(ledger_->usage().used(), 30U);
  EXPECT_EQ(ledger_->usage().entries, 1U);
}

TEST_F(LedgerProtection, ALeaseWithoutProgressEnds) {
  LedgerOptions options;
  options.lease_ms = 1000;
  open(100, options);
  ASSERT_TRUE(put(alice_, 1, 100).is_ok());
  auto reading = lease(alice_, 1);
  ASSERT_TRUE(reading.is_ok());
  EXPECT_TRUE(reading->progress(kNow + 900).is_ok());
  EXPECT_EQ(reserve_status(bob_, 10, kNow + 1899).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(reserve_status(bob_, 10, kNow + 1900).is_ok());
  EXPECT_EQ(removed(), std::vector<std::uint64_t>{1});
  const Status late = reading->progress(kNow + 1900);
  EXPECT_EQ(late.code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(late.message().find("1000 ms"), std::string::npos) << late.message();
}

TEST_F(LedgerProtection, ProgressAtTheDeadlineIsTooLate) {
  LedgerOptions options;
  options.lease_ms = 1000;
  open(100, options);
  ASSERT_TRUE(put(alice_, 1, 100).is_ok());
  auto reading = lease(alice_, 1);
  EXPECT_EQ(reading->progress(kNow + 1000).code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ledger_->usage().leased, 0U);
}

TEST_F(LedgerProtection, ALateLeaseNoLongerHoldsARemovedEntry) {
  LedgerOptions options;
  options.lease_ms = 1000;
  open(100, options);
  ASSERT_TRUE(put(alice_, 1, 100).is_ok());
  auto reading = lease(alice_, 1);
  ASSERT_TRUE(ledger_->erase(alice_, numbered_id(1), numbered_put(1)).is_ok());
  EXPECT_TRUE(reading->progress(kNow + 500).is_ok());  // also without an entry
  ASSERT_TRUE(ledger_->delete_released(kNow + 1500, remove()).is_ok());
  EXPECT_EQ(removed(), std::vector<std::uint64_t>{1});
  EXPECT_EQ(reading->progress(kNow + 1500).code(), StatusCode::kDeadlineExceeded);
}

TEST_F(LedgerProtection, TokensMayOutliveTheLedger) {
  open(100);
  ASSERT_TRUE(put(alice_, 1, 10).is_ok());
  auto reading = lease(alice_, 1);
  auto room = ledger_->reserve(alice_, 10, kNow, remove());
  ledger_.reset();
  EXPECT_TRUE(reading->progress(kNow).is_ok());
  EXPECT_TRUE(room->commit(make_record(alice_, 2, 2, 10)).is_ok());
}

TEST_F(LedgerProtection, PinsAreCappedByQuotaAndByTheStoresLimit) {
  open(100);
  ledger_->set_quota(alice_, 40);
  ASSERT_TRUE(put(alice_, 1, 20).is_ok());
  ASSERT_TRUE(put(alice_, 2, 1).is_ok());
  EXPECT_TRUE(ledger_->set_pinned(alice_, numbered_id(1), true).is_ok());
  const Status status = ledger_->set_pinned(alice_, numbered_id(2), true);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  for (const char* part : {"1 bytes", "20 bytes (50 %", "tenant alice, 40 bytes", "20 bytes are already"}) {
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
  ASSERT_TRUE(put(bob_, 3, 30).is_ok());
  ASSERT_TRUE(put(bob_, 4, 1).is_ok());
  EXPECT_TRUE(ledger_->set_pinned(bob_, numbered_id(3), true).is_ok());
  EXPECT_EQ(ledger_->set_pinned(bob_, numbered_id(4), true).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ledger_->usage().pinned, 50U);
  EXPECT_TRUE(ledger_->set_pinned(alice_, numbered_id(1), false).is_ok());
  EXPECT_TRUE(ledger_->set_pinned(bob_, numbered_id(4), true).is_ok());
  EXPECT_EQ(ledger_->usage(bob_).pinned_entries, 2U);
  EXPECT_EQ(ledger_->set_pinned(bob_, numbered_id(77), true).code(), StatusCode::kNotFound);
}

TEST_F(LedgerProtection, TheCapOnPinsAndTheLeaseAreCheckedWhenTheyAreSet) {
  open(100);
  ASSERT_TRUE(put(alice_, 1, 30).is_ok());
  const Status percent = ledger_->set_pin_percent(101);
  EXPECT_EQ(percent.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(percent.message().find("101"), std::string::npos) << percent.message();
  EXPECT_TRUE(ledger_->set_pin_percent(29).is_ok());
  EXPECT_EQ(ledger_->set_pinned(alice_, numbered_id(1), true).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(ledger_->set_pin_percent(100).is_ok());
  EXPECT_TRUE(ledger_->set_pinned(alice_, numbered_id(1), true).is_ok());

  const Status none = ledger_->set_lease_ms(0);
  EXPECT_EQ(none.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(none.message().find("lease_ms"), std::string::npos) << none.message();
  EXPECT_TRUE(ledger_->set_lease_ms(5).is_ok());
  auto reading = lease(alice_, 1);
  EXPECT_TRUE(reading->progress(kNow + 4).is_ok());
  EXPECT_EQ(reading->progress(kNow + 9).code(), StatusCode::kDeadlineExceeded);
}

TEST_F(LedgerProtection, WhatNoEntryNamesCountsUntilItIsGone) {
  open(100);
  const AccountId nobody = ledger_->account("?");
  ASSERT_TRUE(ledger_->add_abandoned(nobody, numbered_put(9), 60).is_ok());
  EXPECT_EQ(ledger_->add_abandoned(nobody, numbered_put(8), ~std::uint64_t{0}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ledger_->usage().held, 60U);
  EXPECT_EQ(ledger_->usage(alice_).held, 0U);
  remove_status_ = Status::unavailable("the disk is full");
  EXPECT_EQ(reserve_status(alice_, 50).code(), StatusCode::kUnavailable);
  EXPECT_EQ(ledger_->trim(kNow, remove()).code(), StatusCode::kUnavailable);
  EXPECT_EQ(ledger_->usage().held, 60U);
  remove_status_ = Status::ok();
  EXPECT_TRUE(reserve_status(alice_, 50).is_ok());
  EXPECT_EQ(removed(), (std::vector<std::uint64_t>{9, 9, 9}));
  EXPECT_EQ(ledger_->usage().used(), 0U);
}

TEST_F(LedgerProtection, AReplacementInheritsThePinWhereTheCapAllows) {
  open(100);
  ASSERT_TRUE(put(alice_, 1, 30).is_ok());
  ASSERT_TRUE(ledger_->set_pinned(alice_, numbered_id(1), true).is_ok());
  ASSERT_TRUE(put(alice_, 1, 50, 2).is_ok());
  EXPECT_TRUE(ledger_->find(alice_, numbered_id(1))->pinned);
  ASSERT_TRUE(ledger_->delete_released(kNow, remove()).is_ok());
  auto room = ledger_->reserve(alice_, 50, kNow, remove());
  ASSERT_TRUE(room.is_ok());
  const auto stored = room->commit(make_record(alice_, 1, 3, 50));
  EXPECT_TRUE(stored->pinned);
  ledger_->set_limit(200);
  auto more = ledger_->reserve(alice_, 100, kNow, remove());
  EntryRecord record = make_record(alice_, 2, 4, 51);
  record.pinned = true;
  EXPECT_FALSE(more->commit(record)->pinned);
  EXPECT_EQ(ledger_->usage().pinned, 50U);
}

TEST_F(LedgerProtection, EntriesPastTheirTimeGoFirst) {
  open(100);
  ASSERT_TRUE(put(alice_, 1, 30, 0, 1).is_ok());
  ASSERT_TRUE(put(alice_, 2, 30, 0, 1'000'000).is_ok());
  ASSERT_TRUE(put(alice_, 3, 30, 0, 1'000'000).is_ok());
  ASSERT_TRUE(ledger_->set_expiry(alice_, numbered_id(2), kNow + 10).is_ok());
  ASSERT_TRUE(ledger_->set_expiry(alice_, numbered_id(3), kNow + 20).is_ok());
  EXPECT_TRUE(lease(alice_, 2, kNow + 9).is_ok());
  EXPECT_EQ(lease(alice_, 2, kNow + 10).status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(reserve_status(bob_, 40, kNow + 15).is_ok());
  EXPECT_EQ(removed(), std::vector<std::uint64_t>{2});
  // One that is given more time is worth what it was.
  EXPECT_TRUE(reserve_status(bob_, 40, kNow + 20).is_ok());
  ASSERT_TRUE(ledger_->set_expiry(alice_, numbered_id(3), 0).is_ok());
  EXPECT_TRUE(reserve_status(bob_, 70, kNow + 25).is_ok());
  EXPECT_EQ(removed(), std::vector<std::uint64_t>{1});
}

TEST_F(LedgerProtection, ListsWhatHasExpiredOldestFirstAlsoPinned) {
  open(100);
  for (std::uint64_t id : {1, 2, 3}) ASSERT_TRUE(put(alice_, id, 10).is_ok());
  ASSERT_TRUE(ledger_->set_pinned(alice_, numbered_id(2), true).is_ok());
  ASSERT_TRUE(ledger_->set_expiry(alice_, numbered_id(1), kNow + 20).is_ok());
  ASSERT_TRUE(ledger_->set_expiry(alice_, numbered_id(2), kNow + 10).is_ok());
  EXPECT_TRUE(ledger_->expired(kNow + 9, 10).empty());
  EXPECT_EQ(ledger_->expired(kNow + 20, 1).size(), 1U);
  const auto all = ledger_->expired(kNow + 20, 10);
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].id, numbered_id(2));
  EXPECT_EQ(all[1].id, numbered_id(1));
}

}  // namespace
}  // namespace finchkv::cache_store
