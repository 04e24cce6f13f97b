#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

namespace finchkv {
namespace {

class ThreadPools : public ::testing::TestWithParam<int> {};

TEST_P(ThreadPools, RunsEveryTaskOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.n_threads(), GetParam());
  for (const std::int64_t n : {0, 1, 2, 3, 7, 1000, 100000}) {
    std::vector<std::atomic<int>> done(static_cast<std::size_t>(n));
    pool.run(n, [&](std::int64_t i, int) { done[static_cast<std::size_t>(i)].fetch_add(1); });
    for (const auto& d : done) ASSERT_EQ(d.load(), 1);
  }
  pool.run(-5, [](std::int64_t, int) { FAIL() << "there are no tasks"; });
}

TEST_P(ThreadPools, WorkerNumbersAreExclusive) {
  ThreadPool pool(GetParam());
  std::vector<std::atomic<int>> busy(static_cast<std::size_t>(GetParam()));
  std::atomic<int> wrong{0};
  for (int round = 0; round < 100; ++round) {
    pool.run(200, [&](std::int64_t, int worker) {
      if (worker < 0 || worker >= pool.n_threads()) {
        wrong.fetch_add(1);
        return;
      }
      auto& mine = busy[static_cast<std::size_t>(worker)];
      if (mine.fetch_add(1) != 0) wrong.fetch_add(1);  // two tasks at once with one number would share scratch
      mine.fetch_sub(1);
    });
  }
  EXPECT_EQ(wrong.load(), 0);
}

TEST_P(ThreadPools, SeesWhatWasWrittenBeforeAndShowsWhatWasWrittenInside) {
  ThreadPool pool(GetParam());
  std::vector<std::int64_t> a(5000);
  std::vector<std::int64_t> b(5000);
  for (int round = 0; round < 200; ++round) {
    std::iota(a.begin(), a.end(), round);  // plain memory: the region itself must order it
    pool.run(50, [&](std::int64_t task, int) {
      for (std::int64_t i = task * 100; i < (task + 1) * 100; ++i) {
        b[static_cast<std::size_t>(i)] = 2 * a[static_cast<std::size_t>(i)];
      }
    });
    for (std::size_t i = 0; i < b.size(); ++i) ASSERT_EQ(b[i], 2 * (round + static_cast<std::int64_t>(i)));
  }
}

TEST_P(ThreadPools, NestedRunsAreInline) {
  ThreadPool pool(GetParam());
  std::atomic<std::int64_t> inner{0};
  std::atomic<int> elsewhere{0};
  pool.run(20, [&](std::int64_t, int) {
    const auto self = std::this_thread::get_id();
    pool.run(10, [&](std::int64_t i, int) {
      inner.fetch_add(i);
      if (std::this_thread::get_id() != self) elsewhere.fetch_add(1);
    });
  });
  EXPECT_EQ(inner.load(), 20 * 45);
  EXPECT_EQ(elsewhere.load(), 0);
}

/// A wake-up that got lost once in a million regions would hang here.
TEST_P(ThreadPools, MillionsOfTinyRegions) {
  ThreadPool pool(GetParam());
  std::vector<std::int64_t> counts(4, 0);
  const std::function<void(std::int64_t, int)> task = [&](std::int64_t i, int) {
    ++counts[static_cast<std::size_t>(i)];  // one task, one counter: no two threads write it in a region
  };
  // On a busy machine, or with more threads than processors, a region waits for the scheduler: time ends it then.
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(4);
  std::int64_t regions = 0;
  while (regions < 3'000'000 && std::chrono::steady_clock::now() < until) {
    for (int r = 0; r < 100; ++r) pool.run(4, task);
    regions += 100;
  }
  RecordProperty("regions", std::to_string(regions));
  for (const std::int64_t c : counts) EXPECT_EQ(c, regions);
}

TEST_P(ThreadPools, WakesFromSleep) {
  ThreadPool pool(GetParam());
  std::atomic<int> done{0};
  for (int r = 0; r < 50; ++r) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than the workers spin
    pool.run(8, [&](std::int64_t, int) { done.fetch_add(1); });
  }
  EXPECT_EQ(done.load(), 50 * 8);
}

TEST_P(ThreadPools, SeveralCallersTakeTurns) {
  ThreadPool pool(GetParam());
  std::atomic<std::int64_t> total{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int r = 0; r < 500; ++r) pool.run(10, [&](std::int64_t i, int) { total.fetch_add(i); });
    });
  }
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(total.load(), 4 * 500 * 45);
}

TEST_P(ThreadPools, WhatATaskThrowsReachesTheCaller) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(pool.run(100,
                          [](std::int64_t i, int) {
                            if (i == 40) throw std::runtime_error("task 40");
                          }),
                 std::runtime_error);
    std::atomic<int> done{0};
    pool.run(100, [&](std::int64_t, int) { ++done; });
    EXPECT_EQ(done.load(), 100) << "the pool works on after a failure";
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPools, ::testing::Values(1, 2, 7));

TEST(ThreadPool, ZeroMeansTheProcessorsOfThisProcess) {
  const ThreadPool pool;
  EXPECT_EQ(pool.n_threads(), usable_processors());
  EXPECT_GE(pool.n_threads(), 1);
}

TEST(UsableProcessors, AreThoseOfTheThreadsAffinity) {
  cpu_set_t all;
  CPU_ZERO(&all);
  ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
  EXPECT_EQ(usable_processors(), CPU_COUNT(&all));
  int first = 0;
  while (!CPU_ISSET(first, &all)) ++first;
  std::thread([first] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(usable_processors(), 1);
    EXPECT_EQ(ThreadPool().n_threads(), 1);
  }).join();
}

TEST(ThreadPool, StartsAndStopsQuickly) {
  for (int i = 0; i < 200; ++i) ThreadPool pool(4);
}

}  // namespace
}  // namespace finchkv
