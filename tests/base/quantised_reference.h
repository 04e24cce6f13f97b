// The quantised layouts as plainly as they can be written: one element after the other, in f32. What base/quantised.h
// must agree with bit for bit, on every processor.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include <fmt/format.h>

#include "base/dtype.h"
#include "base/quantised.h"
#include "base/status.h"

namespace finchkv::reference {

// A tile is the smallest piece that stands together in the bytes: the scales of its groups, for q4 their minima, then
// the quants. For keys it is up to 64 tokens of one head, a group a channel; for values one token of one head.
// Element j of group i is at in[i * group_stride + j * step]; its q8 byte at the same offset, its q4 byte at
// i * nibble_stride + (j / 2) * step.
struct Tile {
  std::uint64_t groups = 0;
  std::uint64_t elements = 0;
  std::uint64_t group_stride = 0;
  std::uint64_t nibble_stride = 0;
  std::uint64_t step = 0;
  std::uint64_t nibble_bytes = 0;
  std::uint64_t length = 0;       // of every group but, for values, the last
  std::uint64_t last_length = 0;  // of the last group

  [[nodiscard]] std::uint64_t length_of(std::uint64_t group) const {
    return group + 1 == groups ? last_length : length;
  }
  [[nodiscard]] std::uint64_t bytes(DType layout) const {
    return layout == DType::kQ8 ? groups * 2 + elements : groups * 4 + nibble_bytes;
  }
};

inline Tile tile_at(GroupAxis axis, const QuantisedShape& shape, std::uint64_t first_token) {
  Tile t;
  if (axis == GroupAxis::kTokens) {
    const std::uint64_t tokens = std::min<std::uint64_t>(kQuantGroup, shape.tokens - first_token);
    t = {.groups = shape.channels,
         .elements = tokens * shape.channels,
         .group_stride = 1,
         .nibble_stride = 1,
         .step = shape.channels,
         .nibble_bytes = (tokens + 1) / 2 * shape.channels,
         .length = tokens,
         .last_length = tokens};
  } else {
    const std::uint64_t groups = (shape.channels + kQuantGroup - 1) / kQuantGroup;
    t = {.groups = groups,
         .elements = shape.channels,
         .group_stride = kQuantGroup,
         .nibble_stride = kQuantGroup / 2,
         .step = 1,
         .nibble_bytes = (shape.channels + 1) / 2,
         .length = kQuantGroup,
         .last_length = shape.channels - (groups - 1) * kQuantGroup};
  }
  return t;
}

inline std::uint64_t tile_tokens(GroupAxis axis) { return axis == GroupAxis::kTokens ? kQuantGroup : 1; }

inline F16 next_up(F16 v) {  // the next f16 above a finite one
  if (v == 0x8000U || v == 0) return 1;
  return static_cast<F16>((v & 0x8000U) != 0 ? v - 1 : v + 1);
}

inline F16 next_down(F16 v) {
  if (v == 0x8000U || v == 0) return 0x8001U;
  return static_cast<F16>((v & 0x8000U) != 0 ? v + 1 : v - 1);
}

inline bool is_finite_f16(F16 v) { return (v & 0x7c00U) != 0x7c00U; }

inline F16 round_up(float x) {  // the smallest f16 not below x
  const F16 v = f32_to_f16(x);
  return is_finite_f16(v) && f16_to_f32(v) < x ? next_up(v) : v;
}

inline F16 round_down(float x) {
  const F16 v = f32_to_f16(x);
  return is_finite_f16(v) && f16_to_f32(v) > x ? next_down(v) : v;
}

inline F16 load_f16(const std::byte* at) {
  F16 v = 0;
  std::memcpy(&v, at, sizeof(v));
  return v;
}

inline void store_f16(std::byte* at, F16 v) { std::memcpy(at, &v, sizeof(v)); }

inline int quantum(float x, float scale, int lowest, int highest) {
  if (scale == 0.0F) return 0;
  return static_cast<int>(
      std::nearbyint(std::clamp(x / scale, static_cast<float>(lowest), static_cast<float>(highest))));
}

inline bool encode_q8(const Tile& t, const float* in, std::byte* out) {
  std::byte* quants = out + t.groups * 2;
  for (std::uint64_t i = 0; i < t.groups; ++i) {
    float most = 0.0F;
    for (std::uint64_t j = 0; j < t.length_of(i); ++j) {
      const float x = in[i * t.group_stride + j * t.step];
      if (!std::isfinite(x)) return false;
      most = std::max(most, std::fabs(x));
    }
    const F16 scale = round_up(most / 127.0F);
    if (!is_finite_f16(scale)) return false;
    store_f16(out + i * 2, scale);
    for (std::uint64_t j = 0; j < t.length_of(i); ++j) {
      const std::uint64_t at = i * t.group_stride + j * t.step;
      quants[at] = static_cast<std::byte>(static_cast<std::int8_t>(quantum(in[at], f16_to_f32(scale), -127, 127)));
    }
  }
  return true;
}

inline bool encode_q4(const Tile& t, const float* in, std::byte* out) {
  std::byte* quants = out + t.groups * 4;
  std::memset(quants, 0, t.nibble_bytes);
  for (std::uint64_t i = 0; i < t.groups; ++i) {
    float least = std::numeric_limits<float>::infinity();
    float most = -std::numeric_limits<float>::infinity();
    for (std::uint64_t j = 0; j < t.length_of(i); ++j) {
      const float x = in[i * t.group_stride + j * t.step];
      if (!std::isfinite(x)) return false;
      least = std::min(least, x);
      most = std::max(most, x);
    }
    const F16 minimum = round_down(least);
    if (!is_finite_f16(minimum)) return false;
    const float base = f16_to_f32(minimum);
    const F16 scale = round_up((most - base) / 15.0F);
    if (!is_finite_f16(scale)) return false;
    store_f16(out + i * 2, scale);
    store_f16(out + (t.groups + i) * 2, minimum);
    for (std::uint64_t j = 0; j < t.length_of(i); ++j) {
      const int q = quantum(in[i * t.group_stride + j * t.step] - base, f16_to_f32(scale), 0, 15);
      quants[i * t.nibble_stride + j / 2 * t.step] |= static_cast<std::byte>(j % 2 == 0 ? q : q << 4);
    }
  }
  return true;
}

inline bool decode_q8(const Tile& t, const std::byte* in, float* out) {
  const std::byte* quants = in + t.groups * 2;
  for (std::uint64_t i = 0; i < t.groups; ++i) {
    const F16 scale = load_f16(in + i * 2);
    if (!is_finite_f16(scale)) return false;
    const float step = f16_to_f32(scale);
    for (std::uint64_t j = 0; j < t.length_of(i); ++j) {
      const std::uint64_t at = i * t.group_stride + j * t.step;
      out[at] = static_cast<float>(static_cast<std::int8_t>(quants[at])) * step;
    }
  }
  return true;
}

inline bool decode_q4(const Tile& t, const std::byte* in, float* out) {
  const std::byte* quants = in + t.groups * 4;
  for (std::uint64_t i = 0; i < t.groups; ++i) {
    const F16 scale = load_f16(in + i * 2);
    const F16 minimum = load_f16(in + (t.groups + i) * 2);
    if (!is_finite_f16(scale) || !is_finite_f16(minimum)) return false;
    const float step = f16_to_f32(scale);
    const float base = f16_to_f32(minimum);
    for (std::uint64_t j = 0; j < t.length_of(i); ++j) {
      const auto pair = std::to_integer<unsigned>(quants[i * t.nibble_stride + j / 2 * t.step]);
      const unsigned q = j % 2 == 0 ? pair & 15U : pair >> 4;
      out[i * t.group_stride + j * t.step] = base + static_cast<float>(q) * step;
    }
  }
  return true;
}

inline Status quantise(DType layout, GroupAxis axis, const QuantisedShape& shape, std::span<const float> in,
                       std::span<std::byte> out) {
  std::byte* at = out.data();
  for (std::uint64_t h = 0; h < shape.heads; ++h) {
    for (std::uint64_t token = 0; token < shape.tokens; token += tile_tokens(axis)) {
      const Tile tile = tile_at(axis, shape, token);
      const float* from = in.data() + (h * shape.tokens + token) * shape.channels;
      if (!(layout == DType::kQ8 ? encode_q8(tile, from, at) : encode_q4(tile, from, at))) {
        return Status::invalid_argument(
            fmt::format("KV head {}, from token {}: a number is not finite or too large for {}; store it as f32 or "
                        "bf16",
                        h, token, dtype_name(layout)));
      }
      at += tile.bytes(layout);
    }
  }
  return Status::ok();
}

inline Status dequantise(DType layout, GroupAxis axis, const QuantisedShape& shape, std::span<const std::byte> in,
                         std::span<float> out) {
  const std::byte* at = in.data();
  for (std::uint64_t h = 0; h < shape.heads; ++h) {
    for (std::uint64_t token = 0; token < shape.tokens; token += tile_tokens(axis)) {
      const Tile tile = tile_at(axis, shape, token);
      float* to = out.data() + (h * shape.tokens + token) * shape.channels;
      if (!(layout == DType::kQ8 ? decode_q8(tile, at, to) : decode_q4(tile, at, to))) {
        return Status::corrupt(
            fmt::format("KV head {}, from token {}: a scale or minimum of the {} layout is not finite", h, token,
                        dtype_name(layout)));
      }
      at += tile.bytes(layout);
    }
  }
  return Status::ok();
}

}  // namespace finchkv::reference
