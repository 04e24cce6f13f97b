// RestGate: passers go side by side, a rest has nobody inside, and a stream of passers cannot starve it.
#include "cache_store/rest_gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

namespace finchkv::cache_store {
namespace {

TEST(RestGate, ManyPassAtOnce) {
  RestGate gate;
  const RestGate::Pass first(gate);
  auto second = std::async(std::launch::async, [&gate] { const RestGate::Pass pass(gate); });
  EXPECT_EQ(second.wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

TEST(RestGate, NobodyIsInsideDuringARest) {
  RestGate gate;
  std::atomic<int> inside = 0;
  std::atomic<bool> ending = false;
  std::vector<std::thread> passers;
  for (int i = 0; i < 4; ++i) {
    passers.emplace_back([&] {
      while (!ending) {
        const RestGate::Pass pass(gate);
        ++inside;
        std::this_thread::yield();
        --inside;
      }
    });
  }
  std::vector<std::thread> resters;
  std::atomic<int> resting = 0;
  for (int i = 0; i < 2; ++i) {
    resters.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {  // ends only if passers do not starve it
        gate.while_resting([&] {
          EXPECT_EQ(++resting, 1);
          EXPECT_EQ(inside, 0);
          std::this_thread::yield();
          EXPECT_EQ(inside, 0);
          --resting;
        });
      }
    });
  }
  for (std::thread& thread : resters) thread.join();
  ending = true;
  for (std::thread& thread : passers) thread.join();
}

TEST(RestGate, ARestEndsWhenItsCallThrows) {
  RestGate gate;
  EXPECT_THROW(gate.while_resting([] { throw 1; }), int);
  bool rested = false;
  gate.while_resting([&rested] { rested = true; });
  const RestGate::Pass pass(gate);
  EXPECT_TRUE(rested);
}

}  // namespace
}  // namespace finchkv::cache_store
