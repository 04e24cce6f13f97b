// Selection of KV entries: ties, spans by document position, gathers.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/kernels/device_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers
using Ints = std::vector<std::int32_t>;

class SelectionTest : public ::testing::Test {
 protected:
  std::unique_ptr<Device> device = make_device(NumericClass::kReference);

  Ints top_k(const std::vector<float>& x, std::int64_t rows, std::int64_t k) {
    const auto columns = static_cast<std::int64_t>(x.size()) / rows;
    const Tensor indices = empty_tensor(*device, ElementType::kI32, {rows, k});
    device->top_k(tensor_of(*device, ElementType::kF32, {rows, columns}, x), indices);
    return ints_in(*device, indices);
  }
  std::vector<float> span_mean(const std::vector<float>& x, const Ints& origins, std::int64_t rows, std::int32_t radius,
                               float own_share) {
    const auto columns = static_cast<std::int64_t>(x.size()) / rows;
    const Tensor y = empty_tensor(*device, ElementType::kF32, {rows, columns});
    device->span_mean(tensor_of(*device, ElementType::kF32, {rows, columns}, x),
                      ints_of(*device, {rows, columns}, origins), radius, own_share, y);
    return floats_of(y);
  }
};

TEST_F(SelectionTest, TopKIsAscendingIndicesOfTheHighest) {
  EXPECT_EQ(top_k({1, 9, 3, 7, 5}, 1, 3), (Ints{1, 3, 4}));
  EXPECT_EQ(top_k({-1, -9, -3}, 1, 1), (Ints{0}));
}

TEST_F(SelectionTest, TiesGoToTheLowerIndex) {
  EXPECT_EQ(top_k({2, 5, 5, 5, 1}, 1, 2), (Ints{1, 2}));
  EXPECT_EQ(top_k({5, 1, 5, 2, 5, 2}, 1, 4), (Ints{0, 2, 3, 4}));
  EXPECT_EQ(top_k({0.0F, -0.0F, 0.0F}, 1, 2), (Ints{0, 1})) << "both zeros are the same score";
}

TEST_F(SelectionTest, AllEqualScoresKeepTheFirst) {
  for (const std::size_t count : {2U, 17U, 1000U}) {
    for (const std::int64_t k : {std::int64_t{1}, static_cast<std::int64_t>(count) / 2}) {
      Ints first(static_cast<std::size_t>(k));
      std::iota(first.begin(), first.end(), 0);
      EXPECT_EQ(top_k(std::vector<float>(count, 0.25F), 1, k), first);
    }
  }
}

TEST_F(SelectionTest, KOfAllAndOfOne) {
  EXPECT_EQ(top_k({3, 1, 2}, 1, 3), (Ints{0, 1, 2}));
  EXPECT_EQ(top_k({1}, 1, 1), (Ints{0}));
  EXPECT_EQ(top_k({3, 1, 9, 9}, 1, 1), (Ints{2}));
}

TEST_F(SelectionTest, EveryRowChoosesForItself) { EXPECT_EQ(top_k({1, 2, 3, 3, 2, 1}, 2, 2), (Ints{1, 2, 0, 1})); }

TEST_F(SelectionTest, TopKAgainstAStableSort) {
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 engine(seed);
    std::vector<float> x(1 + engine() % 700);
    for (float& v : x) v = static_cast<float>(engine() % 9);  // many ties
    const auto k = static_cast<std::int64_t>(1 + engine() % x.size());
    Ints order(x.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      return x[static_cast<std::size_t>(a)] > x[static_cast<std::size_t>(b)];
    });
    order.resize(static_cast<std::size_t>(k));
    std::sort(order.begin(), order.end());
    EXPECT_EQ(top_k(x, 1, k), order) << "seed " << seed;
  }
}

TEST_F(SelectionTest, SpanMeanCountsDocumentPositionsNotPlaces) {
  // Position 10 has only itself within 2; 20, 21, 22 see each other; 24 is 2 from 22, 3 from 21.
  EXPECT_EQ(span_mean({8, 1, 2, 6, 4}, {10, 20, 21, 22, 24}, 1, 2, 0.0F), (std::vector<float>{8, 3, 3, 3.25F, 5}));
}

TEST_F(SelectionTest, SpanMeanAddsTheOwnShare) {
  EXPECT_EQ(span_mean({64, 0, 0}, {0, 1, 9}, 1, 1, 1.0F / 64), (std::vector<float>{33, 32, 0}));
}

TEST_F(SelectionTest, SpanMeanOfOneAndRadiusZero) {
  EXPECT_EQ(span_mean({3.5F}, {1000000}, 1, 7, 0.0F), (std::vector<float>{3.5F}));
  EXPECT_EQ(span_mean({1, 2, 3}, {4, 5, 6}, 1, 0, 0.0F), (std::vector<float>{1, 2, 3}));
}

TEST_F(SelectionTest, SpanMeanRowsHaveTheirOwnOrigins) {
  EXPECT_EQ(span_mean({2, 4, 2, 4}, {0, 1, 0, 100}, 2, 7, 0.0F), (std::vector<float>{3, 3, 2, 4}));
}

TEST_F(SelectionTest, SpanMeanAgainstThePlainLoop) {
  std::mt19937 engine(5);
  const std::size_t count = 300;
  Ints origins;
  std::int32_t position = 0;
  for (std::size_t i = 0; i < count; ++i) origins.push_back(position += 1 + static_cast<std::int32_t>(engine() % 6));
  const auto x = random_floats(count, 6, 0, 10);
  const auto got = span_mean(x, origins, 1, 7, 1.0F / 64);
  for (std::size_t j = 0; j < count; ++j) {
    double sum = 0;
    int n = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (std::abs(origins[i] - origins[j]) > 7) continue;
      sum += static_cast<double>(x[i]);
      ++n;
    }
    EXPECT_NEAR(static_cast<double>(got[j]), sum / n + static_cast<double>(x[j]) / 64, 1e-5);
  }
}

TEST_F(SelectionTest, SumRows) {
  const Tensor sum = empty_tensor(*device, ElementType::kF32, {1, 3});
  device->sum_rows(tensor_of(*device, ElementType::kF32, {3, 3}, {1, 2, 3, 10, 20, 30, 100, 200, 300}), sum);
  EXPECT_EQ(floats_of(sum), (std::vector<float>{111, 222, 333}));
  device->sum_rows(tensor_of(*device, ElementType::kF32, {1, 3}, {4, 5, 6}), sum);
  EXPECT_EQ(floats_of(sum), (std::vector<float>{4, 5, 6}));
}

class GatherTest : public ::testing::TestWithParam<ElementType> {};

TEST_P(GatherTest, SharedAndPerHead) {
  const auto device = make_device(NumericClass::kReference);
  std::vector<float> numbers(2 * 5 * 3), negative;
  std::iota(numbers.begin(), numbers.end(), 0.0F);
  for (const float x : numbers) negative.push_back(-x);
  const Tensor keys = tensor_of(*device, GetParam(), {2, 5, 3}, numbers);
  const Tensor values = tensor_of(*device, GetParam(), {2, 5, 3}, negative);
  const Tensor origins = ints_of(*device, {2, 5}, {10, 11, 12, 13, 14, 20, 21, 22, 23, 24});
  const auto run = [&](const Ints& indices, std::int64_t rows, const std::vector<float>& want, const Ints& places) {
    const Tensor to_keys = tensor_of(*device, GetParam(), {2, 4, 3}, std::vector<float>(24, -1));
    const Tensor to_values = tensor_of(*device, GetParam(), {2, 4, 3}, std::vector<float>(24, -1));
    const Tensor to_origins = ints_of(*device, {rows, 3}, Ints(static_cast<std::size_t>(rows * 3), -1));
    device->gather({keys, values, origins.slice(0, 0, rows)}, ints_of(*device, {rows, 2}, indices),
                   {to_keys.slice(1, 0, 2), to_values.slice(1, 0, 2), to_origins.slice(1, 0, 2)});
    EXPECT_EQ(floats_of(to_keys.slice(1, 0, 2)), want);
    std::vector<float> turned;
    for (const float x : want) turned.push_back(-x);
    EXPECT_EQ(floats_of(to_values.slice(1, 0, 2)), turned);
    EXPECT_EQ(ints_in(*device, to_origins), places);
    EXPECT_EQ(floats_of(to_keys.slice(1, 2, 2)), std::vector<float>(12, -1)) << "entries behind the chosen stay";
  };
  run({1, 4}, 1, {3, 4, 5, 12, 13, 14, 18, 19, 20, 27, 28, 29}, {11, 14, -1});
  run({0, 1, 2, 3}, 2, {0, 1, 2, 3, 4, 5, 21, 22, 23, 24, 25, 26}, {10, 11, -1, 22, 23, -1});
}

INSTANTIATE_TEST_SUITE_P(Types, GatherTest, ::testing::Values(ElementType::kF32, ElementType::kBF16));

}  // namespace
}  // namespace finchkv::kernels
