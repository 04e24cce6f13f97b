// Values: groups of 64 channels of one token. The extremes of 16 groups are gathered before their scales are computed
// together. A short group is filled up to 64 with its first element, which changes none of its numbers. Included by
// dtype_ops_body.h only.
#pragma once

#include "base/dtype_ops_groups.h"

namespace finchkv {
namespace {

inline constexpr size_t kBatch = 16;
inline constexpr size_t kVectors = kGroup / kLanes;

template <int kLayout>
inline constexpr size_t kQuantBytes = kLayout == kLayoutQ8 ? kGroup : kGroup / 2;  // of a whole group

template <int kLayout>
inline size_t quant_bytes(size_t elements) {
  return kLayout == kLayoutQ8 ? elements : (elements + 1) / 2;
}

struct Extremes {
  alignas(64) int32_t magnitude[kBatch];  // q8
  alignas(64) float least[kBatch];        // q4, as the next two
  alignas(64) float most[kBatch];
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
float first_zero(const std::byte* in) {
  for (size_t i = 0; i < kGroup; ++i) {
    const std::byte* at = in + i * kWidth<kElement>;
    if constexpr (kElement == kElementF32) {
      const auto word = load_as<uint32_t>(at);
      if ((word & 0x7fffffffU) == 0) return word == 0 ? 0.0F : -0.0F;
    } else {
      const auto word = load_as<uint16_t>(at);
      if ((word & 0x7fffU) == 0) return word == 0 ? 0.0F : -0.0F;
    }
  }
  return 0.0F;
}

template <int kElement, int kLayout>
inline void find_extremes(const std::byte* in, size_t i, Extremes& out) {
  constexpr size_t kStep = kLanes * kWidth<kElement>;
  if constexpr (kLayout == kLayoutQ8) {
    Int most = {};
    for (size_t k = 0; k < kVectors; ++k) most = larger_magnitude(load<kElement>(in + k * kStep), most);
    out.magnitude[i] = largest_lane(most);
  } else {
    Vec least = load<kElement>(in);
    Vec most = least;
    Vec poison = taint(least, Vec{});
    for (size_t k = 1; k < kVectors; ++k) {
      const Vec x = load<kElement>(in + k * kStep);
      least = smaller(x, least);
      most = larger(x, most);
      poison = taint(x, poison);
    }
    out.least[i] = smallest_lane(least);
    if (out.least[i] == 0.0F) out.least[i] = first_zero<kElement>(in);
    out.most[i] = largest_lane(most);
    out.poison[i] = any(poison != 0.0F) ? __builtin_nanf("") : 0.0F;
  }
}

template <int kLayout>
inline void find_scales(const Extremes& from, Scales& out) {
  for (size_t i = 0; i < kBatch; i += kLanes) {
    Int scale;
    if constexpr (kLayout == kLayoutQ8) {
      scale = q8_scale(load_as<Int>(bytes_of(from.magnitude + i)));
    } else {
      const Int minimum = half_below(load_as<Vec>(bytes_of(from.least + i)));
      const Vec base = widen_f16(minimum);
      scale = q4_scale(load_as<Vec>(bytes_of(from.most + i)), base, load_as<Vec>(bytes_of(from.poison + i)));
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
  constexpr size_t kStep = kLanes * kWidth<kElement>;
  const Divisor by = {splat(scales.step[i]), splat(scales.inverse[i])};
  if constexpr (kLayout == kLayoutQ8) {
    for (size_t k = 0; k < kVectors; ++k) {
      store_bytes(nearest(quotient(load<kElement>(in + k * kStep), by)), out + k * kLanes);
    }
  } else {
    const Vec base = splat(scales.base[i]);
    for (size_t k = 0; k < kVectors; ++k) {
      store_nibbles(nearest(quotient(load<kElement>(in + k * kStep) - base, by)), out + k * kLanes / 2);
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
    find_scales<kLayout>(extremes, scales);
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
  constexpr size_t kStep = kLanes * kWidth<kElement>;
  for (size_t k = 0; k < kVectors; ++k) {
    if constexpr (kLayout == kLayoutQ8) {
      store_finite<kElement>(to_float(load_signed_bytes(quants + k * kLanes)) * scale, out + k * kStep);
    } else {
      store_finite<kElement>(base + to_float(load_nibbles(quants + k * kLanes / 2)) * scale, out + k * kStep);
    }
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
