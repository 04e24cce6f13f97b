// Selection on a GPU against the CPU: exact, ties included.
#include <algorithm>
#include <numeric>

#include "tests/kernels/cuda_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers
using Ints = std::vector<std::int32_t>;

constexpr ElementType kF32 = ElementType::kF32;

class CudaSelection : public CudaTest {
 protected:
  Ints top_k(Device& device, const std::vector<float>& x, std::int64_t rows, std::int64_t k) {
    const auto columns = static_cast<std::int64_t>(x.size()) / rows;
    const Tensor indices = empty_tensor(device, ElementType::kI32, {rows, k});
    device.top_k(tensor_of(device, kF32, {rows, columns}, x), indices);
    return ints_in(device, indices);
  }
};

TEST_P(CudaSelection, TopKTiesAndEdges) {
  EXPECT_EQ(top_k(*gpu, {1, 9, 3, 7, 5}, 1, 3), (Ints{1, 3, 4}));
  EXPECT_EQ(top_k(*gpu, {-1, -9, -3}, 1, 1), (Ints{0}));
  EXPECT_EQ(top_k(*gpu, {5, 1, 5, 2, 5, 2}, 1, 4), (Ints{0, 2, 3, 4}));
  EXPECT_EQ(top_k(*gpu, {0.0F, -0.0F, 0.0F}, 1, 2), (Ints{0, 1})) << "both zeros are the same score";
  EXPECT_EQ(top_k(*gpu, {3, 1, 2}, 1, 3), (Ints{0, 1, 2}));
  EXPECT_EQ(top_k(*gpu, {1, 2, 3, 3, 2, 1}, 2, 2), (Ints{1, 2, 0, 1}));
}

TEST_P(CudaSelection, TopKOfManyLengths) {
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 engine(seed);
    const std::int64_t rows = 1 + engine() % 4;
    // Some rows are longer than what the kernel keeps in shared memory.
    const std::size_t columns = seed % 4 == 0 ? 1 + engine() % 60 : 1 + engine() % (seed % 7 == 0 ? 60000 : 9000);
    std::vector<float> x(static_cast<std::size_t>(rows) * columns);
    // Few values (many ties), tiny differences, signs: every digit of the key decides somewhere.
    for (float& v : x) {
      v = seed % 3 == 0   ? static_cast<float>(engine() % 9)
          : seed % 3 == 1 ? 1.0F + static_cast<float>(engine() % 4000) * 0x1p-23F
                          : static_cast<float>(engine()) - 2e9F;
    }
    const auto k = static_cast<std::int64_t>(1 + engine() % columns);
    EXPECT_EQ(top_k(*gpu, x, rows, k), top_k(*cpu, x, rows, k)) << "seed " << seed;
  }
}

TEST_P(CudaSelection, SpanMeanAndSums) {
  std::mt19937 engine(5);
  const std::int64_t rows = 3, columns = 3000;
  Ints origins;
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int32_t position = 0;
    for (std::int64_t i = 0; i < columns; ++i)
      origins.push_back(position += 1 + static_cast<std::int32_t>(engine() % 6));
  }
  const auto x = random_floats(static_cast<std::size_t>(rows * columns), 6, 0, 10);
  const auto run = [&](Device& device) {
    const Tensor in = tensor_of(device, kF32, {rows, columns}, x), out = empty_tensor(device, kF32, {rows, columns});
    const Tensor sum = empty_tensor(device, kF32, {1, columns});
    device.span_mean(in, ints_of(device, {rows, columns}, origins), 7, 1.0F / 64, out);
    device.sum_rows(in, sum);
    auto all = fetch(device, out);
    const auto sums = fetch(device, sum);
    all.insert(all.end(), sums.begin(), sums.end());
    return all;
  };
  EXPECT_LT(distance(run(*gpu), run(*cpu)), 1e-7F);
}

TEST_P(CudaSelection, Gathers) {
  for (const std::int64_t d : {3, 24, 128}) {
    for (const bool shared : {true, false}) {
      const auto x = values(static_cast<std::size_t>(2 * 50 * d), 7),
                 y = values(static_cast<std::size_t>(2 * 50 * d), 8);
      const Ints index = shared ? Ints{1, 4, 49} : Ints{0, 1, 2, 3, 20, 49};
      const std::int64_t rows = shared ? 1 : 2;
      Ints places(static_cast<std::size_t>(rows * 50));
      std::iota(places.begin(), places.end(), 1000);
      const auto run = [&](Device& device) {
        const ElementType t = type();
        const auto list = [&] {
          return tensor_of(device, t, {2, 5, d}, std::vector<float>(static_cast<std::size_t>(10 * d), -1));
        };
        const Tensor to_keys = list(), to_values = list();
        const Tensor to_origins = ints_of(device, {rows, 4}, Ints(static_cast<std::size_t>(rows * 4), -1));
        device.gather({tensor_of(device, t, {2, 50, d}, x), tensor_of(device, t, {2, 50, d}, y),
                       ints_of(device, {rows, 50}, places)},
                      ints_of(device, {rows, 3}, index),
                      {to_keys.slice(1, 1, 3), to_values.slice(1, 1, 3), to_origins.slice(1, 0, 3)});
        auto all = fetch(device, to_keys);
        for (const float value : fetch(device, to_values)) all.push_back(value);
        for (const std::int32_t place : ints_in(device, to_origins)) all.push_back(static_cast<float>(place));
        return all;
      };
      EXPECT_EQ(run(*gpu), run(*cpu));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Class, CudaSelection, ::testing::Values(NumericClass::kReference, NumericClass::kFast),
                         numeric_name);

}  // namespace
}  // namespace finchkv::kernels
