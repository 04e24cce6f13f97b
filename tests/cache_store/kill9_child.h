// The process that kill9_test kills: it works on a store, and says on its standard output what it is about to do and
// what is done, a line each. What child and parent must agree on stands here too: the entries, the limit, the lines.
#pragma once

#include <cstdint>
#include <string>

#include "cache_store/rocksdb_store.h"
#include "tests/cache_store/versioned_entries.h"

namespace finchkv::cache_store::testing {

constexpr std::uint32_t kKill9Names = 32;
/// Room for what is pinned, for the puts that two workers write, and for some of the others.
constexpr std::uint64_t kKill9Limit = 448U << 10;
constexpr std::uint32_t kKill9Backups = 2;  ///< that are kept

/// Every fourth name gets a table of its own, every fourth goes through the log into blob files, the others are tiny.
const VersionedEntries& kill9_entries();
/// Always put pinned: these are never evicted.
bool is_pinned(std::uint32_t name);
RocksDbOptions kill9_options();

/// Exit statuses of a child that gives up by itself.
enum class GaveUp : int { kPipe = 3, kOpening, kOperation, kGc, kPin, kLimit, kBackup, kExec };

/// Lines "WHAT NAME VERSION": small letters before an operation, capitals when it has been acknowledged.
enum class Said : char {
  kOpened = 'o',
  kPutting = 'p',
  kPut = 'P',
  kRemoving = 'r',
  kRemoved = 'R',
  kBackingUp = 'b',
  kBackedUp = 'B',  ///< the backup's id in the name's place
  kEvicted = 'e',   ///< how many since this child's opening, in the name's place
};

/// Puts, removals, evictions and backups from three threads until somebody kills this process. Versions count up from
/// the one given.
int work_until_killed(const std::string& store, const std::string& backups, std::uint32_t seed, std::uint32_t version);
/// One put that ends with the process at this step of it.
int put_and_die(const std::string& store, PutStep step, std::uint32_t name, std::uint32_t version);

}  // namespace finchkv::cache_store::testing
