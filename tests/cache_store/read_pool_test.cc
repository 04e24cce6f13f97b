// How many threads read entries.
#include "cache_store/read_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

#include "base/thread_pool.h"

namespace finchkv::cache_store {
namespace {

TEST(ReadPool, UsesTheProcessorsThatItMay) {
  const int there = usable_processors();
  EXPECT_GE(ReadPool::usual_threads(), 2U);
  EXPECT_LE(ReadPool::usual_threads(), 15U);
  if (there > 3 && there <= 16) {
    EXPECT_EQ(ReadPool::usual_threads(), static_cast<std::size_t>(there - 1));
  }
  std::thread([] {
    cpu_set_t all, one;
    CPU_ZERO(&all);
    CPU_ZERO(&one);
    ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
    int first = 0;
    while (!CPU_ISSET(first, &all)) ++first;
    CPU_SET(first, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(ReadPool::usual_threads(), 2U);
  }).join();
}

}  // namespace
}  // namespace finchkv::cache_store
