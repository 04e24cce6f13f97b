// Several sequences' decoding steps in one pass: each gets what it gets alone, whatever the others' lengths.
#include "model/decode_batch.h"

#include <gtest/gtest.h>

#include "tests/golden.h"

namespace finchkv::model {
namespace {

constexpr std::int64_t kRoom = 100;

std::string device_name(const ::testing::TestParamInfo<const char*>& on) { return on.param; }

class DecodeBatchTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    FINCHKV_REQUIRE_DEVICE(device, GetParam(), kernels::NumericClass::kReference);
    model = testing::load_model(testing::data_path("tiny-qwen3/model.gguf"), device);
    ASSERT_NE(model, nullptr);
    document = testing::load_golden("tiny-qwen3").json["doc"].get<std::vector<TokenId>>();
  }
  /// A sequence that has read the document's first n tokens.
  DecodeContext sequence(std::size_t n) {
    auto context = DecodeContext::create(*model->transformer(), kRoom);
    EXPECT_TRUE(context.is_ok());
    EXPECT_TRUE(model->transformer()->forward(std::span(document).first(n), *context, LogitRows::kNone).is_ok());
    return *std::move(context);
  }

  std::unique_ptr<Model> model;
  std::vector<TokenId> document;
};

TEST_P(DecodeBatchTest, EverySequenceGetsWhatItGetsAlone) {
  Transformer& on = *model->transformer();
  const std::vector<std::size_t> lengths = {3, 40, 17, 64, 1};
  std::vector<DecodeContext> together, alone;
  for (const std::size_t n : lengths) {
    together.push_back(sequence(n));
    alone.push_back(sequence(n));
  }
  const auto vocab = static_cast<std::size_t>(model->config().vocab);
  // The first leaves after two steps, so the batch shrinks.
  for (std::size_t step = 0; step < 4; ++step) {
    const std::size_t first = step < 2 ? 0 : 1;
    std::vector<DecodeContext*> members;
    std::vector<TokenId> tokens;
    for (std::size_t i = first; i < lengths.size(); ++i) {
      members.push_back(&together[i]);
      tokens.push_back(document[(step * 7 + i * 3) % document.size()]);
    }
    DecodeBatch batch(on, members);
    const auto logits = on.forward(tokens, batch, LogitRows::kAll);
    ASSERT_TRUE(logits.is_ok()) << logits.status().to_string();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const auto want = on.forward({&tokens[i], 1}, alone[first + i], LogitRows::kLast);
      ASSERT_TRUE(want.is_ok());
      EXPECT_LT(testing::largest_difference(std::span(*logits).subspan(i * vocab, vocab), *want), 1e-5F)
          << "step " << step << ", sequence " << first + i;
    }
  }
  EXPECT_EQ(together[0].appended(), 5);
  EXPECT_EQ(together[1].appended(), 44);
}

TEST_P(DecodeBatchTest, AFullCacheAndAWrongCountAreErrors) {
  Transformer& on = *model->transformer();
  auto small = DecodeContext::create(on, 1);
  ASSERT_TRUE(small.is_ok());
  DecodeContext other = sequence(5);
  DecodeBatch batch(on, {&*small, &other});
  const std::vector<TokenId> tokens = {document[0], document[1]};
  const auto wrong = on.forward(std::span(tokens).first(1), batch, LogitRows::kAll);
  ASSERT_FALSE(wrong.is_ok());
  EXPECT_EQ(wrong.status().code(), StatusCode::kInvalidArgument);
  ASSERT_TRUE(on.forward(tokens, batch, LogitRows::kAll).is_ok());
  const auto full = on.forward(tokens, batch, LogitRows::kAll);
  ASSERT_FALSE(full.is_ok());
  EXPECT_EQ(full.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(other.appended(), 6) << "nothing was appended to the others";
}

INSTANTIATE_TEST_SUITE_P(On, DecodeBatchTest, ::testing::Values("cpu", "cuda"), device_name);

}  // namespace
}  // namespace finchkv::model
