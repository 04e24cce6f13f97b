// Element types of tensors and of stored KV entries, and the conversions between the floating ones.
//
// bf16 and f16 are held as raw 16-bit words. Conversions round to nearest even and keep NaN and infinities.
// Everything here is thread-safe (pure functions).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace finchkv {

/// Stored in files: values never change. kQ8 and kQ4 are group-quantised layouts (docs/formats.md), not element types.
enum class DType : std::uint8_t { kF32 = 0, kF16 = 1, kBF16 = 2, kQ8 = 3, kQ4 = 4 };

[[nodiscard]] std::string_view dtype_name(DType dtype);  // "f32", "f16", "bf16", "q8", "q4"
[[nodiscard]] std::optional<DType> dtype_from_name(std::string_view name);
/// Bytes of one element of f32, f16 or bf16. Asking for a quantised layout is a bug.
[[nodiscard]] std::size_t element_bytes(DType dtype);
[[nodiscard]] constexpr bool is_quantised(DType d) { return d == DType::kQ8 || d == DType::kQ4; }

using BF16 = std::uint16_t;
using F16 = std::uint16_t;

[[nodiscard]] inline float bf16_to_f32(BF16 v) { return std::bit_cast<float>(static_cast<std::uint32_t>(v) << 16); }

[[nodiscard]] inline BF16 f32_to_bf16(float v) {
  const auto bits = std::bit_cast<std::uint32_t>(v);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<BF16>((bits >> 16) | 0x40U);  // NaN stays NaN
  return static_cast<BF16>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

[[nodiscard]] float f16_to_f32(F16 v);
[[nodiscard]] F16 f32_to_f16(float v);

/// Converts count elements of a floating dtype; source and destination do not overlap. Vectorised, with the bits of the
/// functions above.
void convert_to_f32(DType from, const void* src, float* dst, std::size_t count);
void convert_from_f32(DType to, const float* src, void* dst, std::size_t count);
/// Between any two floating dtypes, by way of f32 a piece at a time.
void convert_elements(DType from, const void* src, DType to, void* dst, std::size_t count);

/// Whether all of these elements (f32, f16 or bf16) are neither infinite nor NaN. No alignment needed.
[[nodiscard]] bool all_elements_finite(DType dtype, std::span<const std::byte> elements);

}  // namespace finchkv
