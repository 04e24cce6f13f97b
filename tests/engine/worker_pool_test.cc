// Two devices, requests from many threads: each gets what it gets alone, and both devices are used.
#include "engine/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/engine/worker_fixture.h"

namespace finchkv::engine {
namespace {

using compressor::ReadResult;
using model::Answer;

class WorkerPoolTest : public WorkerFixture {
 protected:
  void SetUp() override { open("cpu"); }
  std::unique_ptr<WorkerPool> pool(std::size_t devices) {
    std::vector<std::shared_ptr<kernels::Device>> on;
    for (std::size_t i = 0; i < devices; ++i) on.push_back(testing::cpu(kernels::NumericClass::kReference, 1));
    auto made = WorkerPool::open(*model_, std::move(on), {.reading = {.rows = 200}, .sequences = 3});
    EXPECT_TRUE(made.is_ok()) << made.status().to_string();
    return *std::move(made);
  }
};

TEST_F(WorkerPoolTest, ThreadsGetWhatTheyWouldGetAlone) {
  constexpr std::size_t kThreads = 4, kEach = 5;
  std::vector<KvSet> sets;
  std::vector<std::string> bytes;
  std::vector<std::vector<model::TokenId>> wanted;
  for (std::size_t i = 0; i < kThreads * kEach; ++i) {
    sets.push_back(set_alone(i));
    bytes.push_back(testing::bytes_of(sets[i]));
    wanted.push_back(answer_alone(i, sets[i]));
  }
  const auto workers = pool(2);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = t * kEach; i < (t + 1) * kEach; ++i) {
        Awaited<ReadResult> read;
        Awaited<Answer> answer;
        workers->read(read_job(i, read));
        workers->generate(generate_job(i, sets[i], answer));
        const auto set = read.future.get();
        if (!set.is_ok() || testing::bytes_of(set->set) != bytes[i]) ++wrong;
        const auto said = answer.future.get();
        if (!said.is_ok() || said->tokens != wanted[i]) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST_F(WorkerPoolTest, AJobGoesToTheLeastBusyDevice) {
  const auto workers = pool(2);
  ASSERT_EQ(workers->size(), 2U);
  const KvSet set = set_alone(1);
  // The first worker is held inside a callback until the second has been given its job.
  std::promise<void> held, go;
  Awaited<Answer> first, second;
  GenerateJob job = generate_job(1, set, first);
  const auto make = job.context;
  job.context = [&, make](const model::Transformer& on) {
    held.set_value();
    go.get_future().wait();
    return make(on);
  };
  workers->generate(std::move(job));
  held.get_future().wait();
  EXPECT_GT(workers->workers()[0]->outstanding_tokens(), 0);
  workers->generate(generate_job(2, set, second));
  EXPECT_TRUE(second.future.get().is_ok()) << "it waited behind the busy one";
  EXPECT_GT(workers->workers()[0]->outstanding_tokens(), 0);
  go.set_value();
  EXPECT_TRUE(first.future.get().is_ok());
}

TEST_F(WorkerPoolTest, StoppingWhileThreadsAsk) {
  const auto workers = pool(2);
  std::atomic<int> ended{0}, other{0};
  std::atomic<bool> begun{false};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 30; ++i) {
        Awaited<ReadResult> read;
        workers->read(read_job(t, read));
        const auto result = read.future.get();
        begun = true;
        if (result.is_ok() || result.status().code() == StatusCode::kUnavailable)
          ++ended;
        else
          ++other;
      }
    });
  }
  while (!begun) std::this_thread::yield();
  workers->stop();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(ended.load(), 90);
  EXPECT_EQ(other.load(), 0);
}

TEST_F(WorkerPoolTest, NoDeviceIsAnError) {
  EXPECT_EQ(WorkerPool::open(*model_, {}).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace finchkv::engine
