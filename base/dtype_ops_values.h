// Values: groups of 64 channels of one token. The extremes of 16 groups are gathered before their scales are computed
// together. A short group is filled up to 64 with its first element, which changes none of its numbers. Included by
// dtype_ops_body.h only.
#pragma once

#include "base/dtype_ops_groups.h"

namespace finchkv {
namespace {

inline constexpr size_t kBatch = 16;
inline constexpr size_t kVectors = kGroup / kLanes;
inline constexpr size_t kRunVectors = 4;

template <int kLayout>
inline constexpr size_t kQuantBytes = kLayout == kLayoutQ8 ? kGroup : kGroup / 2;  // of a whole group

template <int kLayout>
inline size_t quant_bytes(size_t elements) {
  return kLayout == kLayoutQ8 ? elements : (elements + 1) / 2;
}

// Elements of 16 bits are compared in lanes of 16; what is not finite is an extreme there, and needs no poison.
template <int kElement>
inline constexpr bool kInWords = kElement != kElementF32;

// As the elements' bits.
struct Extremes {
  alignas(64) int32_t magnitude[kBatch];  // q8
  alignas(64) int32_t least[kBatch];      // q4, as the next two
  alignas(64) int32_t most[kBatch];
  alignas(64) float poison[kBatch];
};

struct Scales {
  alignas(64) uint16_t scale[kBatch];
  alignas(64) uint16_t minimum[kBatch];
  alignas(64) float base[kBatch];
  alignas(64) float step[kBatch];  // the two halves of a Divisor
  alignas(64) float inverse[kBatch];
};

template <typename T>
inline const std::byte* bytes_of(const T* p) {
  return reinterpret_cast<const std::byte*>(p);
}
template <typename T>
inline std::byte* bytes_of(T* p) {
  return reinterpret_cast<std::byte*>(p);
}

// The sign of a minimum that is zero shows in the stored bytes, and is that of the first zero.
template <int kElement>
int32_t first_zero(const std::byte* in) {
  for (size_t i = 0; i < kGroup; ++i) {
    const std::byte* at = in + i * kWidth<kElement>;
    if constexpr (kInWords<kElement>) {
      const auto word = load_as<int16_t>(at);
      if ((word & kSignless) == 0) return word;
    } else {
      const auto bits = load_as<int32_t>(at);
      if ((bits & 0x7fffffff) == 0) return bits;
    }
  }
  return 0;
}

template <int kLayout>
inline void find_word_extremes(const std::byte* in, size_t i, Extremes& out) {
  constexpr size_t kHalf = kVectors / 2;
  if constexpr (kLayout == kLayoutQ8) {
    Shorts most = {};
    for (size_t k = 0; k < kHalf; ++k) {
      most = larger(load_as<Shorts>(in + k * sizeof(Shorts)) & int16_t{kSignless}, most);
    }
    out.magnitude[i] = largest_word(most);
  } else {
    Shorts least = ordered(load_as<Shorts>(in));
    Shorts most = least;
    for (size_t k = 1; k < kHalf; ++k) {
      const Shorts x = ordered(load_as<Shorts>(in + k * sizeof(Shorts)));
      least = smaller(x, least);
      most = larger(x, most);
    }
    out.least[i] = smallest_word(least);
    out.most[i] = largest_word(most);
  }
}

template <int kLayout>
inline void find_float_extremes(const std::byte* in, size_t i, Extremes& out) {
  constexpr size_t kStep = kLanes * kWidth<kElementF32>;
  if constexpr (kLayout == kLayoutQ8) {
    Int most = {};
    for (size_t k = 0; k < kVectors; ++k) most = larger_magnitude(load_as<Vec>(in + k * kStep), most);
    out.magnitude[i] = largest_lane(most);
  } else {
    auto least = load_as<Vec>(in);
    Vec most = least;
    Vec poison = taint(least, Vec{});
    for (size_t k = 1; k < kVectors; ++k) {
      const auto x = load_as<Vec>(in + k * kStep);
      least = smaller(x, least);
      most = larger(x, most);
      poison = taint(x, poison);
    }
    const float smallest = smallest_lane(least);
    out.least[i] = smallest == 0.0F ? first_zero<kElementF32>(in) : __builtin_bit_cast(int32_t, smallest);
    out.most[i] = __builtin_bit_cast(int32_t, largest_lane(most));
    out.poison[i] = any(poison != 0.0F) ? __builtin_nanf("") : 0.0F;
  }
}

// Extremes as numbers; words come in their order.
template <int kElement>
inline Vec numbers_of(const int32_t* extremes) {
  const auto bits = load_as<Int>(bytes_of(extremes));
  if constexpr (kInWords<kElement>) {
    return widen_words<kElement>(ordered(bits));
  } else {
    return from_bits(bits);
  }
}

template <int kElement, int kLayout>
inline void find_extremes(const std::byte* in, size_t i, Extremes& out) {
  if constexpr (kInWords<kElement>) {
    find_word_extremes<kLayout>(in, i, out);
    // 0 and -1 are the two zeros in the order of words.
    if (kLayout == kLayoutQ4 && (out.least[i] == 0 || out.least[i] == -1))
      out.least[i] = first_zero<kElement>(in) >> 15;
  } else {
    find_float_extremes<kLayout>(in, i, out);
  }
}

template <int kElement, int kLayout>
inline void find_scales(const Extremes& from, Scales& out) {
  for (size_t i = 0; i < kBatch; i += kLanes) {
    Int scale;
    if constexpr (kLayout == kLayoutQ8) {
      scale = q8_scale(bits_of(numbers_of<kElement>(from.magnitude + i)));  // a magnitude is its own order
    } else {
      const Int minimum = half_below(numbers_of<kElement>(from.least + i));
      const Vec base = widen_f16(minimum);
      scale = q4_scale(numbers_of<kElement>(from.most + i), base, load_as<Vec>(bytes_of(from.poison + i)));
      store_words(minimum, bytes_of(out.minimum + i));
      store_as(base, bytes_of(out.base + i));
    }
    store_words(scale, bytes_of(out.scale + i));
    const Divisor by = divisor(widen_f16(scale));
    store_as(by.scale, bytes_of(out.step + i));
    store_as(by.inverse, bytes_of(out.inverse + i));
  }
}

template <int kElement, int kLayout>
inline void quantise_group(const std::byte* in, const Scales& scales, size_t i, std::byte* out) {
  const Divisor by = {splat(scales.step[i]), splat(scales.inverse[i])};
  const Vec base = kLayout == kLayoutQ4 ? splat(scales.base[i]) : Vec{};
  for (size_t k = 0; k < kVectors; k += kRunVectors) {
    Vec x[kRunVectors];
    Int q[kRunVectors];
    load_run<kElement>(in + k * kLanes * kWidth<kElement>, x);
    if constexpr (kLayout == kLayoutQ8) {
      for (size_t w = 0; w < kRunVectors; ++w) q[w] = nearest_quant(quotient(x[w], by));
      store_signed_byte_run(q, out + k * kLanes);
    } else {
      for (size_t w = 0; w < kRunVectors; ++w) q[w] = nearest_quant(quotient(x[w] - base, by));
      store_nibble_run(q, out + k * kLanes / 2);
    }
  }
}

inline bool word_is_finite(uint16_t word) { return (word & 0x7c00U) != 0x7c00U; }

template <int kElement, int kLayout>
uint64_t encode_values(const std::byte* in, uint64_t tokens, uint64_t channels, std::byte* out) {
  const size_t groups = (channels + kGroup - 1) / kGroup;
  const size_t header = groups * kHeaderBytes<kLayout>;
  const size_t tile_bytes = header + quant_bytes<kLayout>(channels);
  const size_t last_elements = channels - (groups - 1) * kGroup;
  const bool short_last = last_elements < kGroup;
  const uint64_t total = tokens * groups;
  std::byte filled[kBatch][kGroup * kWidth<kElement>];
  Extremes extremes = {};
  Scales scales;
  uint64_t token = 0;
  size_t group = 0;
  for (uint64_t first = 0; first < total; first += kBatch) {
    const size_t n = total - first < kBatch ? total - first : kBatch;
    const std::byte* from[kBatch];
    std::byte* tile[kBatch];
    size_t at[kBatch];
    for (size_t i = 0; i < n; ++i) {
      from[i] = in + (token * channels + group * kGroup) * kWidth<kElement>;
      tile[i] = out + token * tile_bytes;
      at[i] = group;
      if (short_last && group + 1 == groups) {
        for (size_t j = 0; j < kGroup; ++j) {
          __builtin_memcpy(filled[i] + j * kWidth<kElement>, from[i] + (j < last_elements ? j : 0) * kWidth<kElement>,
                           kWidth<kElement>);
        }
        from[i] = filled[i];
      }
      find_extremes<kElement, kLayout>(from[i], i, extremes);
      if (++group == groups) {
        group = 0;
        ++token;
      }
    }
    find_scales<kElement, kLayout>(extremes, scales);
    for (size_t i = 0; i < n; ++i) {
      if (!word_is_finite(scales.scale[i]) || (kLayout == kLayoutQ4 && !word_is_finite(scales.minimum[i]))) {
        return (first + i) / groups;
      }
    }
    for (size_t i = 0; i < n; ++i) {
      __builtin_memcpy(tile[i] + at[i] * 2, &scales.scale[i], 2);
      if (kLayout == kLayoutQ4) __builtin_memcpy(tile[i] + (groups + at[i]) * 2, &scales.minimum[i], 2);
      std::byte* quants = tile[i] + header + at[i] * kQuantBytes<kLayout>;
      if (from[i] != filled[i]) {
        quantise_group<kElement, kLayout>(from[i], scales, i, quants);
        continue;
      }
      std::byte whole[kGroup];
      quantise_group<kElement, kLayout>(from[i], scales, i, whole);
      if (kLayout == kLayoutQ4 && last_elements % 2 != 0) {
        whole[last_elements / 2] = static_cast<std::byte>(static_cast<unsigned>(whole[last_elements / 2]) & 15U);
      }
      __builtin_memcpy(quants, whole, quant_bytes<kLayout>(last_elements));
    }
  }
  return tokens;
}

template <int kElement, int kLayout>
inline void dequantise_group(const std::byte* quants, Vec scale, Vec base, std::byte* out) {
  for (size_t k = 0; k < kVectors; k += kRunVectors) {
    Int q[kRunVectors];
    Vec x[kRunVectors];
    if constexpr (kLayout == kLayoutQ8) {
      load_signed_byte_run(quants + k * kLanes, q);
      for (size_t w = 0; w < kRunVectors; ++w) x[w] = to_float(q[w]) * scale;
    } else {
      load_nibble_run(quants + k * kLanes / 2, q);
      for (size_t w = 0; w < kRunVectors; ++w) x[w] = base + to_float(q[w]) * scale;
    }
    store_finite_run<kElement>(x, out + k * kLanes * kWidth<kElement>);
  }
}

template <int kElement, int kLayout>
uint64_t decode_values(const std::byte* in, uint64_t tokens, uint64_t channels, std::byte* out) {
  const size_t groups = (channels + kGroup - 1) / kGroup;
  const size_t header = groups * kHeaderBytes<kLayout>;
  const size_t tile_bytes = header + quant_bytes<kLayout>(channels);
  const size_t last_elements = channels - (groups - 1) * kGroup;
  for (uint64_t token = 0; token < tokens; ++token) {
    for (size_t group = 0; group < groups; ++group) {
      const auto word = load_as<uint16_t>(in + group * 2);
      const auto minimum = kLayout == kLayoutQ4 ? load_as<uint16_t>(in + (groups + group) * 2) : uint16_t{0};
      if (!word_is_finite(word) || !word_is_finite(minimum)) return token;
      const Vec scale = splat_f16(word);
      const Vec base = splat_f16(minimum);
      const std::byte* quants = in + header + group * kQuantBytes<kLayout>;
      std::byte* to = out + group * kGroup * kWidth<kElement>;
      if (group + 1 < groups || last_elements == kGroup) {
        dequantise_group<kElement, kLayout>(quants, scale, base, to);
        continue;
      }
      std::byte whole[kGroup] = {};
      std::byte elements[kGroup * kWidth<kElement>];
      __builtin_memcpy(whole, quants, quant_bytes<kLayout>(last_elements));
      dequantise_group<kElement, kLayout>(whole, scale, base, elements);
      __builtin_memcpy(to, elements, last_elements * kWidth<kElement>);
    }
    in += tile_bytes;
    out += channels * kWidth<kElement>;
  }
  return tokens;
}

}  // namespace
}  // namespace finchkv
