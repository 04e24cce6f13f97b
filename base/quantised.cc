#include "base/quantised.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include <fmt/format.h>

#include "base/dtype_ops.h"

namespace finchkv {
namespace {

static_assert(kQuantGroup == 64, "dtype_ops_groups.h and the stored bytes say so too");

int layout_index(DType layout) { return layout == DType::kQ8 ? kLayoutQ8 : kLayoutQ4; }
int axis_index(GroupAxis axis) { return axis == GroupAxis::kTokens ? kAxisTokens : kAxisChannels; }

std::uint64_t group_header_bytes(DType layout) { return layout == DType::kQ8 ? 2 : 4; }

// Of `count` elements that share bytes: two nibbles to a byte, the last may stand alone.
std::uint64_t quant_bytes(DType layout, std::uint64_t count) {
  return layout == DType::kQ8 ? count : count / 2 + count % 2;
}

std::uint64_t head_bytes(DType layout, GroupAxis axis, const QuantisedShape& shape) {
  if (axis == GroupAxis::kChannels) {
    const std::uint64_t groups = (shape.channels - 1) / kQuantGroup + 1;
    return shape.tokens * (groups * group_header_bytes(layout) + quant_bytes(layout, shape.channels));
  }
  // Tiles of 64 tokens are even, so their nibbles count up to those of all tokens.
  const std::uint64_t tiles = (shape.tokens - 1) / kQuantGroup + 1;
  return shape.channels * (tiles * group_header_bytes(layout) + quant_bytes(layout, shape.tokens));
}

Status not_finite(DType layout, std::uint64_t head, std::uint64_t token) {
  return Status::corrupt(fmt::format("KV head {}, from token {}: a scale or minimum of the {} layout is not finite",
                                     head, token, dtype_name(layout)));
}

// Of f16 words, which need no alignment.
bool all_finite_f16(std::span<const std::byte> words) {
  bool finite = true;
  for (std::size_t i = 0; i < words.size(); i += 2) {
    F16 word = 0;
    std::memcpy(&word, words.data() + i, sizeof(word));
    finite &= (word & 0x7c00U) != 0x7c00U;
  }
  return finite;
}

}  // namespace

std::optional<std::uint64_t> quantised_bytes(DType layout, GroupAxis axis, const QuantisedShape& shape) {
  assert(is_quantised(layout));
  if (shape.heads == 0 || shape.tokens == 0 || shape.channels == 0) return 0;
  // A tensor never takes more than 8 bytes an element (one channel of one token: scale, minimum, quant).
  constexpr std::uint64_t kMost = std::uint64_t{1} << 59;
  if (shape.heads > kMost / shape.tokens || shape.heads * shape.tokens > kMost / shape.channels) return std::nullopt;
  return shape.heads * head_bytes(layout, axis, shape);
}

Status quantise(DType layout, GroupAxis axis, const QuantisedShape& shape, DType from, std::span<const std::byte> in,
                std::span<std::byte> out) {
  assert(in.size() == shape.heads * shape.tokens * shape.channels * element_bytes(from));
  assert(out.size() == quantised_bytes(layout, axis, shape));
  if (out.empty()) return Status::ok();
  const auto encode = dtype_ops().encode[static_cast<int>(from)][layout_index(layout)][axis_index(axis)];
  const std::uint64_t wide = in.size() / shape.heads;
  const std::uint64_t narrow = out.size() / shape.heads;
  for (std::uint64_t h = 0; h < shape.heads; ++h) {
    const std::uint64_t token = encode(in.data() + h * wide, shape.tokens, shape.channels, out.data() + h * narrow);
    if (token != shape.tokens) {
      return Status::invalid_argument(
          fmt::format("KV head {}, from token {}: a number is not finite or too large for {}; store it as f32 or bf16",
                      h, token, dtype_name(layout)));
    }
  }
  return Status::ok();
}

Status dequantise(DType layout, GroupAxis axis, const QuantisedShape& shape, std::span<const std::byte> in, DType to,
                  std::span<std::byte> out) {
  assert(in.size() == quantised_bytes(layout, axis, shape));
  assert(out.size() == shape.heads * shape.tokens * shape.channels * element_bytes(to));
  if (in.empty()) return Status::ok();
  const auto decode = dtype_ops().decode[static_cast<int>(to)][layout_index(layout)][axis_index(axis)];
  const std::uint64_t narrow = in.size() / shape.heads;
  const std::uint64_t wide = out.size() / shape.heads;
  for (std::uint64_t h = 0; h < shape.heads; ++h) {
    const std::uint64_t token = decode(in.data() + h * narrow, shape.tokens, shape.channels, out.data() + h * wide);
    if (token != shape.tokens) return not_finite(layout, h, token);
  }
  return Status::ok();
}

Status check_quantised(DType layout, GroupAxis axis, const QuantisedShape& shape, std::span<const std::byte> in) {
  assert(in.size() == quantised_bytes(layout, axis, shape));
  if (in.empty()) return Status::ok();
  const bool keys = axis == GroupAxis::kTokens;
  const std::uint64_t tile_tokens = keys ? kQuantGroup : 1;
  const std::uint64_t groups = keys ? shape.channels : (shape.channels - 1) / kQuantGroup + 1;
  const std::uint64_t header = groups * group_header_bytes(layout);
  std::uint64_t at = 0;
  for (std::uint64_t h = 0; h < shape.heads; ++h) {
    for (std::uint64_t token = 0; token < shape.tokens; token += tile_tokens) {
      if (!all_finite_f16(in.subspan(at, header))) return not_finite(layout, h, token);
      at += head_bytes(layout, axis, {1, std::min(tile_tokens, shape.tokens - token), shape.channels});
    }
  }
  return Status::ok();
}

}  // namespace finchkv
