// Sampler: greedy ties, the distribution of draws, top-p's edge, the same tokens for the same seed.
#include "model/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace finchkv::model {
namespace {

SamplerOptions options(float temperature, float top_p = 1.0F, std::uint64_t seed = 1) {
  SamplerOptions o;
  o.temperature = temperature;
  o.top_p = top_p;
  o.seed = seed;
  return o;
}

std::map<TokenId, int> counts_of(const std::vector<float>& logits, const SamplerOptions& o, int draws) {
  Sampler sampler(o);
  std::map<TokenId, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sampler.next(logits)];
  return counts;
}

TEST(Sampler, GreedyTakesTheLowestOfTheLargest) {
  Sampler sampler(options(0));
  EXPECT_EQ(sampler.next(std::vector<float>{1, 5, 2, 5}), 1);
  EXPECT_EQ(sampler.next(std::vector<float>{-1, -1, -1}), 0);
  EXPECT_EQ(sampler.next(std::vector<float>{-3, -2, -1}), 2);
}

TEST(Sampler, Validate) {
  EXPECT_TRUE(options(0).validate().is_ok());
  EXPECT_TRUE(options(2.5F, 0.01F).validate().is_ok());
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const float t : {-0.1F, nan, infinity}) {
    EXPECT_EQ(options(t).validate().code(), StatusCode::kInvalidArgument) << t;
    EXPECT_NE(options(t).validate().message().find("temperature"), std::string::npos);
  }
  for (const float p : {0.0F, -0.5F, 1.01F, nan}) {
    EXPECT_EQ(options(1, p).validate().code(), StatusCode::kInvalidArgument) << p;
    EXPECT_NE(options(1, p).validate().message().find("top-p"), std::string::npos);
  }
}

// Pearson's statistic over the categories; degrees of freedom = categories - 1.
double chi_square(const std::map<TokenId, int>& counts, const std::vector<double>& probability, int draws) {
  double sum = 0;
  for (std::size_t i = 0; i < probability.size(); ++i) {
    const auto found = counts.find(static_cast<TokenId>(i));
    const double expected = probability[i] * draws;
    const double off = (found == counts.end() ? 0 : found->second) - expected;
    sum += off * off / expected;
  }
  return sum;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double total = 0;
  for (const float x : logits) {
    p.push_back(std::exp(static_cast<double>(x) / temperature));
    total += p.back();
  }
  for (double& x : p) x /= total;
  return p;
}

TEST(Sampler, DrawsFollowTheTemperature) {
  const std::vector<float> logits = {0.5F, 2.0F, -1.0F, 1.0F, 0.0F, 1.5F};
  const int draws = 20000;
  for (const float temperature : {0.5F, 1.0F, 3.0F}) {
    const auto p = softmax(logits, static_cast<double>(temperature));
    // 20.5 is passed by chance once in a thousand with 5 degrees of freedom; the seed is fixed.
    EXPECT_LT(chi_square(counts_of(logits, options(temperature), draws), p, draws), 20.5) << temperature;
  }
  // The check can tell: draws at 1 are far from the distribution at 1.2.
  EXPECT_GT(chi_square(counts_of(logits, options(1.0F), draws), softmax(logits, 1.2), draws), 100);
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  // Probabilities 0.1, 0.4, 0.2, 0.3.
  const std::vector<float> logits = {std::log(0.1F), std::log(0.4F), std::log(0.2F), std::log(0.3F)};
  const int draws = 20000;
  const auto half = counts_of(logits, options(1, 0.5F), draws);  // 0.4 + 0.3 reaches 0.5
  EXPECT_EQ(half.size(), 2U);
  EXPECT_EQ(half.count(1), 1U);
  EXPECT_EQ(half.count(3), 1U);
  EXPECT_NEAR(static_cast<double>(half.at(1)) / draws, 4.0 / 7, 0.02);
  EXPECT_EQ(counts_of(logits, options(1, 0.35F), draws).size(), 1U) << "the first alone reaches it";
  EXPECT_EQ(counts_of(logits, options(1, 0.8F), draws).size(), 3U);
  EXPECT_EQ(counts_of(logits, options(1, 1.0F), draws).size(), 4U);
  const auto tiny = counts_of(logits, options(1, 1e-6F), 100);  // never an empty set
  EXPECT_EQ(tiny.at(1), 100);
}

TEST(Sampler, TopPTiesGoToTheLowerId) {
  const auto counts = counts_of({1, 1, 1, 1}, options(1, 0.5F), 1000);
  EXPECT_EQ(counts.size(), 2U);
  EXPECT_EQ(counts.count(0), 1U);
  EXPECT_EQ(counts.count(1), 1U);
}

TEST(Sampler, SeedsReproduce) {
  const std::vector<float> logits(100, 0.0F);
  const auto drawn = [&](std::uint64_t seed) {
    Sampler sampler(options(1, 1, seed));
    std::vector<TokenId> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(sampler.next(logits));
    return ids;
  };
  EXPECT_EQ(drawn(7), drawn(7));
  EXPECT_NE(drawn(7), drawn(8));
  EXPECT_NE(drawn(0), drawn(1));
}

TEST(Sampler, ExtremeLogits) {
  const float infinity = std::numeric_limits<float>::infinity();
  Sampler warm(options(1));
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(warm.next(std::vector<float>{-infinity, 3, -infinity}), 1);
    EXPECT_EQ(warm.next(std::vector<float>{-3e38F, 3e38F, 0}), 1);
  }
  Sampler cold(options(1e-30F));
  EXPECT_EQ(cold.next(std::vector<float>{1, 2, 3}), 2);
}

TEST(LogProbability, IsLogSoftmax) {
  const std::vector<float> logits = {1, 2, 3};
  const double total = std::exp(1.0) + std::exp(2.0) + std::exp(3.0);
  EXPECT_NEAR(log_probability(logits, 0), 1 - std::log(total), 1e-12);
  EXPECT_NEAR(log_probability(logits, 2), 3 - std::log(total), 1e-12);
  EXPECT_NEAR(log_probability(std::vector<float>{1e30F, 1e30F}, 1), -std::log(2.0), 1e-12);
}

}  // namespace
}  // namespace finchkv::model
