// Answering: ends, stop strings across token seams, what is shown and when, and the score of a given answer.
#include "model/generate.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/golden.h"

namespace finchkv::model {
namespace {

// A tokenizer whose tokens say what a test wants them to say.
class ScriptedTokenizer final : public Tokenizer {
 public:
  std::map<TokenId, std::string> pieces;
  std::set<TokenId> ends;

  Result<std::vector<TokenId>> encode(std::string_view, bool) const override { return Status::unsupported("fake"); }
  Result<std::vector<TokenId>> encode(std::span<const Segment>) const override { return Status::unsupported("fake"); }
  std::string token_bytes(TokenId id, bool) const override {
    const auto found = pieces.find(id);
    return found == pieces.end() ? "" : found->second;
  }
  std::int64_t vocab_size() const override { return 320; }
  std::optional<TokenId> bos() const override { return std::nullopt; }
  bool add_bos() const override { return false; }
  bool is_end(TokenId id) const override { return ends.contains(id); }
  std::string_view kind() const override { return "none"; }
  std::string fingerprint() const override { return ""; }
};

class Generate : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = testing::load_model(testing::data_path("tiny-llama/model.gguf"), kernels::NumericClass::kReference);
  }
  static void TearDownTestSuite() { model_.reset(); }
  void SetUp() override {
    ASSERT_NE(model_, nullptr);
    const auto answer = run(nullptr, {});
    ASSERT_TRUE(answer.is_ok()) << answer.status().to_string();
    ids = answer->tokens;
    ASSERT_EQ(ids.size(), 8U);
    ASSERT_EQ(std::set<TokenId>(ids.begin(), ids.end()).size(), 8U) << "every token needs a text of its own";
  }

  Transformer& transformer() { return *model_->transformer(); }
  Result<Answer> run(const Tokenizer* tokenizer, GenerateOptions options, std::int64_t max_tokens = 8) {
    options.max_tokens = max_tokens;
    auto context = DecodeContext::create(transformer(), 64);
    if (!context.is_ok()) return context.status();
    return generate(transformer(), tokenizer, *context, prompt, options);
  }

  struct Shown {
    Answer answer;
    std::vector<std::string> parts;  // as on_text got them
    [[nodiscard]] std::string all() const {
      std::string out;
      for (const auto& p : parts) out += p;
      return out;
    }
  };
  // The answer when its tokens say `pieces`, one after the other.
  Shown say(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
    ScriptedTokenizer tokenizer;
    for (std::size_t i = 0; i < pieces.size(); ++i) tokenizer.pieces[ids[i]] = pieces[i];
    Shown shown;
    GenerateOptions options;
    options.stop = stops;
    options.on_text = [&](std::string_view text) {
      shown.parts.emplace_back(text);
      return true;
    };
    auto answer = run(&tokenizer, options, static_cast<std::int64_t>(pieces.size()));
    EXPECT_TRUE(answer.is_ok()) << answer.status().to_string();
    if (answer.is_ok()) shown.answer = *std::move(answer);
    EXPECT_EQ(shown.all(), shown.answer.text) << "what was shown is the answer";
    for (const auto& part : shown.parts) EXPECT_FALSE(part.empty());
    return shown;
  }

  static inline std::unique_ptr<Model> model_;
  std::vector<TokenId> prompt = {5, 17, 200, 9, 33};
  std::vector<TokenId> ids;
};

TEST_F(Generate, RefusesWhatCannotBeAnswered) {
  auto context = DecodeContext::create(transformer(), 64);
  ASSERT_TRUE(context.is_ok());
  GenerateOptions options;
  EXPECT_EQ(generate(transformer(), nullptr, *context, {}, options).status().code(), StatusCode::kInvalidArgument);
  options.max_tokens = 0;
  EXPECT_EQ(generate(transformer(), nullptr, *context, prompt, options).status().code(), StatusCode::kInvalidArgument);
  options.max_tokens = 5;
  options.stop = {"good", ""};
  EXPECT_EQ(generate(transformer(), nullptr, *context, prompt, options).status().code(), StatusCode::kInvalidArgument);
  options.stop.clear();
  options.sampler.temperature = -1;
  EXPECT_EQ(generate(transformer(), nullptr, *context, prompt, options).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(context->appended(), 0) << "nothing was run";
}

TEST_F(Generate, WithoutATokenizerThereAreIdsOnly) {
  const auto answer = run(nullptr, {});
  EXPECT_EQ(answer->tokens, ids);
  EXPECT_EQ(answer->text, "");
  EXPECT_FALSE(answer->ended);
}

TEST_F(Generate, MaxTokensEndsIt) {
  for (const std::int64_t most : {1, 3}) {
    const auto answer = run(nullptr, {}, most);
    ASSERT_TRUE(answer.is_ok());
    EXPECT_EQ(answer->tokens, std::vector<TokenId>(ids.begin(), ids.begin() + most));
    EXPECT_FALSE(answer->ended);
  }
}

TEST_F(Generate, NeedsRoomForPromptAndAnswerAndNoMore) {
  GenerateOptions options;
  options.max_tokens = 4;
  auto enough = DecodeContext::create(transformer(), static_cast<std::int64_t>(prompt.size()) + 4);
  EXPECT_TRUE(generate(transformer(), nullptr, *enough, prompt, options).is_ok());
  auto less = DecodeContext::create(transformer(), static_cast<std::int64_t>(prompt.size()) + 1);
  EXPECT_EQ(generate(transformer(), nullptr, *less, prompt, options).status().code(), StatusCode::kResourceExhausted);
}

TEST_F(Generate, AnEndTokenEndsItAndIsNotListed) {
  ScriptedTokenizer tokenizer;
  tokenizer.pieces[ids[0]] = "so";
  tokenizer.pieces[ids[3]] = "never shown";
  tokenizer.ends = {ids[3]};
  const auto answer = run(&tokenizer, {});
  EXPECT_EQ(answer->tokens, std::vector<TokenId>(ids.begin(), ids.begin() + 3));
  EXPECT_TRUE(answer->ended);
  EXPECT_EQ(answer->text, "so");

  tokenizer.ends = {ids[0]};
  const auto none = run(&tokenizer, {});
  EXPECT_TRUE(none->tokens.empty());
  EXPECT_TRUE(none->ended);
}

TEST_F(Generate, StopStringInsideAToken) {
  const Shown s = say({"one", " two.\nthree", " four"}, {"\n"});
  EXPECT_EQ(s.answer.text, "one two.");
  EXPECT_TRUE(s.answer.ended);
  EXPECT_EQ(s.answer.tokens.size(), 2U);
}

TEST_F(Generate, StopStringAcrossTokens) {
  const Shown s = say({"Hel", "lo wo", "r", "ld and", " more"}, {"o world"});
  EXPECT_EQ(s.answer.text, "Hell");
  EXPECT_TRUE(s.answer.ended);
  EXPECT_EQ(s.answer.tokens.size(), 4U) << "the tokens that led to it";
}

TEST_F(Generate, AStopStringThatIsOnlyBegunIsShownInTheEnd) {
  const Shown s = say({"a", "STO", "Q b", "ST"}, {"STOP"});
  EXPECT_EQ(s.answer.text, "aSTOQ bST");
  EXPECT_FALSE(s.answer.ended);
  EXPECT_EQ(s.parts, (std::vector<std::string>{"a", "STOQ b", "ST"}));
}

TEST_F(Generate, ABeginningInsideABeginning) {
  EXPECT_EQ(say({"a", "a", "b"}, {"aab"}).answer.text, "");
  EXPECT_EQ(say({"a", "a", "a", "b", "c"}, {"aab"}).answer.text, "a");
}

TEST_F(Generate, TheFirstOfSeveralStopStringsWins) {
  const Shown s = say({"x", "cd", "ab"}, {"ab", "cd"});
  EXPECT_EQ(s.answer.text, "x");
  EXPECT_EQ(say({"12345"}, {"45", "234"}).answer.text, "1") << "the one that starts first";
}

TEST_F(Generate, AStopStringAsTheFirstTokenLeavesNothing) {
  const Shown s = say({"stop", "more"}, {"stop"});
  EXPECT_EQ(s.answer.text, "");
  EXPECT_TRUE(s.parts.empty());
  EXPECT_TRUE(s.answer.ended);
}

TEST_F(Generate, OnlyWholeCharactersAreShown) {
  const Shown s = say({"caf\xc3", "\xa9 \xf0\x9f", "\x98", "\x80!"}, {});
  EXPECT_EQ(s.answer.text, "caf\xc3\xa9 \xf0\x9f\x98\x80!");
  EXPECT_EQ(s.parts, (std::vector<std::string>{"caf", "\xc3\xa9 ", "\xf0\x9f\x98\x80!"}));
  const Shown cut = say({"ok\xe2\x82"}, {});
  EXPECT_EQ(cut.answer.text, "ok\xe2\x82") << "the end of an answer is not held back";
}

TEST_F(Generate, ReturningFalseEndsTheAnswer) {
  ScriptedTokenizer tokenizer;
  for (std::size_t i = 0; i < ids.size(); ++i) tokenizer.pieces[ids[i]] = std::to_string(i);
  int calls = 0;
  GenerateOptions options;
  options.on_text = [&](std::string_view) { return ++calls < 3; };
  const auto answer = run(&tokenizer, options);
  EXPECT_EQ(calls, 3) << "not called again";
  EXPECT_EQ(answer->tokens.size(), 3U);
  EXPECT_FALSE(answer->ended);
  EXPECT_EQ(answer->text, "012");
}

TEST_F(Generate, SamplingIsReproducibleAndSeeded) {
  GenerateOptions options;
  options.sampler.temperature = 5;
  options.sampler.seed = 3;
  const auto first = run(nullptr, options);
  EXPECT_EQ(run(nullptr, options)->tokens, first->tokens);
  options.sampler.seed = 4;
  EXPECT_NE(run(nullptr, options)->tokens, first->tokens);
}

TEST_F(Generate, ScoreIsTheMeanOfStepwiseLogProbabilities) {
  const std::vector<TokenId> answer = {ids[0], 7, 311};
  double want = 0;
  {
    auto context = DecodeContext::create(transformer(), 64);
    auto logits = transformer().forward(prompt, *context, LogitRows::kLast);
    for (const TokenId id : answer) {
      ASSERT_TRUE(logits.is_ok());
      want += log_probability(*logits, id) / 3;
      logits = transformer().forward({&id, 1}, *context, LogitRows::kLast);
    }
  }
  for (const std::size_t length : {prompt.size(), std::size_t{1}}) {
    auto context = DecodeContext::create(transformer(), 64);
    const auto score = score_answer(transformer(), *context, std::span(prompt).first(length), answer);
    ASSERT_TRUE(score.is_ok()) << score.status().to_string();
    if (length == prompt.size()) {
      EXPECT_NEAR(*score, want, 1e-4);
    }
    EXPECT_LT(*score, 0);
  }
}

TEST_F(Generate, ScoreRefusesWhatCannotBeScored) {
  const std::vector<TokenId> good = {1, 2}, outside = {1, 320}, negative = {-1};
  for (const auto& [p, a] : {std::pair(std::vector<TokenId>(), good), std::pair(good, std::vector<TokenId>()),
                             std::pair(good, outside), std::pair(good, negative)}) {
    auto fresh = DecodeContext::create(transformer(), 64);
    EXPECT_EQ(score_answer(transformer(), *fresh, p, a).status().code(), StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace finchkv::model
