// The compressor against reference results on three tiny models (tests/data): every kept entry, in f32, on every
// device.
#include <gtest/gtest.h>

#include "compressor/reader.h"
#include "model/generate.h"
#include "tests/golden.h"

namespace finchkv::compressor {
namespace {

using model::TokenId;
using testing::load_golden;

struct On {
  const char* device;
  const char* model;
};

std::string on_name(const ::testing::TestParamInfo<On>& info) {
  return testing::device_test_name(info.param.device, info.param.model);
}

// Another order of summation than the reference's, and on a GPU another exp().
float tolerance(const On& on) { return std::string(on.device) == "cpu" ? 1e-3F : 2e-3F; }

class Golden : public ::testing::TestWithParam<On> {
 protected:
  void SetUp() override {
    FINCHKV_REQUIRE_DEVICE(device, GetParam().device, kernels::NumericClass::kReference);
    golden = load_golden(GetParam().model);
    model = testing::load_model(testing::data_path(std::string(GetParam().model) + "/model.gguf"), device);
    ASSERT_NE(model, nullptr);
    document = golden.json["doc"].get<std::vector<TokenId>>();
    prompt = golden.json["prompt"].get<std::vector<TokenId>>();
  }
  Result<ReadResult> read(const nlohmann::json& c) {
    ReadRequest request;
    request.document = document;
    request.prompt = prompt;
    request.policy = c["policy"];
    request.keep = c["budget"].get<std::int64_t>();
    request.chunk = c["chunk"].get<std::int64_t>();
    FINCHKV_ASSIGN_OR_RETURN(const Plan plan, resolve_plan(request, model->config()));
    return read_document(plan, *model->transformer());
  }

  testing::Golden golden;
  std::unique_ptr<model::Model> model;
  std::vector<TokenId> document, prompt;
};

TEST_P(Golden, KeepsTheSameEntries) {
  ASSERT_FALSE(golden.json["cases"].empty());
  for (std::size_t i = 0; i < golden.json["cases"].size(); ++i) {
    const auto& c = golden.json["cases"][i];
    SCOPED_TRACE(std::string(c["policy"]) + " budget " + std::to_string(c["budget"].get<int>()) + " chunk " +
                 std::to_string(c["chunk"].get<int>()));
    const auto result = read(c);
    ASSERT_TRUE(result.is_ok()) << result.status().to_string();
    EXPECT_EQ(result->kept_after_each_chunk, c["kept_after_each_chunk"].get<std::vector<std::int64_t>>());
    EXPECT_EQ(nlohmann::json(testing::origins_of(result->set)), c["kept_origin"]);

    std::vector<float> keys, values;
    for (const KvLayer& layer : result->set.layers) {
      const auto* k = reinterpret_cast<const float*>(layer.keys.data());
      const auto* v = reinterpret_cast<const float*>(layer.values.data());
      keys.insert(keys.end(), k, k + layer.keys.size() / sizeof(float));
      values.insert(values.end(), v, v + layer.values.size() / sizeof(float));
    }
    EXPECT_LT(testing::largest_difference(keys, golden.arrays.at("case" + std::to_string(i) + "_keys")), 1e-3F);
    EXPECT_LT(testing::largest_difference(values, golden.arrays.at("case" + std::to_string(i) + "_values")), 1e-3F);

    auto context = model::DecodeContext::from_set(*model->transformer(), result->set,
                                                  static_cast<std::int64_t>(prompt.size()) + 16);
    ASSERT_TRUE(context.is_ok()) << context.status().to_string();
    const auto logits = model->transformer()->forward(prompt, *context, model::LogitRows::kLast);
    ASSERT_TRUE(logits.is_ok());
    EXPECT_LT(testing::largest_difference(*logits, golden.arrays.at("case" + std::to_string(i) + "_logits")),
              tolerance(GetParam()));

    auto fresh = model::DecodeContext::from_set(*model->transformer(), result->set,
                                                static_cast<std::int64_t>(prompt.size()) + 16);
    model::GenerateOptions options;
    options.max_tokens = 12;
    const auto answer = model::generate(*model->transformer(), nullptr, *fresh, prompt, options);
    ASSERT_TRUE(answer.is_ok()) << answer.status().to_string();
    EXPECT_EQ(answer->tokens, c["greedy_after_prompt"].get<std::vector<TokenId>>());
  }
}

TEST_P(Golden, LogitsOfTheDocument) {
  auto context = model::DecodeContext::create(*model->transformer(), static_cast<std::int64_t>(document.size()));
  ASSERT_TRUE(context.is_ok());
  const auto logits = model->transformer()->forward(document, *context, model::LogitRows::kAll);
  ASSERT_TRUE(logits.is_ok());
  EXPECT_LT(testing::largest_difference(*logits, golden.arrays.at("logits")), tolerance(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Tiny, Golden,
                         ::testing::Values(On{"cpu", "tiny-llama"}, On{"cpu", "tiny-qwen2"}, On{"cpu", "tiny-qwen3"},
                                           On{"cuda", "tiny-llama"}, On{"cuda", "tiny-qwen2"},
                                           On{"cuda", "tiny-qwen3"}),
                         on_name);

class ScaledRope : public ::testing::TestWithParam<On> {};

TEST_P(ScaledRope, LogitsOfALongDocument) {
  FINCHKV_REQUIRE_DEVICE(device, GetParam().device, kernels::NumericClass::kReference);
  const testing::Golden golden = load_golden(GetParam().model);
  const auto model = testing::load_model(testing::data_path(std::string(GetParam().model) + "/model.gguf"), device);
  ASSERT_NE(model, nullptr);
  const auto document = golden.json["doc"].get<std::vector<TokenId>>();
  auto context = model::DecodeContext::create(*model->transformer(), static_cast<std::int64_t>(document.size()));
  ASSERT_TRUE(context.is_ok());
  const auto logits = model->transformer()->forward(document, *context, model::LogitRows::kAll);
  ASSERT_TRUE(logits.is_ok());
  const auto vocab = static_cast<std::size_t>(model->config().vocab);
  EXPECT_LT(testing::largest_difference(std::span(*logits).subspan(600 * vocab), golden.arrays.at("logits_from_600")),
            2e-3F);
  EXPECT_LT(testing::largest_difference(std::span(*logits).subspan(699 * vocab),
                                        golden.json["logits_last_of_doc"].get<std::vector<float>>()),
            2e-3F);
}

INSTANTIATE_TEST_SUITE_P(Tiny, ScaledRope,
                         ::testing::Values(On{"cpu", "tiny-llama3rope"}, On{"cpu", "tiny-qwen2-yarn"},
                                           On{"cuda", "tiny-llama3rope"}, On{"cuda", "tiny-qwen2-yarn"}),
                         on_name);

}  // namespace
}  // namespace finchkv::compressor
