#include "base/dtype.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "base/dtype_ops.h"

namespace finchkv {

static_assert(static_cast<int>(DType::kF32) == kElementF32 && static_cast<int>(DType::kF16) == kElementF16 &&
              static_cast<int>(DType::kBF16) == kElementBF16);

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
  const auto* in = static_cast<const std::byte*>(src);
  auto* out = reinterpret_cast<std::byte*>(dst);
  switch (from) {
    case DType::kF32:
      if (count != 0) std::memcpy(dst, src, count * sizeof(float));
      return;
    case DType::kF16: dtype_ops().f16_to_f32(in, count, out); return;
    case DType::kBF16: dtype_ops().bf16_to_f32(in, count, out); return;
    case DType::kQ8:
    case DType::kQ4: assert(false && "quantised layouts have their own codec"); return;
  }
}

void convert_from_f32(DType to, const float* src, void* dst, std::size_t count) {
  const auto* in = reinterpret_cast<const std::byte*>(src);
  auto* out = static_cast<std::byte*>(dst);
  switch (to) {
    case DType::kF32:
      if (count != 0) std::memcpy(dst, src, count * sizeof(float));
      return;
    case DType::kF16: dtype_ops().f32_to_f16(in, count, out); return;
    case DType::kBF16: dtype_ops().f32_to_bf16(in, count, out); return;
    case DType::kQ8:
    case DType::kQ4: assert(false && "quantised layouts have their own codec"); return;
  }
}

void convert_elements(DType from, const void* src, DType to, void* dst, std::size_t count) {
  if (from == to) {
    if (count != 0) std::memcpy(dst, src, count * element_bytes(from));
    return;
  }
  if (from == DType::kF32) return convert_from_f32(to, static_cast<const float*>(src), dst, count);
  if (to == DType::kF32) return convert_to_f32(from, src, static_cast<float*>(dst), count);
  std::array<float, 1024> wide;
  const auto* in = static_cast<const std::byte*>(src);
  auto* out = static_cast<std::byte*>(dst);
  for (std::size_t first = 0; first < count; first += wide.size()) {
    const std::size_t n = std::min(wide.size(), count - first);
    convert_to_f32(from, in + first * element_bytes(from), wide.data(), n);
    convert_from_f32(to, wide.data(), out + first * element_bytes(to), n);
  }
}

bool all_elements_finite(DType dtype, std::span<const std::byte> elements) {
  assert(elements.size() % element_bytes(dtype) == 0);
  return dtype_ops().all_finite[static_cast<int>(dtype)](elements.data(), elements.size() / element_bytes(dtype));
}

}  // namespace finchkv
