#include "base/key_turner.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

namespace finchkv {
namespace {

constexpr std::size_t kMostDims = 1024;

}  // namespace

Result<KeyTurner> KeyTurner::create(const RopeRecord& rope, std::uint32_t head_dim, PairOrder order, bool rotate,
                                    std::uint64_t first_position, std::uint32_t longest) {
  constexpr std::uint64_t kLastPosition = 1ULL << 24U;
  if (rope.rotary_dims % 2 != 0 || rope.rotary_dims > head_dim || head_dim > kMostDims ||
      rope.inv_freq.size() != rope.rotary_dims / 2) {
    return Status::invalid_argument(
        fmt::format("the set's position encoding turns {} of {} dimensions with {} frequencies: that does not fit",
                    rope.rotary_dims, head_dim, rope.inv_freq.size()));
  }
  if (rotate && (first_position > kLastPosition || first_position + longest > kLastPosition)) {
    return Status::invalid_argument(fmt::format("keys cannot be turned to positions past {}: {} were asked for from {}",
                                                kLastPosition, longest, first_position));
  }
  KeyTurner out;
  out.head_dim_ = head_dim;
  out.half_ = rope.rotary_dims / 2;
  out.rotate_ = rotate;
  out.from_interleaved_ = rope.interleaved;
  out.to_interleaved_ = order == PairOrder::kAsStored ? rope.interleaved : order == PairOrder::kInterleaved;
  if (!rotate) return out;
  out.cos_.resize(longest * out.half_);
  out.sin_.resize(longest * out.half_);
  for (std::size_t i = 0; i < longest; ++i) {
    const auto position = static_cast<float>(first_position + i);
    for (std::size_t p = 0; p < out.half_; ++p) {
      const float angle = position * rope.inv_freq[p];
      // Rounded from double, as an engine's own tables are: an exported key has the same bytes as a decoded one.
      out.cos_[i * out.half_ + p] = static_cast<float>(std::cos(static_cast<double>(angle))) * rope.attention_factor;
      out.sin_[i * out.half_ + p] = static_cast<float>(std::sin(static_cast<double>(angle))) * rope.attention_factor;
    }
  }
  return out;
}

void KeyTurner::turn_row(const float* in, std::size_t position, float* out) const {
  const float* const cosines = cos_.data() + (rotate_ ? position * half_ : 0);
  const float* const sines = sin_.data() + (rotate_ ? position * half_ : 0);
  const std::size_t in_step = from_interleaved_ ? 2 : 1, in_other = from_interleaved_ ? 1 : half_;
  const std::size_t out_step = to_interleaved_ ? 2 : 1, out_other = to_interleaved_ ? 1 : half_;
  for (std::size_t p = 0; p < half_; ++p) {
    float a = in[p * in_step], b = in[p * in_step + in_other];
    if (rotate_) {
      const float turned = a * cosines[p] - b * sines[p];
      b = a * sines[p] + b * cosines[p];
      a = turned;
    }
    out[p * out_step] = a;
    out[p * out_step + out_other] = b;
  }
  std::copy(in + 2 * half_, in + head_dim_, out + 2 * half_);
}

void KeyTurner::turn(std::span<const std::byte> keys, DType from, std::uint32_t heads, std::uint32_t n,
                     std::span<std::byte> out, DType to) const {
  std::array<float, kMostDims> in_row, out_row;
  const std::size_t in_bytes = head_dim_ * element_bytes(from), out_bytes = head_dim_ * element_bytes(to);
  for (std::size_t row = 0; row < std::size_t{heads} * n; ++row) {
    convert_to_f32(from, keys.data() + row * in_bytes, in_row.data(), head_dim_);
    turn_row(in_row.data(), row % n, out_row.data());
    convert_from_f32(to, out_row.data(), out.data() + row * out_bytes, head_dim_);
  }
}

}  // namespace finchkv
