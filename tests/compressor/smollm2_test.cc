// The compressor and decoder on the real small model against reference results (tests/data/smollm2.json).
#include <gtest/gtest.h>

#include "compressor/reader.h"
#include "model/generate.h"
#include "tests/golden.h"

namespace finchkv::compressor {
namespace {

using model::TokenId;
using Origins = std::vector<std::vector<std::vector<std::uint32_t>>>;

class SmolLm2 : public ::testing::TestWithParam<const char*> {
 protected:
  // One pair of models at a time: that of the device whose tests run.
  struct Loaded {
    std::string device;
    std::unique_ptr<model::Model> reference, fast, fp8;
  };
  static Loaded& loaded() {
    static Loaded models;
    return models;
  }
  static std::unique_ptr<model::Model>& reference() { return loaded().reference; }
  static std::unique_ptr<model::Model>& fast() { return loaded().fast; }
  static std::unique_ptr<model::Model>& fp8() { return loaded().fp8; }
  static void TearDownTestSuite() { loaded() = {}; }
  void SetUp() override {
    FINCHKV_REQUIRE_SMOLLM2(path);
    if (loaded().device != GetParam()) {
      loaded() = {};
      FINCHKV_REQUIRE_DEVICE(exact, GetParam(), kernels::NumericClass::kReference);
      FINCHKV_REQUIRE_DEVICE(quick, GetParam(), kernels::NumericClass::kFast);
      FINCHKV_REQUIRE_DEVICE(narrow, GetParam(), kernels::NumericClass::kFp8);
      loaded() = {GetParam(), testing::load_model(path, exact), testing::load_model(path, quick),
                  testing::load_model(path, narrow)};
    }
    ASSERT_TRUE(reference() && fast() && fp8());
    golden = nlohmann::json::parse(testing::read_file(testing::data_path("smollm2.json")));
    document = golden["doc"].get<std::vector<TokenId>>();
    prompt = golden["prompt"].get<std::vector<TokenId>>();
  }

  Result<ReadResult> read(const nlohmann::json& c, model::Transformer& on) {
    ReadRequest request;
    request.document = document;
    request.prompt = prompt;
    request.policy = c.value("policy", "full");
    if (c.contains("budget")) request.keep = c["budget"].get<std::int64_t>();
    if (c.contains("chunk")) request.chunk = c["chunk"].get<std::int64_t>();
    FINCHKV_ASSIGN_OR_RETURN(const Plan plan, resolve_plan(request, on.config()));
    return read_document(plan, on);
  }

  void expect_answer(const nlohmann::json& c, const KvSet& set, model::Model& on, bool logits_too) {
    auto context = model::DecodeContext::from_set(*on.transformer(), set, 64);
    ASSERT_TRUE(context.is_ok()) << context.status().to_string();
    if (logits_too) {
      const auto logits = on.transformer()->forward(prompt, *context, model::LogitRows::kLast);
      ASSERT_TRUE(logits.is_ok());
      std::vector<TokenId> order(logits->size());
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + 5, order.end(), [&](TokenId a, TokenId b) {
        return (*logits)[static_cast<std::size_t>(a)] > (*logits)[static_cast<std::size_t>(b)];
      });
      order.resize(5);
      EXPECT_EQ(order, c["top5"].get<std::vector<TokenId>>());
      for (std::size_t i = 0; i < 5; ++i) {
        EXPECT_NEAR((*logits)[static_cast<std::size_t>(c["top5"][i].get<int>())], c["top5_logits"][i].get<float>(),
                    0.02F);
      }
    }
    auto fresh = model::DecodeContext::from_set(*on.transformer(), set, 64);
    model::GenerateOptions options;
    options.max_tokens = 24;
    const auto answer = model::generate(*on.transformer(), &on.tokenizer(), *fresh, prompt, options);
    ASSERT_TRUE(answer.is_ok()) << answer.status().to_string();
    EXPECT_EQ(answer->tokens, c["greedy"].get<std::vector<TokenId>>());
    EXPECT_EQ(answer->text, c["text"].get<std::string>());
  }

  nlohmann::json golden;
  std::vector<TokenId> document, prompt;
};

// Share of `expected` that stands in `actual` too, over all layers, and the lowest of any layer.
std::pair<double, double> overlap(const Origins& actual, const Origins& expected) {
  std::size_t same_all = 0, all = 0;
  double lowest = 1;
  for (std::size_t l = 0; l < expected.size(); ++l) {
    std::size_t same = 0, count = 0;
    for (std::size_t r = 0; r < expected[l].size(); ++r) {
      std::vector<std::uint32_t> both;
      std::set_intersection(actual[l][r].begin(), actual[l][r].end(), expected[l][r].begin(), expected[l][r].end(),
                            std::back_inserter(both));
      same += both.size();
      count += expected[l][r].size();
    }
    lowest = std::min(lowest, static_cast<double>(same) / static_cast<double>(count));
    same_all += same;
    all += count;
  }
  return {static_cast<double>(same_all) / static_cast<double>(all), lowest};
}

TEST_P(SmolLm2, FullCache) {
  const auto& c = golden["full"];
  const auto result = read(c, *reference()->transformer());
  ASSERT_TRUE(result.is_ok()) << result.status().to_string();
  expect_answer(c, result->set, *reference(), true);
}

TEST_P(SmolLm2, KeepsAndAnswersAsTheReference) {
  for (const auto& c : golden["finch"]) {
    SCOPED_TRACE(std::string(c["policy"]) + " " + std::to_string(c["budget"].get<int>()));
    const auto result = read(c, *reference()->transformer());
    ASSERT_TRUE(result.is_ok()) << result.status().to_string();
    const auto expected = c["kept_origin"].get<Origins>();
    const auto [share, lowest] = overlap(testing::origins_of(result->set), expected);
    // Where a gap is below 1e-4 another order of summation may swap entries at that boundary.
    EXPECT_GE(share, c["smallest_gap"].get<double>() < 1e-4 ? 0.998 : 1.0);
    std::printf("%s %d: %.5f of the entries\n", c["policy"].get<std::string>().c_str(), c["budget"].get<int>(), share);
    expect_answer(c, result->set, *reference(), true);
  }
}

TEST_P(SmolLm2, FastClassKeepsNearlyTheSame) {
  for (const auto& c : golden["finch"]) {
    SCOPED_TRACE(std::string(c["policy"]) + " " + std::to_string(c["budget"].get<int>()));
    const auto result = read(c, *fast()->transformer());
    ASSERT_TRUE(result.is_ok()) << result.status().to_string();
    const auto [share, lowest] = overlap(testing::origins_of(result->set), c["kept_origin"].get<Origins>());
    std::printf("%s %d in bf16: %.4f of the entries, %.4f in the worst layer\n", c["policy"].get<std::string>().c_str(),
                c["budget"].get<int>(), share, lowest);
    if (c["policy"] == "finch") {
      EXPECT_GE(share, 0.95);
      EXPECT_GE(lowest, 0.90);
    } else {
      EXPECT_GE(share, 0.90);
    }
  }
}

// What rounding to 8 bits costs: some other entries are chosen. bench/compute_quality.py prints what that does to
// answers, over many documents.
TEST_P(SmolLm2, EightBitsKeepMostOfTheSame) {
  for (const auto& c : golden["finch"]) {
    SCOPED_TRACE(std::string(c["policy"]) + " " + std::to_string(c["budget"].get<int>()));
    const auto result = read(c, *fp8()->transformer());
    ASSERT_TRUE(result.is_ok()) << result.status().to_string();
    const auto [share, lowest] = overlap(testing::origins_of(result->set), c["kept_origin"].get<Origins>());
    std::printf("%s %d in fp8: %.4f of the entries, %.4f in the worst layer\n", c["policy"].get<std::string>().c_str(),
                c["budget"].get<int>(), share, lowest);
    EXPECT_GE(share, 0.88);
    EXPECT_GE(lowest, 0.75);
    EXPECT_LT(share, 1.0) << "nothing was rounded";
  }
}

// A CPU's decoding step reads weights in 8 or 4 bits: from the same stored entries it says what f32 says.
TEST_P(SmolLm2, NarrowWeightsDecodeTheSame) {
  if (std::string(GetParam()) != "cpu") GTEST_SKIP() << "only CPUs decode from narrow weights";
  for (const auto& c : golden["finch"]) {
    SCOPED_TRACE(std::string(c["policy"]) + " " + std::to_string(c["budget"].get<int>()));
    const auto result = read(c, *reference()->transformer());
    ASSERT_TRUE(result.is_ok()) << result.status().to_string();
    expect_answer(c, result->set, *fast(), false);
  }
}

std::string device_name(const ::testing::TestParamInfo<const char*>& on) { return on.param; }

INSTANTIATE_TEST_SUITE_P(On, SmolLm2, ::testing::Values("cpu", "cuda"), device_name);

}  // namespace
}  // namespace finchkv::compressor
