// Rotating keys on the host, as an export needs it: the plain version of what kernels/ does for attention.
//
// angle = f32(position) * f32(inv_freq[i]); cos and sin times the record's attention factor. Pure, thread-safe.
#pragma once

#include <cstdint>
#include <span>

#include "base/kvset.h"
#include "base/status.h"

namespace finchkv {

/// Rotates f32 keys [heads, n, head_dim] in place: entry i of every head to position first_position + i.
/// invalid_argument when record, sizes and head_dim disagree, or a position is past 2^24, where f32 stops counting.
[[nodiscard]] Status rotate_keys(const RopeRecord& rope, std::uint32_t heads, std::uint32_t n, std::uint32_t head_dim,
                                 std::uint64_t first_position, std::span<float> keys);

}  // namespace finchkv
