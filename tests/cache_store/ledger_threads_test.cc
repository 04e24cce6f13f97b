// Eight threads put, get, remove and pin through one ledger, and a made-up disk checks its limits at every step: it
// counts what is really there, from the first byte written to the last one deleted.
#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
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

constexpr std::uint64_t kLimit = 10'000;
constexpr std::uint64_t kQuota = 4'000;
constexpr std::uint64_t kIds = 30;
constexpr std::uint64_t kLeaseMs = 2'000;
constexpr std::size_t kAccounts = 4;  // the last without a quota
constexpr std::uint64_t kNoHead = 0;

class FakeHost {
 public:
  FakeHost() {
    LedgerOptions options;
    options.limit = kLimit;
    options.lease_ms = kLeaseMs;
    options.dirty_batch = 32;
    ledger_ = *Ledger::create(options);
    for (std::size_t i = 0; i < kAccounts; ++i) {
      accounts_.push_back(ledger_->account("tenant" + std::to_string(i)));
      if (i + 1 < kAccounts) ledger_->set_quota(accounts_.back(), kQuota);
    }
  }

  void put(std::mt19937& random) {
    const std::size_t who = random() % kAccounts;
    const std::uint64_t id = random() % kIds, bytes = 1 + random() % (random() % 20 == 0 ? 3'000 : 200),
                        number = next_put_++;
    auto room = ledger_->reserve(accounts_[who], bytes, tick(), remove(random()));
    if (!room.is_ok()) {
      (room.status().code() == StatusCode::kResourceExhausted ? refused : failed)++;
      return;
    }
    for (std::uint64_t written = 0; written < bytes;) {
      const std::uint64_t part = std::min<std::uint64_t>(bytes - written, 100);
      write(who, number, part);
      written += part;
      if (random() % 60 == 0) {
        room->abandon(numbered_put(number));
        return delete_released(random);
      }
    }
    {
      const std::lock_guard lock(entry_mutex(who, id));
      head(who, id) = number;
      EntryRecord record = make_record(accounts_[who], id, number, bytes);
      record.cost_ms = random() % 1000;
      record.expires_unix_ms = random() % 10 == 0 ? tick() + random() % 500 : 0;
      if (!room->commit(record).is_ok()) ++wrong;
    }
    ++puts;
    delete_released(random);
  }

  void get(std::mt19937& random) {
    const std::size_t who = random() % kAccounts;
    const std::uint64_t id = random() % kIds;
    std::optional<Lease> lease;
    std::uint64_t number = 0;
    {
      const std::lock_guard lock(entry_mutex(who, id));
      number = head(who, id);
      if (number == kNoHead) return;
      auto leased = ledger_->lease(accounts_[who], numbered_id(id), numbered_put(number), tick());
      if (!leased.is_ok()) return;  // expired, or on its way out
      lease.emplace(*std::move(leased));
    }
    const std::uint64_t pace = random() % 10 == 0 ? kLeaseMs / 3 : random() % 50 == 0 ? kLeaseMs : 0;
    for (int block = 0; block < 5; ++block) {
      std::this_thread::yield();
      now_ += pace;
      const bool there = has_blocks(number);
      if (!lease->progress(tick()).is_ok()) {
        ++lapsed;
        return;
      }
      if (!there) ++wrong;
    }
    ++gets;
    if (ledger_->touch(accounts_[who], numbered_id(id), tick())) (void)ledger_->take_dirty(32);
  }

  void erase(std::mt19937& random) {
    const std::size_t who = random() % kAccounts;
    const std::uint64_t id = random() % kIds;
    {
      const std::lock_guard lock(entry_mutex(who, id));
      const std::uint64_t number = std::exchange(head(who, id), kNoHead);
      if (number == kNoHead) return;
      // An entry past its time or on its way out is the ledger's all the same.
      if (!ledger_->erase(accounts_[who], numbered_id(id), numbered_put(number)).is_ok()) ++wrong;
    }
    delete_released(random);
  }

  void pin(std::mt19937& random) {
    (void)ledger_->set_pinned(accounts_[random() % kAccounts], numbered_id(random() % kIds), random() % 3 == 0).is_ok();
  }

  void check_at_rest() {
    ASSERT_TRUE(ledger_->delete_released(now_ + kLeaseMs, [this](auto r) { return remove_all(r); }).is_ok());
    const Usage usage = ledger_->usage();
    EXPECT_EQ(usage.reserved, 0U);
    EXPECT_EQ(usage.leaving, 0U);
    EXPECT_EQ(usage.held, 0U);
    EXPECT_EQ(usage.live, disk_);
    std::uint64_t entries = 0;
    for (std::size_t who = 0; who < kAccounts; ++who) {
      EXPECT_EQ(ledger_->usage(accounts_[who]).live, disk_of_[who]);
      for (std::uint64_t id = 0; id < kIds; ++id) {
        const auto record = ledger_->find(accounts_[who], numbered_id(id));
        ASSERT_EQ(record.has_value(), head(who, id) != kNoHead);
        if (!record) continue;
        EXPECT_EQ(record->put_id, numbered_put(head(who, id)));
        ++entries;
      }
    }
    EXPECT_EQ(usage.entries, entries);
    // Not even the counts are bent: a reservation of everything that is not pinned finds its room.
    EXPECT_TRUE(ledger_
                    ->reserve(accounts_.back(), kLimit - usage.pinned, now_ + kLeaseMs,
                              [this](auto r) { return remove_all(r); })
                    .is_ok());
    EXPECT_EQ(disk_, usage.pinned);
  }

  std::atomic<std::uint64_t> puts{0}, gets{0}, refused{0}, failed{0}, lapsed{0}, evictions{0}, wrong{0};

 private:
  std::uint64_t tick() { return ++now_; }
  std::mutex& entry_mutex(std::size_t who, std::uint64_t id) { return entry_mutexes_[who * kIds + id]; }

  std::uint64_t& head(std::size_t who, std::uint64_t id) { return heads_[who * kIds + id]; }

  Remove remove(std::uint32_t dice) {
    return [this, dice](std::span<const Removal> removals) {
      if (dice % 20 == 0) return Status::unavailable("the disk does not answer");
      return remove_all(removals);
    };
  }
  Status remove_all(std::span<const Removal> removals) {
    for (const Removal& r : removals) {
      const std::size_t who =
          static_cast<std::size_t>(std::find(accounts_.begin(), accounts_.end(), r.account) - accounts_.begin());
      const std::uint64_t number = number_of(r.put_id);
      for (std::uint64_t id = 0; id < kIds; ++id) {
        if (r.id != numbered_id(id)) continue;
        const std::lock_guard lock(entry_mutex(who, id));
        if (head(who, id) == number) head(who, id) = kNoHead;
      }
      std::this_thread::yield();
      const std::lock_guard lock(disk_mutex_);
      if (const auto it = blocks_.find(number); it != blocks_.end()) {
        if (it->second > r.bytes) ++wrong;
        disk_ -= it->second;
        disk_of_[who] -= it->second;
        blocks_.erase(it);
      }
      ++evictions;
    }
    return Status::ok();
  }
  void delete_released(std::mt19937& random) { (void)ledger_->delete_released(tick(), remove(random())).is_ok(); }

  void write(std::size_t who, std::uint64_t number, std::uint64_t bytes) {
    const std::lock_guard lock(disk_mutex_);
    blocks_[number] += bytes;
    disk_ += bytes;
    disk_of_[who] += bytes;
    if (disk_ > kLimit || (who + 1 < kAccounts && disk_of_[who] > kQuota)) ++wrong;
    const Usage usage = ledger_->usage();
    if (usage.used() > kLimit || usage.used() < disk_) ++wrong;
  }
  bool has_blocks(std::uint64_t number) {
    const std::lock_guard lock(disk_mutex_);
    return blocks_.contains(number);
  }

  std::unique_ptr<Ledger> ledger_;
  std::vector<AccountId> accounts_;
  std::atomic<std::uint64_t> now_{1'700'000'000'000}, next_put_{1};
  std::array<std::mutex, kAccounts * kIds> entry_mutexes_;
  std::mutex disk_mutex_;
  std::array<std::uint64_t, kAccounts * kIds> heads_{};  // put numbers, each under its entry's lock
  std::map<std::uint64_t, std::uint64_t> blocks_;        // by put number
  std::uint64_t disk_ = 0;
  std::array<std::uint64_t, kAccounts> disk_of_{};
};

TEST(LedgerThreads, LimitsHoldOnADiskThatCounts) {
  FakeHost host;
  std::vector<std::thread> threads;
  for (unsigned seed = 1; seed <= 8; ++seed) {
    threads.emplace_back([&host, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 4'000; ++i) {
        switch (random() % 10) {
          case 0: host.erase(random); break;
          case 1: host.pin(random); break;
          case 2:
          case 3:
          case 4:
          case 5: host.get(random); break;
          default: host.put(random); break;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(host.wrong, 0U);
  EXPECT_GT(host.puts, 1'000U);
  EXPECT_GT(host.gets, 100U);
  EXPECT_GT(host.evictions, 1'000U);
  EXPECT_GT(host.failed, 10U);
  EXPECT_GT(host.lapsed, 0U);
  EXPECT_GT(host.refused, 0U);
  host.check_at_rest();
}

}  // namespace
}  // namespace finchkv::cache_store
