// Plan: defaults, counts that fit no 32 bits, and every limit with its numbers in the sentence.
#include "compressor/plan.h"

#include <gtest/gtest.h>

#include <limits>

#include "compressor/reader.h"

namespace finchkv::compressor {
namespace {

using model::TokenId;

class PlanTest : public ::testing::Test {
 protected:
  PlanTest() {
    config.context_length = 1000;
    request.document = document;
    request.prompt = prompt;
  }
  Result<Plan> resolve() const { return resolve_plan(request, config); }
  void documents_of(std::size_t n) {
    document.assign(n, 1);
    request.document = document;
  }
  void expect_refused(const std::vector<std::string>& naming) const {
    const auto plan = resolve();
    ASSERT_FALSE(plan.is_ok()) << "accepted; should say " << naming.front();
    EXPECT_EQ(plan.status().code(), StatusCode::kInvalidArgument) << plan.status().to_string();
    for (const std::string& part : naming)
      EXPECT_NE(plan.status().message().find(part), std::string::npos) << plan.status().message();
  }

  std::vector<TokenId> document = std::vector<TokenId>(300, 1);
  std::vector<TokenId> prompt = std::vector<TokenId>(20, 2);
  model::ModelConfig config;
  ReadRequest request;
};

TEST_F(PlanTest, Defaults) {
  const auto plan = resolve();
  ASSERT_TRUE(plan.is_ok()) << plan.status().to_string();
  EXPECT_EQ(plan->policy->name(), "finch-span");
  EXPECT_EQ(plan->reader->name(), "chunks");
  EXPECT_EQ(plan->budget, 19) << "300 / 16, rounded up";
  EXPECT_EQ(plan->chunk, 300) << "512, but no more than there is";
  EXPECT_EQ(plan->prompt.size(), 20U);
  EXPECT_EQ(plan->seed, 0U);
}

TEST_F(PlanTest, RatioIsRoundedUpAndStaysBetweenOneAndAll) {
  const auto budget = [&](std::size_t n, double ratio) {
    documents_of(n);
    request.ratio = ratio;
    const auto plan = resolve();
    EXPECT_TRUE(plan.is_ok()) << plan.status().to_string();
    return plan.is_ok() ? plan->budget : -1;
  };
  EXPECT_EQ(budget(300, 3), 100);
  EXPECT_EQ(budget(301, 3), 101);
  EXPECT_EQ(budget(300, 7), 43);
  EXPECT_EQ(budget(300, 1), 300);
  EXPECT_EQ(budget(10, 1.5), 7);
  EXPECT_EQ(budget(1, 16), 1);
  EXPECT_EQ(budget(300, 1e300), 1);
}

TEST_F(PlanTest, KeepAboveTheDocumentIsTheDocument) {
  request.keep = 5000;
  EXPECT_EQ(resolve()->budget, 300);
  request.keep = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(resolve()->budget, 300);
  request.keep = 300;
  EXPECT_EQ(resolve()->budget, 300);
  request.keep = 1;
  EXPECT_EQ(resolve()->budget, 1);
}

TEST_F(PlanTest, BadBudgetsAreNamed) {
  request.keep = 0;
  expect_refused({"keep is 0"});
  request.keep = -7;
  expect_refused({"keep is -7"});
  request.keep = 10;
  request.ratio = 4;
  expect_refused({"keep", "ratio"});
  request.keep.reset();
  for (const double ratio :
       {0.0, 0.99, -3.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    request.ratio = ratio;
    expect_refused({"ratio is"});
  }
}

TEST_F(PlanTest, BadChunksAreNamed) {
  request.chunk = 0;
  expect_refused({"chunk is 0"});
  request.chunk = -1;
  expect_refused({"chunk is -1"});
}

TEST_F(PlanTest, ChunkIsNeverMoreThanTheDocument) {
  request.chunk = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(resolve()->chunk, 300);
  request.chunk = 1;
  EXPECT_EQ(resolve()->chunk, 1);
  request.chunk = 299;
  EXPECT_EQ(resolve()->chunk, 299);
}

TEST_F(PlanTest, DefaultChunkIsWhatFits) {
  documents_of(5000);
  request.keep = 600;
  EXPECT_EQ(resolve()->chunk, 380) << "1000 - 600 - 20";
  request.keep = 100;
  EXPECT_EQ(resolve()->chunk, 512);
}

TEST_F(PlanTest, EmptyInputs) {
  request.document = {};
  expect_refused({"document is empty"});
  request.document = document;
  request.prompt = {};
  expect_refused({"prompt is empty", "finch-span"});
  for (const char* policy : {"streaming", "random", "full"}) {
    request.policy = policy;
    EXPECT_TRUE(resolve().is_ok()) << policy << " needs no prompt";
  }
}

TEST_F(PlanTest, UnknownNamesListTheKnownOnes) {
  request.policy = "finsh";
  expect_refused({"'finsh'", "finch-span", "streaming"});
  request.policy = "finch";
  request.reader = "sideways";
  expect_refused({"'sideways'", "chunks", "whole"});
}

TEST_F(PlanTest, ReadingMustFitTheContextWindow) {
  documents_of(5000);
  request.keep = 100;
  request.chunk = 880;
  EXPECT_TRUE(resolve().is_ok()) << "100 + 880 + 20 is exactly the window";
  request.chunk = 881;
  expect_refused({"keep 100", "chunk 881", "prompt 20", "1001", "context window is 1000"});
}

TEST_F(PlanTest, CandidatesAreNeverMoreThanTheDocument) {
  documents_of(900);
  request.keep = 500;
  request.chunk = 600;  // 500 + 600 > 1000, but there are 900 tokens to see
  EXPECT_TRUE(resolve().is_ok()) << resolve().status().to_string();
}

TEST_F(PlanTest, AnsweringMustFitTheContextWindow) {
  documents_of(5000);
  request.keep = 400;
  request.chunk = 100;
  request.answer_tokens = 580;
  EXPECT_TRUE(resolve().is_ok()) << "400 + 20 + 580 is exactly the window";
  request.answer_tokens = 581;
  expect_refused({"keep 400", "prompt 20", "max-tokens 581", "1001", "context window is 1000"});
}

TEST_F(PlanTest, AnAbsurdAnswerLengthIsRefusedToo) {
  for (const std::int64_t tokens : {std::int64_t{1} << 62, std::numeric_limits<std::int64_t>::max()}) {
    request.answer_tokens = tokens;
    expect_refused({"max-tokens"});
  }
}

TEST_F(PlanTest, ThePromptCountsForTheAnswerWhateverThePolicy) {
  request.policy = "streaming";
  documents_of(5000);
  request.keep = 980;
  request.chunk = 10;
  EXPECT_TRUE(resolve().is_ok()) << "the prompt of 20 is not read with the document";
  request.keep = 981;
  expect_refused({"prompt 20", "1001"});
}

TEST_F(PlanTest, ASlidingWindowIsTheLimitWhereItIsSmaller) {
  config.sliding_window = 200;
  request.keep = 100;
  request.chunk = 80;
  EXPECT_TRUE(resolve().is_ok());
  request.chunk = 81;
  expect_refused({"sliding window is 200", "201"});
  request.chunk.reset();
  EXPECT_EQ(resolve()->chunk, 80);
  config.sliding_window = 4096;
  EXPECT_EQ(resolve()->chunk, 300) << "a window above the context does not matter";
}

TEST_F(PlanTest, PoliciesAndReadersOfOnePassTakeTheDocumentAtOnce) {
  request.chunk = 10;
  request.policy = "snapkv";
  EXPECT_EQ(resolve()->chunk, 300);
  request.policy = "finch";
  request.reader = "whole";
  EXPECT_EQ(resolve()->chunk, 300);
  documents_of(985);
  expect_refused({"1000"});
}

TEST_F(PlanTest, FullKeepsTheDocumentWhateverWasAsked) {
  request.policy = "full";
  request.keep = 10;
  EXPECT_EQ(resolve()->budget, 300);
  documents_of(981);
  expect_refused({"1001", "context window is 1000"});
}

TEST_F(PlanTest, OnlyWhatThePolicyUsesIsInThePlan) {
  request.seed = 99;
  EXPECT_EQ(resolve()->seed, 0U) << "finch-span draws nothing";
  request.policy = "random";
  EXPECT_EQ(resolve()->seed, 99U);
  EXPECT_TRUE(resolve()->prompt.empty()) << "random ignores the prompt";
}

TEST_F(PlanTest, KeepAfterIsRoundedUp) {
  request.keep = 37;
  const auto plan = resolve();
  EXPECT_EQ(plan->keep_after(1), 1);
  EXPECT_EQ(plan->keep_after(128), 16);  // 15.79
  EXPECT_EQ(plan->keep_after(256), 32);  // 31.57
  EXPECT_EQ(plan->keep_after(300), 37);
}

// Only counts are asked for, so nothing looks at the tokens that such a document would have.
TEST(PlanCounts, KeepAfterOfBillionsOfTokens) {
  Plan plan;
  static const TokenId token = 0;
  const std::int64_t n = std::int64_t{1} << 40;
  plan.document = std::span<const TokenId>(&token, static_cast<std::size_t>(n));
  plan.budget = n / 2;
  EXPECT_EQ(plan.keep_after(n), n / 2) << "2^39 * 2^40 passes 64 bits";
  EXPECT_EQ(plan.keep_after(n - 1), n / 2);  // 2^39 - 1/2, rounded up
  EXPECT_EQ(plan.keep_after(n - 2), n / 2 - 1);
  EXPECT_EQ(plan.keep_after(1), 1);
  plan.budget = n;
  EXPECT_EQ(plan.keep_after(n - 1), n - 1);
}

}  // namespace
}  // namespace finchkv::compressor
