// Every vector table that this processor can run against plain loops in double, over lengths that fill no vector.
#include "kernels/cpu/simd.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "tests/kernels/device_data.h"

namespace finchkv::kernels::cpu {
namespace {

using testing::random_floats;

constexpr std::int64_t kMost = 70;
constexpr float kUntouched = -12345.0F;
constexpr BF16 kUntouchedBf16 = 0xC640;

double wide(float x) { return static_cast<double>(x); }
std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::vector<const SimdOps*> tables() {
  int count = 0;
  const SimdOps* const* all = simd_tables(&count);
  return {all, all + count};
}

class Simd : public ::testing::TestWithParam<const SimdOps*> {
 protected:
  const SimdOps& ops() const { return *GetParam(); }

  // Runs op on an output that is longer than d, checks that the rest stays, and gives back the d results.
  template <typename F>
  std::vector<float> f32_out(std::int64_t d, const F& op) const {
    std::vector<float> y(at(d + 20), kUntouched);
    op(y.data());
    for (std::size_t i = at(d); i < y.size(); ++i) EXPECT_EQ(y[i], kUntouched) << "wrote past " << d;
    y.resize(at(d));
    return y;
  }
  template <typename F>
  std::vector<float> bf16_out(std::int64_t d, const F& op) const {
    std::vector<BF16> y(at(d + 20), kUntouchedBf16);
    op(y.data());
    for (std::size_t i = at(d); i < y.size(); ++i) EXPECT_EQ(y[i], kUntouchedBf16) << "wrote past " << d;
    std::vector<float> out;
    for (std::int64_t i = 0; i < d; ++i) out.push_back(bf16_to_f32(y[at(i)]));
    return out;
  }
  static void expect_close(const std::vector<float>& got, const std::vector<double>& want, double relative,
                           double absolute = 1e-6) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(wide(got[i]), want[i], std::abs(want[i]) * relative + absolute) << i << " of " << got.size();
  }
};

constexpr double kF32 = 2e-6;
constexpr double kBf16 = 0x1p-8;  // nearest of 8 bits: half a unit is 2^-9, and a little for the f32 before it

TEST(SimdTables, BestIsTheLastAndAllHaveNames) {
  const auto all = tables();
  ASSERT_FALSE(all.empty());
  EXPECT_EQ(&simd(), all.back());
  EXPECT_STREQ(all.front()->name, "generic");
}

TEST_P(Simd, RmsNorm) {
  for (std::int64_t d = 1; d <= kMost; ++d) {
    const auto x = random_floats(at(d), 1, -3, 3);
    const auto w = random_floats(at(d), 2, 0, 2);
    double squares = 0;
    for (const float v : x) squares += wide(v) * wide(v);
    std::vector<double> want;
    for (std::size_t i = 0; i < x.size(); ++i)
      want.push_back(wide(x[i]) / std::sqrt(squares / static_cast<double>(d) + 1e-5) * wide(w[i]));
    expect_close(f32_out(d, [&](float* y) { ops().rms_norm_f32(x.data(), w.data(), 1e-5F, d, y); }), want, kF32);
    expect_close(bf16_out(d, [&](BF16* y) { ops().rms_norm_bf16(x.data(), w.data(), 1e-5F, d, y); }), want, kBf16);
  }
}

TEST_P(Simd, RmsNormInPlace) {
  auto x = random_floats(37, 3);
  const auto w = random_floats(37, 4);
  const auto apart = f32_out(37, [&](float* y) { ops().rms_norm_f32(x.data(), w.data(), 1e-6F, 37, y); });
  ops().rms_norm_f32(x.data(), w.data(), 1e-6F, 37, x.data());
  EXPECT_EQ(x, apart);
}

TEST_P(Simd, SwiGlu) {
  for (std::int64_t d = 1; d <= kMost; ++d) {
    auto gate = random_floats(at(d), 5, -12, 12);
    const auto up = random_floats(at(d), 6, -2, 2);
    gate[0] = 200.0F;  // both ends of the exponential
    gate[at(d / 2)] = -200.0F;
    std::vector<double> want;
    for (std::size_t i = 0; i < up.size(); ++i)
      want.push_back(wide(gate[i]) / (1 + std::exp(-wide(gate[i]))) * wide(up[i]));
    expect_close(f32_out(d, [&](float* y) { ops().swiglu_f32(gate.data(), up.data(), d, y); }), want, 4e-6);
    expect_close(bf16_out(d, [&](BF16* y) { ops().swiglu_bf16(gate.data(), up.data(), d, y); }), want, kBf16);
  }
}

TEST_P(Simd, ConversionsAreExact) {
  std::vector<float> hard = {0.0F,
                             -0.0F,
                             1.0F,
                             -1.0F,
                             1.00390625F,
                             1.01171875F,
                             -1.00390625F,
                             -1.01171875F,
                             3.3e38F,
                             -3.3e38F,
                             1e-38F,
                             1e-42F,
                             -1e-42F,
                             0x1.fffp-1F,
                             0x1.01p0F,
                             0x1.010001p0F,
                             -0x1.010001p0F,
                             65504.0F,
                             std::numeric_limits<float>::min()};
  for (std::int64_t d = 1; d <= kMost; ++d) {
    auto x = random_floats(at(d), 7, -1e4F, 1e4F);
    for (std::size_t i = 0; i < x.size() && i < hard.size(); ++i) x[i] = hard[(i + at(d)) % hard.size()];
    std::vector<double> want;
    std::vector<BF16> narrow;
    for (const float v : x) {
      narrow.push_back(f32_to_bf16(v));
      want.push_back(wide(bf16_to_f32(narrow.back())));
    }
    // Exact, but for values below the smallest normal number, which may become zero.
    constexpr double kSmallestNormal = 0x1p-126;
    const auto rounded = bf16_out(d, [&](BF16* y) { ops().to_bf16(x.data(), d, y); });
    for (std::size_t i = 0; i < want.size(); ++i) {
      if (std::abs(want[i]) < kSmallestNormal && rounded[i] == 0.0F) continue;
      ASSERT_EQ(wide(rounded[i]), want[i]) << i << " of " << want.size();
    }
    expect_close(f32_out(d, [&](float* y) { ops().to_f32(narrow.data(), d, y); }), want, 0, 0);
  }
}

TEST_P(Simd, Rotate) {
  for (std::int64_t d = 2; d <= kMost; d += 2) {
    const auto x = random_floats(at(d), 8, -2, 2);
    const auto cos = random_floats(at(d), 9);
    const auto sin = random_floats(at(d), 10);
    for (const bool interleaved : {true, false}) {
      std::vector<double> want;
      for (std::int64_t i = 0; i < d; ++i) {
        const std::int64_t partner = interleaved ? (i % 2 == 0 ? i + 1 : i - 1) : (i + d / 2) % d;
        want.push_back(wide(x[at(i)]) * wide(cos[at(i)]) + wide(x[at(partner)]) * wide(sin[at(i)]));
      }
      const auto f32 =
          f32_out(d, [&](float* y) { ops().rotate_f32(x.data(), cos.data(), sin.data(), d, interleaved, y); });
      expect_close(f32, want, kF32);
      expect_close(
          bf16_out(d, [&](BF16* y) { ops().rotate_bf16(x.data(), cos.data(), sin.data(), d, interleaved, y); }), want,
          kBf16);
    }
  }
}

TEST_P(Simd, AddScaleAxpyDot) {
  for (std::int64_t d = 1; d <= kMost; ++d) {
    const auto x = random_floats(at(d), 11, -2, 2);
    const auto start = random_floats(at(d), 12, -2, 2);
    std::vector<double> sum, scaled, axpy;
    double dot = 0, size = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      sum.push_back(wide(start[i]) + wide(x[i]));
      scaled.push_back(wide(start[i]) * -0.37F);
      axpy.push_back(wide(start[i]) + wide(x[i]) * 1.7F);
      dot += wide(x[i]) * wide(start[i]);
      size += std::abs(wide(x[i]) * wide(start[i]));
    }
    const auto from_start = [&](const auto& op) {
      return f32_out(d, [&](float* y) {
        std::copy(start.begin(), start.end(), y);
        op(y);
      });
    };
    expect_close(from_start([&](float* y) { ops().add(x.data(), d, y); }), sum, kF32);
    expect_close(from_start([&](float* y) { ops().scale(-0.37F, d, y); }), scaled, kF32);
    expect_close(from_start([&](float* y) { ops().axpy(1.7F, x.data(), d, y); }), axpy, kF32);
    EXPECT_NEAR(wide(ops().dot(x.data(), start.data(), d)), dot, size * kF32);
  }
}

struct SoftmaxCase {
  const char* what;
  float low, high, scale, before;  // logits in [low, high); the running maximum before
};

TEST_P(Simd, OnlineSoftmax) {
  const float none = -std::numeric_limits<float>::infinity();
  for (const SoftmaxCase& c :
       {SoftmaxCase{"usual", -3, 3, 0.125F, none}, SoftmaxCase{"first block had less", 0, 5, 1, -2},
        SoftmaxCase{"first block had more", -5, 0, 1, 4}, SoftmaxCase{"huge", 9e3F, 1e4F, 1, none},
        SoftmaxCase{"hugely negative", -3e30F, -2.99e30F, 1, none}, SoftmaxCase{"far apart", -1e4F, 1e4F, 1, 0},
        SoftmaxCase{"all the same", 2, 2, 1, none}}) {
    SCOPED_TRACE(c.what);
    for (std::int64_t n = 1; n <= kMost; ++n) {
      const auto s = random_floats(at(n), 13 + static_cast<std::uint32_t>(n), c.low, c.high);
      double most = wide(c.before);
      for (const float v : s) most = std::max(most, wide(v * c.scale));
      std::vector<double> want;
      for (const float v : s) want.push_back(std::exp(wide(v * c.scale) - most));
      const double total = std::accumulate(want.begin(), want.end(), 0.0);
      const double alpha = std::exp(wide(c.before) - most);
      for (const bool narrow : {false, true}) {
        float m = c.before, got_alpha = -1, got_total = -1;
        const auto got =
            narrow
                ? bf16_out(n, [&](BF16* p) { got_total = ops().softmax_bf16(s.data(), n, c.scale, &m, &got_alpha, p); })
                : f32_out(n, [&](float* p) { got_total = ops().softmax_f32(s.data(), n, c.scale, &m, &got_alpha, p); });
        expect_close(got, want, narrow ? kBf16 : 4e-6);
        EXPECT_EQ(wide(m), most);
        EXPECT_NEAR(wide(got_alpha), alpha, 4e-6);
        EXPECT_NEAR(wide(got_total), total, total * 1e-5 + 1e-6);
      }
    }
  }
}

TEST_P(Simd, SoftmaxInPlace) {
  auto s = random_floats(53, 14, -4, 4);
  float m = -1, alpha = 0, m2 = -1, alpha2 = 0, total = 0;
  const auto apart = f32_out(53, [&](float* p) { total = ops().softmax_f32(s.data(), 53, 1, &m, &alpha, p); });
  EXPECT_EQ(ops().softmax_f32(s.data(), 53, 1, &m2, &alpha2, s.data()), total);
  EXPECT_EQ(s, apart);
}

TEST_P(Simd, AddExp) {
  for (std::int64_t n = 1; n <= kMost; ++n) {
    auto s = random_floats(at(n), 15, -8, 3);
    s[at(n / 2)] = -1e6F;  // adds nothing
    const auto start = random_floats(at(n), 16, 0, 2);
    std::vector<double> want;
    for (std::size_t i = 0; i < s.size(); ++i)
      want.push_back(wide(start[i]) + 0.75 * std::exp(wide(s[i] * 0.5F) - 2.5));
    const auto got = f32_out(n, [&](float* mass) {
      std::copy(start.begin(), start.end(), mass);
      ops().add_exp(s.data(), n, 0.5F, 2.5F, 0.75F, mass);
    });
    expect_close(got, want, 4e-6);
  }
}

TEST_P(Simd, KeysDotAndValuesSum) {
  for (std::int64_t d = 1; d <= kMost; ++d) {
    for (const std::int64_t n : {1, 2, 5, 17}) {
      const auto q = random_floats(at(d), 17);
      const auto rows = random_floats(at(n * d), 18);
      const auto p = random_floats(at(n), 19, 0, 1);
      const auto start = random_floats(at(d), 20);
      std::vector<BF16> narrow;
      for (const float v : rows) narrow.push_back(f32_to_bf16(v));
      for (const bool is_narrow : {false, true}) {
        const auto row = [&](std::int64_t t, std::int64_t i) {
          return wide(is_narrow ? bf16_to_f32(narrow[at(t * d + i)]) : rows[at(t * d + i)]);
        };
        std::vector<double> logits(at(n)), sum(start.begin(), start.end());
        for (std::int64_t t = 0; t < n; ++t) {
          for (std::int64_t i = 0; i < d; ++i) {
            logits[at(t)] += wide(q[at(i)]) * row(t, i) * 0.25;
            sum[at(i)] += wide(p[at(t)]) * row(t, i);
          }
        }
        expect_close(f32_out(n,
                             [&](float* y) {
                               is_narrow ? ops().keys_dot_bf16(q.data(), narrow.data(), n, d, 0.25F, y)
                                         : ops().keys_dot_f32(q.data(), rows.data(), n, d, 0.25F, y);
                             }),
                     logits, kF32, 1e-5);
        expect_close(f32_out(d,
                             [&](float* y) {
                               std::copy(start.begin(), start.end(), y);
                               is_narrow ? ops().values_sum_bf16(p.data(), narrow.data(), n, d, y)
                                         : ops().values_sum_f32(p.data(), rows.data(), n, d, y);
                             }),
                     sum, kF32, 1e-5);
      }
    }
  }
}

// Blocks of random codes, written here byte by byte from the layout's description in simd.h.
void check_gemv(SimdOps::Gemv gemv, bool four_bits) {
  constexpr std::int64_t kRows = 16, kGroup = 32;
  for (const std::int64_t in : {32, 64, 160}) {
    for (const std::int64_t blocks : {1, 2, 3}) {
      const std::int64_t groups = in / kGroup;
      std::mt19937 engine(static_cast<std::uint32_t>(in + blocks));
      const auto x = random_floats(at(in), 21);
      std::vector<float> sums(at(groups));
      for (std::int64_t k = 0; k < in; ++k) sums[at(k / kGroup)] += x[at(k)];
      std::vector<std::byte> bytes;
      std::vector<double> want(at(blocks * kRows));
      for (std::int64_t b = 0; b < blocks; ++b) {
        for (std::int64_t g = 0; g < groups; ++g) {
          std::array<F16, 32> head{};  // 16 scales, 16 minima
          for (std::size_t r = 0; r < 16; ++r) {
            head[r] = f32_to_f16(static_cast<float>(engine() % 1000) * 1e-5F);
            head[16 + r] = f32_to_f16(static_cast<float>(engine() % 1000) * 1e-3F - 0.5F);
          }
          head[3] = 1;  // the smallest f16 that is not zero
          const auto* raw = reinterpret_cast<const std::byte*>(head.data());
          bytes.insert(bytes.end(), raw, raw + sizeof(head));
          std::array<std::array<int, 16>, 32> codes{};  // [k][row]
          for (auto& row : codes) {
            for (int& c : row) c = four_bits ? static_cast<int>(engine() % 16) : static_cast<int>(engine() % 255) - 127;
          }
          for (std::size_t k = 0; k < (four_bits ? 16U : 32U); ++k) {
            for (std::size_t r = 0; r < 16; ++r) {
              const int byte = four_bits ? codes[k][r] | codes[k + 16][r] << 4 : codes[k][r];
              bytes.push_back(static_cast<std::byte>(static_cast<std::uint8_t>(byte)));
            }
          }
          for (std::size_t r = 0; r < 16; ++r) {
            for (std::size_t k = 0; k < 32; ++k) {
              want[at(b * kRows) + r] += (wide(f16_to_f32(head[r])) * codes[k][r] + wide(f16_to_f32(head[16 + r]))) *
                                         wide(x[at(g * kGroup) + k]);
            }
          }
        }
      }
      std::vector<float> y(at(blocks * kRows) + 1, kUntouched);
      gemv(bytes.data(), blocks, in, x.data(), sums.data(), y.data());
      EXPECT_EQ(y.back(), kUntouched);
      for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(wide(y[i]), want[i], 2e-5) << i << " in " << in;
    }
  }
}

TEST_P(Simd, EightBitGemv) { check_gemv(ops().q8_gemv, false); }
TEST_P(Simd, FourBitGemv) { check_gemv(ops().q4_gemv, true); }

INSTANTIATE_TEST_SUITE_P(Tables, Simd, ::testing::ValuesIn(tables()),
                         [](const auto& tested) { return std::string(tested.param->name); });

}  // namespace
}  // namespace finchkv::kernels::cpu
