// Expanding runs of one block type. Internal to dequant.cc: the 256-element types are in dequant_k.cc.
//
// Blocks are packed and unaligned; `in` holds n_blocks of them, out takes n_blocks times the block's elements.
// Nothing is checked here. -ffp-contract=off (CMakeLists.txt) keeps products and sums apart, as in ggml.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "base/dtype.h"

namespace finchkv::model::blocks {

void q2_k(const std::uint8_t* in, std::uint64_t n_blocks, float* out);
void q3_k(const std::uint8_t* in, std::uint64_t n_blocks, float* out);
void q4_k(const std::uint8_t* in, std::uint64_t n_blocks, float* out);
void q5_k(const std::uint8_t* in, std::uint64_t n_blocks, float* out);
void q6_k(const std::uint8_t* in, std::uint64_t n_blocks, float* out);
void iq4_xs(const std::uint8_t* in, std::uint64_t n_blocks, float* out);

[[nodiscard]] inline std::uint16_t load_u16(const std::uint8_t* at) {
  std::uint16_t v;
  std::memcpy(&v, at, sizeof(v));
  return v;
}
[[nodiscard]] inline float load_f16(const std::uint8_t* at) { return f16_to_f32(load_u16(at)); }

/// The sixteen levels of IQ4_NL and IQ4_XS.
inline constexpr std::array<std::int8_t, 16> kIq4Levels = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                           1,    13,   25,  38,  53,  69,  89,  113};

}  // namespace finchkv::model::blocks
