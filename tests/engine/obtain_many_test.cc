// Many requests at once: found, read together, stored; what one of them suffers is its own.
#include "engine/obtain_many.h"

#include <gtest/gtest.h>

#include <map>

#include "cache_store/memory_store.h"
#include "tests/engine/worker_fixture.h"

namespace finchkv::engine {
namespace {

class ObtainManyTest : public WorkerFixture {
 protected:
  void SetUp() override {
    open("cpu");
    host = cache_store::make_memory_store();
    auto view = host->view({});
    ASSERT_TRUE(view.is_ok());
    store = *std::move(view);
    auto made = WorkerPool::open(*model_, {testing::cpu(kernels::NumericClass::kReference, 1)});
    ASSERT_TRUE(made.is_ok()) << made.status().to_string();
    pool = *std::move(made);
    calls.workers = [this]() -> Result<WorkerPool*> {
      ++asked_for_workers;
      return pool.get();
    };
    calls.done = [this](std::size_t i, Result<Obtained> result) {
      EXPECT_TRUE(results.emplace(i, std::move(result)).second) << "ended twice";
    };
  }

  void add(std::size_t first, std::size_t n, bool refresh = false) {
    Request request;
    request.document.assign(document.begin() + static_cast<std::ptrdiff_t>(first),
                            document.begin() + static_cast<std::ptrdiff_t>(first + n));
    request.prompt = prompt;
    request.keep = 16;
    request.chunk = 40;
    request.kv_dtype = DType::kF32;
    request.numeric = numeric;
    request.refresh = refresh;
    auto made = prepare(std::move(request), *model_, {});
    ASSERT_TRUE(made.is_ok()) << made.status().to_string();
    requests.push_back(*std::move(made));
  }
  void run(cache_store::Store* with) {
    results.clear();
    obtain_many(requests, *model_, with, calls);
    ASSERT_EQ(results.size(), requests.size());
  }
  const Obtained& got(std::size_t i) {
    EXPECT_TRUE(results.at(i).is_ok()) << results.at(i).status().to_string();
    return *results.at(i);
  }

  std::shared_ptr<cache_store::StoreHost> host;
  std::unique_ptr<cache_store::Store> store;
  std::unique_ptr<WorkerPool> pool;
  std::vector<std::unique_ptr<Prepared>> requests;
  ObtainManyCalls calls;
  std::map<std::size_t, Result<Obtained>> results;
  int asked_for_workers = 0;
  cache_store::NumericClass numeric = cache_store::NumericClass::kReference;
};

TEST_F(ObtainManyTest, AsObtainDoesForOne) {
  for (std::size_t i = 0; i < 9; ++i) add(i * 13, 60 + i * 7);
  std::int64_t last_read = 0, total = 0;
  calls.progress = [&](std::int64_t read, std::int64_t of) {
    EXPECT_GE(read, last_read);
    last_read = read;
    total = of;
  };
  run(store.get());
  EXPECT_EQ(asked_for_workers, 1);
  EXPECT_EQ(last_read, total);
  const auto fresh = cache_store::make_memory_store();
  const auto other = *fresh->view({});
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_FALSE(got(i).hit);
    EXPECT_GT(got(i).ms.compress, 0);
    const auto alone = obtain(*requests[i], *model_, other.get(), [] { return Status::ok(); }, {});
    ASSERT_TRUE(alone.is_ok()) << alone.status().to_string();
    EXPECT_EQ(got(i).id, alone->id);
    EXPECT_EQ(got(i).stored_bytes, alone->stored_bytes);
    EXPECT_TRUE(got(i).set.layers.empty()) << "what is in the store is not held as well";
    const auto stored = store->get(got(i).id);
    ASSERT_TRUE(stored.is_ok()) << stored.status().to_string();
    EXPECT_TRUE(testing::bytes_of(*stored) == testing::bytes_of(alone->set)) << i;
    EXPECT_TRUE(store->verify(got(i).id).is_ok());
  }
  run(store.get());
  EXPECT_EQ(asked_for_workers, 1) << "all are there: nothing is loaded to find them";
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_TRUE(got(i).hit);
    EXPECT_TRUE(got(i).set.layers.empty());
  }
}

// A worker that is held up, with what is given to it meanwhile.
class ObtainManyLimitsTest : public ObtainManyTest {
 protected:
  // The most documents under way at once, of six of 60 tokens and 16 entries each.
  std::size_t most_under_way(std::size_t workers, const ObtainManyLimits& limits) {
    const bool reference = numeric == cache_store::NumericClass::kReference;
    const auto arithmetic = reference ? kernels::NumericClass::kReference : kernels::NumericClass::kFast;
    std::vector<std::shared_ptr<kernels::Device>> devices;
    for (std::size_t i = 0; i < workers; ++i) devices.push_back(testing::cpu(arithmetic, 1));
    auto made = WorkerPool::open(*model_, std::move(devices));
    EXPECT_TRUE(made.is_ok()) << made.status().to_string();
    pool = *std::move(made);
    std::promise<void> go_on;
    const std::shared_future<void> may_go_on = go_on.get_future().share();
    std::vector<Awaited<model::Answer>> holds(workers);
    std::int64_t held = 0;
    for (std::size_t i = 0; i < workers; ++i) {
      GenerateJob hold;
      hold.prompt = prompt;
      hold.context = [may_go_on](const model::Transformer&) -> Result<model::DecodeContext> {
        may_go_on.wait();
        return Status::unavailable("it only held the worker up");
      };
      hold.done = holds[i].done();
      held += static_cast<std::int64_t>(hold.prompt.size()) + hold.options.max_tokens;
      pool->workers()[i]->generate(std::move(hold));
    }
    requests.clear();
    for (std::size_t i = 0; i < 6; ++i) add(i * 13, 60);
    const auto each = static_cast<std::int64_t>(60 + prompt.size());
    std::int64_t most = 0;
    int told = 0;
    calls.progress = [&](std::int64_t, std::int64_t) {
      std::int64_t outstanding = -held;
      for (const auto& worker : pool->workers()) outstanding += worker->outstanding_tokens();
      if (told < 8) most = std::max(most, outstanding);
      if (++told == 8) go_on.set_value();  // more often than there are documents: nothing more is given out
    };
    results.clear();
    obtain_many(requests, *model_, nullptr, calls, limits);
    for (std::size_t i = 0; i < requests.size(); ++i) EXPECT_FALSE(got(i).hit);
    EXPECT_EQ(most % each, 0);
    return static_cast<std::size_t>(most / each);
  }
  // Of 16 entries.
  [[nodiscard]] std::int64_t set_bytes(kernels::ElementType type = kernels::ElementType::kF32) const {
    const model::ModelConfig& c = model_->config();
    return 2 * c.n_layers * c.n_kv_heads * c.head_dim * 16 * static_cast<std::int64_t>(kernels::element_size(type));
  }
};

TEST_F(ObtainManyLimitsTest, EveryWorkerHasADocumentHoweverLarge) {
  EXPECT_EQ(most_under_way(1, {.bytes = 1}), 1U);
  EXPECT_EQ(most_under_way(3, {.bytes = 1}), 3U);
  EXPECT_EQ(most_under_way(3, {.documents = 1}), 3U);
}

TEST_F(ObtainManyLimitsTest, BytesAndDocumentsAreEachWorkers) {
  EXPECT_EQ(most_under_way(1, {.bytes = 2 * set_bytes()}), 2U);
  EXPECT_EQ(most_under_way(2, {.bytes = 2 * set_bytes()}), 4U);
  EXPECT_EQ(most_under_way(2, {.documents = 2}), 4U);
  EXPECT_EQ(most_under_way(1, {}), 6U);
}

TEST_F(ObtainManyLimitsTest, SetsCountAsTheyAre) {
  numeric = cache_store::NumericClass::kFast;
  const auto type = testing::cpu(kernels::NumericClass::kFast, 1)->kv_type();
  if (type != kernels::ElementType::kBF16) GTEST_SKIP() << "this processor has no bf16: sets are f32";
  EXPECT_EQ(most_under_way(1, {.bytes = 4 * set_bytes(type)}), 4U);
}

TEST_F(ObtainManyTest, TheSameEntryIsReadOnce) {
  add(0, 80);
  add(5, 80);
  add(0, 80);
  run(store.get());
  EXPECT_FALSE(got(0).hit);
  EXPECT_TRUE(got(2).hit);
  EXPECT_EQ(got(0).id, got(2).id);
  run(nullptr);
  EXPECT_FALSE(got(0).set.layers.empty());
  EXPECT_TRUE(testing::bytes_of(got(0).set) == testing::bytes_of(got(2).set));
  EXPECT_FALSE(got(0).hit) << "without a store nothing is found";
}

TEST_F(ObtainManyTest, WorkersThatCannotBeHadFailWhatMustBeRead) {
  add(0, 80);
  run(store.get());
  add(7, 80);
  add(9, 80);
  calls.workers = []() -> Result<WorkerPool*> { return Status::unavailable("there is no processor"); };
  run(store.get());
  EXPECT_TRUE(got(0).hit);
  for (const std::size_t i : {1, 2}) EXPECT_EQ(results.at(i).status().message(), "there is no processor");
}

TEST_F(ObtainManyTest, StoppedWorkersEndEveryRequest) {
  for (std::size_t i = 0; i < 4; ++i) add(i * 13, 60);
  pool->stop();
  run(store.get());
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(results.at(i).status().code(), StatusCode::kUnavailable);
}

TEST_F(ObtainManyTest, RefreshReplaces) {
  add(0, 80);
  run(store.get());
  requests.clear();
  add(0, 80, /*refresh=*/true);
  run(store.get());
  EXPECT_FALSE(got(0).hit);
  EXPECT_TRUE(store->verify(got(0).id).is_ok());
}

}  // namespace
}  // namespace finchkv::engine
