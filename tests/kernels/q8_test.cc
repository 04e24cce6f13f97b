// The 8- and 4-bit copies of weights: exact on grids, half a step off elsewhere, decoded here from the layout in
// simd.h.
#include "kernels/cpu/q8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>

#include "kernels/cpu/simd.h"
#include "tests/kernels/device_data.h"

namespace finchkv::kernels::cpu {
namespace {

using testing::random_floats;

constexpr std::int64_t kRows = 16, kGroup = 32;

struct Decoded {
  std::vector<float> values;  // [16, in]
  std::vector<float> scales;  // [16, in / 32]
};

Decoded decode(const std::vector<std::byte>& bytes, std::int64_t in, bool four_bits) {
  Decoded out;
  out.values.resize(static_cast<std::size_t>(kRows * in));
  out.scales.resize(static_cast<std::size_t>(kRows * in / kGroup));
  const std::int64_t group_bytes = four_bits ? Q4Block16::kGroupBytes : Q8Block16::kGroupBytes;
  for (std::int64_t g = 0; g < in / kGroup; ++g) {
    const std::byte* at = bytes.data() + g * group_bytes;
    std::array<F16, 32> head{};
    std::memcpy(head.data(), at, sizeof(head));
    const auto* codes = reinterpret_cast<const std::uint8_t*>(at + sizeof(head));
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float scale = f16_to_f32(head[static_cast<std::size_t>(r)]);
      const float minimum = f16_to_f32(head[static_cast<std::size_t>(kRows + r)]);
      out.scales[static_cast<std::size_t>(r * in / kGroup + g)] = scale;
      for (std::int64_t k = 0; k < kGroup; ++k) {
        int code = 0;
        if (four_bits) {
          const int pair = codes[k % 16 * kRows + r];
          code = k < 16 ? pair & 15 : pair >> 4;
        } else {
          code = static_cast<std::int8_t>(codes[k * kRows + r]);
        }
        out.values[static_cast<std::size_t>(r * in + g * kGroup + k)] = static_cast<float>(code) * scale + minimum;
      }
    }
  }
  return out;
}

Decoded through_q8(const std::vector<float>& w, std::int64_t in, int grid_steps) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(in / kGroup * Q8Block16::kGroupBytes));
  EXPECT_TRUE(encode_q8_block(w.data(), in, grid_steps, bytes.data()));
  return decode(bytes, in, false);
}

// Groups whose values are minimum + step * (0..steps), both ends present; everything a short binary fraction.
std::vector<float> on_grid(std::int64_t in, int steps) {
  std::mt19937 engine(static_cast<std::uint32_t>(in + steps));
  std::vector<float> w(static_cast<std::size_t>(kRows * in));
  for (std::int64_t g = 0; g < kRows * in / kGroup; ++g) {
    const float step = static_cast<float>(1 + engine() % 7) / 64;
    const float minimum = -step * static_cast<float>(engine() % 16);
    for (std::int64_t k = 0; k < kGroup; ++k) {
      const auto code = k == 3    ? 0U
                        : k == 17 ? static_cast<unsigned>(steps)
                                  : engine() % static_cast<unsigned>(steps + 1);
      w[static_cast<std::size_t>(g * kGroup + k)] = minimum + step * static_cast<float>(code);
    }
  }
  return w;
}

TEST(Q8, FourBitGridsAreExact) {
  for (const std::int64_t in : {32, 96}) {
    const auto w = on_grid(in, 15);
    EXPECT_EQ(through_q8(w, in, 15).values, w);
  }
}

TEST(Q8, FiveBitGridsAreExact) {
  const auto w = on_grid(64, 31);
  EXPECT_EQ(through_q8(w, 64, 31).values, w);
}

TEST(Q8, AGroupThatUsesPartOfItsGridIsExactToo) {
  auto w = on_grid(32, 15);
  for (std::int64_t r = 0; r < kRows; ++r) {  // codes 0, 1, 4 and 9 of a step of 1/32
    for (std::int64_t k = 0; k < kGroup; ++k)
      w[static_cast<std::size_t>(r * kGroup + k)] = -0.25F + static_cast<float>(k % 4 * (k % 4)) / 32;
  }
  EXPECT_EQ(through_q8(w, 32, 15).values, w);
}

TEST(Q8, OtherwiseAtMostHalfAStepOff) {
  for (const float width : {1e-3F, 0.05F, 1.0F, 300.0F}) {
    for (const float shift : {0.0F, 0.3F}) {
      const auto w =
          random_floats(static_cast<std::size_t>(kRows * 128), 5, -width + shift * width, width + shift * width);
      for (const int grid_steps : {0, 15, 31}) {
        const Decoded got = through_q8(w, 128, grid_steps);
        for (std::size_t i = 0; i < w.size(); ++i) {
          const float step = got.scales[i / kGroup];
          ASSERT_LE(step, 2 * width / 254 * 1.01F + 0x1p-24F);
          // The f16 scale and centre are rounded themselves, which the outermost codes feel a little.
          ASSERT_LE(std::abs(got.values[i] - w[i]), step * 0.5F + width * 2e-3F + 254 * 0x1p-25F)
              << "width " << width << " at " << i;
          ASSERT_LE(std::abs(got.values[i] - w[i]), step * 0.75F + 254 * 0x1p-25F) << "width " << width << " at " << i;
        }
      }
    }
  }
}

TEST(Q8, ConstantGroups) {
  for (const float value : {0.0F, 1.5F, -0.03125F}) {
    const std::vector<float> w(static_cast<std::size_t>(kRows * 64), value);
    EXPECT_EQ(through_q8(w, 64, 0).values, w);
    EXPECT_EQ(through_q8(w, 64, 15).values, w);
  }
}

TEST(Q8, GroupsAndRowsDoNotMix) {
  std::vector<float> w(static_cast<std::size_t>(kRows * 96));
  for (std::int64_t r = 0; r < kRows; ++r) {
    for (std::int64_t k = 0; k < 96; ++k)
      w[static_cast<std::size_t>(r * 96 + k)] = static_cast<float>(r * 4 + k / kGroup);  // constant within a group
  }
  EXPECT_EQ(through_q8(w, 96, 0).values, w);
}

TEST(Q4, FourBitGridsAreExact) {
  for (const std::int64_t in : {32, 160}) {
    const auto w = on_grid(in, 15);
    std::vector<std::byte> bytes(static_cast<std::size_t>(in / kGroup * Q4Block16::kGroupBytes), std::byte{0xAB});
    ASSERT_TRUE(encode_q4_block(w.data(), in, bytes.data()));
    EXPECT_EQ(decode(bytes, in, true).values, w);
  }
}

TEST(Q4, ConstantGroups) {
  const std::vector<float> w(static_cast<std::size_t>(kRows * 32), -0.75F);
  std::vector<std::byte> bytes(static_cast<std::size_t>(Q4Block16::kGroupBytes));
  ASSERT_TRUE(encode_q4_block(w.data(), 32, bytes.data()));
  EXPECT_EQ(decode(bytes, 32, true).values, w);
}

TEST(Q4, RefusesWhatLiesOnNoGrid) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(2 * Q4Block16::kGroupBytes));
  auto w = on_grid(64, 15);
  ASSERT_TRUE(encode_q4_block(w.data(), 64, bytes.data()));
  // A thousandth of the range away from its place, in the last row's second group.
  const auto group = std::span(w).subspan(std::size_t{15 * 64 + 32}, 32);
  const auto [low, high] = std::minmax_element(group.begin(), group.end());
  const float range = *high - *low;
  group[8] += group[8] > *low + range / 2 ? -range * 1e-3F : range * 1e-3F;
  EXPECT_FALSE(encode_q4_block(w.data(), 64, bytes.data()));
  EXPECT_FALSE(encode_q4_block(on_grid(64, 31).data(), 64, bytes.data()));
  EXPECT_FALSE(encode_q4_block(random_floats(static_cast<std::size_t>(kRows * 64), 9).data(), 64, bytes.data()));
}

}  // namespace
}  // namespace finchkv::kernels::cpu
