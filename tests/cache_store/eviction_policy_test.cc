#include "cache_store/eviction_policy.h"

#include <limits>

#include <gtest/gtest.h>

#include "bench/eviction_replay.h"

namespace finchkv::cache_store {
namespace {

constexpr std::uint64_t kMib = 1U << 20;
constexpr std::uint64_t kUnit = 65'536;  // of a rank: one ms per MiB

TEST(Gdsf, RankIsClockAndFrequencyTimesCostOverSize) {
  const auto policy = make_gdsf_policy();
  EXPECT_EQ(policy->rank({.bytes = 2 * kMib, .cost_ms = 10}, 0), 5 * kUnit);
  EXPECT_EQ(policy->rank({.bytes = 2 * kMib, .cost_ms = 10}, 1000), 5 * kUnit + 1000);
  EXPECT_EQ(policy->rank({.bytes = 2 * kMib, .cost_ms = 10, .hits = 2}, 0), 15 * kUnit);
  EXPECT_EQ(policy->rank({.bytes = 2 * kMib, .cost_ms = 10, .hits = 7}, 0), 40 * kUnit);
  EXPECT_EQ(policy->rank({.bytes = 2 * kMib, .cost_ms = 10, .hits = 1'000'000}, 0), 40 * kUnit);  // the cap
}

TEST(Gdsf, UnknownCostGrowsWithSize) {
  const auto policy = make_gdsf_policy();
  const auto rank = policy->rank({.bytes = kMib}, 0);
  EXPECT_EQ(rank, 100 * kUnit);
  EXPECT_EQ(policy->rank({.bytes = 64 * kMib}, 0), rank);
}

TEST(Gdsf, ExtremesStayInOrderAndDoNotWrap) {
  constexpr auto kMost = std::numeric_limits<std::uint64_t>::max();
  const auto policy = make_gdsf_policy();
  EXPECT_GE(policy->rank({.bytes = 1ULL << 50, .cost_ms = 1}, 0), 1U);  // above the clock, or it would go at once
  EXPECT_EQ(policy->rank({.bytes = 0, .cost_ms = kMost, .hits = kMost}, 0), std::uint64_t{1} << 40);
  EXPECT_EQ(policy->rank({.bytes = 0, .cost_ms = 1}, 0), policy->rank({.bytes = 4096, .cost_ms = 1}, 0));
  EXPECT_EQ(policy->rank({.bytes = 1, .cost_ms = 1}, kMost - 1), kMost);
}

TEST(Gdsf, AClockThatHasRunForYearsTellsCheapEntriesApart) {
  const auto policy = make_gdsf_policy();
  const std::uint64_t clock = std::uint64_t{1} << 62;
  EXPECT_LT(policy->rank({.bytes = 256 * kMib, .cost_ms = 1}, clock),
            policy->rank({.bytes = 256 * kMib, .cost_ms = 2}, clock));
}

TEST(Lru, RankIsTheLastUse) {
  EXPECT_EQ(make_lru_policy()->rank({.bytes = 1, .cost_ms = 9, .hits = 4, .last_used_unix_ms = 1234}, 77), 1234U);
}

// bench_eviction prints the whole table; this holds the default to its best-understood part: under every kind of trace
// it saves clearly more recomputing than LRU does in the same bytes.
TEST(Gdsf, SavesMoreRecomputingThanLru) {
  for (const double alpha : {0.8, 1.1}) {
    for (const double passages : {0.0, 0.5}) {
      bench::TraceOptions options;
      options.alpha = alpha;
      options.passages = passages;
      options.entries = 4000;
      options.requests = 60'000;
      const bench::Trace trace = bench::make_trace(options);
      for (const std::uint64_t parts : {30, 10}) {
        const auto lru = bench::replay(trace, make_lru_policy(), trace.bytes() / parts);
        const auto gdsf = bench::replay(trace, make_gdsf_policy(), trace.bytes() / parts);
        EXPECT_GT(lru.cost_rate, 0.1);
        EXPECT_GT(gdsf.cost_rate, lru.cost_rate + 0.1) << "alpha " << alpha << ", 1/" << parts << " of the bytes";
      }
    }
  }
}

}  // namespace
}  // namespace finchkv::cache_store
