// Runs of vectors: what a processor does to several vectors at once, because its narrow lanes come in whole registers.
// Included by dtype_ops_body.h only.
//
// From AVX2 on a vector widens and narrows by itself, and a run is its vectors one after the other. SSE2 only packs
// pairs of registers; vector by vector GCC 12 takes it through general registers, lane by lane, which took two thirds
// of the time. Extremes of 16-bit elements are found in 16-bit lanes everywhere: twice as many to a vector, and
// nothing to widen.
#pragma once

#include <cstddef>
#include <cstdint>
#if defined(__SSE2__) && !defined(__AVX2__)
#include <emmintrin.h>
#define FINCHKV_SSE2_RUNS 1
#endif

#include "base/dtype_vec.h"

namespace finchkv {
namespace {

// --- Elements and quants ---

#if defined(FINCHKV_SSE2_RUNS)
inline __m128i sse(Int v) { return reinterpret_cast<__m128i>(v); }
inline Int lanes(__m128i v) { return reinterpret_cast<Int>(v); }

// To 16-bit lanes; each is in -32768..32767.
inline __m128i pack_words(Int low, Int high) { return _mm_packs_epi32(sse(low), sse(high)); }

inline void spread_words(__m128i words, Int& low, Int& high) {  // each in the high half of a lane
  low = lanes(_mm_unpacklo_epi16(_mm_setzero_si128(), words));
  high = lanes(_mm_unpackhi_epi16(_mm_setzero_si128(), words));
}

inline void spread_bytes(__m128i bytes, Int (&out)[4]) {  // each in the top byte of a lane
  spread_words(_mm_unpacklo_epi8(_mm_setzero_si128(), bytes), out[0], out[1]);
  spread_words(_mm_unpackhi_epi8(_mm_setzero_si128(), bytes), out[2], out[3]);
}

inline void spread_small_bytes(__m128i bytes, Int (&out)[4]) {
  const __m128i zero = _mm_setzero_si128();
  const __m128i low = _mm_unpacklo_epi8(bytes, zero);
  const __m128i high = _mm_unpackhi_epi8(bytes, zero);
  out[0] = lanes(_mm_unpacklo_epi16(low, zero));
  out[1] = lanes(_mm_unpackhi_epi16(low, zero));
  out[2] = lanes(_mm_unpacklo_epi16(high, zero));
  out[3] = lanes(_mm_unpackhi_epi16(high, zero));
}
#endif

template <int kElement, size_t W>
inline void load_run(const std::byte* p, Vec (&out)[W]) {
#if defined(FINCHKV_SSE2_RUNS)
  if constexpr (kElement != kElementF32 && W % 2 == 0) {
    for (size_t w = 0; w < W; w += 2) {
      Int low;
      Int high;
      spread_words(load_as<__m128i>(p + w * kLanes * 2), low, high);
      if constexpr (kElement == kElementBF16) {
        out[w] = from_bits(low);
        out[w + 1] = from_bits(high);
      } else {
        out[w] = widen_f16(lanes(_mm_srli_epi32(sse(low), 16)));
        out[w + 1] = widen_f16(lanes(_mm_srli_epi32(sse(high), 16)));
      }
    }
    return;
  }
#endif
  for (size_t w = 0; w < W; ++w) out[w] = load<kElement>(p + w * kLanes * kWidth<kElement>);
}

template <int kElement, size_t W>
inline void store_finite_run(const Vec (&v)[W], std::byte* p) {
#if defined(FINCHKV_SSE2_RUNS)
  if constexpr (kElement != kElementF32 && W % 2 == 0) {
    // Sign-extended, which packing leaves as it is.
    const auto narrow = [](Vec x) {
      if constexpr (kElement == kElementF16) return narrow_f16(x) << 16 >> 16;
      const auto bits = reinterpret_cast<UInt>(x);
      return reinterpret_cast<Int>(bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
    };
    for (size_t w = 0; w < W; w += 2) store_as(pack_words(narrow(v[w]), narrow(v[w + 1])), p + w * kLanes * 2);
    return;
  }
#endif
  for (size_t w = 0; w < W; ++w) store_finite<kElement>(v[w], p + w * kLanes * kWidth<kElement>);
}

template <size_t W>
inline void load_signed_byte_run(const std::byte* p, Int (&out)[W]) {
#if defined(FINCHKV_SSE2_RUNS)
  if constexpr (W == 4) {
    spread_bytes(load_as<__m128i>(p), out);
    for (Int& v : out) v = v >> 24;
    return;
  }
#endif
  for (size_t w = 0; w < W; ++w) out[w] = load_signed_bytes(p + w * kLanes);
}

/// Nibbles of two rows: the low ones of the bytes, and the high ones.
template <size_t W>
inline void load_nibble_rows(const std::byte* p, Int (&low)[W], Int (&high)[W]) {
#if defined(FINCHKV_SSE2_RUNS)
  if constexpr (W == 4) {
    const auto pairs = load_as<__m128i>(p);
    const __m128i nibble = _mm_set1_epi8(15);
    spread_small_bytes(_mm_and_si128(pairs, nibble), low);
    spread_small_bytes(_mm_and_si128(_mm_srli_epi16(pairs, 4), nibble), high);
    return;
  }
#endif
  for (size_t w = 0; w < W; ++w) {
    const Int pair = load_bytes(p + w * kLanes);
    low[w] = pair & 15;
    high[w] = pair >> 4;
  }
}

/// Nibbles side by side: lane 2i in the low one of byte i, 2i + 1 in the high one.
template <size_t W>
inline void load_nibble_run(const std::byte* p, Int (&out)[W]) {
#if defined(FINCHKV_SSE2_RUNS)
  if constexpr (W == 4) {
    const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i both = _mm_unpacklo_epi8(pairs, _mm_srli_epi16(pairs, 4));
    spread_small_bytes(_mm_and_si128(both, _mm_set1_epi8(15)), out);
    return;
  }
#endif
  for (size_t w = 0; w < W; ++w) out[w] = load_nibbles(p + w * kLanes / 2);
}

/// q8 quants.
template <size_t W>
inline void store_signed_byte_run(const Int (&q)[W], std::byte* p) {
#if defined(FINCHKV_SSE2_RUNS)
  if constexpr (W == 4) {
    store_as(_mm_packs_epi16(pack_words(q[0], q[1]), pack_words(q[2], q[3])), p);
    return;
  }
#endif
  for (size_t w = 0; w < W; ++w) store_bytes(q[w], p + w * kLanes);
}

/// q4 quants, as load_nibble_rows() reads them.
template <size_t W>
inline void store_nibble_rows(const Int (&low)[W], const Int (&high)[W], std::byte* p) {
#if defined(FINCHKV_SSE2_RUNS)
  if constexpr (W == 4) {
    const auto pairs = [&](size_t w) {
      return _mm_or_si128(pack_words(low[w], low[w + 1]), _mm_slli_epi16(pack_words(high[w], high[w + 1]), 4));
    };
    store_as(_mm_packus_epi16(pairs(0), pairs(2)), p);
    return;
  }
#endif
  for (size_t w = 0; w < W; ++w) store_bytes(low[w] | high[w] << 4, p + w * kLanes);
}

/// q4 quants, as load_nibble_run() reads them.
template <size_t W>
inline void store_nibble_run(const Int (&q)[W], std::byte* p) {
#if defined(FINCHKV_SSE2_RUNS)
  if constexpr (W == 4) {
    const __m128i weights = _mm_set1_epi32(16 << 16 | 1);  // even + 16 odd
    const __m128i low = _mm_madd_epi16(pack_words(q[0], q[1]), weights);
    const __m128i high = _mm_madd_epi16(pack_words(q[2], q[3]), weights);
    const __m128i words = _mm_packs_epi32(low, high);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
    return;
  }
#endif
  for (size_t w = 0; w < W; ++w) store_nibbles(q[w], p + w * kLanes / 2);
}

inline Int nearest_quant(Vec x) {  // as nearest()
#if defined(FINCHKV_SSE2_RUNS)
  return lanes(_mm_cvtps_epi32(reinterpret_cast<__m128>(x)));
#else
  return nearest(x);
#endif
}

// --- Extremes of 16-bit elements ---

using Shorts = int16_t __attribute__((vector_size(4 * kLanes)));

inline constexpr int kSignless = 0x7fff;

inline Shorts larger(Shorts x, Shorts seen) { return x > seen ? x : seen; }
inline Shorts smaller(Shorts x, Shorts seen) { return x < seen ? x : seen; }

/// Ascends as the numbers do, -0 before +0 and NaNs beyond the infinities; its own inverse.
inline Shorts ordered(Shorts words) { return words ^ ((words >> 15) & int16_t{kSignless}); }
inline Int ordered(Int words) { return words ^ ((words >> 15) & kSignless); }

/// The words of both halves of each lane, sign-extended.
inline Int low_words(Shorts v) { return reinterpret_cast<Int>(v) << 16 >> 16; }
inline Int high_words(Shorts v) { return reinterpret_cast<Int>(v) >> 16; }

inline int32_t largest_word(Shorts v) {
  const Int low = low_words(v);
  const Int high = high_words(v);
  return largest_lane(low > high ? low : high);
}
inline int32_t smallest_word(Shorts v) { return ~largest_word(~v); }

/// Words in 32-bit lanes, whatever is above them, as numbers.
template <int kElement>
inline Vec widen_words(Int words) {
  if constexpr (kElement == kElementBF16) {
    return widen_bf16(words);
  } else {
    return widen_f16(words & 0xffff);
  }
}

/// The words of W / 2 vectors as W vectors of numbers.
template <int kElement, size_t W>
inline void widen_shorts(const Shorts (&in)[W / 2], Vec (&out)[W]) {
  std::byte memory[W * kLanes * 2];
  for (size_t w = 0; w < W / 2; ++w) store_as(in[w], memory + w * sizeof(Shorts));
  load_run<kElement>(memory, out);
}

}  // namespace
}  // namespace finchkv
