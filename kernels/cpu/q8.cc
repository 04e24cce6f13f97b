#include "kernels/cpu/q8.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/dtype.h"
#include "kernels/cpu/simd.h"

namespace finchkv::kernels::cpu {
namespace {

constexpr std::int64_t kGroup = Q8Block16::kGroup;
constexpr std::int64_t kRows = Q8Block16::kRows;

struct Code {
  float scale = 0;
  float min = 0;
  bool on_grid = true;
};

// Nearest integer of |x| < 2^22, ties to even, in a form that compilers vectorise.
float nearest(float x) { return (x + 12582912.0F) - 12582912.0F; }

// A grid through lowest and highest that every value lies on; otherwise the finest that 8 bits hold.
Code fit(const float* w, int grid_steps) {
  float low = w[0], high = w[0];
  for (std::int64_t i = 1; i < kGroup; ++i) {
    low = w[i] < low ? w[i] : low;
    high = w[i] > high ? w[i] : high;
  }
  const float range = high - low;
  if (range == 0) return {0, low, true};
  const float tolerance = range * 1e-4F;
  // A group of 32 nearly always uses most of its grid, so the finest is tried first.
  for (int steps = grid_steps; steps >= 1; --steps) {
    const float step = range / static_cast<float>(steps);
    const float inverse = static_cast<float>(steps) / range;
    float worst = 0;
    for (std::int64_t i = 0; i < kGroup; ++i) {
      const float off = std::abs(low + nearest((w[i] - low) * inverse) * step - w[i]);
      worst = off > worst ? off : worst;
    }
    if (worst <= tolerance) return {step, low, true};
  }
  return {range / 254.0F, low, false};
}

// Scales and minima are stored as f16.
bool fits_f16(const Code& code) { return std::abs(code.min) + 255 * code.scale < 65504.0F; }

}  // namespace

bool encode_q8_block(const float* w, std::int64_t in, int grid_steps, std::byte* out) {
  for (std::int64_t g = 0; g < in / kGroup; ++g, out += Q8Block16::kGroupBytes) {
    auto* scales = reinterpret_cast<F16*>(out);
    auto* minima = scales + kRows;
    auto* codes = reinterpret_cast<std::int8_t*>(minima + kRows);
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float* group = w + r * in + g * kGroup;
      const Code code = fit(group, grid_steps);
      if (!fits_f16(code)) return false;
      scales[r] = f32_to_f16(code.scale);
      const float scale = f16_to_f32(scales[r]);
      // Codes are centred: the minimum stored is the value of code 0, and grids use small codes around it.
      const float centre =
          scale > 0 ? nearest((*std::max_element(group, group + kGroup) - code.min) / scale / 2) : 0.0F;
      minima[r] = f32_to_f16(code.min + centre * scale);
      const float zero = f16_to_f32(minima[r]);
      const float inverse = scale > 0 ? 1.0F / scale : 0.0F;
      for (std::int64_t i = 0; i < kGroup; ++i) {
        const float q = nearest((group[i] - zero) * inverse);
        codes[i * kRows + r] = static_cast<std::int8_t>(std::clamp(q, -127.0F, 127.0F));
      }
    }
  }
  return true;
}

bool encode_q4_block(const float* w, std::int64_t in, std::byte* out) {
  constexpr int kSteps = 15;
  for (std::int64_t g = 0; g < in / kGroup; ++g, out += Q4Block16::kGroupBytes) {
    auto* scales = reinterpret_cast<F16*>(out);
    auto* minima = scales + kRows;
    auto* codes = reinterpret_cast<std::uint8_t*>(minima + kRows);
    std::memset(codes, 0, static_cast<std::size_t>(kGroup * kRows / 2));
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float* group = w + r * in + g * kGroup;
      const Code code = fit(group, kSteps);
      if (!code.on_grid || !fits_f16(code)) return false;
      scales[r] = f32_to_f16(code.scale);
      minima[r] = f32_to_f16(code.min);
      const float inverse = code.scale > 0 ? 1.0F / code.scale : 0.0F;
      for (std::int64_t i = 0; i < kGroup; ++i) {
        const auto q = static_cast<unsigned>(nearest((group[i] - code.min) * inverse));
        codes[i % (kGroup / 2) * kRows + r] |= static_cast<std::uint8_t>(i < kGroup / 2 ? q : q << 4);
      }
    }
  }
  return true;
}

}  // namespace finchkv::kernels::cpu
