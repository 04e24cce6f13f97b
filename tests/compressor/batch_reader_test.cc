// Documents read together: the bytes that each gets alone, failures that stay their own, and memory that runs out.
#include "compressor/batch_reader.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>

#include "tests/compressor/plain_finch.h"
#include "tests/golden.h"

namespace finchkv::compressor {
namespace {

using kernels::Tensor;
using model::TokenId;

constexpr std::size_t kPlenty = std::size_t{1} << 30;

std::string device_name(const ::testing::TestParamInfo<const char*>& on) { return on.param; }

std::shared_ptr<kernels::Device> limited_device(const std::string& kind, std::size_t limit) {
  constexpr auto kF32 = kernels::NumericClass::kReference;
  auto made = kind == "cpu" ? kernels::make_cpu_device({.numeric_class = kF32, .threads = 2, .memory_limit = limit})
                            : kernels::make_cuda_device({.numeric_class = kF32, .threads = 2, .memory_limit = limit});
  return made.is_ok() ? std::shared_ptr<kernels::Device>(*std::move(made)) : nullptr;
}

class BatchReaderTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { open(kPlenty); }

  void open(std::size_t limit) {
    device = limited_device(GetParam(), limit);
    if (device == nullptr) GTEST_SKIP() << "there is no usable NVIDIA GPU here";
    model_ = testing::load_model(testing::data_path("tiny-qwen3/model.gguf"), device);
    ASSERT_NE(model_, nullptr);
    const auto json = nlohmann::json::parse(testing::read_file(testing::data_path("tiny-qwen3/golden.json")));
    document = json["doc"].get<std::vector<TokenId>>();
    prompt = json["prompt"].get<std::vector<TokenId>>();
  }

  /// The i-th of a mixed lot: other lengths, places, chunks, budgets and policies.
  Plan plan(std::size_t i) {
    static const std::vector<std::string> policies = {"finch-span", "finch", "streaming", "finch-head", "random"};
    const std::size_t n = 1 + (i * 37 + 60) % 150, first = i * 11 % (document.size() - n);
    return plan(n, first, 1 + static_cast<std::int64_t>(i * 5 % 23), 7 + static_cast<std::int64_t>(i * 13 % 50),
                policies[i % policies.size()], i % 7 == 3 ? "whole" : "chunks");
  }
  Plan plan(std::size_t n, std::size_t first, std::int64_t keep, std::int64_t chunk, const std::string& policy,
            const std::string& reader = "chunks") {
    ReadRequest request;
    request.document = std::span(document).subspan(first, n);
    request.prompt = prompt;
    request.reader = reader;
    request.policy = policy;
    request.keep = keep;
    request.chunk = chunk;
    request.seed = 3;
    const auto made = resolve_plan(request, model_->config());
    EXPECT_TRUE(made.is_ok()) << made.status().to_string();
    return *made;
  }

  ReadResult alone(const Plan& p) {
    auto result = read_document(p, *model_->transformer());
    EXPECT_TRUE(result.is_ok()) << result.status().to_string();
    return *std::move(result);
  }
  void same_as_alone(const Plan& p, const ReadResult& got) {
    const ReadResult want = alone(p);
    EXPECT_TRUE(got.set.validate().is_ok()) << got.set.validate().to_string();
    EXPECT_TRUE(testing::bytes_of(got.set) == testing::bytes_of(want.set)) << p.document.size() << " tokens";
    EXPECT_EQ(got.kept_after_each_chunk, want.kept_after_each_chunk);
  }

  /// Adds a document whose result goes to results[name].
  ReadJob job(const Plan& p, int name) {
    ReadJob made;
    made.plan = p;
    made.done = [this, name](Result<ReadResult> result) {
      EXPECT_TRUE(results.emplace(name, std::move(result)).second) << "done() was called twice";
    };
    return made;
  }
  void run(BatchReader& reader) {
    while (reader.pass() == BatchReader::Outcome::kRan) {
    }
    EXPECT_TRUE(reader.idle());
  }

  std::shared_ptr<kernels::Device> device;
  std::unique_ptr<model::Model> model_;
  std::vector<TokenId> document, prompt;
  std::map<int, Result<ReadResult>> results;
};

TEST_P(BatchReaderTest, EveryDocumentGetsWhatItGetsAlone) {
  for (const std::size_t count : {1, 4, 16}) {
    for (const std::int64_t rows : {1, 150, 8192}) {
      SCOPED_TRACE(::testing::Message() << count << " documents, " << rows << " rows");
      std::vector<Plan> plans;
      for (std::size_t i = 0; i < count; ++i) plans.push_back(plan(i));
      std::map<std::size_t, ReadResult> got;
      read_documents(plans, *model_->transformer(), {.rows = rows}, [&](std::size_t i, Result<ReadResult> result) {
        ASSERT_TRUE(result.is_ok()) << result.status().to_string();
        EXPECT_TRUE(got.emplace(i, *std::move(result)).second);
      });
      ASSERT_EQ(got.size(), count);
      for (std::size_t i = 0; i < count; ++i) same_as_alone(plans[i], got.at(i));
    }
  }
}

TEST_P(BatchReaderTest, PassesAreSharedUpToTheRows) {
  const auto passes = [&](std::int64_t rows) {
    BatchReader reader(*model_->transformer(), {.rows = rows});
    results.clear();
    for (int i = 0; i < 6; ++i) reader.add(job(plan(60, 0, 5, 30, "finch"), i));
    int count = 0;
    while (reader.pass() == BatchReader::Outcome::kRan) ++count;
    EXPECT_EQ(results.size(), 6U);
    return count;
  };
  const auto part = 30 + static_cast<std::int64_t>(prompt.size());
  EXPECT_EQ(passes(6 * part), 2);
  EXPECT_EQ(passes(3 * part), 4);
  EXPECT_EQ(passes(3 * part - 1), 6);
  EXPECT_EQ(passes(1), 12);
}

TEST_P(BatchReaderTest, DocumentsJoinBetweenPasses) {
  BatchReader reader(*model_->transformer());
  const Plan first = plan(140, 0, 20, 30, "finch-span"), second = plan(50, 30, 8, 20, "finch-span");
  ReadJob leader = job(first, 0);
  leader.progress = [&](std::int64_t read, std::int64_t) {
    if (read == 60) reader.add(job(second, 1));  // from inside a pass
    return true;
  };
  reader.add(std::move(leader));
  run(reader);
  ASSERT_EQ(results.size(), 2U);
  same_as_alone(first, *results.at(0));
  same_as_alone(second, *results.at(1));
}

TEST_P(BatchReaderTest, AFailureIsTheDocumentsOwn) {
  BatchReader reader(*model_->transformer());
  const Plan good = plan(90, 5, 12, 30, "finch-span");
  std::vector<TokenId> damaged(document.begin(), document.begin() + 60);
  damaged[41] = 320;
  Plan outside = good;
  outside.document = damaged;
  std::stop_source cancel;
  ReadJob stopped = job(good, 1), cancelled = job(good, 2), late = job(good, 3);
  stopped.progress = [](std::int64_t read, std::int64_t) { return read < 60; };
  cancelled.cancel = cancel.get_token();
  cancelled.progress = [&](std::int64_t, std::int64_t) { return cancel.request_stop(); };
  late.cancel = cancel.get_token();
  reader.add(job(outside, 0));
  reader.add(std::move(stopped));
  reader.add(std::move(cancelled));
  reader.add(job(good, 4));
  while (results.count(2) == 0) ASSERT_EQ(reader.pass(), BatchReader::Outcome::kRan);
  reader.add(std::move(late));  // cancelled before it starts
  run(reader);
  ASSERT_EQ(results.size(), 5U);
  EXPECT_EQ(results.at(0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(results.at(0).status().message().find("320 at place 41"), std::string::npos);
  for (const int i : {1, 2, 3}) EXPECT_EQ(results.at(i).status().code(), StatusCode::kUnavailable) << i;
  ASSERT_TRUE(results.at(4).is_ok());
  same_as_alone(good, *results.at(4));
}

TEST_P(BatchReaderTest, StopEndsAll) {
  BatchReader reader(*model_->transformer(), {.rows = 100});
  for (int i = 0; i < 5; ++i) reader.add(job(plan(120, 0, 12, 40, "finch"), i));
  ASSERT_EQ(reader.pass(), BatchReader::Outcome::kRan);
  reader.stop(Status::unavailable("closing"));
  EXPECT_TRUE(reader.idle());
  ASSERT_EQ(results.size(), 5U);
  for (const auto& [i, result] : results) EXPECT_EQ(result.status().message(), "closing");
}

// All that is free is taken away in the middle of reading: the pass fails, and goes on with fewer documents.
TEST_P(BatchReaderTest, MemoryThatRunsOutMakesTheBatchSmaller) {
  std::vector<Plan> plans;
  for (std::size_t i = 0; i < 6; ++i) plans.push_back(plan(140, 10 * i, 60, 40, "finch-span"));
  Tensor hog;
  bool went_back = false;
  std::vector<std::int64_t> read_before(plans.size(), 0);
  BatchReader reader(*model_->transformer(), {.rows = 8192, .spare_bytes = 0});
  for (std::size_t i = 0; i < plans.size(); ++i) {
    ReadJob made = job(plans[i], static_cast<int>(i));
    made.progress = [&, i](std::int64_t read, std::int64_t) {
      if (read <= read_before[i]) went_back = true;
      read_before[i] = read;
      if (hog.empty()) {
        auto taken = device->empty(kernels::ElementType::kI32, {static_cast<std::int64_t>(device->free_memory() / 4)});
        EXPECT_TRUE(taken.is_ok()) << taken.status().to_string();
        if (taken.is_ok()) hog = *taken;
      }
      return true;
    };
    reader.add(std::move(made));
  }
  run(reader);
  EXPECT_TRUE(went_back);
  ASSERT_EQ(results.size(), plans.size());
  hog = {};
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const auto& result = results.at(static_cast<int>(i));
    ASSERT_TRUE(result.is_ok()) << result.status().to_string();
    same_as_alone(plans[i], *result);
  }
}

TEST_P(BatchReaderTest, ADocumentThatDoesNotFitAloneIsTold) {
  const std::size_t weights = kPlenty - device->free_memory();
  model_.reset();
  open(weights + 1000000);
  const Plan large = plan(300, 0, 280, 150, "finch"), small = plan(40, 0, 5, 20, "finch");
  BatchReader reader(*model_->transformer(), {.rows = 8192, .spare_bytes = 0});
  reader.add(job(small, 0));
  reader.add(job(large, 1));
  reader.add(job(small, 2));
  run(reader);
  ASSERT_EQ(results.size(), 3U);
  EXPECT_EQ(results.at(1).status().code(), StatusCode::kResourceExhausted);
  const std::string& told = results.at(1).status().message();
  EXPECT_NE(told.find("300 tokens"), std::string::npos) << told;
  EXPECT_NE(told.find("lower keep or chunk"), std::string::npos) << told;
  for (const int i : {0, 2}) {
    ASSERT_TRUE(results.at(i).is_ok()) << results.at(i).status().to_string();
    same_as_alone(small, *results.at(i));
  }
}

TEST_P(BatchReaderTest, ADocumentWaitsForMemoryThatMayCome) {
  const Plan p = plan(140, 0, 60, 40, "finch-span");
  const auto free = static_cast<std::int64_t>(device->free_memory());
  auto hog = device->empty(kernels::ElementType::kI32, {free / 4 - 1000});
  ASSERT_TRUE(hog.is_ok()) << hog.status().to_string();
  BatchReader reader(*model_->transformer(), {.rows = 8192, .spare_bytes = 0});
  reader.add(job(p, 0));
  EXPECT_EQ(reader.pass(/*memory_may_come=*/true), BatchReader::Outcome::kNoMemory);
  EXPECT_TRUE(results.empty());
  hog = Tensor();
  run(reader);
  ASSERT_EQ(results.size(), 1U);
  ASSERT_TRUE(results.at(0).is_ok()) << results.at(0).status().to_string();
  same_as_alone(p, *results.at(0));
}

INSTANTIATE_TEST_SUITE_P(On, BatchReaderTest, ::testing::Values("cpu", "cuda"), device_name);

}  // namespace
}  // namespace finchkv::compressor
