// A model, documents and prompts for workers, and what each request gives alone.
#pragma once

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "engine/worker_pool.h"
#include "tests/compressor/plain_finch.h"
#include "tests/golden.h"

namespace finchkv::engine {

/// A promise that a callback keeps.
template <typename T>
struct Awaited {
  std::shared_ptr<std::promise<Result<T>>> promise = std::make_shared<std::promise<Result<T>>>();
  std::future<Result<T>> future = promise->get_future();
  [[nodiscard]] std::function<void(Result<T>)> done() const {
    return [promise = promise](Result<T> result) { promise->set_value(std::move(result)); };
  }
};

class WorkerFixture : public ::testing::Test {
 protected:
  void open(const std::string& kind) {
    FINCHKV_REQUIRE_DEVICE(device, kind, kernels::NumericClass::kReference);
    model_ = testing::load_model(testing::data_path("tiny-llama/model.gguf"), device);
    ASSERT_NE(model_, nullptr);
    const auto json = nlohmann::json::parse(testing::read_file(testing::data_path("tiny-llama/golden.json")));
    document = json["doc"].get<std::vector<model::TokenId>>();
    prompt = json["prompt"].get<std::vector<model::TokenId>>();
  }

  /// The i-th request: other places, lengths, budgets.
  compressor::Plan plan(std::size_t i) {
    const std::size_t n = 20 + i * 31 % 120;
    compressor::ReadRequest request;
    request.document = std::span(document).subspan(i * 7 % (document.size() - n), n);
    request.prompt = prompt;
    request.policy = i % 2 == 0 ? "finch-span" : "finch";
    request.keep = 4 + static_cast<std::int64_t>(i * 3 % 20);
    request.chunk = 15 + static_cast<std::int64_t>(i * 11 % 40);
    const auto made = compressor::resolve_plan(request, model_->config());
    EXPECT_TRUE(made.is_ok()) << made.status().to_string();
    return *made;
  }
  KvSet set_alone(std::size_t i) {
    auto read = compressor::read_document(plan(i), *model_->transformer());
    EXPECT_TRUE(read.is_ok()) << read.status().to_string();
    return std::move(read->set);
  }
  [[nodiscard]] std::vector<model::TokenId> prompt_of(std::size_t i) const {
    return {prompt.begin(), prompt.begin() + 1 + static_cast<std::ptrdiff_t>(i % prompt.size())};
  }
  /// Sampled, so that a mix-up of generators or logits shows.
  static model::GenerateOptions options(std::size_t i) {
    model::GenerateOptions made;
    made.max_tokens = 1 + static_cast<std::int64_t>(i * 5 % 17);
    made.sampler = {.temperature = i % 3 == 0 ? 0.0F : 1.0F, .top_p = 1.0F, .seed = i};
    return made;
  }
  std::vector<model::TokenId> answer_alone(std::size_t i, const KvSet& set) {
    const auto p = prompt_of(i);
    const auto o = options(i);
    auto context =
        model::DecodeContext::from_set(*model_->transformer(), set, static_cast<std::int64_t>(p.size()) + o.max_tokens);
    EXPECT_TRUE(context.is_ok()) << context.status().to_string();
    const auto answer = model::generate(*model_->transformer(), &model_->tokenizer(), *context, p, o);
    EXPECT_TRUE(answer.is_ok()) << answer.status().to_string();
    return answer->tokens;
  }

  compressor::ReadJob read_job(std::size_t i, const Awaited<compressor::ReadResult>& to) {
    compressor::ReadJob job;
    job.plan = plan(i);
    job.done = to.done();
    return job;
  }
  GenerateJob generate_job(std::size_t i, const KvSet& set, const Awaited<model::Answer>& to) {
    GenerateJob job;
    job.prompt = prompt_of(i);
    job.options = options(i);
    const auto room = static_cast<std::int64_t>(job.prompt.size()) + job.options.max_tokens;
    job.context = [set, room](const model::Transformer& on) { return model::DecodeContext::from_set(on, set, room); };
    job.done = to.done();
    return job;
  }

  std::unique_ptr<model::Model> model_;
  std::vector<model::TokenId> document, prompt;
};

}  // namespace finchkv::engine
