// One worker: what a request gives beside others is what it gives alone; cancelling, stopping, memory that runs out.
#include "engine/worker.h"

#include <gtest/gtest.h>

#include "tests/engine/worker_fixture.h"

namespace finchkv::engine {
namespace {

using compressor::ReadResult;
using model::Answer;

std::string device_name(const ::testing::TestParamInfo<const char*>& on) { return on.param; }

class WorkerTest : public WorkerFixture, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override { open(GetParam()); }

  std::unique_ptr<Worker> worker(const WorkerOptions& options = {}, std::size_t memory_limit = 0) {
    constexpr auto kF32 = kernels::NumericClass::kReference;
    auto made = std::string(GetParam()) == "cpu"
                    ? kernels::make_cpu_device({.numeric_class = kF32, .threads = 2, .memory_limit = memory_limit})
                    : kernels::make_cuda_device({.numeric_class = kF32, .threads = 2, .memory_limit = memory_limit});
    EXPECT_TRUE(made.is_ok()) << made.status().to_string();
    device = std::shared_ptr<kernels::Device>(*std::move(made));
    auto replica = model_->replica(device);
    EXPECT_TRUE(replica.is_ok()) << replica.status().to_string();
    // What a device keeps after its first loads belongs to it like its weights.
    for (int i = 0; i < 4; ++i) {
      EXPECT_TRUE(model::DecodeContext::from_set(**replica, set_alone(0), 1).is_ok());
    }
    EXPECT_TRUE(device->synchronize().is_ok());
    free_after_loading = device->free_memory();
    return std::make_unique<Worker>(*std::move(replica), &model_->tokenizer(), options);
  }

  std::shared_ptr<kernels::Device> device;  // the worker's
  std::size_t free_after_loading = 0;
};

TEST_P(WorkerTest, EveryRequestGetsWhatItGetsAlone) {
  constexpr std::size_t kCount = 12;
  std::vector<KvSet> sets;
  for (std::size_t i = 0; i < kCount; ++i) sets.push_back(set_alone(i));
  // Sequences fewer than answers, rows fewer than documents: all must queue and join.
  const auto w = worker({.reading = {.rows = 120}, .sequences = 5, .steps_per_pass = 2});
  std::vector<Awaited<ReadResult>> reads(kCount);
  std::vector<Awaited<Answer>> answers(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    w->read(read_job(i, reads[i]));
    w->generate(generate_job(i, sets[i], answers[i]));
  }
  EXPECT_GT(w->outstanding_tokens(), 0);
  for (std::size_t i = 0; i < kCount; ++i) {
    const auto read = reads[i].future.get();
    ASSERT_TRUE(read.is_ok()) << read.status().to_string();
    EXPECT_TRUE(testing::bytes_of(read->set) == testing::bytes_of(sets[i])) << i;
    const auto answer = answers[i].future.get();
    ASSERT_TRUE(answer.is_ok()) << answer.status().to_string();
    EXPECT_EQ(answer->tokens, answer_alone(i, sets[i])) << i;
  }
  EXPECT_EQ(w->outstanding_tokens(), 0);
}

TEST_P(WorkerTest, AnAnswerMayAskForTheNext) {
  const auto w = worker();
  const KvSet set = set_alone(1);
  Awaited<ReadResult> read;
  Awaited<Answer> second;
  Awaited<Answer> unused;
  GenerateJob first = generate_job(1, set, unused);
  first.done = [&](Result<Answer> answer) {
    EXPECT_TRUE(answer.is_ok());
    w->generate(generate_job(2, set, second));
    w->read(read_job(3, read));
  };
  w->generate(std::move(first));
  EXPECT_TRUE(second.future.get().is_ok());
  EXPECT_TRUE(read.future.get().is_ok());
}

TEST_P(WorkerTest, WhatIsWrongEndsTheJobAlone) {
  const auto w = worker();
  const KvSet set = set_alone(1);
  Awaited<Answer> empty, no_room, failing, fine;
  Awaited<ReadResult> outside;
  GenerateJob job = generate_job(1, set, empty);
  job.prompt.clear();
  w->generate(std::move(job));
  job = generate_job(1, set, no_room);
  job.context = [&set](const model::Transformer& on) { return model::DecodeContext::from_set(on, set, 1); };
  w->generate(std::move(job));
  job = generate_job(1, set, failing);
  job.context = [](const model::Transformer&) -> Result<model::DecodeContext> {
    return Status::corrupt("a damaged entry");
  };
  w->generate(std::move(job));
  const std::vector<model::TokenId> ids = {1, 2, 99999};
  compressor::ReadJob read = read_job(1, outside);
  read.plan.document = ids;
  w->read(std::move(read));
  w->generate(generate_job(1, set, fine));
  EXPECT_EQ(empty.future.get().status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(no_room.future.get().status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(failing.future.get().status().message(), "a damaged entry");
  EXPECT_EQ(outside.future.get().status().code(), StatusCode::kInvalidArgument);
  const auto answer = fine.future.get();
  ASSERT_TRUE(answer.is_ok()) << answer.status().to_string();
  EXPECT_EQ(answer->tokens, answer_alone(1, set));
}

TEST_P(WorkerTest, CancellingEndsOneJob) {
  const auto w = worker({.reading = {.rows = 60}});
  const KvSet set = set_alone(1);
  std::stop_source cancel;
  Awaited<Answer> cancelled, fine;
  Awaited<ReadResult> read_cancelled, read_fine;
  compressor::ReadJob read = read_job(4, read_cancelled);
  read.cancel = cancel.get_token();
  read.progress = [&](std::int64_t, std::int64_t) { return cancel.request_stop(); };  // in the middle
  w->read(std::move(read));
  w->read(read_job(5, read_fine));
  GenerateJob job = generate_job(16, set, cancelled);
  job.cancel = cancel.get_token();
  const auto result = read_cancelled.future.get();
  EXPECT_EQ(result.status().code(), StatusCode::kUnavailable);
  w->generate(std::move(job));
  w->generate(generate_job(2, set, fine));
  EXPECT_EQ(cancelled.future.get().status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(fine.future.get().is_ok());
  EXPECT_TRUE(read_fine.future.get().is_ok());
}

TEST_P(WorkerTest, StoppingEndsEverything) {
  auto w = worker({.reading = {.rows = 30}, .sequences = 2});
  const KvSet set = set_alone(1);
  std::vector<Awaited<ReadResult>> reads(6);
  std::vector<Awaited<Answer>> answers(6);
  for (std::size_t i = 0; i < reads.size(); ++i) {
    w->read(read_job(i, reads[i]));
    w->generate(generate_job(16, set, answers[i]));
  }
  w->stop();
  const auto ended = [](const Status& status) {
    return status.is_ok() || status.code() == StatusCode::kUnavailable;  // done before, or ended
  };
  int unavailable = 0;
  for (auto& read : reads) {
    const auto result = read.future.get();
    EXPECT_TRUE(ended(result.status())) << result.status().to_string();
    unavailable += result.is_ok() ? 0 : 1;
  }
  for (auto& answer : answers) EXPECT_TRUE(ended(answer.future.get().status()));
  EXPECT_GT(unavailable, 0);
  Awaited<ReadResult> late;
  Awaited<Answer> late_answer;
  w->read(read_job(0, late));
  w->generate(generate_job(0, set, late_answer));
  EXPECT_EQ(late.future.get().status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(late_answer.future.get().status().code(), StatusCode::kUnavailable);
  w->stop();  // again: nothing
}

// Room for one answer's cache at a time, and hardly for a document beside it: all take turns. What passes over
// documents left goes back when an answer needs it.
TEST_P(WorkerTest, ShortMemoryMakesJobsWait) {
  constexpr std::size_t kPlenty = std::size_t{1} << 30;
  std::size_t weights = 0;
  {
    const auto measured = worker({}, kPlenty);
    weights = kPlenty - free_after_loading;
  }
  const KvSet set = set_alone(1);
  constexpr std::size_t kRoom = 1'600'000;
  const auto w = worker({.reading = {.rows = 8192, .spare_bytes = 0}}, weights + kRoom);
  constexpr std::size_t kCount = 6;
  std::vector<Awaited<ReadResult>> reads(kCount);
  std::vector<Awaited<Answer>> answers(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    GenerateJob job = generate_job(i, set, answers[i]);
    job.context = [&set](const model::Transformer& on) { return model::DecodeContext::from_set(on, set, 900); };
    w->generate(std::move(job));
    w->read(read_job(i, reads[i]));
  }
  for (std::size_t i = 0; i < kCount; ++i) {
    const auto answer = answers[i].future.get();
    ASSERT_TRUE(answer.is_ok()) << answer.status().to_string();
    EXPECT_EQ(answer->tokens, answer_alone(i, set)) << i;
    const auto read = reads[i].future.get();
    ASSERT_TRUE(read.is_ok()) << read.status().to_string();
    EXPECT_TRUE(testing::bytes_of(read->set) == testing::bytes_of(set_alone(i))) << i;
  }
  const auto answer_with_room_for = [&](std::int64_t entries) {
    Awaited<Answer> awaited;
    GenerateJob job = generate_job(0, set, awaited);
    job.context = [&set, entries](const model::Transformer& on) {
      return model::DecodeContext::from_set(on, set, entries);
    };
    w->generate(std::move(job));
    return awaited.future.get();
  };
  const model::ModelConfig& c = model_->config();
  const auto all = static_cast<std::int64_t>(kRoom / sizeof(float)) / (2 * c.n_layers * c.n_kv_heads * c.head_dim);
  // A prompt's activations and a step's tables need the rest; a GPU's are larger.
  const auto alone = answer_with_room_for(all - all / (std::string(GetParam()) == "cuda" ? 4 : 12));
  ASSERT_TRUE(alone.is_ok()) << alone.status().to_string();
  EXPECT_EQ(alone->tokens, answer_alone(0, set));
  EXPECT_EQ(answer_with_room_for(all + 1).status().code(), StatusCode::kResourceExhausted);
}

INSTANTIATE_TEST_SUITE_P(On, WorkerTest, ::testing::Values("cpu", "cuda"), device_name);

}  // namespace
}  // namespace finchkv::engine
