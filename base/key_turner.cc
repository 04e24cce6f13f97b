#include "base/key_turner.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

namespace finchkv {
namespace {

constexpr std::size_t kMostDims = 1024;
constexpr std::size_t kPiece = 4096;  // floats converted at a time: 16 KiB in, 16 KiB out, in the L1 cache
constexpr std::size_t kTaskElements = 64UL * 1024;  // some 50 us of work: well above what waking a thread costs

bool aligned(const void* at) { return reinterpret_cast<std::uintptr_t>(at) % alignof(float) == 0; }

// Pairs at (2i, 2i + 1) or (i, i + half) on either side. The three choices are constants here, so that the compiler
// sees loops of fixed stride, which it turns into vector instructions; each product and sum rounds as it does alone.
template <bool kFromInterleaved, bool kToInterleaved, bool kRotate>
void turn_pairs(const float* __restrict in, const float* __restrict cosines, const float* __restrict sines,
                std::size_t half, float* __restrict out) {
  const float* __restrict const in_other = in + (kFromInterleaved ? 1 : half);
  float* __restrict const out_other = out + (kToInterleaved ? 1 : half);
  for (std::size_t p = 0; p < half; ++p) {
    const float a = in[p * (kFromInterleaved ? 2 : 1)], b = in_other[p * (kFromInterleaved ? 2 : 1)];
    if constexpr (kRotate) {
      out[p * (kToInterleaved ? 2 : 1)] = a * cosines[p] - b * sines[p];
      out_other[p * (kToInterleaved ? 2 : 1)] = a * sines[p] + b * cosines[p];
    } else {
      out[p * (kToInterleaved ? 2 : 1)] = a;
      out_other[p * (kToInterleaved ? 2 : 1)] = b;
    }
  }
}

}  // namespace

Result<KeyTurner> KeyTurner::create(const RopeRecord& rope, std::uint32_t head_dim, PairOrder order, bool rotate,
                                    std::uint64_t first_position, std::uint32_t longest) {
  constexpr std::uint64_t kLastPosition = 1ULL << 24U;
  if (head_dim > kMostDims) {
    return Status::invalid_argument(
        fmt::format("heads of {} dimensions cannot be turned or converted: {} at most", head_dim, kMostDims));
  }
  if (rope.rotary_dims % 2 != 0 || rope.rotary_dims > head_dim || rope.inv_freq.size() != rope.rotary_dims / 2) {
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

KeyTurner::TurnPairs KeyTurner::pick() const {
  constexpr TurnPairs kAll[2][2][2] = {{{turn_pairs<false, false, false>, turn_pairs<false, false, true>},
                                        {turn_pairs<false, true, false>, turn_pairs<false, true, true>}},
                                       {{turn_pairs<true, false, false>, turn_pairs<true, false, true>},
                                        {turn_pairs<true, true, false>, turn_pairs<true, true, true>}}};
  return kAll[from_interleaved_ ? 1 : 0][to_interleaved_ ? 1 : 0][rotate_ ? 1 : 0];
}

void KeyTurner::turn_rows(const float* in, std::size_t first_row, std::size_t rows, std::uint32_t n, float* out) const {
  const TurnPairs turn_one = pick();
  std::size_t position = first_row % n;
  for (std::size_t row = 0; row < rows; ++row, in += head_dim_, out += head_dim_) {
    const std::size_t at = rotate_ ? position * half_ : 0;
    turn_one(in, cos_.data() + at, sin_.data() + at, half_, out);
    std::copy(in + 2 * half_, in + head_dim_, out + 2 * half_);
    if (++position == n) position = 0;
  }
}

void KeyTurner::turn(std::span<const std::byte> keys, DType from, std::uint32_t heads, std::uint32_t n,
                     std::span<std::byte> out, DType to, ThreadPool* pool) const {
  const std::size_t rows = std::size_t{heads} * n;
  if (rows == 0 || head_dim_ == 0) return;
  const std::size_t in_bytes = head_dim_ * element_bytes(from), out_bytes = head_dim_ * element_bytes(to);
  const bool wide_in = from == DType::kF32 && aligned(keys.data()), wide_out = to == DType::kF32 && aligned(out.data());
  const auto part = [&](std::size_t first, std::size_t end) {
    std::array<float, kPiece> in_rows, out_rows;  // what is f32 already needs neither
    for (std::size_t row = first; row < end;) {
      const std::size_t count = std::min(kPiece / head_dim_, end - row);
      const std::byte* const source = keys.data() + row * in_bytes;
      std::byte* const target = out.data() + row * out_bytes;
      if (!wide_in) convert_to_f32(from, source, in_rows.data(), count * head_dim_);
      turn_rows(wide_in ? reinterpret_cast<const float*>(source) : in_rows.data(), row, count, n,
                wide_out ? reinterpret_cast<float*>(target) : out_rows.data());
      if (!wide_out) convert_from_f32(to, out_rows.data(), target, count * head_dim_);
      row += count;
    }
  };
  const std::size_t rows_per_task = kTaskElements / head_dim_;
  const std::size_t tasks = (rows + rows_per_task - 1) / rows_per_task;
  if (pool == nullptr || tasks == 1) {
    part(0, rows);
    return;
  }
  pool->run(static_cast<std::int64_t>(tasks), [&](std::int64_t task, int) {
    const std::size_t first = static_cast<std::size_t>(task) * rows_per_task;
    part(first, std::min(first + rows_per_task, rows));
  });
}

}  // namespace finchkv
