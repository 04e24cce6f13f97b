// Group-quantised layouts of KV tensors: q8 and q4, as they stand in stored blocks (docs/formats.md has the bytes).
//
// q8 is symmetric: x ~ q * scale, q in -127..127, one f16 scale a group. q4 is asymmetric: x ~ minimum + q * scale,
// q in 0..15, two to a byte, low nibble first, an f16 scale and an f16 minimum a group. A group is 64 elements, the
// last of a run may be short. Keys are grouped along tokens per channel (their outliers sit in channels), values along
// channels per token. Scales are rounded up and minima down, so that no element is off by more than half a step.
// Elements are f32, f16 or bf16 in memory and are read and written as they are. The loops are vectorised (dtype_ops.h);
// bytes and numbers are the same on every processor. Pure functions on memory of the caller, thread-safe; in and out do
// not overlap and need no alignment. One call works on one core: callers split by layer or head where they want more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/dtype.h"
#include "base/status.h"

namespace finchkv {

inline constexpr std::size_t kQuantGroup = 64;

enum class GroupAxis : std::uint8_t {
  kTokens,    ///< keys
  kChannels,  ///< values
};

struct QuantisedShape {
  std::uint64_t heads = 0;
  std::uint64_t tokens = 0;
  std::uint64_t channels = 0;
};

/// Bytes of a tensor [heads, tokens, channels] in q8 or q4; nullopt when the count does not fit 63 bits.
[[nodiscard]] std::optional<std::uint64_t> quantised_bytes(DType layout, GroupAxis axis, const QuantisedShape& shape);

/// `in` is [heads, tokens, channels] of `from` (f32, f16 or bf16), `out` quantised_bytes long. invalid_argument, saying
/// where, for a number that is not finite or too large for an f16 scale or minimum; `out` is then in part written.
[[nodiscard]] Status quantise(DType layout, GroupAxis axis, const QuantisedShape& shape, DType from,
                              std::span<const std::byte> in, std::span<std::byte> out);

/// The inverse, with sizes as above. corrupt when a scale or minimum is not a finite number. Numbers are rounded to
/// `to` as dtype.h does: f16 becomes infinite where a quantised number is beyond it.
[[nodiscard]] Status dequantise(DType layout, GroupAxis axis, const QuantisedShape& shape,
                                std::span<const std::byte> in, DType to, std::span<std::byte> out);

/// What dequantise() would say of `in`, without the work: corrupt where a scale or minimum is not a finite number.
[[nodiscard]] Status check_quantised(DType layout, GroupAxis axis, const QuantisedShape& shape,
                                     std::span<const std::byte> in);

}  // namespace finchkv
