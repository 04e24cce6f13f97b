// What each policy keeps: ties, sinks and recency, seeds, everything.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "compressor/reader.h"
#include "tests/compressor/plain_finch.h"
#include "tests/golden.h"

namespace finchkv::compressor {
namespace {

using kernels::ElementType;
using kernels::Tensor;
using model::TokenId;

// A step whose prompt looks at every candidate alike, so that all scores are ties.
class Ties : public ::testing::TestWithParam<const char*> {};

TEST_P(Ties, GoToTheLowerIndex) {
  const auto found = find_policy(GetParam());
  ASSERT_TRUE(found.is_ok());
  const Policy& policy = **found;
  for (const auto numeric : {kernels::NumericClass::kReference, kernels::NumericClass::kFast}) {
    const auto device = testing::cpu(numeric);
    const ElementType type = device->kv_type();
    for (const std::int64_t candidates : {20, 300}) {
      for (const std::int64_t keep : {std::int64_t{1}, std::int64_t{6}, candidates - 1}) {
        const std::int64_t kv = 2, heads = 6, d = 16, prompt = 3, rows = policy.per_head() ? kv : 1;
        SelectionStep step(*device);
        step.candidates = candidates;
        step.keep = step.budget = keep;
        step.n_kv_heads = kv;
        step.scale = 0.25F;
        step.prompt_queries = *device->empty(type, {prompt, heads, d});
        step.keys = *device->empty(type, {kv, candidates + prompt, d});
        const std::vector<std::byte> zeros(static_cast<std::size_t>(kv * (candidates + prompt) * d * 4));
        device->upload(zeros.data(), step.prompt_queries);  // every logit is 0, whatever the keys
        device->upload(zeros.data(), step.keys);
        std::vector<float> lse;
        for (std::int64_t r = 0; r < prompt; ++r)
          lse.insert(lse.end(), static_cast<std::size_t>(heads), std::log(static_cast<float>(candidates + r + 1)));
        step.lse = *device->empty(ElementType::kF32, {prompt, heads});
        device->upload(lse.data(), step.lse);
        std::vector<std::int32_t> origins;
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t j = 0; j < candidates; ++j) origins.push_back(static_cast<std::int32_t>(j));
        step.origins = *device->empty(ElementType::kI32, {rows, candidates});
        device->upload(origins.data(), step.origins);

        const Tensor indices = *device->empty(ElementType::kI32, {rows, keep});
        ASSERT_TRUE(policy.choose(step, indices).is_ok());
        std::vector<std::int32_t> got(static_cast<std::size_t>(rows * keep)), want;
        device->download(indices, got.data());
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t j = 0; j < keep; ++j) want.push_back(static_cast<std::int32_t>(j));
        EXPECT_EQ(got, want) << keep << " of " << candidates;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(PromptGuided, Ties, ::testing::Values("finch", "finch-head", "finch-span", "snapkv"));

class Policies : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = testing::load_model(testing::data_path("tiny-llama/model.gguf"), kernels::NumericClass::kReference);
    golden_ = testing::load_golden("tiny-llama");
  }
  static void TearDownTestSuite() {
    model_.reset();
    golden_ = {};
  }
  void SetUp() override {
    ASSERT_NE(model_, nullptr);
    document = golden_.json["doc"].get<std::vector<TokenId>>();
    prompt = golden_.json["prompt"].get<std::vector<TokenId>>();
  }
  Result<ReadResult> read(const std::string& policy, std::int64_t keep, std::int64_t chunk, std::uint64_t seed = 0) {
    ReadRequest request;
    request.document = document;
    request.prompt = prompt;
    request.policy = policy;
    request.keep = keep;
    request.chunk = chunk;
    request.seed = seed;
    FINCHKV_ASSIGN_OR_RETURN(const Plan plan, resolve_plan(request, model_->config()));
    return read_document(plan, *model_->transformer());
  }
  // The entries that every layer and row keeps; fails when they differ.
  std::vector<std::uint32_t> kept(const Result<ReadResult>& result) {
    EXPECT_TRUE(result.is_ok()) << result.status().to_string();
    if (!result.is_ok()) return {};
    const auto origins = testing::origins_of(result->set);
    for (const auto& layer : origins)
      for (const auto& row : layer) EXPECT_EQ(row, origins[0][0]);
    return origins[0][0];
  }

  static inline std::unique_ptr<model::Model> model_;
  static inline testing::Golden golden_;
  std::vector<TokenId> document, prompt;
};

TEST_F(Policies, NamesAreUniqueAndFound) {
  std::set<std::string_view> names;
  for (const Policy* policy : all_policies()) {
    EXPECT_TRUE(names.insert(policy->name()).second) << policy->name();
    EXPECT_EQ(*find_policy(policy->name()), policy);
    EXPECT_GE(policy->revision(), 1U);
  }
  EXPECT_EQ(find_policy("").status().code(), StatusCode::kInvalidArgument);
}

TEST_F(Policies, EveryPolicyKeepsItsBudgetInDocumentOrder) {
  document.resize(120);
  for (const Policy* policy : all_policies()) {
    SCOPED_TRACE(std::string(policy->name()));
    const auto result = read(std::string(policy->name()), 24, 50);
    ASSERT_TRUE(result.is_ok()) << result.status().to_string();
    EXPECT_TRUE(result->set.validate().is_ok()) << result->set.validate().to_string();
    EXPECT_EQ(result->set.shape.origin_rows, policy->per_head() ? 2U : 1U);
    for (const KvLayer& layer : result->set.layers) EXPECT_EQ(layer.n_kept, policy->keeps_everything() ? 120U : 24U);
  }
}

TEST_F(Policies, StreamingKeepsSinksAndTheMostRecent) {
  document.resize(60);
  for (std::uint32_t keep = 1; keep <= 12; ++keep) {
    for (const std::int64_t chunk : {60, 45}) {
      std::vector<std::uint32_t> want;
      // A chunk that large allows at least `first` entries, so this many sinks were there from the start.
      const std::uint32_t first = chunk == 60 ? keep : (keep * 45 + 59) / 60;
      const std::uint32_t sinks = std::min({4U, keep, first});
      for (std::uint32_t i = 0; i < sinks; ++i) want.push_back(i);
      for (std::uint32_t i = 60 - (keep - sinks); i < 60; ++i) want.push_back(i);
      EXPECT_EQ(kept(read("streaming", keep, chunk)), want) << "keep " << keep << " chunk " << chunk;
    }
  }
}

// With chunks of one token the first steps may keep fewer than four entries: whichever of the first four were there
// when their place came are sinks, the rest is an unbroken run up to the last token.
TEST_F(Policies, StreamingWithTinyChunksAndBudgets) {
  document.resize(40);
  for (std::uint32_t keep = 1; keep <= 6; ++keep) {
    for (const std::int64_t chunk : {1, 2, 3, 7}) {
      SCOPED_TRACE(::testing::Message() << "keep " << keep << " chunk " << chunk);
      std::vector<std::uint32_t> want;
      for (std::uint32_t start = 0; start < 40; start += static_cast<std::uint32_t>(chunk)) {
        const std::uint32_t end = std::min<std::uint32_t>(40, start + static_cast<std::uint32_t>(chunk));
        for (std::uint32_t i = start; i < end; ++i) want.push_back(i);
        const std::size_t count = std::min<std::size_t>(want.size(), (keep * end + 39) / 40);
        const auto is_sink = [&](std::uint32_t o) { return o < std::min<std::size_t>(4, count); };
        const auto recent = std::find_if_not(want.begin(), want.end(), is_sink);
        want.erase(recent, recent + static_cast<std::ptrdiff_t>(want.size() - count));
      }
      const auto got = kept(read("streaming", keep, chunk));
      EXPECT_EQ(got, want);
      ASSERT_EQ(got.size(), keep);
      EXPECT_EQ(got.front(), 0U) << "the first token is always a sink";
      const auto gap = std::adjacent_find(got.begin(), got.end(), [](auto a, auto b) { return b != a + 1; });
      if (gap != got.end()) {
        EXPECT_EQ(got.back(), 39U);
        EXPECT_LT(*gap, 4U) << "only behind the sinks is something missing";
        EXPECT_EQ(*(gap + 1) + static_cast<std::uint32_t>(got.end() - gap) - 2, 39U) << "no second gap";
      }
    }
  }
}

TEST_F(Policies, RandomDependsOnTheSeedAlone) {
  document.resize(100);
  const auto first = read("random", 20, 40, 1), again = read("random", 20, 40, 1), other = read("random", 20, 40, 2);
  ASSERT_TRUE(first.is_ok() && again.is_ok() && other.is_ok());
  EXPECT_EQ(testing::bytes_of(first->set), testing::bytes_of(again->set));
  const auto a = testing::origins_of(first->set), b = testing::origins_of(other->set);
  EXPECT_NE(a, b);
  EXPECT_NE(a[0], a[1]) << "every layer chooses for itself";
  prompt = {1, 2, 3};
  EXPECT_EQ(testing::bytes_of(read("random", 20, 40, 1)->set), testing::bytes_of(first->set)) << "whatever the prompt";
}

// Choices of one step over many seeds: every candidate is kept about as often as every other.
TEST_F(Policies, RandomIsUniform) {
  document.resize(20);
  std::vector<int> counts(20);
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const auto result = read("random", 5, 20, seed);
    ASSERT_TRUE(result.is_ok());
    for (const auto& layer : testing::origins_of(result->set))
      for (const std::uint32_t o : layer[0]) ++counts[o];
  }
  for (const int count : counts) EXPECT_NEAR(count, 900 / 4, 65);  // five standard deviations
}

TEST_F(Policies, FullKeepsEverythingForAnyChunk) {
  document.resize(90);
  std::vector<std::uint32_t> all(90);
  std::iota(all.begin(), all.end(), 0U);
  const auto whole = read("full", 5, 90);
  EXPECT_EQ(kept(whole), all);
  for (const std::int64_t chunk : {1, 7, 45, 89, 1000}) {
    const auto result = read("full", 5, chunk);
    EXPECT_EQ(kept(result), all) << chunk;
    for (std::size_t l = 0; l < 3; ++l) {
      const auto floats = [l](const ReadResult& r) {
        const auto bytes = r.set.layers[l].keys;
        return std::span(reinterpret_cast<const float*>(bytes.data()), bytes.size() / 4);
      };
      EXPECT_LT(testing::largest_difference(floats(*result), floats(*whole)), 2e-4F) << "chunk " << chunk;
    }
  }
}

TEST_F(Policies, SnapKvReadsInOnePass) {
  document.resize(150);
  const auto result = read("snapkv", 30, 20);
  ASSERT_TRUE(result.is_ok()) << result.status().to_string();
  EXPECT_EQ(result->kept_after_each_chunk, (std::vector<std::int64_t>{30}));
  EXPECT_EQ(testing::bytes_of(result->set), testing::bytes_of(read("snapkv", 30, 150)->set));
}

TEST_F(Policies, SpansKeepStretchesOfText) {
  const auto runs = [&](const std::string& policy) {
    const auto result = read(policy, 48, 300);
    EXPECT_TRUE(result.is_ok());
    std::size_t count = 0;
    for (const auto& layer : testing::origins_of(result->set))
      for (const auto& row : layer)
        for (std::size_t i = 0; i < row.size(); ++i) count += i == 0 || row[i] != row[i - 1] + 1 ? 1 : 0;
    return count;
  };
  EXPECT_LT(runs("finch-span") * 2, runs("finch-head"));
}

TEST_F(Policies, PromptGuidedPoliciesListenToThePrompt) {
  document.resize(120);
  for (const char* policy : {"finch", "finch-head", "finch-span", "snapkv"}) {
    prompt = golden_.json["prompt"].get<std::vector<TokenId>>();
    const auto one = read(policy, 20, 60);
    prompt = {300, 2, 77};
    const auto other = read(policy, 20, 60);
    ASSERT_TRUE(one.is_ok() && other.is_ok());
    EXPECT_NE(testing::origins_of(one->set), testing::origins_of(other->set)) << policy;
  }
}

}  // namespace
}  // namespace finchkv::compressor
