// Encoding weights for the one-row product of the CPU device (layouts: Q8Block16 and Q4Block16 in simd.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace finchkv::kernels::cpu {

/// Encodes 16 rows w [16, in], in a multiple of 32, to in/32 groups of 8-bit codes. Where a group's values lie on a
/// grid of up to `grid_steps` steps the codes are exact (scale and minimum are rounded to f16); elsewhere the step is
/// the group's range / 254. False (and nothing usable in `out`) when values are too large for f16.
[[nodiscard]] bool encode_q8_block(const float* w, std::int64_t in, int grid_steps, std::byte* out);

/// The same in 4 bits; false (and nothing usable in `out`) when a group does not lie on a grid of up to 15 steps.
[[nodiscard]] bool encode_q4_block(const float* w, std::int64_t in, std::byte* out);

}  // namespace finchkv::kernels::cpu
