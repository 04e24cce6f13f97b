// Power loss, killed processes and failing disks under the RocksDB store: many short lives of one store, each ended in
// the middle of what it was doing. Afterwards every acknowledged put is there and right, every acknowledged removal
// stays, what was in flight is whole or absent, gc leaves no block without a head, and the store goes on working.
//
// The lives are power_loss_store.h's, the file system underneath is FaultFs.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

#include <gtest/gtest.h>

#include "cache_store/rocksdb_store.h"
#include "tests/cache_store/fault_env.h"
#include "tests/cache_store/power_loss_store.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_a_disks_fault;
using testing::Fault;
using testing::fault_name;
using testing::FaultEnv;
using testing::FaultFs;
using testing::FaultRates;
using testing::kFaultKinds;
using testing::power_loss_entries;
using testing::PowerLoss;
using testing::ScratchDirectory;
using testing::Tally;
using testing::TornEnds;

constexpr const char* kMemory = "/dev/shm";
constexpr unsigned kLongestSeconds = 300;  // for all lives of one store, which take 3 on a free machine: then it hangs

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
  for (int i = 0; i < 3; ++i) expect_a_disks_fault((*store)->put(power_loss_entries().request(1, 1)).status(), tally);
  disk->stop_injecting();
  if (fault != Fault::kNoSpace) return tally;  // what an EIO has broken may stay so until the next opening
  Status last = Status::unavailable("not tried");
  for (int i = 0; i < 100 && !last.is_ok(); ++i) {
    last = (*store)->put(power_loss_entries().request(1, 1)).status();
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
