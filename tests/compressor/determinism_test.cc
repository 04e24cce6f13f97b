// The reference class: a KvSet has the same bytes for any number of threads.
#include <gtest/gtest.h>

#include "compressor/reader.h"
#include "tests/compressor/plain_finch.h"
#include "tests/golden.h"

namespace finchkv::compressor {
namespace {

using model::TokenId;

std::string read_bytes(model::Model& model, std::span<const TokenId> document, std::span<const TokenId> prompt,
                       const std::string& policy, std::int64_t keep, std::int64_t chunk) {
  ReadRequest request;
  request.document = document;
  request.prompt = prompt;
  request.policy = policy;
  request.keep = keep;
  request.chunk = chunk;
  request.seed = 5;
  const auto plan = resolve_plan(request, model.config());
  EXPECT_TRUE(plan.is_ok()) << plan.status().to_string();
  if (!plan.is_ok()) return "";
  const auto result = read_document(*plan, *model.transformer());
  EXPECT_TRUE(result.is_ok()) << result.status().to_string();
  return result.is_ok() ? testing::bytes_of(result->set) : "";
}

class TinyDeterminism : public ::testing::TestWithParam<const char*> {};

TEST_P(TinyDeterminism, SameBytesForAnyNumberOfThreads) {
  const std::string path = testing::data_path(std::string(GetParam()) + "/model.gguf");
  const auto golden = testing::load_golden(GetParam());
  const auto document = golden.json["doc"].get<std::vector<TokenId>>();
  const auto prompt = golden.json["prompt"].get<std::vector<TokenId>>();
  std::map<std::string, std::string> first;
  for (const int threads : {1, 2, 7, 1}) {
    const auto model = testing::load_model(path, kernels::NumericClass::kReference, threads);
    ASSERT_NE(model, nullptr);
    for (const Policy* policy : all_policies()) {
      const std::string name(policy->name());
      const std::string bytes = read_bytes(*model, document, prompt, name, 48, 96);
      ASSERT_FALSE(bytes.empty());
      const auto [found, inserted] = first.emplace(name, bytes);
      EXPECT_TRUE(found->second == bytes) << name << " with " << threads << " threads";
    }
  }
  EXPECT_NE(first["finch"], first["streaming"]);
}

INSTANTIATE_TEST_SUITE_P(Models, TinyDeterminism, ::testing::Values("tiny-llama", "tiny-qwen2", "tiny-qwen3"));

TEST(SmolLm2Determinism, SameBytesForAnyNumberOfThreads) {
  FINCHKV_REQUIRE_SMOLLM2(path);
  const auto json = nlohmann::json::parse(testing::read_file(testing::data_path("smollm2.json")));
  auto document = json["doc"].get<std::vector<TokenId>>();
  const auto prompt = json["prompt"].get<std::vector<TokenId>>();
  document.resize(150);
  std::string first;
  for (const int threads : {1, 2, 7}) {
    const auto model = testing::load_model(path, kernels::NumericClass::kReference, threads);
    ASSERT_NE(model, nullptr);
    const std::string bytes = read_bytes(*model, document, prompt, "finch-span", 40, 64);
    ASSERT_FALSE(bytes.empty());
    if (first.empty()) first = bytes;
    EXPECT_TRUE(bytes == first) << threads << " threads";
  }
}

}  // namespace
}  // namespace finchkv::compressor
