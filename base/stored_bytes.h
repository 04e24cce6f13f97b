// How many bytes a tensor of a set has, in whatever layout it is stored.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "base/quantised.h"

namespace finchkv {

/// Bytes of [heads, tokens, channels] in f32, f16, bf16, q8 or q4; 0 when the count of a quantised one does not fit 63
/// bits, which no tensor that is there has. `axis` matters for q8 and q4 alone.
[[nodiscard]] inline std::uint64_t stored_bytes(DType layout, GroupAxis axis, const QuantisedShape& shape) {
  if (is_quantised(layout)) return quantised_bytes(layout, axis, shape).value_or(0);
  return shape.heads * shape.tokens * shape.channels * element_bytes(layout);
}

}  // namespace finchkv
