// The ledger under random operations against a plain model that counts everything anew each time.
#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "cache_store/ledger.h"
#include "tests/cache_store/ledger_records.h"

namespace finchkv::cache_store {
namespace {

using testing::make_record;
using testing::number_of;
using testing::numbered_id;
using testing::numbered_put;

constexpr std::uint64_t kLeaseMs = 50;
constexpr std::uint64_t kIds = 40;

// One put, from its commit until it is deleted.
struct ModelPut {
  AccountId account{};
  std::uint64_t id = 0;
  std::uint64_t bytes = 0;
  std::uint64_t expires = 0;
  bool live = true;  // else removed or replaced
  bool pinned = false;
};
struct ModelLease {
  Lease token;
  std::uint64_t put = 0;
  std::uint64_t deadline = 0;
};
struct ModelReservation {
  Reservation token;
  AccountId account{};
  std::uint64_t bytes = 0;
};

class LedgerModel {
 public:
  explicit LedgerModel(std::uint32_t seed) : random_(seed) {
    LedgerOptions options;
    options.limit = limits_[kStore];
    options.lease_ms = kLeaseMs;
    ledger_ = *Ledger::create(options);
    for (const char* name : {"a", "b", "c"}) accounts_.push_back(ledger_->account(name));
    accounts_.push_back(AccountId::kShared);
    for (std::size_t i = 0; i < accounts_.size(); ++i) ledger_->set_quota(accounts_[i], limits_[i]);
  }

  void step() {
    now_ += below(4);
    lapse();
    switch (below(12)) {
      case 0:
      case 1:
      case 2: reserve(); break;
      case 3:
      case 4: commit(); break;
      case 5: drop_reservation(); break;
      case 6: lease(); break;
      case 7: end_lease(); break;
      case 8: progress(); break;
      case 9: erase(); break;
      case 10: pin(); break;
      default: touch_or_expire(); break;
    }
    if (!::testing::Test::HasFatalFailure()) compare();
  }

  std::uint64_t granted = 0, refused = 0, evicted = 0;

 private:
  static constexpr std::size_t kStore = 4;
  struct Sums {
    std::uint64_t live = 0, reserved = 0, held = 0, pinned = 0, leased = 0, evictable = 0, released = 0, entries = 0;
    [[nodiscard]] std::uint64_t used() const { return live + reserved + held; }
  };

  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  bool leased(std::uint64_t put) const {
    return std::any_of(leases_.begin(), leases_.end(),
                       [&](const ModelLease& l) { return l.put == put && l.deadline > now_; });
  }
  // Of an account (its place in accounts_), or of the store.
  Sums sums(std::size_t which) const {
    Sums s;
    const auto counts = [&](AccountId account) { return which == kStore || accounts_[which] == account; };
    for (const auto& [number, put] : puts_) {
      if (!counts(put.account)) continue;
      if (!put.live) {
        s.held += put.bytes;
        if (!leased(number)) s.released += put.bytes;
        continue;
      }
      s.live += put.bytes;
      ++s.entries;
      if (put.pinned) {
        s.pinned += put.bytes;
      } else if (leased(number)) {
        s.leased += put.bytes;
      } else {
        s.evictable += put.bytes;
      }
    }
    for (const ModelReservation& r : reservations_) s.reserved += counts(r.account) ? r.bytes : 0;
    return s;
  }
  std::map<std::uint64_t, ModelPut>::iterator live(AccountId account, std::uint64_t id) {
    return std::find_if(puts_.begin(), puts_.end(), [&](const auto& entry) {
      return entry.second.live && entry.second.account == account && entry.second.id == id;
    });
  }
  template <typename T>
  T take(std::vector<T>& from) {
    std::swap(from[below(from.size())], from.back());
    T out = std::move(from.back());
    from.pop_back();
    return out;
  }
  std::uint64_t some_put() { return std::next(puts_.begin(), static_cast<std::ptrdiff_t>(below(puts_.size())))->first; }

  // Both sides see the time here, so that what a lease no longer holds is the same for both.
  void lapse() {
    std::vector<std::uint64_t> expected;
    if (below(3) == 0) {
      for (const auto& [number, put] : puts_) {
        if (!put.live && !leased(number)) expected.push_back(number);
      }
      std::vector<std::uint64_t> deleted;
      ASSERT_TRUE(ledger_
                      ->delete_released(now_,
                                        [&](std::span<const Removal> removals) {
                                          for (const Removal& r : removals) deleted.push_back(number_of(r.put_id));
                                          return Status::ok();
                                        })
                      .is_ok());
      std::sort(deleted.begin(), deleted.end());
      ASSERT_EQ(deleted, expected);
      for (const std::uint64_t number : deleted) puts_.erase(number);
    } else {  // any call that is told the time
      (void)ledger_->lease(accounts_[0], numbered_id(kIds + 1), PutId{}, now_).is_ok();
    }
  }

  void reserve() {
    const std::size_t which = below(accounts_.size());
    const std::uint64_t bytes = below(below(5) == 0 ? limits_[which] + 30 : 50);
    const bool fails = below(8) == 0;
    const auto missing = [&](const Sums& s, std::uint64_t limit) {
      return s.used() + bytes > limit ? s.used() + bytes - limit : 0;
    };
    const Sums own = sums(which), store = sums(kStore);
    const std::uint64_t own_missing = missing(own, limits_[which]), store_missing = missing(store, limits_[kStore]);
    const bool possible =
        own_missing <= own.evictable + own.released && store_missing <= store.evictable + store.released;
    std::map<std::uint64_t, EntryRecord> before;
    for (const auto& [number, put] : puts_) {
      if (put.live) before[number] = *ledger_->find(put.account, numbered_id(put.id));
    }
    std::vector<std::uint64_t> victims;
    auto room = ledger_->reserve(accounts_[which], bytes, now_, [&](std::span<const Removal> removals) {
      EXPECT_LE(ledger_->usage().used(), limits_[kStore]);  // also shows that no lock is held here
      for (const Removal& r : removals) {
        victims.push_back(number_of(r.put_id));
        EXPECT_EQ(r.bytes, puts_.at(victims.back()).bytes);
        EXPECT_FALSE(ledger_->find(r.account, r.id) && ledger_->find(r.account, r.id)->put_id == r.put_id);
      }
      return fails ? Status::unavailable("told to fail") : Status::ok();
    });
    if (!possible) {
      ASSERT_EQ(room.status().code(), StatusCode::kResourceExhausted);
      ASSERT_TRUE(victims.empty());
      ++refused;
      return;
    }
    ASSERT_EQ(room.is_ok(), victims.empty() || !fails) << room.status().message();
    check_victims(victims, accounts_[which], own_missing, store_missing, before);
    if (!room.is_ok()) return;
    ++granted;
    evicted += victims.size();
    for (const std::uint64_t number : victims) puts_.erase(number);
    reservations_.push_back({*std::move(room), accounts_[which], bytes});
  }

  void check_victims(const std::vector<std::uint64_t>& victims, AccountId account, std::uint64_t own_missing,
                     std::uint64_t store_missing, const std::map<std::uint64_t, EntryRecord>& before) {
    std::uint64_t from_own = 0, from_store = 0;
    for (const std::uint64_t number : victims) {
      const ModelPut& put = puts_.at(number);
      EXPECT_FALSE(put.pinned && put.live);
      EXPECT_FALSE(leased(number));
      // With everything that was needed there already, nothing more goes.
      EXPECT_TRUE(from_own < own_missing || from_store < store_missing);
      from_store += put.bytes;
      if (put.account == account) from_own += put.bytes;
    }
    EXPECT_GE(from_own, own_missing);
    EXPECT_GE(from_store, store_missing);
    if (own_missing != 0 && store_missing != 0) return;  // two orders, one after the other
    const auto place = [&](std::uint64_t number) -> std::uint64_t {
      const EntryRecord& r = before.at(number);
      if (r.expires_unix_ms != 0 && r.expires_unix_ms <= now_) return 0;
      return own_missing != 0 ? r.ranks.in_account : r.ranks.in_store;
    };
    std::uint64_t last = 0;
    for (const std::uint64_t number : victims) {
      if (!puts_.at(number).live) continue;
      EXPECT_GE(place(number), last);
      last = place(number);
    }
    for (const auto& [number, put] : puts_) {
      const bool could_go = put.live && !put.pinned && !leased(number) && (own_missing == 0 || put.account == account);
      if (could_go && std::find(victims.begin(), victims.end(), number) == victims.end()) {
        EXPECT_GE(place(number), last);
      }
    }
  }

  void commit() {
    if (reservations_.empty()) return;
    ModelReservation r = take(reservations_);
    const std::uint64_t number = next_put_++;
    if (below(8) == 0) {
      r.token.abandon(numbered_put(number));
      puts_[number] = {.account = r.account, .id = kIds, .bytes = r.bytes, .live = false};
      return;
    }
    const std::uint64_t id = below(kIds);
    EntryRecord record = make_record(r.account, id, number, r.bytes - (r.bytes == 0 ? 0 : below(r.bytes)));
    record.cost_ms = 1 + below(1000);
    bool pinned = false;
    bool past = false;
    if (const auto old = live(r.account, id); old != puts_.end()) {
      pinned = old->second.pinned;
      past = old->second.expires != 0 && old->second.expires <= now_;
      old->second.live = old->second.pinned = false;
    }
    const auto stored = r.token.commit(record);
    ASSERT_TRUE(stored.is_ok());
    if (pinned) pinned = may_pin(r.account, record.bytes);
    // An expired entry's pin ends with it; commit() goes by the last time that it was told.
    if (past && pinned) pinned = stored->pinned;
    ASSERT_EQ(stored->pinned, pinned);
    puts_[number] = {.account = r.account, .id = id, .bytes = record.bytes, .pinned = pinned};
  }

  void drop_reservation() {
    if (!reservations_.empty()) (void)take(reservations_);
  }

  void lease() {
    if (puts_.empty()) return;
    const std::uint64_t number = some_put();
    const ModelPut& put = puts_.at(number);
    auto token = ledger_->lease(put.account, numbered_id(put.id), numbered_put(number), now_);
    ASSERT_EQ(token.is_ok(), put.live && (put.expires == 0 || put.expires > now_));
    if (token.is_ok()) leases_.push_back({*std::move(token), number, now_ + kLeaseMs});
  }

  void end_lease() {
    if (!leases_.empty()) (void)take(leases_);
  }

  void progress() {
    if (leases_.empty()) return;
    ModelLease l = take(leases_);
    const Status status = l.token.progress(now_);
    ASSERT_EQ(status.code(), l.deadline > now_ ? StatusCode::kOk : StatusCode::kDeadlineExceeded);
    if (!status.is_ok()) return;
    l.deadline = now_ + kLeaseMs;
    leases_.push_back(std::move(l));
  }

  void erase() {
    if (puts_.empty()) return;
    const std::uint64_t number = some_put();
    ModelPut& put = puts_.at(number);
    const Status status = ledger_->erase(put.account, numbered_id(put.id), numbered_put(number));
    ASSERT_EQ(status.is_ok(), put.live);
    put.live = put.pinned = false;
  }

  bool may_pin(AccountId account, std::uint64_t bytes) const {
    for (std::size_t i = 0; i <= accounts_.size(); ++i) {
      if ((i == kStore || accounts_[i] == account) && sums(i).pinned + bytes > limits_[i] / 2) return false;
    }
    return true;
  }

  void pin() {
    if (puts_.empty()) return;
    const std::uint64_t number = some_put();
    ModelPut& put = puts_.at(number);
    if (!put.live) return;
    const bool wanted = !put.pinned;
    const bool allowed = !wanted || may_pin(put.account, put.bytes);
    const Status status = ledger_->set_pinned(put.account, numbered_id(put.id), wanted);
    ASSERT_EQ(status.code(), allowed ? StatusCode::kOk : StatusCode::kResourceExhausted);
    if (allowed) put.pinned = wanted;
  }

  void touch_or_expire() {
    if (puts_.empty()) return;
    ModelPut& put = puts_.at(some_put());
    if (below(2) == 0) {
      (void)ledger_->touch(put.account, numbered_id(put.id), now_);
    } else if (put.live) {
      put.expires = below(3) == 0 ? 0 : now_ + below(60);
      ASSERT_TRUE(ledger_->set_expiry(put.account, numbered_id(put.id), put.expires).is_ok());
    }
  }

  void compare() {
    for (std::size_t i = 0; i <= kStore; ++i) {
      const Usage usage = i == kStore ? ledger_->usage() : ledger_->usage(accounts_[i]);
      const Sums s = sums(i);
      ASSERT_LE(usage.used(), limits_[i]);
      ASSERT_EQ(usage.entries, s.entries);
      ASSERT_EQ(usage.live, s.live);
      ASSERT_EQ(usage.leaving, 0U);
      ASSERT_EQ(usage.reserved, s.reserved);
      ASSERT_EQ(usage.held, s.held);
      ASSERT_EQ(usage.pinned, s.pinned);
      ASSERT_EQ(usage.leased, s.leased);
    }
    std::size_t past = 0;
    for (const auto& [number, put] : puts_) past += put.live && put.expires != 0 && put.expires <= now_ ? 1U : 0U;
    ASSERT_EQ(ledger_->expired(now_, 1000).size(), past);
  }

  std::mt19937 random_;
  const std::vector<std::uint64_t> limits_{400, 150, 600, 300, 1000};  // by accounts_, then the store's
  std::unique_ptr<Ledger> ledger_;
  std::vector<AccountId> accounts_;
  std::map<std::uint64_t, ModelPut> puts_;
  std::vector<ModelLease> leases_;
  std::vector<ModelReservation> reservations_;
  std::uint64_t next_put_ = 1;
  std::uint64_t now_ = 1'700'000'000'000;
};

TEST(LedgerRandom, AgreesWithAPlainModel) {
  for (std::uint32_t seed = 1; seed <= 5; ++seed) {
    LedgerModel model(seed);
    for (int i = 0; i < 20'000 && !::testing::Test::HasFatalFailure(); ++i) model.step();
    ASSERT_FALSE(::testing::Test::HasFailure()) << "seed " << seed;
    // The model must have been somewhere.
    EXPECT_GT(model.granted, 1000U);
    EXPECT_GT(model.refused, 200U);
    EXPECT_GT(model.evicted, 500U);
  }
}

}  // namespace
}  // namespace finchkv::cache_store
