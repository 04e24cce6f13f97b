// Keys: groups along tokens, one a channel, so that a vector is kLanes groups side by side. Included by
// dtype_ops_body.h only.
#pragma once

#include "base/dtype_ops_groups.h"

namespace finchkv {
namespace {

inline constexpr size_t kWideVectors = 4;  // a block of channels whose extremes and scales stay in registers

// --- Keys: a block of W vectors of channels, `tokens` rows ---

// Rows of elements and of quants, and where the scales and (q4) minima of the block stand.
struct KeyBlock {
  size_t tokens;
  size_t stride;  // bytes from one row of elements to the next
  size_t quant_stride;
};

// The extremes of each channel. Elements of 16 bits are compared in lanes of 16 where the block fills them.
template <int kElement, size_t W>
inline constexpr bool kInShorts = kElement != kElementF32&& W % 2 == 0;

template <int kElement, size_t W>
inline void largest_magnitudes(const KeyBlock& b, const std::byte* in, Int (&most)[W]) {
  if constexpr (kInShorts<kElement, W>) {
    Shorts words[W / 2] = {};
    for (size_t t = 0; t < b.tokens; ++t) {
      for (size_t w = 0; w < W / 2; ++w) {
        const auto x = load_as<Shorts>(in + t * b.stride + w * sizeof(Shorts));
        words[w] = larger(x & int16_t{kSignless}, words[w]);
      }
    }
    Vec wide[W];
    widen_shorts<kElement>(words, wide);
    for (size_t w = 0; w < W; ++w) most[w] = bits_of(wide[w]);
  } else {
    constexpr size_t kStep = kLanes * kWidth<kElement>;
    for (size_t w = 0; w < W; ++w) most[w] = Int{};
    for (size_t t = 0; t < b.tokens; ++t) {
      for (size_t w = 0; w < W; ++w) most[w] = larger_magnitude(load<kElement>(in + t * b.stride + w * kStep), most[w]);
    }
  }
}

template <size_t W>
struct KeyRange {
  Vec least[W];
  Vec most[W];
  Vec poison[W];
};

template <int kElement, size_t W>
inline void range_of_numbers(const KeyBlock& b, const std::byte* in, KeyRange<W>& out) {
  constexpr size_t kStep = kLanes * kWidth<kElement>;
  for (size_t w = 0; w < W; ++w) {
    out.least[w] = out.most[w] = load<kElement>(in + w * kStep);
    out.poison[w] = Vec{};
  }
  for (size_t t = 0; t < b.tokens; ++t) {
    for (size_t w = 0; w < W; ++w) {
      const Vec x = load<kElement>(in + t * b.stride + w * kStep);
      out.least[w] = smaller(x, out.least[w]);
      out.most[w] = larger(x, out.most[w]);
      out.poison[w] = taint(x, out.poison[w]);
    }
  }
}

// What is not finite is an extreme here, and needs no poison.
template <int kElement, size_t W>
inline void range_of_shorts(const KeyBlock& b, const std::byte* in, KeyRange<W>& out) {
  Shorts least[W / 2];
  Shorts most[W / 2];
  for (size_t w = 0; w < W / 2; ++w) least[w] = most[w] = ordered(load_as<Shorts>(in + w * sizeof(Shorts)));
  for (size_t t = 1; t < b.tokens; ++t) {
    for (size_t w = 0; w < W / 2; ++w) {
      const Shorts x = ordered(load_as<Shorts>(in + t * b.stride + w * sizeof(Shorts)));
      least[w] = smaller(x, least[w]);
      most[w] = larger(x, most[w]);
    }
  }
  for (size_t w = 0; w < W / 2; ++w) {
    least[w] = ordered(least[w]);
    most[w] = ordered(most[w]);
  }
  widen_shorts<kElement>(least, out.least);
  widen_shorts<kElement>(most, out.most);
  for (size_t w = 0; w < W; ++w) out.poison[w] = Vec{};
}

template <int kElement, size_t W>
inline void find_range(const KeyBlock& b, const std::byte* in, KeyRange<W>& out) {
  if constexpr (kInShorts<kElement, W>) {
    range_of_shorts<kElement>(b, in, out);
    Int zero = {};
    for (size_t w = 0; w < W; ++w) zero |= out.least[w] == 0.0F;
    if (!any(zero)) return;
  }
  // A minimum of zero has the sign of the first zero, whatever stands before -0 in the order of words.
  range_of_numbers<kElement>(b, in, out);
}

template <int kElement, size_t W>
inline bool encode_keys_q8(const KeyBlock& b, const std::byte* in, std::byte* scales, std::byte* quants) {
  Int most[W];
  largest_magnitudes<kElement>(b, in, most);
  Divisor by[W];
  Int finite = Int{} - 1;
  for (size_t w = 0; w < W; ++w) {
    const Int scale = q8_scale(most[w]);
    finite &= half_is_finite(scale);
    store_words(scale, scales + w * kLanes * 2);
    by[w] = divisor(widen_f16(scale));
  }
  if (any(~finite)) return false;
  for (size_t t = 0; t < b.tokens; ++t) {
    Vec x[W];
    Int q[W];
    load_run<kElement>(in + t * b.stride, x);
    for (size_t w = 0; w < W; ++w) q[w] = nearest_quant(quotient(x[w], by[w]));
    store_signed_byte_run(q, quants + t * b.quant_stride);
  }
  return true;
}

template <int kElement, size_t W>
inline void quantise_row(const std::byte* in, const Vec (&base)[W], const Divisor (&by)[W], Int (&out)[W]) {
  Vec x[W];
  load_run<kElement>(in, x);
  for (size_t w = 0; w < W; ++w) out[w] = nearest_quant(quotient(x[w] - base[w], by[w]));
}

template <int kElement, size_t W>
inline bool encode_keys_q4(const KeyBlock& b, const std::byte* in, std::byte* scales, std::byte* minima,
                           std::byte* quants) {
  KeyRange<W> range;
  find_range<kElement>(b, in, range);
  Vec base[W];
  Divisor by[W];
  Int finite = Int{} - 1;
  for (size_t w = 0; w < W; ++w) {
    const Int minimum = half_below(range.least[w]);
    base[w] = widen_f16(minimum);
    const Int scale = q4_scale(range.most[w], base[w], range.poison[w]);
    finite &= half_is_finite(minimum) & half_is_finite(scale);
    store_words(scale, scales + w * kLanes * 2);
    store_words(minimum, minima + w * kLanes * 2);
    by[w] = divisor(widen_f16(scale));
  }
  if (any(~finite)) return false;
  for (size_t t = 0; t < b.tokens; t += 2) {
    Int low[W];
    Int high[W] = {};
    quantise_row<kElement>(in + t * b.stride, base, by, low);
    if (t + 1 < b.tokens) quantise_row<kElement>(in + (t + 1) * b.stride, base, by, high);
    store_nibble_rows(low, high, quants + t / 2 * b.quant_stride);
  }
  return true;
}

template <int kElement, size_t W>
inline bool decode_keys_q8(const KeyBlock& b, const std::byte* scales, const std::byte* quants, std::byte* out) {
  Vec scale[W];
  Int finite = Int{} - 1;
  for (size_t w = 0; w < W; ++w) {
    const Int word = load_words(scales + w * kLanes * 2);
    finite &= half_is_finite(word);
    scale[w] = widen_f16(word);
  }
  if (any(~finite)) return false;
  for (size_t t = 0; t < b.tokens; ++t) {
    Int q[W];
    Vec x[W];
    load_signed_byte_run(quants + t * b.quant_stride, q);
    for (size_t w = 0; w < W; ++w) x[w] = to_float(q[w]) * scale[w];
    store_finite_run<kElement>(x, out + t * b.stride);
  }
  return true;
}

template <int kElement, size_t W>
inline void dequantise_row(const Int (&q)[W], const Vec (&base)[W], const Vec (&scale)[W], std::byte* out) {
  Vec x[W];
  for (size_t w = 0; w < W; ++w) x[w] = base[w] + to_float(q[w]) * scale[w];
  store_finite_run<kElement>(x, out);
}

template <int kElement, size_t W>
inline bool decode_keys_q4(const KeyBlock& b, const std::byte* scales, const std::byte* minima, const std::byte* quants,
                           std::byte* out) {
  Vec scale[W];
  Vec base[W];
  Int finite = Int{} - 1;
  for (size_t w = 0; w < W; ++w) {
    const Int word = load_words(scales + w * kLanes * 2);
    const Int minimum = load_words(minima + w * kLanes * 2);
    finite &= half_is_finite(word) & half_is_finite(minimum);
    scale[w] = widen_f16(word);
    base[w] = widen_f16(minimum);
  }
  if (any(~finite)) return false;
  for (size_t t = 0; t < b.tokens; t += 2) {
    Int low[W];
    Int high[W];
    load_nibble_rows(quants + t / 2 * b.quant_stride, low, high);
    dequantise_row<kElement>(low, base, scale, out + t * b.stride);
    if (t + 1 < b.tokens) dequantise_row<kElement>(high, base, scale, out + (t + 1) * b.stride);
  }
  return true;
}

// --- Keys: a tile, a head ---

template <int kElement, int kLayout, size_t W>
inline bool encode_key_block(const KeyBlock& b, const std::byte* in, size_t channels, std::byte* tile, size_t c) {
  if constexpr (kLayout == kLayoutQ8) {
    return encode_keys_q8<kElement, W>(b, in, tile + c * 2, tile + channels * 2 + c);
  } else {
    return encode_keys_q4<kElement, W>(b, in, tile + c * 2, tile + (channels + c) * 2, tile + channels * 4 + c);
  }
}

template <int kElement, int kLayout, size_t W>
inline bool decode_key_block(const KeyBlock& b, const std::byte* tile, size_t channels, std::byte* out, size_t c) {
  if constexpr (kLayout == kLayoutQ8) {
    return decode_keys_q8<kElement, W>(b, tile + c * 2, tile + channels * 2 + c, out);
  } else {
    return decode_keys_q4<kElement, W>(b, tile + c * 2, tile + (channels + c) * 2, tile + channels * 4 + c, out);
  }
}

template <int kLayout>
inline size_t quant_rows(size_t tokens) {
  return kLayout == kLayoutQ8 ? tokens : (tokens + 1) / 2;
}

// Calls block(width tag, first channel) for blocks that cover all channels. The last may begin inside the one before:
// its groups are then computed twice, to the same bytes.
template <typename Block>
inline bool cover_channels(size_t channels, const Block& block) {
  size_t c = 0;
  for (; c + kWideVectors * kLanes <= channels; c += kWideVectors * kLanes) {
    if (!block.template run<kWideVectors>(c)) return false;
  }
  for (; c + kLanes <= channels; c += kLanes) {
    if (!block.template run<1>(c)) return false;
  }
  return c == channels || block.template run<1>(channels - kLanes);
}

template <int kElement, int kLayout>
struct EncodeKeyTile {
  KeyBlock shape;
  const std::byte* in;
  size_t channels;
  std::byte* tile;
  template <size_t W>
  bool run(size_t c) const {
    return encode_key_block<kElement, kLayout, W>(shape, in + c * kWidth<kElement>, channels, tile, c);
  }
};

template <int kElement, int kLayout>
struct DecodeKeyTile {
  KeyBlock shape;
  const std::byte* tile;
  size_t channels;
  std::byte* out;
  template <size_t W>
  bool run(size_t c) const {
    return decode_key_block<kElement, kLayout, W>(shape, tile, channels, out + c * kWidth<kElement>, c);
  }
};

// Heads narrower than a vector: rows are copied to a vector's width and back.
inline void copy_rows(size_t rows, size_t row_bytes, const std::byte* from, size_t from_stride, std::byte* to,
                      size_t to_stride) {
  for (size_t r = 0; r < rows; ++r) __builtin_memcpy(to + r * to_stride, from + r * from_stride, row_bytes);
}

template <int kElement, int kLayout>
inline bool encode_narrow_tile(size_t tokens, const std::byte* in, size_t channels, std::byte* tile) {
  constexpr size_t kWideRow = kLanes * kWidth<kElement>;
  constexpr size_t kHeader = kLanes * kHeaderBytes<kLayout>;
  std::byte wide[kGroup * kWideRow] = {};
  std::byte wide_tile[kHeader + kGroup * kLanes];
  const size_t row = channels * kWidth<kElement>;
  copy_rows(tokens, row, in, row, wide, kWideRow);
  if (!encode_key_block<kElement, kLayout, 1>({tokens, kWideRow, kLanes}, wide, kLanes, wide_tile, 0)) return false;
  copy_rows(kHeaderBytes<kLayout> / 2, channels * 2, wide_tile, kLanes * 2, tile, channels * 2);
  copy_rows(quant_rows<kLayout>(tokens), channels, wide_tile + kHeader, kLanes, tile + channels * kHeaderBytes<kLayout>,
            channels);
  return true;
}

template <int kElement, int kLayout>
inline bool decode_narrow_tile(size_t tokens, const std::byte* tile, size_t channels, std::byte* out) {
  constexpr size_t kWideRow = kLanes * kWidth<kElement>;
  constexpr size_t kHeader = kLanes * kHeaderBytes<kLayout>;
  std::byte wide[kGroup * kWideRow];
  std::byte wide_tile[kHeader + kGroup * kLanes] = {};
  copy_rows(kHeaderBytes<kLayout> / 2, channels * 2, tile, channels * 2, wide_tile, kLanes * 2);
  copy_rows(quant_rows<kLayout>(tokens), channels, tile + channels * kHeaderBytes<kLayout>, channels,
            wide_tile + kHeader, kLanes);
  if (!decode_key_block<kElement, kLayout, 1>({tokens, kWideRow, kLanes}, wide_tile, kLanes, wide, 0)) return false;
  const size_t row = channels * kWidth<kElement>;
  copy_rows(tokens, row, wide, kWideRow, out, row);
  return true;
}

template <int kElement, int kLayout>
uint64_t encode_keys(const std::byte* in, uint64_t tokens, uint64_t channels, std::byte* out) {
  const size_t row = channels * kWidth<kElement>;
  for (uint64_t first = 0; first < tokens; first += kGroup) {
    const size_t n = tokens - first < kGroup ? tokens - first : kGroup;
    const bool ok =
        channels < kLanes
            ? encode_narrow_tile<kElement, kLayout>(n, in, channels, out)
            : cover_channels(channels, EncodeKeyTile<kElement, kLayout>{{n, row, channels}, in, channels, out});
    if (!ok) return first;
    in += n * row;
    out += channels * (kHeaderBytes<kLayout> + quant_rows<kLayout>(n));
  }
  return tokens;
}

template <int kElement, int kLayout>
uint64_t decode_keys(const std::byte* in, uint64_t tokens, uint64_t channels, std::byte* out) {
  const size_t row = channels * kWidth<kElement>;
  for (uint64_t first = 0; first < tokens; first += kGroup) {
    const size_t n = tokens - first < kGroup ? tokens - first : kGroup;
    const bool ok =
        channels < kLanes
            ? decode_narrow_tile<kElement, kLayout>(n, in, channels, out)
            : cover_channels(channels, DecodeKeyTile<kElement, kLayout>{{n, row, channels}, in, channels, out});
    if (!ok) return first;
    in += channels * (kHeaderBytes<kLayout> + quant_rows<kLayout>(n));
    out += n * row;
  }
  return tokens;
}

}  // namespace
}  // namespace finchkv
