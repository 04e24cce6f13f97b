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
};

// The coarsest grid through lowest and highest that every value lies on; otherwise the finest that 8 bits hold.
Code fit(const float* w, int grid_steps) {
  const auto [low, high] = std::minmax_element(w, w + kGroup);
  const float range = *high - *low;
  if (range == 0) return {0, *low};
  const float tolerance = range * 1e-4F;
  for (int steps = 1; steps <= grid_steps; ++steps) {
    const float step = range / static_cast<float>(steps);
    bool exact = true;
    for (std::int64_t i = 0; i < kGroup && exact; ++i) {
      const float k = std::nearbyint((w[i] - *low) / step);
      exact = std::abs(*low + k * step - w[i]) <= tolerance;
    }
    if (exact) return {step, *low};
  }
  return {range / 254.0F, *low};
}

}  // namespace

void encode_q8_block(const float* w, std::int64_t in, int grid_steps, std::byte* out) {
  for (std::int64_t g = 0; g < in / kGroup; ++g, out += Q8Block16::kGroupBytes) {
    auto* scales = reinterpret_cast<F16*>(out);
    auto* minima = scales + kRows;
    auto* codes = reinterpret_cast<std::int8_t*>(minima + kRows);
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float* group = w + r * in + g * kGroup;
      const Code code = fit(group, grid_steps);
      scales[r] = f32_to_f16(code.scale);
      const float scale = f16_to_f32(scales[r]);
      // Codes are centred: the minimum stored is the value of code 0, and grids use small codes around it.
      const float centre =
          scale > 0 ? std::nearbyint((*std::max_element(group, group + kGroup) - code.min) / scale / 2) : 0.0F;
      minima[r] = f32_to_f16(code.min + centre * scale);
      const float zero = f16_to_f32(minima[r]);
      for (std::int64_t i = 0; i < kGroup; ++i) {
        const float q = scale > 0 ? std::nearbyint((group[i] - zero) / scale) : 0.0F;
        codes[i * kRows + r] = static_cast<std::int8_t>(std::clamp(q, -127.0F, 127.0F));
      }
    }
  }
}

}  // namespace finchkv::kernels::cpu
