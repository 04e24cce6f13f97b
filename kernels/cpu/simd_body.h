// The loops behind SimdOps. Included by one .cc per instruction set, which defines FINCHKV_SIMD_TABLE and its name.
//
// Only headers without inline code are used here: an inline function compiled for a newer processor could be the copy
// that the linker keeps for everyone.
#include <stddef.h>
#include <stdint.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/cpu/simd.h"

namespace finchkv::kernels::cpu {
namespace {

constexpr std::int64_t kLanes = 16;
using Vec = float __attribute__((vector_size(64)));
using VecI = std::int32_t __attribute__((vector_size(64)));
using VecU16 = std::uint16_t __attribute__((vector_size(32)));
using VecI8 = std::int8_t __attribute__((vector_size(16)));
using VecU8 = std::uint8_t __attribute__((vector_size(16)));

inline Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
inline void store(Vec v, float* p) { __builtin_memcpy(p, &v, sizeof(v)); }
inline Vec splat(float x) { return Vec{} + x; }

inline Vec load(const std::uint16_t* p) {  // bf16
  VecU16 raw;
  __builtin_memcpy(&raw, p, sizeof(raw));
  const VecI wide = __builtin_convertvector(raw, VecI) << 16;
  Vec v;
  __builtin_memcpy(&v, &wide, sizeof(v));
  return v;
}
inline void store(Vec v, std::uint16_t* p) {  // bf16, nearest even; inputs are finite
#if defined(__AVX512BF16__)
  const __m256bh narrow = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(v));
#else
  VecI bits;
  __builtin_memcpy(&bits, &v, sizeof(bits));
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const VecU16 narrow = __builtin_convertvector(bits, VecU16);
#endif
  __builtin_memcpy(p, &narrow, sizeof(narrow));
}

// Rows that do not fill a vector go through a padded copy, so one body serves both.
template <typename T>
struct Padded {
  T data[kLanes];
};
template <typename T>
inline Vec load_part(const T* p, std::int64_t n) {
  Padded<T> tmp = {};
  __builtin_memcpy(tmp.data, p, static_cast<size_t>(n) * sizeof(T));
  return load(tmp.data);
}
template <typename T>
inline void store_part(Vec v, T* p, std::int64_t n) {
  Padded<T> tmp;
  store(v, tmp.data);
  __builtin_memcpy(p, tmp.data, static_cast<size_t>(n) * sizeof(T));
}

inline Vec larger(Vec a, Vec b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#else
  return a > b ? a : b;
#endif
}

inline float sum_lanes(Vec v) {
  float s = 0;
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) v[i] += v[i + width];
  }
  s = v[0];
  return s;
}
inline float max_lanes(Vec v) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) v[i] = v[i] > v[i + width] ? v[i] : v[i + width];
  }
  return v[0];
}

// exp(x) for x <= 88, error about one ulp; below -87 the result is cut to exp(-87) ~ 1e-38, zero to any sum of weights.
inline Vec exp_vec(Vec x) {
  x = larger(x, splat(-87.0F));
  x = x > 88.0F ? splat(88.0F) : x;
  const Vec shifted = x * 1.44269504088896341F + 12582912.0F;  // 1.5 * 2^23: the integer part lands in the low bits
  const Vec n = shifted - 12582912.0F;
  const Vec r = (x - n * 0.693145751953125F) - n * 1.42860682030941723212e-6F;
  Vec p = splat(1.9875691500e-4F);
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  VecI bits;
  __builtin_memcpy(&bits, &shifted, sizeof(bits));
  VecI result;
  __builtin_memcpy(&result, &p, sizeof(result));
  result += (bits - 0x4b400000) << 23;
  __builtin_memcpy(&p, &result, sizeof(p));
  return p;
}

// exp(x) and 1 / x for results that go to bf16: errors about 4e-6 and 6e-5, bf16's own is 2e-3.
inline Vec exp_rough(Vec x) {
#if defined(__AVX512F__)
  // 2^t = 2^round(t) * 2^f; the polynomial is a minimax fit of 2^f on [-1/2, 1/2]. Far below, scalef gives zero by
  // itself.
  const __m512 t = _mm512_max_ps(reinterpret_cast<__m512>(x * 1.44269504088896341F), _mm512_set1_ps(-200.0F));
  const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Vec f = reinterpret_cast<Vec>(_mm512_sub_ps(t, n));
  Vec p = splat(0.00957010221F);
  p = p * f + 0.0559178628F;
  p = p * f + 0.240247443F;
  p = p * f + 0.693121791F;
  p = p * f + 0.999999285F;
  return reinterpret_cast<Vec>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), n));
#else
  return exp_vec(x);
#endif
}
inline Vec inverse_rough(Vec x) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
#else
  return 1.0F / x;
#endif
}

// The choice by what is written: f32 results are exact to rounding, bf16 ones as good as bf16 holds.
inline Vec exp_for(const float* /*to*/, Vec x) { return exp_vec(x); }
inline Vec exp_for(const std::uint16_t* /*to*/, Vec x) { return exp_rough(x); }

template <typename Out>
void rms_norm(const float* x, const float* w, float eps, std::int64_t d, Out* y) {
  Vec sum = {};
  std::int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) sum += load(x + i) * load(x + i);
  if (i < d) {
    const Vec v = load_part(x + i, d - i);
    sum += v * v;
  }
  const float inverse = 1.0F / __builtin_sqrtf(sum_lanes(sum) / static_cast<float>(d) + eps);
  for (i = 0; i + kLanes <= d; i += kLanes) store(load(x + i) * inverse * load(w + i), y + i);
  if (i < d) store_part(load_part(x + i, d - i) * inverse * load_part(w + i, d - i), y + i, d - i);
}

inline Vec swiglu_vec(const float* /*to*/, Vec gate, Vec up) { return gate / (1.0F + exp_vec(-gate)) * up; }
inline Vec swiglu_vec(const std::uint16_t* /*to*/, Vec gate, Vec up) {
  // Below -80 the exponential would overflow, and the result is zero in bf16 anyway.
  const Vec bounded = gate < -80.0F ? splat(-80.0F) : gate;
  return gate * inverse_rough(1.0F + exp_rough(-bounded)) * up;
}

template <typename Out>
void swiglu(const float* gate, const float* up, std::int64_t d, Out* y) {
  std::int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) store(swiglu_vec(y, load(gate + i), load(up + i)), y + i);
  if (i < d) store_part(swiglu_vec(y, load_part(gate + i, d - i), load_part(up + i, d - i)), y + i, d - i);
}

template <typename In, typename Out>
void convert(const In* x, std::int64_t d, Out* y) {
  std::int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) store(load(x + i), y + i);
  if (i < d) store_part(load_part(x + i, d - i), y + i, d - i);
}

inline Vec shuffle(Vec v, VecI order) {
#if defined(__clang__)
  Vec out;
  for (int i = 0; i < kLanes; ++i) out[i] = v[order[i]];
  return out;
#else
  return __builtin_shuffle(v, order);
#endif
}

template <typename Out>
void rotate(const float* x, const float* cos, const float* sin, std::int64_t d, bool interleaved, Out* y) {
  if (interleaved) {
    const VecI swap = {1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14};
    std::int64_t i = 0;
    for (; i + kLanes <= d; i += kLanes) {
      const Vec v = load(x + i);
      store(v * load(cos + i) + shuffle(v, swap) * load(sin + i), y + i);
    }
    if (i < d) {
      const Vec v = load_part(x + i, d - i);
      store_part(v * load_part(cos + i, d - i) + shuffle(v, swap) * load_part(sin + i, d - i), y + i, d - i);
    }
    return;
  }
  const std::int64_t half = d / 2;
  for (std::int64_t side = 0; side < 2; ++side) {
    const std::int64_t own = side * half;
    const std::int64_t other = half - own;
    std::int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      store(load(x + own + i) * load(cos + own + i) + load(x + other + i) * load(sin + own + i), y + own + i);
    }
    if (i < half) {
      const std::int64_t n = half - i;
      store_part(load_part(x + own + i, n) * load_part(cos + own + i, n) +
                     load_part(x + other + i, n) * load_part(sin + own + i, n),
                 y + own + i, n);
    }
  }
}

void axpy(float a, const float* x, std::int64_t d, float* y) {
  std::int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) store(load(y + i) + load(x + i) * a, y + i);
  if (i < d) store_part(load_part(y + i, d - i) + load_part(x + i, d - i) * a, y + i, d - i);
}
void add(const float* x, std::int64_t d, float* y) { axpy(1.0F, x, d, y); }
void scale_by(float a, std::int64_t d, float* y) {
  std::int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) store(load(y + i) * a, y + i);
  if (i < d) store_part(load_part(y + i, d - i) * a, y + i, d - i);
}

template <typename T>
float dot_of(const float* x, const T* y, std::int64_t d) {
  Vec sum = {};
  std::int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) sum += load(x + i) * load(y + i);
  if (i < d) sum += load_part(x + i, d - i) * load_part(y + i, d - i);
  return sum_lanes(sum);
}
float dot(const float* x, const float* y, std::int64_t d) { return dot_of(x, y, d); }

template <typename Out>
float softmax(const float* s, std::int64_t n, float scale, float* m, float* alpha, Out* p) {
  Vec most = splat(*m);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec v = load(s + i) * scale;
    most = larger(v, most);
  }
  float m_new = max_lanes(most);
  for (; i < n; ++i) m_new = s[i] * scale > m_new ? s[i] * scale : m_new;
  Vec sum = {};
  for (i = 0; i + kLanes <= n; i += kLanes) {
    const Vec e = exp_for(p, load(s + i) * scale - m_new);
    store(e, p + i);
    sum += e;
  }
  float total = sum_lanes(sum);
  if (i < n) {
    const Vec e = exp_for(p, load_part(s + i, n - i) * scale - m_new);
    store_part(e, p + i, n - i);
    for (std::int64_t k = 0; k < n - i; ++k) total += e[k];
  }
  *alpha = exp_vec(splat(*m - m_new))[0];
  *m = m_new;
  return total;
}

void add_exp(const float* s, std::int64_t n, float scale, float lse, float w, float* mass) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(load(mass + i) + exp_vec(load(s + i) * scale - lse) * w, mass + i);
  if (i < n)
    store_part(load_part(mass + i, n - i) + exp_vec(load_part(s + i, n - i) * scale - lse) * w, mass + i, n - i);
}

// Asks for the `bytes` that lie kAhead further on. Weights stream from memory once per token; the processor's own
// prefetcher stops at every page: one core read the 4-bit codes at 5.8 GB/s without this and at 8.7 GB/s with (a
// Sapphire Rapids guest).
inline void prefetch_ahead(const std::byte* p, std::int64_t bytes) {
  constexpr std::int64_t kAhead = 2048;
  for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + kAhead + i);
}

template <typename T>
void keys_dot(const float* q, const T* k, std::int64_t n, std::int64_t d, float scale, float* logits) {
  for (std::int64_t t = 0; t < n; ++t) logits[t] = dot_of(q, k + t * d, d) * scale;
}

template <typename T>
void values_sum(const float* p, const T* v, std::int64_t n, std::int64_t d, float* out) {
  std::int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) {
    Vec sum = load(out + i);
    for (std::int64_t t = 0; t < n; ++t) sum += load(v + t * d + i) * p[t];
    store(sum, out + i);
  }
  if (i < d) {
    Vec sum = load_part(out + i, d - i);
    for (std::int64_t t = 0; t < n; ++t) sum += load_part(v + t * d + i, d - i) * p[t];
    store_part(sum, out + i, d - i);
  }
}

inline Vec load_int8(const std::byte* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(
      _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
#else
  VecI8 raw;
  __builtin_memcpy(&raw, p, sizeof(raw));
  return __builtin_convertvector(__builtin_convertvector(raw, VecI), Vec);
#endif
}

inline Vec load_f16(const std::byte* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#else
  // The bits of a finite f16 moved into an f32 and multiplied by 2^112 (base/dtype.cc has the reasoning).
  VecU16 raw;
  __builtin_memcpy(&raw, p, sizeof(raw));
  const VecI wide = __builtin_convertvector(raw, VecI);
  const VecI magnitude = (wide & 0x7fff) << 13;
  Vec v;
  __builtin_memcpy(&v, &magnitude, sizeof(v));
  v *= 0x1p112F;
  VecI bits;
  __builtin_memcpy(&bits, &v, sizeof(bits));
  bits |= (wide & 0x8000) << 16;
  __builtin_memcpy(&v, &bits, sizeof(v));
  return v;
#endif
}

// 16 bytes as two vectors of codes 0..15: low halves and high halves.
inline void load_nibbles(const std::byte* p, Vec& low, Vec& high) {
#if defined(__AVX512F__)
  const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  low = reinterpret_cast<Vec>(_mm512_cvtepi32_ps(_mm512_and_si512(wide, _mm512_set1_epi32(15))));
  high = reinterpret_cast<Vec>(_mm512_cvtepi32_ps(_mm512_srli_epi32(wide, 4)));
#else
  VecU8 raw;
  __builtin_memcpy(&raw, p, sizeof(raw));
  const VecI wide = __builtin_convertvector(raw, VecI);
  low = __builtin_convertvector(wide & 15, Vec);
  high = __builtin_convertvector(wide >> 4, Vec);
#endif
}

// Sums of code * x over one group, for 16 rows at a time. Four sums in flight hide the latency of an FMA.
inline Vec q8_group(const std::byte* q, const float* x) {
  constexpr std::int64_t kRows = Q8Block16::kRows;
  Vec s0 = {};
  Vec s1 = {};
  Vec s2 = {};
  Vec s3 = {};
  for (std::int64_t k = 0; k < Q8Block16::kGroup; k += 4) {
    s0 += load_int8(q + k * kRows) * x[k];
    s1 += load_int8(q + (k + 1) * kRows) * x[k + 1];
    s2 += load_int8(q + (k + 2) * kRows) * x[k + 2];
    s3 += load_int8(q + (k + 3) * kRows) * x[k + 3];
  }
  return (s0 + s1) + (s2 + s3);
}

inline Vec q4_group(const std::byte* q, const float* x) {
  constexpr std::int64_t kRows = Q8Block16::kRows;
  constexpr std::int64_t kHalf = Q8Block16::kGroup / 2;
  Vec s0 = {};
  Vec s1 = {};
  Vec s2 = {};
  Vec s3 = {};
  for (std::int64_t k = 0; k < kHalf; k += 2) {
    Vec low, high;
    load_nibbles(q + k * kRows, low, high);
    s0 += low * x[k];
    s1 += high * x[k + kHalf];
    load_nibbles(q + (k + 1) * kRows, low, high);
    s2 += low * x[k + 1];
    s3 += high * x[k + 1 + kHalf];
  }
  return (s0 + s1) + (s2 + s3);
}

template <std::int64_t kGroupBytes, Vec (*kGroupSum)(const std::byte*, const float*)>
void gemv(const std::byte* blocks, std::int64_t n_blocks, std::int64_t in, const float* x, const float* group_sums,
          float* y) {
  constexpr std::int64_t kRows = Q8Block16::kRows;
  const std::int64_t groups = in / Q8Block16::kGroup;
  const std::byte* at = blocks;
  for (std::int64_t b = 0; b < n_blocks; ++b) {
    Vec total = {};
    for (std::int64_t g = 0; g < groups; ++g, at += kGroupBytes) {
      prefetch_ahead(at, kGroupBytes);
      const Vec sum = kGroupSum(at + kRows * 4, x + g * Q8Block16::kGroup);
      total += load_f16(at) * sum + load_f16(at + kRows * 2) * group_sums[g];
    }
    store(total, y + b * kRows);
  }
}

}  // namespace

extern const SimdOps FINCHKV_SIMD_TABLE;
const SimdOps FINCHKV_SIMD_TABLE = {
    FINCHKV_SIMD_NAME,
    rms_norm<float>,
    rms_norm<std::uint16_t>,
    swiglu<float>,
    swiglu<std::uint16_t>,
    convert<float, std::uint16_t>,
    convert<std::uint16_t, float>,
    rotate<float>,
    rotate<std::uint16_t>,
    add,
    scale_by,
    axpy,
    dot,
    softmax<float>,
    softmax<std::uint16_t>,
    add_exp,
    keys_dot<float>,
    keys_dot<std::uint16_t>,
    values_sum<float>,
    values_sum<std::uint16_t>,
    gemv<Q8Block16::kGroupBytes, q8_group>,
    gemv<Q4Block16::kGroupBytes, q4_group>,
};

}  // namespace finchkv::kernels::cpu
