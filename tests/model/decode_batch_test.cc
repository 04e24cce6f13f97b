// Several sequences' decoding steps in one pass: each gets what it gets alone, whatever the others' lengths, and a step
// that was recorded gives what a first step gives.
#include "model/decode_batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/golden.h"

namespace finchkv::model {
namespace {

constexpr std::int64_t kRoom = 200;

struct On {
  const char* device;
  kernels::NumericClass numeric;
};
std::string on_name(const ::testing::TestParamInfo<On>& on) {
  return std::string(on.param.device) + (on.param.numeric == kernels::NumericClass::kFast ? "_fast" : "");
}

class DecodeBatchTest : public ::testing::TestWithParam<On> {
 protected:
  void SetUp() override {
    FINCHKV_REQUIRE_DEVICE(made, GetParam().device, GetParam().numeric);
    device = made;
    model = fresh_model();
    ASSERT_NE(model, nullptr);
    document = testing::load_golden("tiny-qwen3").json["doc"].get<std::vector<TokenId>>();
    vocab = static_cast<std::size_t>(model->config().vocab);
  }
  [[nodiscard]] std::unique_ptr<Model> fresh_model() const {
    return testing::load_model(testing::data_path("tiny-qwen3/model.gguf"), device);
  }
  /// A sequence that has read n of the document's tokens, over and over.
  DecodeContext sequence(Model& on, std::size_t n, std::int64_t room = kRoom) const {
    auto context = DecodeContext::create(*on.transformer(), room);
    EXPECT_TRUE(context.is_ok());
    std::vector<TokenId> read;
    for (std::size_t i = 0; i < n; ++i) read.push_back(document[i % document.size()]);
    EXPECT_TRUE(on.transformer()->forward(read, *context, LogitRows::kNone).is_ok());
    return *std::move(context);
  }
  [[nodiscard]] TokenId token(std::size_t step, std::size_t of) const {
    return document[(step * 7 + of * 3) % document.size()];
  }
  /// Logits of every sequence.
  static std::vector<float> decode(Model& on, std::vector<DecodeContext*> members, const std::vector<TokenId>& tokens) {
    DecodeBatch batch(*on.transformer(), std::move(members));
    auto logits = on.transformer()->forward(tokens, batch, LogitRows::kAll);
    EXPECT_TRUE(logits.is_ok()) << logits.status().to_string();
    return logits.is_ok() ? *std::move(logits) : std::vector<float>();
  }

  std::shared_ptr<kernels::Device> device;
  std::unique_ptr<Model> model;
  std::vector<TokenId> document;
  std::size_t vocab = 0;
};

// Sequences join and leave, so steps of 1 to 6 come again and again and the activations grow on the way.
TEST_P(DecodeBatchTest, EverySequenceGetsWhatItGetsAlone) {
  const std::vector<std::size_t> lengths = {3, 40, 17, 64, 1, 62};
  const std::vector<std::vector<std::size_t>> steps = {
      {0, 1},    {1, 0},    {0, 1, 2},          {2, 3}, {3}, {5, 4, 3, 2, 1, 0},
      {0, 2, 4}, {1, 3, 5}, {4, 5, 0, 1, 2, 3}, {2, 0}, {5}};
  std::vector<DecodeContext> together, alone;
  for (const std::size_t n : lengths) {
    together.push_back(sequence(*model, n));
    alone.push_back(sequence(*model, n));
  }
  const bool exact = GetParam().numeric == kernels::NumericClass::kReference;
  for (std::size_t step = 0; step < steps.size(); ++step) {
    std::vector<DecodeContext*> members;
    std::vector<TokenId> tokens;
    for (const std::size_t i : steps[step]) {
      members.push_back(&together[i]);
      tokens.push_back(token(step, i));
    }
    const auto logits = decode(*model, members, tokens);
    ASSERT_EQ(logits.size(), tokens.size() * vocab);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const auto want = decode(*model, {&alone[steps[step][i]]}, {tokens[i]});
      const auto got = std::span(logits).subspan(i * vocab, vocab);
      if (exact)
        EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin(), want.end())) << "step " << step << ", " << i;
      else
        EXPECT_LT(testing::largest_difference(got, want), 0.5F) << "step " << step << ", " << i;
    }
  }
  for (std::size_t i = 0; i < lengths.size(); ++i) EXPECT_EQ(together[i].appended(), alone[i].appended());
}

// Many steps, over the lengths at which the keys are cut into more shares. A new model's first step is never recorded.
TEST_P(DecodeBatchTest, LaterStepsGiveWhatFirstStepsGive) {
  std::vector<DecodeContext> going_on;
  const std::vector<std::size_t> lengths = {55, 121, 2};
  for (const std::size_t n : lengths) going_on.push_back(sequence(*model, n));
  std::vector<std::vector<TokenId>> said(lengths.size());
  for (std::size_t step = 0; step < 20; ++step) {
    std::vector<TokenId> tokens;
    for (std::size_t i = 0; i < lengths.size(); ++i) tokens.push_back(token(step, i));
    const auto got = decode(*model, {&going_on[0], &going_on[1], &going_on[2]}, tokens);
    const auto other = fresh_model();
    std::vector<DecodeContext> anew;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      anew.push_back(sequence(*other, lengths[i]));
      for (const TokenId id : said[i]) decode(*other, {&anew[i]}, {id});
      said[i].push_back(tokens[i]);
    }
    if (GetParam().numeric == kernels::NumericClass::kReference) {
      EXPECT_EQ(decode(*other, {&anew[0], &anew[1], &anew[2]}, tokens), got) << "step " << step;
    } else {
      EXPECT_LT(testing::largest_difference(decode(*other, {&anew[0], &anew[1], &anew[2]}, tokens), got), 0.5F);
    }
  }
}

TEST_P(DecodeBatchTest, TheSameStepsGiveTheSameBytes) {
  std::vector<std::vector<float>> first, second;
  for (auto* all : {&first, &second}) {
    DecodeContext a = sequence(*model, 70), b = sequence(*model, 9);
    for (std::size_t step = 0; step < 5; ++step)
      all->push_back(decode(*model, {&a, &b}, {token(step, 0), token(step, 1)}));
  }
  EXPECT_EQ(first, second) << "the very first step is not recorded, the others are";
}

TEST_P(DecodeBatchTest, TheLikeliestTokensAreThoseOfTheLogits) {
  Transformer& on = *model->transformer();
  DecodeContext a = sequence(*model, 20), b = sequence(*model, 33);
  DecodeContext c = sequence(*model, 20), d = sequence(*model, 33);
  DecodeBatch asked(on, {&a, &b}), other(on, {&c, &d});
  for (std::size_t step = 0; step < 3; ++step) {
    const std::vector<TokenId> tokens = {token(step, 0), token(step, 1)};
    const std::vector<std::size_t> second = {1};
    const auto result = on.step(tokens, asked, second);
    const auto logits = on.forward(tokens, other, LogitRows::kAll);
    ASSERT_TRUE(result.is_ok() && logits.is_ok());
    ASSERT_EQ(result->likeliest.size(), 2U);
    for (std::size_t i = 0; i < 2; ++i) {
      const auto row = std::span(*logits).subspan(i * vocab, vocab);
      EXPECT_EQ(result->likeliest[i], std::max_element(row.begin(), row.end()) - row.begin());
    }
    EXPECT_EQ(result->logits, std::vector<float>(logits->begin() + static_cast<std::ptrdiff_t>(vocab), logits->end()));
  }
  const std::vector<std::size_t> outside = {2};
  const std::vector<TokenId> tokens = {token(0, 0), token(0, 1)};
  EXPECT_EQ(on.step(tokens, asked, outside).status().code(), StatusCode::kInvalidArgument);
}

TEST_P(DecodeBatchTest, AFullCacheAndAWrongCountAreErrors) {
  Transformer& on = *model->transformer();
  auto small = DecodeContext::create(on, 1);
  ASSERT_TRUE(small.is_ok());
  DecodeContext other = sequence(*model, 5);
  DecodeBatch batch(on, {&*small, &other});
  const std::vector<TokenId> tokens = {document[0], document[1]};
  for (const std::size_t count : {0, 1}) {
    const auto wrong = on.forward(std::span(tokens).first(count), batch, LogitRows::kAll);
    ASSERT_FALSE(wrong.is_ok());
    EXPECT_EQ(wrong.status().code(), StatusCode::kInvalidArgument);
  }
  ASSERT_TRUE(on.forward(tokens, batch, LogitRows::kAll).is_ok());
  const auto full = on.forward(tokens, batch, LogitRows::kAll);
  ASSERT_FALSE(full.is_ok());
  EXPECT_EQ(full.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(other.appended(), 6) << "nothing was appended to the others";
}

// One sequence's values are no numbers: its step fails, and the others go on as if it had not been there.
TEST_P(DecodeBatchTest, AStepThatFailsMovesNobody) {
  Transformer& on = *model->transformer();
  const ModelConfig& c = model->config();
  KvSet set;
  set.shape = {static_cast<std::uint32_t>(c.n_layers), static_cast<std::uint32_t>(c.n_kv_heads),
               static_cast<std::uint32_t>(c.head_dim)};
  set.rope = c.rope;
  set.next_position = set.doc_tokens = 1;
  const std::vector<float> nothing(static_cast<std::size_t>(c.n_kv_heads * c.head_dim), NAN);
  const std::vector<std::uint32_t> origins = {0};
  for (std::int64_t l = 0; l < c.n_layers; ++l) {
    KvLayer& layer = set.layers.emplace_back();
    layer.n_kept = 1;
    layer.keys = layer.values = std::as_bytes(std::span(nothing));
    layer.origins = origins;
  }
  auto broken = DecodeContext::from_set(on, set, 10);
  ASSERT_TRUE(broken.is_ok()) << broken.status().to_string();
  DecodeContext whole = sequence(*model, 30), alone = sequence(*model, 30);
  DecodeBatch batch(on, {&*broken, &whole});
  for (std::size_t step = 0; step < 3; ++step) {
    const std::vector<TokenId> tokens = {token(step, 1), token(step, 0)};
    const auto failed = on.step(tokens, batch);
    ASSERT_FALSE(failed.is_ok());
    EXPECT_EQ(failed.status().code(), StatusCode::kCorrupt);
    EXPECT_EQ(broken->appended(), 0);
    EXPECT_EQ(whole.appended(), static_cast<std::int64_t>(30 + step));
    EXPECT_EQ(decode(*model, {&whole}, {tokens[1]}), decode(*model, {&alone}, {tokens[1]}));
  }
}

using kernels::NumericClass;
INSTANTIATE_TEST_SUITE_P(On, DecodeBatchTest,
                         ::testing::Values(On{"cpu", NumericClass::kReference}, On{"cpu", NumericClass::kFast},
                                           On{"cuda", NumericClass::kReference}, On{"cuda", NumericClass::kFast}),
                         on_name);

}  // namespace
}  // namespace finchkv::model
