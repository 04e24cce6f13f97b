#include "cache_store/victim_heap.h"

#include <map>
#include <random>
#include <set>

#include <gtest/gtest.h>

namespace finchkv::cache_store {
namespace {

TEST(VictimHeap, GivesTheLowestUnderRandomInsertionsAndRemovals) {
  constexpr std::uint32_t kThings = 300;
  VictimHeap::Places places(kThings, VictimHeap::kNowhere);
  VictimHeap heap(places);
  std::map<std::uint32_t, std::uint64_t> ranks;
  std::multiset<std::uint64_t> sorted;
  std::mt19937 random(3);
  for (int step = 0; step < 20'000; ++step) {
    const std::uint32_t thing = random() % kThings;
    if (const auto it = ranks.find(thing); it != ranks.end()) {
      heap.remove(thing);
      sorted.erase(sorted.find(it->second));
      ranks.erase(it);
      EXPECT_EQ(places[thing], VictimHeap::kNowhere);
    } else {
      const std::uint64_t rank = random() % 50;  // many alike
      heap.insert(thing, rank);
      sorted.insert(rank);
      ranks[thing] = rank;
    }
    ASSERT_EQ(heap.empty(), sorted.empty());
    if (sorted.empty()) continue;
    ASSERT_EQ(heap.lowest_rank(), *sorted.begin());
    ASSERT_EQ(ranks.at(heap.lowest()), heap.lowest_rank());
  }
}

TEST(VictimHeap, TwoHeapsShareTheirPlaces) {
  VictimHeap::Places places(4, VictimHeap::kNowhere);
  VictimHeap odd(places), even(places);
  odd.insert(1, 20);
  odd.insert(3, 10);
  even.insert(0, 7);
  even.insert(2, 9);
  EXPECT_EQ(odd.lowest(), 3U);
  EXPECT_EQ(even.lowest(), 0U);
  odd.remove(3);
  EXPECT_EQ(odd.lowest(), 1U);
  EXPECT_EQ(even.lowest(), 0U);
  odd.remove(1);
  EXPECT_TRUE(odd.empty());
}

}  // namespace
}  // namespace finchkv::cache_store
