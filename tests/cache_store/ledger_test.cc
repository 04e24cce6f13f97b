#include "cache_store/ledger.h"

#include <chrono>
#include <future>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/cache_store/ledger_fixture.h"

namespace finchkv::cache_store {
namespace {

using testing::kNow;
using testing::LedgerTest;
using testing::make_record;
using testing::number_of;
using testing::numbered_id;
using testing::numbered_put;

TEST_F(LedgerTest, RefusesOptionsThatMakeNoSense) {
  LedgerOptions options;
  options.pin_percent = 101;
  EXPECT_EQ(Ledger::create(options).status().code(), StatusCode::kInvalidArgument);
  options = {};
  options.lease_ms = 0;
  EXPECT_EQ(Ledger::create(options).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(LedgerTest, AccountsAreMadeOnceAndSharedIsOneOfItsOwn) {
  open(100);
  EXPECT_EQ(ledger_->account("alice"), alice_);
  EXPECT_NE(alice_, bob_);
  EXPECT_NE(ledger_->account(""), AccountId::kShared);
}

TEST_F(LedgerTest, EvictsWhatIsWorthLeastUntilThePutFits) {
  open(100);
  ASSERT_TRUE(put(alice_, 1, 40, 0, 50).is_ok());
  ASSERT_TRUE(put(alice_, 2, 40, 0, 5).is_ok());
  ASSERT_TRUE(put(bob_, 3, 20, 0, 500).is_ok());
  EXPECT_EQ(ledger_->usage().live, 100U);
  ASSERT_TRUE(put(bob_, 4, 30).is_ok());
  EXPECT_EQ(removed(), std::vector<std::uint64_t>{2});
  EXPECT_FALSE(has(alice_, 2));
  EXPECT_EQ(ledger_->usage().used(), 90U);
  EXPECT_EQ(ledger_->usage(bob_).entries, 2U);
}

TEST_F(LedgerTest, OfTwoThatCostTheSameTheBiggerGoes) {
  constexpr std::uint64_t kMib = 1U << 20;
  open(100 * kMib);
  ASSERT_TRUE(put(alice_, 1, 10 * kMib).is_ok());
  ASSERT_TRUE(put(alice_, 2, 64 * kMib).is_ok());
  ASSERT_TRUE(put(alice_, 3, 26 * kMib).is_ok());
  ASSERT_TRUE(put(alice_, 4, kMib).is_ok());
  EXPECT_EQ(removed(), std::vector<std::uint64_t>{2});
}

TEST_F(LedgerTest, AHitKeepsAnEntryLonger) {
  open(30);
  for (std::uint64_t id : {1, 2, 3}) ASSERT_TRUE(put(alice_, id, 10).is_ok());
  (void)ledger_->touch(alice_, numbered_id(1), kNow + 5);
  EXPECT_EQ(ledger_->find(alice_, numbered_id(1))->hits, 1U);
  EXPECT_EQ(ledger_->find(alice_, numbered_id(1))->last_used_unix_ms, kNow + 5);
  ASSERT_TRUE(put(alice_, 4, 20).is_ok());
  EXPECT_TRUE(has(alice_, 1));
}

TEST_F(LedgerTest, QuotaEvictsOnlyTheAccountsOwn) {
  open(1000);
  ledger_->set_quota(alice_, 50);
  ASSERT_TRUE(put(bob_, 1, 40, 0, 1).is_ok());
  ASSERT_TRUE(put(alice_, 2, 40, 0, 1000).is_ok());
  ASSERT_TRUE(put(alice_, 3, 30, 0, 1).is_ok());
  EXPECT_EQ(removed(), std::vector<std::uint64_t>{2});
  EXPECT_TRUE(has(bob_, 1));
}

TEST_F(LedgerTest, QuotaAndStoreLimitAtOnce) {
  open(100);
  ledger_->set_quota(alice_, 50);
  ASSERT_TRUE(put(alice_, 1, 20, 0, 1000).is_ok());
  ASSERT_TRUE(put(alice_, 2, 20, 0, 900).is_ok());
  ASSERT_TRUE(put(bob_, 3, 30, 0, 1).is_ok());
  ASSERT_TRUE(put(bob_, 4, 30, 0, 2).is_ok());
  // 10 bytes are free in alice's quota, none in the store: one of hers for the first, then the cheapest of all.
  ASSERT_TRUE(put(alice_, 5, 30, 0, 1000).is_ok());
  EXPECT_EQ(removed(), (std::vector<std::uint64_t>{2, 3}));
  EXPECT_EQ(ledger_->usage(alice_).live, 50U);
  EXPECT_EQ(ledger_->usage().live, 80U);
}

TEST_F(LedgerTest, RefusesAtOnceAndEvictsNothingWhenNotEnoughCanGo) {
  open(100);
  ASSERT_TRUE(put(alice_, 1, 40).is_ok());
  ASSERT_TRUE(put(alice_, 2, 30).is_ok());
  ASSERT_TRUE(put(alice_, 3, 20).is_ok());
  ASSERT_TRUE(ledger_->set_pinned(alice_, numbered_id(1), true).is_ok());
  const auto reading = lease(alice_, 2);
  ASSERT_TRUE(reading.is_ok());
  const Status status = reserve_status(bob_, 50);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  for (const char* part : {"50 bytes are needed", "is 100 bytes", "40 are pinned", "30 are being read"}) {
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
  EXPECT_TRUE(removed().empty());
  EXPECT_TRUE(has(alice_, 3));
  EXPECT_EQ(ledger_->usage().live, 90U);
  EXPECT_TRUE(reserve_status(bob_, 30).is_ok());  // exactly what can go
}

TEST_F(LedgerTest, MoreThanALimitIsRefusedWhateverIsThere) {
  open(100);
  ledger_->set_quota(alice_, 10);
  EXPECT_EQ(reserve_status(bob_, 101).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(reserve_status(alice_, 11).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(reserve_status(bob_, ~std::uint64_t{0}).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(reserve_status(alice_, 10).is_ok());
  open(std::nullopt);
  EXPECT_EQ(reserve_status(bob_, ~std::uint64_t{0}).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(reserve_status(bob_, 1ULL << 50).is_ok());
}

TEST_F(LedgerTest, ZeroBytesFitAnywhere) {
  open(0);
  ASSERT_TRUE(put(alice_, 1, 0).is_ok());
  EXPECT_TRUE(has(alice_, 1));
  EXPECT_EQ(ledger_->usage().entries, 1U);
  EXPECT_EQ(reserve_status(alice_, 1).code(), StatusCode::kResourceExhausted);
}

TEST_F(LedgerTest, ReservationsCountUntilTheyEnd) {
  open(100);
  {
    auto room = ledger_->reserve(alice_, 60, kNow, remove());
    ASSERT_TRUE(room.is_ok());
    EXPECT_EQ(ledger_->usage(alice_).reserved, 60U);
    EXPECT_EQ(reserve_status(bob_, 41).code(), StatusCode::kResourceExhausted);
    auto moved = *std::move(room);
    EXPECT_EQ(ledger_->usage().reserved, 60U);
    moved = *ledger_->reserve(alice_, 10, kNow, remove());
    EXPECT_EQ(ledger_->usage().reserved, 10U);  // the first one's bytes are free at once
  }
  EXPECT_EQ(ledger_->usage().used(), 0U);
}

TEST_F(LedgerTest, CommitTakesNoMoreThanWasReserved) {
  open(100);
  auto room = ledger_->reserve(alice_, 60, kNow, remove());
  ASSERT_TRUE(room.is_ok());
  EXPECT_EQ(room->commit(make_record(alice_, 1, 1, 61)).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ledger_->usage().reserved, 60U);
  ASSERT_TRUE(room->commit(make_record(alice_, 1, 1, 50)).is_ok());
  EXPECT_EQ(ledger_->usage().used(), 50U);
  EXPECT_EQ(room->commit(make_record(alice_, 2, 2, 1)).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(LedgerTest, WhatCannotBeDeletedIsPutBack) {
  open(100);
  for (std::uint64_t id : {1, 2, 3, 4}) ASSERT_TRUE(put(alice_, id, 25).is_ok());
  const Usage before = ledger_->usage();
  remove_status_ = Status::unavailable("the disk does not answer");
  EXPECT_EQ(reserve_status(alice_, 60).code(), StatusCode::kUnavailable);
  EXPECT_EQ(ledger_->usage(), before);
  for (std::uint64_t id : {1, 2, 3, 4}) EXPECT_TRUE(has(alice_, id));
  remove_status_ = Status::ok();
  EXPECT_TRUE(reserve_status(alice_, 100).is_ok());
  EXPECT_EQ(ledger_->usage().entries, 0U);
}

TEST_F(LedgerTest, AThrowingRemoveIsAFailure) {
  open(10);
  ASSERT_TRUE(put(alice_, 1, 10).is_ok());
  const auto room = ledger_->reserve(alice_, 5, kNow, [](auto) -> Status { throw std::runtime_error("no"); });
  EXPECT_EQ(room.status().code(), StatusCode::kInternal);
  EXPECT_TRUE(has(alice_, 1));
}

TEST_F(LedgerTest, AbandonedBytesCountUntilDeleted) {
  open(100);
  auto room = ledger_->reserve(alice_, 60, kNow, remove());
  room->abandon(numbered_put(9));
  EXPECT_EQ(ledger_->usage(alice_).held, 60U);
  remove_status_ = Status::unavailable("not now");
  EXPECT_FALSE(ledger_->delete_released(kNow, remove()).is_ok());
  EXPECT_EQ(ledger_->usage().held, 60U);
  remove_status_ = Status::ok();
  removed();
  ASSERT_TRUE(reserve_status(bob_, 100).is_ok());  // a reservation deletes it by itself
  EXPECT_EQ(removed(), std::vector<std::uint64_t>{9});
}

TEST_F(LedgerTest, DirtyRecordsAreTakenOnce) {
  LedgerOptions options;
  options.dirty_batch = 2;
  open(100, options);
  for (std::uint64_t id : {1, 2, 3}) ASSERT_TRUE(ledger_->add(make_record(alice_, id, id, 10)).is_ok());
  EXPECT_TRUE(ledger_->take_dirty(10).empty());
  EXPECT_FALSE(ledger_->touch(alice_, numbered_id(1), kNow));
  EXPECT_FALSE(ledger_->touch(alice_, numbered_id(1), kNow + 1));
  EXPECT_FALSE(ledger_->touch(alice_, numbered_id(99), kNow));
  EXPECT_TRUE(ledger_->touch(alice_, numbered_id(2), kNow));
  ASSERT_TRUE(ledger_->erase(alice_, numbered_id(2), numbered_put(2)).is_ok());
  const auto dirty = ledger_->take_dirty(10);
  ASSERT_EQ(dirty.size(), 1U);
  EXPECT_EQ(dirty[0], *ledger_->find(alice_, numbered_id(1)));
  EXPECT_EQ(dirty[0].hits, 2U);
  EXPECT_TRUE(ledger_->take_dirty(10).empty());
}

TEST_F(LedgerTest, OpensWithThePersistedOrder) {
  open(30);
  for (std::uint64_t id : {1, 2, 3}) ASSERT_TRUE(put(alice_, id, 10, 0, 100 * id).is_ok());
  ASSERT_TRUE(put(alice_, 4, 10, 0, 150).is_ok());  // 1 goes, the clock is 1's rank
  ASSERT_EQ(removed(), std::vector<std::uint64_t>{1});
  (void)ledger_->touch(alice_, numbered_id(2), kNow);
  const auto records = ledger_->take_dirty(10);
  ASSERT_EQ(records.size(), 3U);
  std::vector<std::vector<std::uint64_t>> orders;
  for (const bool reopened : {false, true}) {
    if (reopened) {
      open(30);
      for (const EntryRecord& record : records) ASSERT_TRUE(ledger_->add(record).is_ok());
    }
    ASSERT_TRUE(reserve_status(alice_, 5).is_ok());
    ASSERT_TRUE(reserve_status(alice_, 15).is_ok());
    ASSERT_TRUE(reserve_status(alice_, 30).is_ok());
    orders.push_back(removed());
  }
  EXPECT_EQ(orders[0], (std::vector<std::uint64_t>{4, 3, 2}));
  EXPECT_EQ(orders[1], orders[0]);
}

TEST_F(LedgerTest, NewEntriesStartAboveThePersistedClock) {
  open(30);
  for (std::uint64_t id : {1, 2}) {
    EntryRecord record = make_record(alice_, id, id, 10);
    record.ranks = {(std::uint64_t{1} << 50) + id, (std::uint64_t{1} << 50) + id};
    ASSERT_TRUE(ledger_->add(record).is_ok());
  }
  ASSERT_TRUE(put(alice_, 3, 10).is_ok());
  ASSERT_TRUE(reserve_status(alice_, 10).is_ok());
  EXPECT_EQ(removed(), std::vector<std::uint64_t>{1});
}

TEST_F(LedgerTest, AddRefusesWhatCannotBe) {
  open(100);
  EXPECT_TRUE(ledger_->add(make_record(alice_, 1, 1, 1000)).is_ok());  // above the limit: trim's
  EXPECT_EQ(ledger_->add(make_record(alice_, 1, 2, 10)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ledger_->add(make_record(alice_, 2, 2, ~std::uint64_t{0})).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(ledger_->add(make_record(bob_, 1, 3, 10)).is_ok());
  EntryRecord damaged = make_record(bob_, 2, 4, 10);
  damaged.ranks = {~std::uint64_t{0}, ~std::uint64_t{0}};
  ASSERT_TRUE(ledger_->add(damaged).is_ok());
  EXPECT_LT(ledger_->find(bob_, damaged.id)->ranks.in_store, std::uint64_t{1} << 41);
}

TEST_F(LedgerTest, TrimEvictsDownToTheLimits) {
  open(std::nullopt);
  for (std::uint64_t id = 1; id <= 10; ++id) ASSERT_TRUE(put(alice_, id, 10, 0, id).is_ok());
  for (std::uint64_t id = 11; id <= 15; ++id) ASSERT_TRUE(put(bob_, id, 10, 0, id).is_ok());
  ASSERT_TRUE(ledger_->trim(kNow, remove()).is_ok());
  EXPECT_TRUE(removed().empty());
  ledger_->set_quota(alice_, 45);
  ledger_->set_limit(75);
  ASSERT_TRUE(ledger_->trim(kNow, remove()).is_ok());
  EXPECT_EQ(ledger_->usage(alice_).live, 20U);  // 40 under the quota, and two more for the store
  EXPECT_EQ(ledger_->usage().live, 70U);
  EXPECT_EQ(removed(), (std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8}));
  ASSERT_TRUE(ledger_->set_pinned(bob_, numbered_id(15), true).is_ok());
  ledger_->set_limit(5);
  const Status status = ledger_->trim(kNow, remove());
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("10 pinned"), std::string::npos) << status.message();
  EXPECT_EQ(ledger_->usage().live, 10U);
}

// The store's clock must not follow evictions under a quota: bob's idle entries are as good as before.
TEST_F(LedgerTest, OneTenantsChurnDoesNotAgeAnothersEntries) {
  open(1000);
  ledger_->set_quota(alice_, 20);
  ASSERT_TRUE(put(bob_, 1, 10, 0, 100).is_ok());
  for (std::uint64_t id = 100; id < 300; ++id) ASSERT_TRUE(put(alice_, id, 10, 0, 50).is_ok());
  removed();
  ledger_->set_limit(20);
  ASSERT_TRUE(ledger_->trim(kNow, remove()).is_ok());
  EXPECT_TRUE(has(bob_, 1));
  EXPECT_EQ(ledger_->usage(alice_).entries, 1U);
}

TEST_F(LedgerTest, WaitsForWhatAnotherThreadIsDeleting) {
  open(100);
  ASSERT_TRUE(put(alice_, 1, 100).is_ok());
  std::promise<void> removing, go_on;
  auto first = std::async(std::launch::async, [&] {
    return ledger_->reserve(alice_, 10, kNow, [&](std::span<const Removal> removals) {
      EXPECT_EQ(removals.size(), 1U);
      removing.set_value();
      go_on.get_future().wait();
      return Status::ok();
    });
  });
  removing.get_future().wait();
  EXPECT_FALSE(has(alice_, 1));
  EXPECT_EQ(lease(alice_, 1).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ledger_->usage().leaving, 100U);
  EXPECT_EQ(reserve_status(bob_, 91).code(), StatusCode::kResourceExhausted);  // 10 are promised
  auto second = std::async(std::launch::async, [&] { return ledger_->reserve(bob_, 90, kNow, remove()); });
  EXPECT_EQ(second.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  go_on.set_value();
  const auto alices = first.get();
  const auto bobs = second.get();
  EXPECT_TRUE(alices.is_ok());
  ASSERT_TRUE(bobs.is_ok()) << bobs.status().message();
  EXPECT_TRUE(removed().empty());
  EXPECT_EQ(ledger_->usage().reserved, 100U);
}

// The victim's head was replaced by another put, or removed by a user, while it could not be deleted.
TEST_F(LedgerTest, AVictimThatWasReplacedOrErasedDoesNotComeBack) {
  open(100);
  for (const bool replace : {true, false}) {
    ASSERT_TRUE(put(alice_, 1, 40, 11).is_ok());
    ASSERT_TRUE(put(bob_, 2, 40, 12, 100'000).is_ok());
    auto replacement = ledger_->reserve(alice_, 5, kNow, remove());
    ASSERT_TRUE(replacement.is_ok());
    const auto room = ledger_->reserve(bob_, 50, kNow, [&](std::span<const Removal> removals) {
      EXPECT_EQ(removals.size(), 1U);
      EXPECT_EQ(number_of(removals[0].put_id), 11U);
      if (replace) {
        EXPECT_TRUE(replacement->commit(make_record(alice_, 1, 13, 5)).is_ok());
      } else {
        EXPECT_TRUE(ledger_->erase(alice_, numbered_id(1), numbered_put(11)).is_ok());
      }
      return Status::unavailable("the disk does not answer");
    });
    EXPECT_EQ(room.status().code(), StatusCode::kUnavailable);
    EXPECT_EQ(has(alice_, 1), replace);
    EXPECT_EQ(ledger_->usage(alice_).held, 40U);
    ASSERT_TRUE(ledger_->delete_released(kNow, remove()).is_ok());
    EXPECT_EQ(removed(), std::vector<std::uint64_t>{11});
    EXPECT_EQ(ledger_->usage().live, replace ? 45U : 40U);
    EXPECT_EQ(ledger_->usage().held, 0U);
    open(100);
  }
}

}  // namespace
}  // namespace finchkv::cache_store
