// Results are the same from run to run, on every device and in every numeric class.
#include <gtest/gtest.h>

#include "compressor/reader.h"
#include "model/generate.h"
#include "tests/compressor/plain_finch.h"
#include "tests/golden.h"

namespace finchkv::compressor {
namespace {

using kernels::NumericClass;
using model::TokenId;

struct Case {
  const char* device;
  NumericClass numeric;
};

class Rerun : public ::testing::TestWithParam<Case> {
 protected:
  // Everything that a run gives: the kept set's bytes, the answer's ids, the score's bits.
  static std::string run(model::Model& model, std::span<const TokenId> document, std::span<const TokenId> prompt,
                         const std::string& policy, std::int64_t keep, std::int64_t chunk) {
    ReadRequest request;
    request.document = document;
    request.prompt = prompt;
    request.policy = policy;
    request.keep = keep;
    request.chunk = chunk;
    const auto plan = resolve_plan(request, model.config());
    EXPECT_TRUE(plan.is_ok()) << plan.status().to_string();
    if (!plan.is_ok()) return "";
    const auto read = read_document(*plan, *model.transformer());
    EXPECT_TRUE(read.is_ok()) << read.status().to_string();
    if (!read.is_ok()) return "";
    std::string all = testing::bytes_of(read->set);
    auto context = model::DecodeContext::from_set(*model.transformer(), read->set, 64);
    EXPECT_TRUE(context.is_ok()) << context.status().to_string();
    if (!context.is_ok()) return "";
    const auto logits = model.transformer()->forward(prompt, *context, model::LogitRows::kLast);
    EXPECT_TRUE(logits.is_ok()) << logits.status().to_string();
    if (!logits.is_ok()) return "";
    all.append(reinterpret_cast<const char*>(logits->data()), logits->size() * sizeof(float));
    const TokenId next = prompt[0];
    for (int step = 0; step < 3; ++step) {
      const auto more = model.transformer()->forward({&next, 1}, *context, model::LogitRows::kLast);
      EXPECT_TRUE(more.is_ok()) << more.status().to_string();
      if (!more.is_ok()) return "";
      all.append(reinterpret_cast<const char*>(more->data()), more->size() * sizeof(float));
    }
    return all;
  }

  // Twice on one device with other work between, and once on a device made anew.
  static void expect_same_bytes(const std::string& path, const nlohmann::json& golden, std::int64_t keep,
                                std::int64_t chunk) {
    const auto document = golden["doc"].get<std::vector<TokenId>>();
    const auto prompt = golden["prompt"].get<std::vector<TokenId>>();
    FINCHKV_REQUIRE_DEVICE(device, GetParam().device, GetParam().numeric);
    const auto model = testing::load_model(path, device);
    ASSERT_NE(model, nullptr);
    for (const char* policy : {"finch", "finch-span"}) {
      const std::string first = run(*model, document, prompt, policy, keep, chunk);
      ASSERT_FALSE(first.empty());
      const std::string other = run(*model, std::span(document).subspan(1), prompt, policy, keep / 2, chunk / 2);
      EXPECT_NE(other, first);
      EXPECT_TRUE(run(*model, document, prompt, policy, keep, chunk) == first) << policy << ": the second run differs";
      FINCHKV_REQUIRE_DEVICE(again, GetParam().device, GetParam().numeric);
      const auto fresh = testing::load_model(path, again);
      ASSERT_NE(fresh, nullptr);
      EXPECT_TRUE(run(*fresh, document, prompt, policy, keep, chunk) == first) << policy << ": a new device differs";
    }
  }
};

TEST_P(Rerun, TinyModel) {
  expect_same_bytes(testing::data_path("tiny-llama/model.gguf"), testing::load_golden("tiny-llama").json, 48, 96);
}

TEST_P(Rerun, SmolLm2) {
  FINCHKV_REQUIRE_SMOLLM2(path);
  expect_same_bytes(path, nlohmann::json::parse(testing::read_file(testing::data_path("smollm2.json"))), 128, 512);
}

std::string case_name(const ::testing::TestParamInfo<Case>& c) {
  const std::string numeric = c.param.numeric == NumericClass::kReference ? "f32"
                              : c.param.numeric == NumericClass::kFast    ? "bf16"
                                                                          : "fp8";
  return testing::device_test_name(c.param.device, numeric);
}

INSTANTIATE_TEST_SUITE_P(On, Rerun,
                         ::testing::Values(Case{"cpu", NumericClass::kReference}, Case{"cpu", NumericClass::kFast},
                                           Case{"cpu", NumericClass::kFp8}, Case{"cuda", NumericClass::kReference},
                                           Case{"cuda", NumericClass::kFast}, Case{"cuda", NumericClass::kFp8}),
                         case_name);

}  // namespace
}  // namespace finchkv::compressor
