// What the groups of keys and of values have in common: their scales and minima. Included by dtype_ops_body.h only.
#pragma once

#include "base/dtype_ops_runs.h"

namespace finchkv {
namespace {

inline constexpr size_t kGroup = 64;

template <int kLayout>
inline constexpr size_t kHeaderBytes = kLayout == kLayoutQ8 ? 2 : 4;  // of a group: its scale, for q4 its minimum too

// Scales and minima are 16-bit words in 32-bit lanes.
inline Int half_is_finite(Int word) { return (word & 0x7c00) != 0x7c00; }

inline Int half_above(Vec x) {  // the smallest f16 not below x >= 0; NaN stays NaN
  const Int word = narrow_f16(x);
  return half_is_finite(word) & (widen_f16(word) < x) ? word + 1 : word;
}

inline Int half_below(Vec x) {  // the largest f16 not above x
  const Int word = narrow_f16(x);
  Int next = (word & 0x8000) != 0 ? word + 1 : word - 1;
  next = (word & 0x7fff) == 0 ? Int{} + 0x8001 : next;
  return half_is_finite(word) & (widen_f16(word) > x) ? next : word;
}

// No quant of a group leaves its range, so none is clamped: the scale is not below RN(most / 127) or RN((most - base) /
// 15), hence no quotient is above 127 (1 + 2^-23) or 15 (1 + 2^-23), and rounds to 127 or 15.
inline Int q8_scale(Int most) { return half_above(from_bits(most) / 127.0F); }

inline Int q4_scale(Vec most, Vec base, Vec poison) {  // + 0: zero is +0 whatever zeros were subtracted
  return half_above((most - base + poison) / 15.0F + 0.0F);
}

}  // namespace
}  // namespace finchkv
