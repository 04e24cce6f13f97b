#include "base/dtype.h"

#include <cassert>
#include <cstring>

namespace finchkv {

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "f32";
    case DType::kF16: return "f16";
    case DType::kBF16: return "bf16";
    case DType::kQ8: return "q8";
    case DType::kQ4: return "q4";
  }
  return "unknown";
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (DType d : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8, DType::kQ4}) {
    if (dtype_name(d) == name) return d;
  }
  return std::nullopt;
}

std::size_t element_bytes(DType dtype) {
  assert(!is_quantised(dtype));
  return dtype == DType::kF32 ? 4 : 2;
}

float f16_to_f32(F16 v) {
  // Multiplying by 2^112 moves the five-bit exponent's bias to f32's and makes subnormals normal in one step.
  const std::uint32_t sign = static_cast<std::uint32_t>(v & 0x8000U) << 16;
  const std::uint32_t rest = static_cast<std::uint32_t>(v & 0x7fffU) << 13;
  if ((v & 0x7c00U) == 0x7c00U) return std::bit_cast<float>(sign | 0x7f800000U | rest);
  const float magnitude = std::bit_cast<float>(rest) * 0x1p112F;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

F16 f32_to_f16(float v) {
  const auto bits = std::bit_cast<std::uint32_t>(v);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return sign | 0x7e00U;   // NaN
  if (magnitude >= 0x477ff000U) return sign | 0x7c00U;  // rounds to infinity
  if (magnitude < 0x38800000U) {                        // subnormal: let the adder round
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<F16>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000U));
  }
  const std::uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
  return static_cast<F16>(sign | ((rounded - 0x38000000U) >> 13));
}

void convert_to_f32(DType from, const void* src, float* dst, std::size_t count) {
  const auto* words = static_cast<const std::uint16_t*>(src);
  switch (from) {
    case DType::kF32: std::memcpy(dst, src, count * sizeof(float)); return;
    case DType::kF16:
      for (std::size_t i = 0; i < count; ++i) dst[i] = f16_to_f32(words[i]);
      return;
    case DType::kBF16:
      for (std::size_t i = 0; i < count; ++i) dst[i] = bf16_to_f32(words[i]);
      return;
    case DType::kQ8:
    case DType::kQ4: assert(false && "quantised layouts have their own codec"); return;
  }
}

void convert_from_f32(DType to, const float* src, void* dst, std::size_t count) {
  auto* words = static_cast<std::uint16_t*>(dst);
  switch (to) {
    case DType::kF32: std::memcpy(dst, src, count * sizeof(float)); return;
    case DType::kF16:
      for (std::size_t i = 0; i < count; ++i) words[i] = f32_to_f16(src[i]);
      return;
    case DType::kBF16:
      for (std::size_t i = 0; i < count; ++i) words[i] = f32_to_bf16(src[i]);
      return;
    case DType::kQ8:
    case DType::kQ4: assert(false && "quantised layouts have their own codec"); return;
  }
}

}  // namespace finchkv
