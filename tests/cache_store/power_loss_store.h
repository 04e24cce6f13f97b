// One store on a FaultFs that lives many short lives, each ended in the middle of what it was doing: by power loss, a
// killed process, a failing or a full disk. After each life it is opened and settled what is there.
//
// Operations that returned an error may have happened or not; what a later opening shows then is what counts from there
// on. What should not be is a failure of the test that is running. Belongs to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>

#include "cache_store/rocksdb_store.h"
#include "tests/cache_store/fault_env.h"
#include "tests/cache_store/rocksdb_open.h"
#include "tests/cache_store/sets.h"
#include "tests/cache_store/versioned_entries.h"

namespace finchkv::cache_store::testing {

/// Every fourth name is large.
const VersionedEntries& power_loss_entries();

// What one store's lives came to; plain numbers, so that a child can hand them over as they are.
struct Tally {
  std::uint64_t lives = 0;
  std::uint64_t acknowledged = 0;
  std::uint64_t failed_openings = 0;
  std::array<std::uint64_t, 10> errors{};  // by status code
  FaultCounts injected{};

  void add(const Tally& other);
  std::uint64_t all_errors() const { return std::accumulate(errors.begin(), errors.end(), std::uint64_t{0}); }
  void print() const;
};

// A failing disk may make the store say that it is not available, that the disk is full, or that what it read is
// damaged. It is no reason to say that an entry is not there, or that the caller did something wrong.
void expect_a_disks_fault(const Status& status, Tally& tally);

class PowerLoss {
 public:
  PowerLoss(std::uint64_t seed, TornEnds ends);

  struct Life {
    FaultRates rates{};
    bool faults_while_opening = false;
    bool full_disk = false;  // from some moment on
    bool killed = false;     // the process ends, the machine goes on
  };

  // Works until the power fails; afterwards settles what is there.
  void live(const Life& life);
  // Blocks without a head, or heads without blocks, counted past all our code.
  void count_blocks();
  [[nodiscard]] Tally tally() const;

 private:
  enum class Seen : std::uint8_t {
    kAmongFaults,  // reading may fail
    kUnsynced,     // reading works; another moment may show another of the allowed versions
    kForGood,      // what is there stays
  };

  Status open(Opened& opened);
  void operate(Opened& opened);
  void put(Opened& opened, std::uint32_t name);
  void remove(Opened& opened, std::uint32_t name);
  void check(Opened& opened, std::uint32_t name, Seen seen_how);
  void settle(bool for_good);

  ScratchDirectory scratch_;
  TornEnds ends_;
  std::mt19937_64 random_;
  std::shared_ptr<FaultFs> fs_ = std::make_shared<FaultFs>((scratch_.path() / "spare").string());
  FaultEnv env_{fs_};
  // The versions that each name may have: one when all is acknowledged, more after an operation that failed.
  std::map<std::uint32_t, std::set<std::uint32_t>> allowed_;
  std::map<std::uint32_t, std::uint32_t> showing_;  // the version of each name when it was last settled
  std::uint32_t version_ = 0;
  Tally tally_;
};

}  // namespace finchkv::cache_store::testing
