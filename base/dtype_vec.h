// One vector of the widest kind that this translation unit is compiled for, and what GNU vector arithmetic alone does
// not say well. Included by dtype_ops_body.h only.
//
// Only headers without inline code are used here: an inline function compiled for a newer processor could be the copy
// that the linker keeps for everyone.
#pragma once

#include <cstddef>
#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "base/dtype_ops.h"

namespace finchkv {
namespace {

#if defined(__AVX512BW__)
inline constexpr size_t kLanes = 16;
#elif defined(__AVX2__)
inline constexpr size_t kLanes = 8;
#else
inline constexpr size_t kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(4 * kLanes)));
using Int = int32_t __attribute__((vector_size(4 * kLanes)));
using UInt = uint32_t __attribute__((vector_size(4 * kLanes)));  // where a NaN's bits may wrap around
using Words = uint16_t __attribute__((vector_size(2 * kLanes)));
using Bytes = uint8_t __attribute__((vector_size(kLanes)));
using SignedBytes = int8_t __attribute__((vector_size(kLanes)));

inline Int bits_of(Vec v) { return reinterpret_cast<Int>(v); }
inline Vec from_bits(Int v) { return reinterpret_cast<Vec>(v); }
inline Vec splat(float x) { return from_bits(Int{} + __builtin_bit_cast(int32_t, x)); }  // 0 + x would lose -0

template <typename T>
inline T load_as(const std::byte* p) {
  T v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
template <typename T>
inline void store_as(T v, std::byte* p) {
  __builtin_memcpy(p, &v, sizeof(v));
}

// Widening and narrowing by intrinsics: GCC 12 takes __builtin_convertvector between these widths apart (signed bytes
// at 2.8 GB/s instead of 12).
inline Int load_words(const std::byte* p) {
#if defined(__AVX512BW__)
  return reinterpret_cast<Int>(_mm512_cvtepu16_epi32(load_as<__m256i>(p)));
#elif defined(__AVX2__)
  return reinterpret_cast<Int>(_mm256_cvtepu16_epi32(load_as<__m128i>(p)));
#else
  return __builtin_convertvector(load_as<Words>(p), Int);
#endif
}

inline Int load_bytes(const std::byte* p) {
#if defined(__AVX512BW__)
  return reinterpret_cast<Int>(_mm512_cvtepu8_epi32(load_as<__m128i>(p)));
#elif defined(__AVX2__)
  return reinterpret_cast<Int>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  return __builtin_convertvector(load_as<Bytes>(p), Int);
#endif
}

inline Int load_signed_bytes(const std::byte* p) {
#if defined(__AVX512BW__)
  return reinterpret_cast<Int>(_mm512_cvtepi8_epi32(load_as<__m128i>(p)));
#elif defined(__AVX2__)
  return reinterpret_cast<Int>(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  return __builtin_convertvector(load_as<SignedBytes>(p), Int);
#endif
}

inline void store_words(Int v, std::byte* p) {  // the low 16 bits of each lane
#if defined(__AVX512BW__)
  store_as(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(v)), p);
#elif defined(__AVX2__)
  const auto low = reinterpret_cast<__m256i>(v & 0xffff);
  store_as(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)), p);
#else
  store_as(__builtin_convertvector(v, Words), p);
#endif
}

inline void store_bytes(Int v, std::byte* p) {  // the low byte of each lane
#if defined(__AVX512BW__)
  store_as(_mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(v)), p);
#elif defined(__AVX2__)
  const auto low = reinterpret_cast<__m256i>(v & 0xff);
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
#else
  store_as(__builtin_convertvector(v, Bytes), p);
#endif
}

// --- f16 and bf16 as in dtype.h, lane by lane, NaN and infinities included ---

inline Vec widen_f16(Int word) {
  const Int sign = (word & 0x8000) << 16;
  const Int rest = (word & 0x7fff) << 13;
  const Int finite = bits_of(from_bits(rest) * 0x1p112F);
  return from_bits(sign | ((word & 0x7c00) == 0x7c00 ? rest | 0x7f800000 : finite));
}

inline Vec splat_f16(uint16_t finite) {
#if defined(__AVX2__)
  return splat(_cvtsh_ss(finite));
#else
  return widen_f16(Int{} + finite);
#endif
}

inline Int narrow_f16(Vec v) {
  const auto bits = reinterpret_cast<UInt>(v);
  const UInt magnitude = bits & 0x7fffffffU;
  const UInt normal = (magnitude + 0xfffU + ((magnitude >> 13) & 1U) - 0x38000000U) >> 13;
  const UInt subnormal = reinterpret_cast<UInt>(reinterpret_cast<Vec>(magnitude) + 0.5F) - 0x3f000000U;
  const auto size = reinterpret_cast<Int>(magnitude);  // compared as signed: older processors know nothing else
  UInt word = size < 0x38800000 ? subnormal : normal;
  word = size >= 0x477ff000 ? UInt{} + 0x7c00U : word;
  word = size > 0x7f800000 ? UInt{} + 0x7e00U : word;
  return reinterpret_cast<Int>(word | ((bits >> 16) & 0x8000U));
}

inline Vec widen_bf16(Int word) { return from_bits(word << 16); }

inline Int narrow_finite_bf16(Vec v) {
  const auto bits = reinterpret_cast<UInt>(v);
  return reinterpret_cast<Int>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

inline Int narrow_bf16(Vec v) {
  const Int bits = bits_of(v);
  return (bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : narrow_finite_bf16(v);
}

// --- Elements in memory ---

template <int kElement>
inline constexpr size_t kWidth = kElement == kElementF32 ? 4 : 2;

template <int kElement>
inline Vec load(const std::byte* p) {
  if constexpr (kElement == kElementF32) {
    return load_as<Vec>(p);
  } else if constexpr (kElement == kElementBF16) {
    return widen_bf16(load_words(p));
  } else {
#if defined(__AVX512BW__)
    return reinterpret_cast<Vec>(_mm512_cvtph_ps(load_as<__m256i>(p)));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(_mm256_cvtph_ps(load_as<__m128i>(p)));
#else
    return widen_f16(load_words(p));
#endif
  }
}

template <int kElement>
inline void store_finite(Vec v, std::byte* p) {
  if constexpr (kElement == kElementF32) {
    store_as(v, p);
  } else if constexpr (kElement == kElementBF16) {
    store_words(narrow_finite_bf16(v), p);
  } else {
#if defined(__AVX512BW__)
    store_as(_mm512_cvtps_ph(reinterpret_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT), p);
#elif defined(__AVX2__)
    store_as(_mm256_cvtps_ph(reinterpret_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT), p);
#else
    store_words(narrow_f16(v), p);
#endif
  }
}

// --- Extremes: the element where it is beyond what was seen, else what was seen (as std::min and std::max do) ---

inline Vec smaller(Vec x, Vec seen) {
#if defined(__AVX512BW__)
  return reinterpret_cast<Vec>(_mm512_min_ps(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(seen)));
#elif defined(__AVX2__)
  return reinterpret_cast<Vec>(_mm256_min_ps(reinterpret_cast<__m256>(x), reinterpret_cast<__m256>(seen)));
#else
  return x < seen ? x : seen;
#endif
}

inline Vec larger(Vec x, Vec seen) {
#if defined(__AVX512BW__)
  return reinterpret_cast<Vec>(_mm512_max_ps(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(seen)));
#elif defined(__AVX2__)
  return reinterpret_cast<Vec>(_mm256_max_ps(reinterpret_cast<__m256>(x), reinterpret_cast<__m256>(seen)));
#else
  return x > seen ? x : seen;
#endif
}

// Magnitudes compare as integers, which lets infinities and NaN through: they are the largest.
inline Int larger_magnitude(Vec x, Int seen) {
  const Int magnitude = bits_of(x) & 0x7fffffff;
#if defined(__AVX512BW__)
  return reinterpret_cast<Int>(_mm512_max_epi32(reinterpret_cast<__m512i>(magnitude), reinterpret_cast<__m512i>(seen)));
#elif defined(__AVX2__)
  return reinterpret_cast<Int>(_mm256_max_epi32(reinterpret_cast<__m256i>(magnitude), reinterpret_cast<__m256i>(seen)));
#else
  return magnitude > seen ? magnitude : seen;
#endif
}

// The lanes of one vector folded; which of two zeros wins is left open.
inline float smallest_lane(Vec v) {
#if defined(__AVX512BW__)
  return _mm512_reduce_min_ps(reinterpret_cast<__m512>(v));
#elif defined(__AVX2__)
  const auto all = reinterpret_cast<__m256>(v);
  __m128 m = _mm_min_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  m = _mm_min_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_min_ss(m, _mm_movehdup_ps(m)));
#else
  float least = v[0];
  for (size_t i = 1; i < kLanes; ++i) least = v[i] < least ? v[i] : least;
  return least;
#endif
}

inline float largest_lane(Vec v) { return -smallest_lane(-v); }

inline int32_t largest_lane(Int v) {
#if defined(__AVX512BW__)
  return _mm512_reduce_max_epi32(reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__)
  const auto all = reinterpret_cast<__m256i>(v);
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
#else
  int32_t most = v[0];
  for (size_t i = 1; i < kLanes; ++i) most = v[i] > most ? v[i] : most;
  return most;
#endif
}

/// poison + 0 * x: zero until an infinity or a NaN came by, NaN from then on.
inline Vec taint(Vec x, Vec poison) {
#if defined(__AVX512BW__)
  return reinterpret_cast<Vec>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(x), _mm512_setzero_ps(), reinterpret_cast<__m512>(poison)));
#elif defined(__AVX2__)
  return reinterpret_cast<Vec>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(x), _mm256_setzero_ps(), reinterpret_cast<__m256>(poison)));
#else
  return x * 0.0F + poison;
#endif
}

// --- Quants ---

/// How many times `scale`, a non-negative f16, goes into x: RN(x / scale), and something that rounds to 0 for scale 0.
///
/// With fused multiply-adds: y = RN(1 / scale), q = RN(x y) is off by two units in the last place at most, the
/// remainder x - q scale is exact (a multiple of ulp(scale) ulp(q), and scale has 11 bits), and q + remainder y misses
/// x / scale by less than 2^-22 ulp(q) before it is rounded. That could only change the result where x / scale is that
/// near to a midpoint between two floats; with 11 bits in scale and 24 in x the nearest is 2^-12 ulp(q) away.
/// (Where anything is subnormal the quotient is tiny, and rounds to 0 either way.)
struct Divisor {
  Vec scale;
  Vec inverse;  // 0 for scale 0
};

inline Divisor divisor(Vec scale) {
#if defined(__AVX2__)
  return {scale, scale == 0.0F ? Vec{} : 1.0F / scale};
#else
  return {scale == 0.0F ? splat(1.0F) : scale, Vec{}};
#endif
}

inline Vec quotient(Vec x, const Divisor& by) {
#if defined(__AVX512BW__)
  const auto scale = reinterpret_cast<__m512>(by.scale);
  const auto inverse = reinterpret_cast<__m512>(by.inverse);
  const __m512 q = _mm512_mul_ps(reinterpret_cast<__m512>(x), inverse);
  const __m512 remainder = _mm512_fnmadd_ps(q, scale, reinterpret_cast<__m512>(x));
  return reinterpret_cast<Vec>(_mm512_fmadd_ps(remainder, inverse, q));
#elif defined(__AVX2__)
  const auto scale = reinterpret_cast<__m256>(by.scale);
  const auto inverse = reinterpret_cast<__m256>(by.inverse);
  const __m256 q = _mm256_mul_ps(reinterpret_cast<__m256>(x), inverse);
  const __m256 remainder = _mm256_fnmadd_ps(q, scale, reinterpret_cast<__m256>(x));
  return reinterpret_cast<Vec>(_mm256_fmadd_ps(remainder, inverse, q));
#else
  return x / by.scale;
#endif
}

inline Int nearest(Vec x) {  // to even; |x| < 2^22
#if defined(__AVX512BW__)
  return reinterpret_cast<Int>(_mm512_cvtps_epi32(reinterpret_cast<__m512>(x)));
#elif defined(__AVX2__)
  return reinterpret_cast<Int>(_mm256_cvtps_epi32(reinterpret_cast<__m256>(x)));
#else
  return bits_of(x + 12582912.0F) - 0x4b400000;  // 1.5 * 2^23: the integer lands in the low bits
#endif
}

inline Vec to_float(Int v) { return __builtin_convertvector(v, Vec); }

/// Quants 0..15: lane 2i in the low nibble of byte i, 2i + 1 in the high one.
inline void store_nibbles(Int v, std::byte* p) {
#if defined(__AVX512BW__)
  const auto q = reinterpret_cast<__m512i>(v);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm512_cvtepi64_epi8(_mm512_or_si512(q, _mm512_srli_epi64(q, 28))));
#elif defined(__AVX2__)
  const auto q = reinterpret_cast<__m256i>(v);
  const __m256i pairs = _mm256_or_si256(q, _mm256_srli_epi64(q, 28));
  const __m256i even = _mm256_permutevar8x32_epi32(pairs, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
  const __m128i low = _mm_shuffle_epi8(_mm256_castsi256_si128(even), _mm_set1_epi32(0x0c080400));
  store_as(_mm_cvtsi128_si32(low), p);
#else
  for (size_t i = 0; i < kLanes / 2; ++i) p[i] = static_cast<std::byte>(v[2 * i] | v[2 * i + 1] << 4);
#endif
}

inline Int load_nibbles(const std::byte* p) {  // the inverse
#if defined(__AVX512BW__)
  const __m512i pairs = _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return reinterpret_cast<Int>(_mm512_or_si512(pairs, _mm512_slli_epi64(pairs, 28))) & 15;
#elif defined(__AVX2__)
  const __m256i pairs = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(load_as<int32_t>(p)));
  return reinterpret_cast<Int>(_mm256_or_si256(pairs, _mm256_slli_epi64(pairs, 28))) & 15;
#else
  Int v;
  for (size_t i = 0; i < kLanes / 2; ++i) {
    v[2 * i] = static_cast<int>(p[i]) & 15;
    v[2 * i + 1] = static_cast<int>(p[i]) >> 4;
  }
  return v;
#endif
}

inline bool any(Int mask) {
#if defined(__AVX512BW__)
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(mask), reinterpret_cast<__m512i>(mask)) != 0;
#elif defined(__AVX2__)
  return _mm256_testz_si256(reinterpret_cast<__m256i>(mask), reinterpret_cast<__m256i>(mask)) == 0;
#else
  return (mask[0] | mask[1] | mask[2] | mask[3]) != 0;
#endif
}

}  // namespace
}  // namespace finchkv
