// e4m3, the 8-bit floating-point type of the class `fp8`: what a number becomes in it, and the scale of a row.
//
// A sign, 4 bits of exponent, 3 bits after the point: steps of an eighth of the power of two below a number, of 2^-9
// below 2^-6; the largest is 448 and there is no infinity. A row is stored as values / scale with its largest at 448.
// All pure. The CPU computes with the rounded values in wider types, a GPU with the bytes; both round alike.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace finchkv::kernels {

inline constexpr float kLargestE4m3 = 448.0F;
/// A row whose largest value is not above this becomes zeros: its scale's inverse might not be a number.
inline constexpr float kNoE4m3Row = 1e-35F;

/// Widths that products of 8 bits take, on every processor alike: a matrix of other widths stays as in class `fast`.
constexpr bool takes_e4m3(std::int64_t in, std::int64_t out) { return in % 16 == 0 && out % 16 == 0; }

/// So many rows at once are multiplied as they are: what is read then is weights, and rounding the rows saves nothing.
inline constexpr std::int64_t kUnroundedE4m3Rows = 32;

/// x rounded to the nearest e4m3 value, ties to even; past the largest, the largest; not-a-number stays.
inline float to_e4m3(float x) {
  const float size = std::abs(x);
  const float fine = (size + 16384.0F) - 16384.0F;  // numbers from 2^14 on have steps of 2^-9
  const auto bits = std::bit_cast<std::uint32_t>(size);
  const float coarse = std::bit_cast<float>((bits + 0x7ffffU + ((bits >> 20) & 1U)) & 0xfff00000U);
  const float rounded = std::copysign(std::min(size < 0x1p-6F ? fine : coarse, kLargestE4m3), x);
  return x == x ? rounded : x;
}

/// Divides x [n] by the row's scale and rounds it, in place; returns the scale.
inline float round_row_to_e4m3(float* x, std::int64_t n) {
  float most = 0;
  for (std::int64_t i = 0; i < n; ++i) most = std::abs(x[i]) > most ? std::abs(x[i]) : most;
  const float scale = most > kNoE4m3Row ? most / kLargestE4m3 : 1.0F;
  const float inverse = 1.0F / scale;
  for (std::int64_t i = 0; i < n; ++i) x[i] = to_e4m3(x[i] * inverse);
  return scale;
}

}  // namespace finchkv::kernels
