// Power loss, killed processes and failing disks under the RocksDB store: many short lives of one store, each ended in
// the middle of what it was doing. Afterwards every acknowledged put is there and right, every acknowledged removal
// stays, what was in flight is whole or absent, gc leaves no block without a head, and the store goes on working.
//
// The file system underneath is FaultFs. Operations that returned an error may have happened or not; what a later
// opening shows then is what counts from there on.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include <gtest/gtest.h>
#include <rocksdb/db.h>

#include "cache_store/rocksdb_store.h"
#include "tests/cache_store/fault_env.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::Fault;
using testing::FaultCounts;
using testing::FaultEnv;
using testing::FaultFs;
using testing::FaultRates;
using testing::kFaultKinds;
using testing::make_put;
using testing::make_set;
using testing::same_bytes;
using testing::ScratchDirectory;
using testing::SetSpec;
using testing::TornEnds;

constexpr std::uint32_t kNames = 16;
constexpr std::uint64_t kLarge = 24U << 10;  // puts from here on go past the log
constexpr std::uint32_t kAbsent = 0;         // as a version
constexpr std::uint64_t kPatience = 12;      // errors before a life ends

// Name i always has the same identity; its version says which bytes are stored under it. Every fourth name is large.
bool is_large(std::uint32_t name) { return name % 4 == 0; }

SetSpec spec_of(std::uint32_t name) {
  if (is_large(name)) return {.layers = 2, .heads = 2, .dim = 64, .kept = 40, .doc_tokens = 100};
  return {.kept = 1 + name};
}

const PutRequest& first_request_of(std::uint32_t name) {
  static std::map<std::uint32_t, PutRequest> made;
  const auto found = made.find(name);
  return found != made.end() ? found->second : made[name] = make_put(spec_of(name), name);
}

CacheId id_of(std::uint32_t name) { return cache_id(first_request_of(name).identity, {}); }

PutRequest request_of(std::uint32_t name, std::uint32_t version) {
  PutRequest request = first_request_of(name);
  request.set = make_set(spec_of(name), version * 1000 + name);
  request.label = std::to_string(version);
  request.if_exists = IfExists::kReplace;
  return request;
}

bool holds(const KvSet& set, std::uint32_t name, std::uint32_t version) {
  const KvSet expected = make_set(spec_of(name), version * 1000 + name);
  if (set.layers.size() != expected.layers.size()) return false;
  for (std::size_t l = 0; l < expected.layers.size(); ++l) {
    if (!same_bytes(set.layers[l].keys, expected.layers[l].keys) ||
        !same_bytes(set.layers[l].values, expected.layers[l].values) ||
        !std::ranges::equal(set.layers[l].origins, expected.layers[l].origins)) {
      return false;
    }
  }
  return true;
}

// The versions that each name may have: one when all is acknowledged, more after an operation that failed.
using Allowed = std::map<std::uint32_t, std::set<std::uint32_t>>;

// What one store's lives came to; plain numbers, so that a child can hand them over as they are.
struct Tally {
  std::uint64_t lives = 0;
  std::uint64_t acknowledged = 0;
  std::uint64_t failed_openings = 0;
  std::array<std::uint64_t, 10> errors{};  // by status code
  FaultCounts injected{};

  void add(const Tally& other) {
    lives += other.lives;
    acknowledged += other.acknowledged;
    failed_openings += other.failed_openings;
    for (std::size_t i = 0; i < errors.size(); ++i) errors[i] += other.errors[i];
    for (std::size_t i = 0; i < kFaultKinds; ++i) injected[i] += other.injected[i];
  }
  std::uint64_t all_errors() const { return std::accumulate(errors.begin(), errors.end(), std::uint64_t{0}); }
  void print() const {
    std::printf("%llu lives, %llu acknowledged, %llu failed openings", as_printed(lives), as_printed(acknowledged),
                as_printed(failed_openings));
    for (std::size_t i = 0; i < errors.size(); ++i) {
      if (errors[i] == 0) continue;
      std::printf(", %s %llu", status_code_name(static_cast<StatusCode>(i)).data(), as_printed(errors[i]));
    }
    for (std::size_t i = 0; i < kFaultKinds; ++i) {
      if (injected[i] == 0) continue;
      std::printf(", %s %llu", fault_name(static_cast<Fault>(i)).data(), as_printed(injected[i]));
    }
    std::printf("\n");
  }
  static unsigned long long as_printed(std::uint64_t n) { return n; }
};

// A failing disk may make the store say that it is not available, that the disk is full, or that what it read is
// damaged. It is no reason to say that an entry is not there, or that the caller did something wrong.
void expect_a_disks_fault(const Status& status, Tally& tally) {
  ++tally.errors[static_cast<std::size_t>(status.code())];
  EXPECT_TRUE(status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kResourceExhausted ||
              status.code() == StatusCode::kCorrupt)
      << status.to_string();
}

// Everything outside the default family, by a reader of our own that leaves the directory as it is.
std::uint64_t blocks_in(const std::string& directory) {
  rocksdb::DBOptions options;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  std::vector<std::string> names;
  EXPECT_TRUE(rocksdb::DB::ListColumnFamilies(options, directory, &names).ok());
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  families.reserve(names.size());
  for (const std::string& name : names) families.emplace_back(name, rocksdb::ColumnFamilyOptions());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  const auto status = rocksdb::DB::OpenForReadOnly(options, directory, families, &handles, &opened);
  EXPECT_TRUE(status.ok()) << status.ToString();
  if (!status.ok()) return 0;
  const std::unique_ptr<rocksdb::DB> db(opened);
  std::uint64_t blocks = 0;
  for (rocksdb::ColumnFamilyHandle* handle : handles) {
    if (handle->GetName() != rocksdb::kDefaultColumnFamilyName) {
      const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}, handle));
      for (it->SeekToFirst(); it->Valid(); it->Next()) ++blocks;
      EXPECT_TRUE(it->status().ok()) << it->status().ToString();
    }
    db->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  return blocks;
}

struct Opened {
  std::shared_ptr<StoreHost> host;
  std::unique_ptr<Store> store;
};

class PowerLoss {
 public:
  PowerLoss(std::uint64_t seed, TornEnds ends) : ends_(ends), random_(seed) {
    for (std::uint32_t name = 0; name < kNames; ++name) allowed_[name] = {kAbsent};
  }

  struct Life {
    FaultRates rates{};
    bool faults_while_opening = false;
    bool full_disk = false;  // from some moment on
    bool killed = false;     // the process ends, the machine goes on
  };

  // Works until the power fails; afterwards settles what is there.
  void live(const Life& life) {
    ++tally_.lives;
    fs_->inject(life.rates, random_());
    if (!life.faults_while_opening) fs_->stop_injecting();
    fs_->crash_after(random_() % (random_() % 4 == 0 ? 30 : 200));
    if (life.full_disk) fs_->limit_bytes(random_() % (200U << 10));
    {
      Opened opened;
      if (const Status status = open(opened); status.is_ok()) {
        fs_->inject(life.rates, random_());
        const std::uint64_t errors = tally_.all_errors();
        for (int i = 0; i < 60 && !fs_->crashed() && !::testing::Test::HasFatalFailure(); ++i) {
          operate(opened);
          if (tally_.all_errors() - errors > kPatience) break;  // the database may want to be opened again
        }
      } else {
        ++tally_.failed_openings;
        expect_a_disks_fault(status, tally_);
      }
      fs_->crash();
    }
    fs_->stop_injecting();
    fs_->limit_bytes({});
    if (life.killed) {
      fs_->keep_unsynced();
    } else {
      fs_->drop_unsynced(random_(), ends_);
    }
    if (!::testing::Test::HasFatalFailure()) settle(!life.killed);
  }

  // Blocks without a head, or heads without blocks, counted past all our code.
  void count_blocks() {
    static const std::map<bool, std::uint64_t> per_entry = {{false, blocks_of_one_entry(1)},
                                                            {true, blocks_of_one_entry(0)}};
    std::uint64_t expected = 0;
    for (const auto& [name, version] : showing_) {
      if (version != kAbsent) expected += per_entry.at(is_large(name));
    }
    ASSERT_EQ(blocks_in(scratch_.store()), expected) << "blocks without a head, or a head without blocks";
  }

  Tally tally() const {
    Tally tally = tally_;
    tally.injected = fs_->injected();
    return tally;
  }

 private:
  static RocksDbOptions options(rocksdb::Env* env) {
    RocksDbOptions options;
    options.large_put_bytes = kLarge;
    options.env = env;
    return options;
  }

  static std::uint64_t blocks_of_one_entry(std::uint32_t name) {
    const ScratchDirectory scratch;
    {
      auto host = open_rocksdb_store(scratch.store(), options(nullptr));
      EXPECT_TRUE((*(*host)->view({}))->put(request_of(name, 1)).is_ok());
    }
    return blocks_in(scratch.store());
  }

  Status open(Opened& opened) {
    auto host = open_rocksdb_store(scratch_.store(), options(&env_));
    if (!host.is_ok()) return host.status();
    auto store = (*host)->view({});
    if (!store.is_ok()) return store.status();
    opened = {*std::move(host), *std::move(store)};
    return Status::ok();
  }

  void operate(Opened& opened) {
    const std::uint32_t name = static_cast<std::uint32_t>(random_() % kNames);
    std::set<std::uint32_t>& versions = allowed_[name];
    switch (random_() % 16) {
      case 0:
      case 1:
      case 2: {
        const Status removed = opened.store->remove(id_of(name));
        if (removed.code() == StatusCode::kNotFound) {
          ASSERT_TRUE(versions.contains(kAbsent)) << removed.to_string();
        } else if (!removed.is_ok()) {
          expect_a_disks_fault(removed, tally_);
          versions.insert(kAbsent);
          return;
        }
        ++tally_.acknowledged;
        versions = {kAbsent};
        return;
      }
      case 3:
      case 4:
      case 5: {
        check(opened, name, Seen::kAmongFaults);
        return;
      }
      case 6: {
        const auto report = opened.host->gc();
        if (!report.is_ok()) expect_a_disks_fault(report.status(), tally_);
        return;
      }
      default: put(opened, name, versions);
    }
  }

  void put(Opened& opened, std::uint32_t name, std::set<std::uint32_t>& versions) {
    PutRequest request = request_of(name, ++version_);
    if (random_() % 4 == 0) request.if_exists = IfExists::kKeep;
    const auto info = opened.store->put(request);
    if (!info.is_ok()) {
      expect_a_disks_fault(info.status(), tally_);
      versions.insert(version_);
      return;
    }
    ++tally_.acknowledged;
    const auto kept = static_cast<std::uint32_t>(std::stoul(info->label));  // ours, or what was there already
    if (kept != version_) {
      ASSERT_EQ(request.if_exists, IfExists::kKeep);
      ASSERT_TRUE(versions.contains(kept)) << "entry " << name << " has version " << kept;
    } else if (request.if_exists == IfExists::kKeep) {
      ASSERT_TRUE(versions.contains(kAbsent)) << "entry " << name << " was gone";
    }
    versions = {kept};
  }

  enum class Seen : std::uint8_t {
    kAmongFaults,  // reading may fail
    kUnsynced,     // reading works; another moment may show another of the allowed versions
    kForGood,      // what is there stays
  };

  // What the store shows of a name is allowed.
  void check(Opened& opened, std::uint32_t name, Seen seen_how) {
    std::set<std::uint32_t>& versions = allowed_[name];
    const auto set = opened.store->get(id_of(name));
    std::uint32_t seen = kAbsent;
    if (set.is_ok()) {
      const auto found =
          std::find_if(versions.begin(), versions.end(), [&](auto v) { return v != kAbsent && holds(*set, name, v); });
      ASSERT_NE(found, versions.end()) << "entry " << name << " holds bytes that it cannot have";
      seen = *found;
    } else if (set.status().code() == StatusCode::kNotFound) {
      ASSERT_TRUE(versions.contains(kAbsent)) << "acknowledged entry " << name << " is gone";
    } else {
      ASSERT_TRUE(seen_how == Seen::kAmongFaults) << "name " << name << ": " << set.status().to_string();
      expect_a_disks_fault(set.status(), tally_);
      return;
    }
    if (seen_how == Seen::kAmongFaults) return;
    if (seen_how == Seen::kForGood) versions = {seen};
    showing_[name] = seen;
    if (seen != kAbsent) {
      ASSERT_TRUE(opened.store->verify(id_of(name)).is_ok());
    }
  }

  // Afterwards the store opens, shows what it may, and takes and gives as ever. What a killed process left is in the
  // page cache only: it can still be lost, unless a put or a removal has said that it is so.
  void settle(bool for_good) {
    Opened opened;
    const Status status = open(opened);
    ASSERT_TRUE(status.is_ok()) << "the store does not open again: " << status.to_string();
    for (std::uint32_t name = 0; name < kNames; ++name) {
      check(opened, name, for_good ? Seen::kForGood : Seen::kUnsynced);
      if (::testing::Test::HasFatalFailure()) return;
    }
    const auto page = opened.store->list({}, 1000);
    ASSERT_TRUE(page.is_ok());
    EXPECT_TRUE(page->unreadable.empty());
    std::set<CacheId> listed;
    for (const EntryInfo& entry : page->entries) listed.insert(entry.id);
    for (const auto& [name, version] : showing_) {
      EXPECT_EQ(listed.contains(id_of(name)), version != kAbsent) << "name " << name;
    }
    ASSERT_TRUE(opened.host->gc().is_ok());
    const auto again = opened.host->gc();
    ASSERT_TRUE(again.is_ok());
    EXPECT_EQ(again->blocks, 0U);
    const auto name = static_cast<std::uint32_t>(random_() % kNames);
    const auto put = opened.store->put(request_of(name, ++version_));
    ASSERT_TRUE(put.is_ok()) << put.status().to_string();
    allowed_[name] = {showing_[name] = version_};
  }

  ScratchDirectory scratch_;
  TornEnds ends_;
  std::mt19937_64 random_;
  std::shared_ptr<FaultFs> fs_ = std::make_shared<FaultFs>((scratch_.path() / "spare").string());
  FaultEnv env_{fs_};
  Allowed allowed_;
  std::map<std::uint32_t, std::uint32_t> showing_;  // the version of each name when it was last settled
  std::uint32_t version_ = 0;
  Tally tally_;
};

constexpr const char* kMemory = "/dev/shm";
constexpr unsigned kLongestSeconds = 60;  // for all lives of one store

// More stores than usual: power_loss_test --times 20 --seed 1000.
std::uint64_t times = 1;
std::uint64_t seed_offset = 0;

struct Campaign {
  std::uint64_t first_seed;
  std::uint64_t stores;
  int lives = 12;  // of each store
  TornEnds ends = TornEnds::kCut;
  std::function<PowerLoss::Life(std::mt19937_64&)> life = [](std::mt19937_64&) { return PowerLoss::Life{}; };
};

Tally live_through(const Campaign& campaign, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  PowerLoss store(seed, campaign.ends);
  for (int life = 0; life < campaign.lives && !::testing::Test::HasFatalFailure(); ++life) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed << ", life " << life);
    store.live(campaign.life(random));
  }
  if (!::testing::Test::HasFatalFailure()) store.count_blocks();
  return store.tally();
}

// In a process of its own: RocksDB's assertions end the process on some errors, and that is a failure of one store to
// report, not the end of the test. Returns what went wrong.
std::string in_a_process(const std::function<Tally()>& work, Tally& all) {
  // Nothing is synced for real, and a disk's own pace would only cost lives.
  if (access(kMemory, W_OK) == 0) setenv("TMPDIR", kMemory, 0);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return "no pipe";
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(kLongestSeconds);
    const Tally tally = work();
    std::fflush(nullptr);
    _exit(write(ends[1], &tally, sizeof(tally)) == sizeof(tally) && !::testing::Test::HasFailure() ? 0 : 1);
  }
  close(ends[1]);
  Tally tally;
  if (read(ends[0], &tally, sizeof(tally)) == sizeof(tally)) all.add(tally);
  close(ends[0]);
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) return "no child";
  if (WIFSIGNALED(status)) return std::string("was ended by: ") + strsignal(WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? "" : "failed, see above";
}

Tally run(const Campaign& campaign) {
  Tally all;
  std::string failed;
  for (std::uint64_t i = 0; i < campaign.stores * times; ++i) {
    const std::uint64_t seed = seed_offset + campaign.first_seed + i;
    const std::string wrong = in_a_process([&] { return live_through(campaign, seed); }, all);
    if (!wrong.empty()) failed += "seed " + std::to_string(seed) + " " + wrong + "\n";
  }
  all.print();
  // Only now: a child starts with the failures that its parent has.
  if (!failed.empty()) ADD_FAILURE() << failed;
  return all;
}

TEST(RocksDbPowerLoss, NothingAcknowledgedIsLost) {
  const Tally tally = run({.first_seed = 1000, .stores = 12});
  EXPECT_GT(tally.acknowledged, 500U);
}

TEST(RocksDbPowerLoss, NorWhenPagesWereWrittenOutOfOrder) {
  const Tally tally = run({.first_seed = 2000, .stores = 16, .ends = TornEnds::kWithHoles});
  EXPECT_GT(tally.acknowledged, 500U);
}

TEST(RocksDbPowerLoss, NorAfterProcessesThatWereKilledBefore) {
  const auto life = [](std::mt19937_64& random) { return PowerLoss::Life{.killed = random() % 2 == 0}; };
  const Tally tally = run({.first_seed = 3000, .stores = 20, .life = life});
  EXPECT_GT(tally.acknowledged, 500U);
}

TEST(RocksDbPowerLoss, NorOnAFailingDisk) {
  const auto life = [](std::mt19937_64& random) {
    PowerLoss::Life one;
    for (double& rate : one.rates) {
      if (random() % 2 == 0) rate = 0.02;
    }
    one.faults_while_opening = random() % 2 == 0;
    return one;
  };
  const Tally tally = run({.first_seed = 4000, .stores = 16, .life = life});
  EXPECT_GT(tally.acknowledged, 300U);
  for (std::size_t f = 0; f < kFaultKinds; ++f) EXPECT_GT(tally.injected[f], 0U) << fault_name(static_cast<Fault>(f));
}

TEST(RocksDbPowerLoss, NorOnAFullDisk) {
  const auto life = [](std::mt19937_64& /*random*/) { return PowerLoss::Life{.full_disk = true}; };
  const Tally tally = run({.first_seed = 5000, .stores = 16, .life = life});
  EXPECT_GT(tally.acknowledged, 200U);
  EXPECT_GT(tally.injected(Fault::kNoSpace), 20U);
}

// The first write after an opening fails, and the caller tries again: before the disk has room, and after.
Tally write_first_to(Fault fault) {
  const ScratchDirectory scratch;
  const auto disk = std::make_shared<FaultFs>((scratch.path() / "spare").string());
  FaultEnv env(disk);
  RocksDbOptions options;
  options.env = &env;
  Tally tally;
  const auto host = open_rocksdb_store(scratch.store(), options);
  EXPECT_TRUE(host.is_ok()) << host.status().to_string();
  const auto store = (*host)->view({});
  EXPECT_TRUE(store.is_ok());
  FaultRates rates{};
  rates(fault) = 1;
  disk->inject(rates, 1);
  for (int i = 0; i < 3; ++i) expect_a_disks_fault((*store)->put(request_of(1, 1)).status(), tally);
  disk->stop_injecting();
  if (fault != Fault::kNoSpace) return tally;  // what an EIO has broken may stay so until the next opening
  Status last = Status::unavailable("not tried");
  for (int i = 0; i < 100 && !last.is_ok(); ++i) {
    last = (*store)->put(request_of(1, 1)).status();
    if (!last.is_ok()) usleep(100000);  // RocksDB looks every few seconds by itself
  }
  EXPECT_TRUE(last.is_ok()) << last.to_string();
  return tally;
}

TEST(RocksDbPowerLoss, AFullDiskRightAfterOpening) {
  Tally tally;
  EXPECT_EQ(in_a_process([] { return write_first_to(Fault::kNoSpace); }, tally), "");
}

TEST(RocksDbPowerLoss, AFailingDiskRightAfterOpening) {
  for (const Fault fault : {Fault::kWriteError, Fault::kSyncError}) {
    Tally tally;
    EXPECT_EQ(in_a_process([fault] { return write_first_to(fault); }, tally), "") << fault_name(fault);
  }
}

}  // namespace
}  // namespace finchkv::cache_store

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--times") finchkv::cache_store::times = std::strtoull(argv[i + 1], nullptr, 10);
    if (flag == "--seed") finchkv::cache_store::seed_offset = std::strtoull(argv[i + 1], nullptr, 10);
  }
  return RUN_ALL_TESTS();
}
