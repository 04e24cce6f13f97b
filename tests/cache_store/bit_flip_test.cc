// One flipped bit anywhere in a store's files: every answer is right, or an error that says that something is damaged.
// Never wrong bytes, an entry that is silently gone, a crash or a hang.
//
// Some hundred flips by default; more with --flips 10000 --seed 7, and in one kind of place with --only "log lengths".
// The store is flip_store.h's, where bits are flipped is flip_places.h's, and a trial is flip_trial.h's.
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>

#include <gtest/gtest.h>

#include "tests/cache_store/flip_places.h"
#include "tests/cache_store/flip_store.h"
#include "tests/cache_store/flip_trial.h"

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;
using testing::build_store;
using testing::copy_with;
using testing::Ending;
using testing::Flipper;
using testing::FlipPlan;
using testing::judge;
using testing::kOutcomes;
using testing::make_flip_plan;
using testing::Outcome;
using testing::outcome_name;
using testing::ScratchDirectory;
using testing::Verdict;

std::uint64_t flips_wanted = 300;
std::uint64_t first_seed = 1;
std::string only_kind;

constexpr const char* kMemory = "/dev/shm";

void flip_many(Ending ending, std::uint64_t flips, std::uint64_t seed, const std::string& only = only_kind) {
  if (access(kMemory, W_OK) == 0) setenv("TMPDIR", kMemory, 0);
  ScratchDirectory scratch;
  const std::string original = scratch.store();
  const std::string copy = (scratch.path() / "copy").string();
  const std::string errors = (scratch.path() / "errors").string();
  const FlipPlan plan = make_flip_plan();
  ASSERT_NO_FATAL_FAILURE(build_store(original, plan, ending));
  for (const auto mode : {RocksDbOptions::Mode::kRead, RocksDbOptions::Mode::kWrite}) {
    copy_with(original, copy, {}, mode);
    const Verdict untouched = judge(copy, plan, mode, errors);
    ASSERT_EQ(untouched.outcome, Outcome::kRight) << untouched.why;
  }
  const Flipper flipper(original, only);
  for (const char* kind : {"manifest", "manifest lengths", "sst", "blob", "CURRENT", "finchkv.store", "log"}) {
    const bool wanted = ending != Ending::kFlushed || std::strcmp(kind, "log") != 0;
    ASSERT_TRUE(flipper.has(kind) == wanted || !only.empty()) << kind;
  }
  std::map<std::string, std::array<std::uint64_t, kOutcomes>> table;
  std::string failures;
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < flips; ++i) {
    const auto [kind, flip] = flipper.next(random);
    const auto mode = random() % 4 == 0 ? RocksDbOptions::Mode::kWrite : RocksDbOptions::Mode::kRead;
    copy_with(original, copy, flip, mode);
    const Verdict verdict = judge(copy, plan, mode, errors);
    ++table[kind][static_cast<std::size_t>(verdict.outcome)];
    if (verdict.outcome <= Outcome::kDetected) continue;
    failures += std::string(outcome_name(verdict.outcome)) + ": bit " + std::to_string(flip.bit) + " of byte " +
                std::to_string(flip.byte) + " of " + flip.file + " (" +
                std::to_string(fs::file_size(fs::path(original) / flip.file)) + " bytes), opened for " +
                (mode == RocksDbOptions::Mode::kRead ? "reading" : "writing") + ": " + verdict.why + "\n";
  }
  for (const auto& [kind, counts] : table) {
    std::printf("%-16s %8llu bytes:", kind.c_str(), static_cast<unsigned long long>(flipper.bytes_of(kind)));
    for (std::size_t o = 0; o < kOutcomes; ++o) {
      if (counts[o] == 0) continue;
      std::printf("  %s %llu", outcome_name(static_cast<Outcome>(o)).data(),
                  static_cast<unsigned long long>(counts[o]));
    }
    std::printf("\n");
  }
  if (!failures.empty()) ADD_FAILURE() << failures;
}

TEST(RocksDbBitFlip, OfAStoreThatWasClosed) { flip_many(Ending::kClosed, (flips_wanted + 2) / 3, first_seed); }

TEST(RocksDbBitFlip, OfAStoreWhoseProcessWasKilled) {
  flip_many(Ending::kKilled, (flips_wanted + 1) / 3, first_seed + 1);
}

TEST(RocksDbBitFlip, OfAStoreThatWasFlushed) { flip_many(Ending::kFlushed, flips_wanted / 3, first_seed + 2); }

// Few bytes, and where damage looks most like the torn end of a crash: also in a log that another one follows.
TEST(RocksDbBitFlip, OfTheLengthsInTheLogs) { flip_many(Ending::kClosed, flips_wanted, first_seed + 3, "log lengths"); }

}  // namespace
}  // namespace finchkv::cache_store

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--flips") finchkv::cache_store::flips_wanted = std::strtoull(argv[i + 1], nullptr, 10);
    if (flag == "--seed") finchkv::cache_store::first_seed = std::strtoull(argv[i + 1], nullptr, 10);
    if (flag == "--only") finchkv::cache_store::only_kind = argv[i + 1];
  }
  return RUN_ALL_TESTS();
}
