// Every instruction set's loops against the plain code: the same bytes, the same numbers, the same refusals.
#include "base/dtype_ops.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "quantised_reference.h"

namespace finchkv {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<const DTypeOps*> tables() {
  int count = 0;
  const DTypeOps* const* first = dtype_ops_tables(&count);
  return {first, first + count};
}

// Bytes at an odd address between guards: loops may assume no alignment and touch nothing around their output.
class Guarded {
 public:
  explicit Guarded(std::size_t size) : size_(size), memory_(size + 2 * kGuard, std::byte{0xa5}) {}
  [[nodiscard]] std::span<std::byte> bytes() { return std::span(memory_).subspan(kGuard, size_); }
  [[nodiscard]] bool intact() const {
    for (std::size_t i = 0; i < kGuard; ++i) {
      if (memory_[i] != std::byte{0xa5} || memory_[kGuard + size_ + i] != std::byte{0xa5}) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kGuard = 129;
  std::size_t size_;
  std::vector<std::byte> memory_;
};

template <typename T>
void fill(std::span<std::byte> to, const std::vector<T>& from) {
  ASSERT_EQ(to.size(), from.size() * sizeof(T));
  if (!from.empty()) std::memcpy(to.data(), from.data(), to.size());
}

struct Case {
  DType dtype;
  DType layout;
  GroupAxis axis;

  [[nodiscard]] int element() const { return static_cast<int>(dtype); }
  [[nodiscard]] int layout_index() const { return layout == DType::kQ8 ? kLayoutQ8 : kLayoutQ4; }
  [[nodiscard]] int axis_index() const { return axis == GroupAxis::kTokens ? kAxisTokens : kAxisChannels; }
};

std::uint64_t refused_token(const Status& status, std::uint64_t tokens) {
  if (status.is_ok()) return tokens;
  const std::string mark = "from token ";
  return std::stoull(status.message().substr(status.message().find(mark) + mark.size()));
}

class EveryTable : public ::testing::TestWithParam<Case> {
 protected:
  // Encodes `numbers`, rounded to the case's dtype, with all tables, and compares.
  void expect_encodes_alike(const std::vector<float>& numbers, std::uint64_t tokens, std::uint64_t channels) {
    const Case& c = GetParam();
    const QuantisedShape shape{1, tokens, channels};
    Guarded in(numbers.size() * element_bytes(c.dtype));
    std::vector<float> rounded(numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      std::byte* const at = in.bytes().data() + i * element_bytes(c.dtype);
      if (c.dtype == DType::kF32) {
        rounded[i] = numbers[i];
        std::memcpy(at, &numbers[i], sizeof(float));
      } else {
        const std::uint16_t word = c.dtype == DType::kF16 ? f32_to_f16(numbers[i]) : f32_to_bf16(numbers[i]);
        rounded[i] = c.dtype == DType::kF16 ? f16_to_f32(word) : bf16_to_f32(word);
        std::memcpy(at, &word, sizeof(word));
      }
    }
    std::vector<std::byte> want(*quantised_bytes(c.layout, c.axis, shape));
    const std::uint64_t want_token = refused_token(reference::quantise(c.layout, c.axis, shape, rounded, want), tokens);
    for (const DTypeOps* ops : tables()) {
      Guarded got(want.size());
      const auto encode = ops->encode[c.element()][c.layout_index()][c.axis_index()];
      ASSERT_EQ(encode(in.bytes().data(), tokens, channels, got.bytes().data()), want_token)
          << ops->name << " " << tokens << " x " << channels;
      ASSERT_TRUE(got.intact()) << ops->name << " " << tokens << " x " << channels;
      if (want_token != tokens) continue;
      ASSERT_TRUE(std::equal(want.begin(), want.end(), got.bytes().begin()))
          << ops->name << " " << tokens << " x " << channels;
    }
  }

  void expect_decodes_alike(const std::vector<std::byte>& stored, std::uint64_t tokens, std::uint64_t channels) {
    const Case& c = GetParam();
    const QuantisedShape shape{1, tokens, channels};
    Guarded in(stored.size());
    fill(in.bytes(), stored);
    std::vector<float> wide(tokens * channels);
    const std::uint64_t want_token =
        refused_token(reference::dequantise(c.layout, c.axis, shape, stored, wide), tokens);
    std::vector<std::byte> want(wide.size() * element_bytes(c.dtype));
    for (std::size_t i = 0; i < wide.size(); ++i) {
      std::byte* const at = want.data() + i * element_bytes(c.dtype);
      if (c.dtype == DType::kF32) {
        std::memcpy(at, &wide[i], sizeof(float));
      } else {
        const std::uint16_t word = c.dtype == DType::kF16 ? f32_to_f16(wide[i]) : f32_to_bf16(wide[i]);
        std::memcpy(at, &word, sizeof(word));
      }
    }
    for (const DTypeOps* ops : tables()) {
      Guarded got(want.size());
      const auto decode = ops->decode[c.element()][c.layout_index()][c.axis_index()];
      ASSERT_EQ(decode(in.bytes().data(), tokens, channels, got.bytes().data()), want_token)
          << ops->name << " " << tokens << " x " << channels;
      ASSERT_TRUE(got.intact()) << ops->name << " " << tokens << " x " << channels;
      if (want_token != tokens) continue;
      ASSERT_TRUE(std::equal(want.begin(), want.end(), got.bytes().begin()))
          << ops->name << " " << tokens << " x " << channels;
    }
  }
};

const std::vector<std::uint64_t> kTokenCounts = {1, 2, 3, 63, 64, 65, 130};
const std::vector<std::uint64_t> kChannelCounts = {1, 2, 5, 8, 15, 16, 17, 40, 63, 64, 65, 80, 96, 128, 129, 200, 256};

TEST_P(EveryTable, EncodesLikeTheReference) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.3F, 1.0F);
  for (const std::uint64_t tokens : kTokenCounts) {
    for (const std::uint64_t channels : kChannelCounts) {
      for (const float magnitude : {1e-39F, 1e-7F, 1e-4F, 1.0F, 3000.0F, 60000.0F}) {
        std::vector<float> numbers(tokens * channels);
        for (float& x : numbers) x = normal(random) * magnitude;
        expect_encodes_alike(numbers, tokens, channels);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(EveryTable, EncodesFewDistinctNumbersLikeTheReference) {  // zeros of both signs, constants, ends of the ranges
  std::mt19937 random(2);
  const std::vector<std::vector<float>> alphabets = {
      {0.0F, -0.0F},
      {0.0F, -0.0F, 1.0F},
      {-0.0F, 0.0F, 0.5F, -0.5F},
      {1e-45F, -1e-45F, 0.0F, -0.0F},
      {1e-40F, 3e-8F, -3e-8F},
      {0x1p-24F, 0x1p-25F, -0x1p-25F, 0x1.8p-25F},
      {65504.0F, -65504.0F},
      {-65504.0F, -65505.0F, 0.0F},
      {65504.0F * 15, 0.0F},
      {65504.0F * 127, -65504.0F},
      {3.0F},
      {-1.0F, 2.0F, 100.0F},
  };
  for (const auto& alphabet : alphabets) {
    for (const std::uint64_t tokens : {1U, 5U, 64U, 70U}) {
      for (const std::uint64_t channels : {1U, 7U, 16U, 64U, 70U, 128U}) {
        std::vector<float> numbers(tokens * channels);
        for (float& x : numbers) x = alphabet[random() % alphabet.size()];
        expect_encodes_alike(numbers, tokens, channels);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Quotients halfway between two quants, and their neighbours, for every mantissa that an f16 scale can have: where an
// approximate division would show.
TEST_P(EveryTable, EncodesTiesLikeTheReference) {
  const bool q8 = GetParam().layout == DType::kQ8;
  for (int exponent : {-30, -24, -3, 0, 3}) {
    for (int mantissa = 1024; mantissa < 2048; mantissa += 1) {
      const float scale = std::ldexp(static_cast<float>(mantissa), exponent);
      if (f16_to_f32(f32_to_f16(scale)) != scale) continue;
      std::vector<float> ties;
      for (int k = q8 ? -127 : 0; k < (q8 ? 127 : 15); ++k) {
        const float tie = (static_cast<float>(k) + 0.5F) * scale;
        ties.insert(ties.end(), {tie, std::nextafter(tie, kInf), std::nextafter(tie, -kInf)});
      }
      // Rows of 64 with the extremes in front, so that this scale is the one chosen in every group along channels.
      std::vector<float> numbers;
      for (const float tie : ties) {
        if (numbers.size() % 64 == 0) numbers.insert(numbers.end(), {q8 ? 127 * scale : 15 * scale, 0.0F});
        numbers.push_back(tie);
      }
      while (numbers.size() % 64 != 0) numbers.push_back(0.0F);
      const std::uint64_t rows = numbers.size() / 64;
      if (GetParam().axis == GroupAxis::kChannels) {
        expect_encodes_alike(numbers, rows, 64);
      } else {
        std::vector<float> turned(numbers.size());
        for (std::size_t i = 0; i < numbers.size(); ++i) turned[i % 64 * rows + i / 64] = numbers[i];
        expect_encodes_alike(turned, 64, rows);
      }
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(EveryTable, RefusesAtTheSameToken) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0F, 1.0F);
  for (const float bad : {kInf, -kInf, kNan, -kNan, 1e9F, -1e9F}) {
    for (int round = 0; round < 40; ++round) {
      const std::uint64_t tokens = 1 + random() % 150;
      const std::uint64_t channels = 1 + random() % 150;
      std::vector<float> numbers(tokens * channels);
      for (float& x : numbers) x = normal(random);
      numbers[random() % numbers.size()] = bad;
      numbers[random() % numbers.size()] = bad;
      expect_encodes_alike(numbers, tokens, channels);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(EveryTable, DecodesAnyBytesLikeTheReference) {
  const Case& c = GetParam();
  std::mt19937 random(4);
  int decoded = 0;
  for (const std::uint64_t tokens : kTokenCounts) {
    for (const std::uint64_t channels : kChannelCounts) {
      // Any quants, any finite scales of either sign; then one 16-bit word of the block made infinite or NaN.
      const QuantisedShape shape{1, tokens, channels};
      std::vector<std::byte> stored(*quantised_bytes(c.layout, c.axis, shape));
      for (std::byte& b : stored) b = static_cast<std::byte>(random());
      for (std::size_t i = 1; i < stored.size(); ++i) {
        stored[i] &= std::byte{0xfb};  // no byte can be the upper one of an f16 that is not finite
      }
      stored[0] &= std::byte{0xfb};
      expect_decodes_alike(stored, tokens, channels);
      if (HasFatalFailure()) return;
      ++decoded;
      stored[random() % stored.size()] = std::byte{0x7c};
      expect_decodes_alike(stored, tokens, channels);
      if (HasFatalFailure()) return;
      for (std::byte& b : stored) b = static_cast<std::byte>(random());
      expect_decodes_alike(stored, tokens, channels);
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_GT(decoded, 100);
}

std::vector<Case> all_cases() {
  std::vector<Case> out;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const DType layout : {DType::kQ8, DType::kQ4}) {
      for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) out.push_back({dtype, layout, axis});
    }
  }
  return out;
}

INSTANTIATE_TEST_SUITE_P(Cases, EveryTable, ::testing::ValuesIn(all_cases()), [](const auto& one) {
  return std::string(dtype_name(one.param.dtype)) + "_" + std::string(dtype_name(one.param.layout)) +
         (one.param.axis == GroupAxis::kTokens ? "_keys" : "_values");
});

TEST(DTypeOps, WidensEveryWordLikeDType) {
  std::vector<std::uint16_t> words(65536 + 5);  // and a part of a vector
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint16_t>(i);
  for (const DTypeOps* ops : tables()) {
    Guarded in(words.size() * 2);
    Guarded f16(words.size() * 4);
    Guarded bf16(words.size() * 4);
    fill(in.bytes(), words);
    ops->f16_to_f32(in.bytes().data(), words.size(), f16.bytes().data());
    ops->bf16_to_f32(in.bytes().data(), words.size(), bf16.bytes().data());
    ASSERT_TRUE(f16.intact() && bf16.intact()) << ops->name;
    for (std::size_t i = 0; i < words.size(); ++i) {
      std::uint32_t from_f16 = 0;
      std::uint32_t from_bf16 = 0;
      std::memcpy(&from_f16, f16.bytes().data() + i * 4, 4);
      std::memcpy(&from_bf16, bf16.bytes().data() + i * 4, 4);
      ASSERT_EQ(from_f16, std::bit_cast<std::uint32_t>(f16_to_f32(words[i]))) << ops->name << " " << i;
      ASSERT_EQ(from_bf16, std::bit_cast<std::uint32_t>(bf16_to_f32(words[i]))) << ops->name << " " << i;
    }
  }
}

TEST(DTypeOps, NarrowsLikeDType) {
  // Every upper half with lower halves around the ties of bf16, and around those of f16; then anything.
  std::vector<std::uint32_t> bits;
  for (std::uint32_t upper = 0; upper < 65536; ++upper) {
    for (const std::uint32_t lower : {0U, 1U, 0xfffU, 0x1000U, 0x1001U, 0x7fffU, 0x8000U, 0x8001U, 0xf000U, 0xffffU}) {
      bits.push_back(upper << 16 | lower);
    }
  }
  std::mt19937 random(5);
  for (int i = 0; i < 100003; ++i) bits.push_back(random());
  for (const DTypeOps* ops : tables()) {
    Guarded in(bits.size() * 4);
    Guarded f16(bits.size() * 2);
    Guarded bf16(bits.size() * 2);
    fill(in.bytes(), bits);
    ops->f32_to_f16(in.bytes().data(), bits.size(), f16.bytes().data());
    ops->f32_to_bf16(in.bytes().data(), bits.size(), bf16.bytes().data());
    ASSERT_TRUE(f16.intact() && bf16.intact()) << ops->name;
    for (std::size_t i = 0; i < bits.size(); ++i) {
      std::uint16_t to_f16 = 0;
      std::uint16_t to_bf16 = 0;
      std::memcpy(&to_f16, f16.bytes().data() + i * 2, 2);
      std::memcpy(&to_bf16, bf16.bytes().data() + i * 2, 2);
      ASSERT_EQ(to_f16, f32_to_f16(std::bit_cast<float>(bits[i]))) << ops->name << " " << std::hex << bits[i];
      ASSERT_EQ(to_bf16, f32_to_bf16(std::bit_cast<float>(bits[i]))) << ops->name << " " << std::hex << bits[i];
    }
  }
}

TEST(DTypeOps, FindsWhatIsNotFinite) {
  for (const DTypeOps* ops : tables()) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      const auto finite = ops->all_finite[static_cast<int>(dtype)];
      for (const std::size_t count : {0U, 1U, 3U, 31U, 64U, 100U, 4095U, 4096U, 4097U, 9000U}) {
        Guarded in(count * element_bytes(dtype));
        const auto put = [&](std::size_t at, bool negative, bool largest) {
          const std::uint32_t sign = negative ? 0x80000000U : 0;
          std::uint32_t bits = 0;
          switch (dtype) {
            case DType::kF32: bits = largest ? 0x7f7fffffU : 0x7f800000U; break;
            case DType::kF16: bits = (largest ? 0x7bffU : 0x7c00U) << 16; break;
            default: bits = (largest ? 0x7f7fU : 0x7f80U) << 16; break;
          }
          bits |= sign;
          if (dtype != DType::kF32) bits >>= 16;
          std::memcpy(in.bytes().data() + at * element_bytes(dtype), &bits, element_bytes(dtype));
        };
        for (std::size_t i = 0; i < count; ++i) put(i, i % 2 == 0, true);
        ASSERT_TRUE(finite(in.bytes().data(), count)) << ops->name << " " << dtype_name(dtype) << " " << count;
        for (std::size_t i = 0; i < count; i += 1 + count / 50) {
          put(i, i % 3 == 0, false);
          ASSERT_FALSE(finite(in.bytes().data(), count)) << ops->name << " " << dtype_name(dtype) << " " << i;
          put(i, true, true);
        }
      }
    }
  }
}

TEST(DTypeOps, TheBestTableIsTheLast) { EXPECT_EQ(&dtype_ops(), tables().back()); }

}  // namespace
}  // namespace finchkv
