#include "base/rope_host.h"

#include <cmath>
#include <vector>

#include <fmt/format.h>

namespace finchkv {

Status rotate_keys(const RopeRecord& rope, std::uint32_t heads, std::uint32_t n, std::uint32_t head_dim,
                   std::uint64_t first_position, std::span<float> keys) {
  const std::size_t half = rope.rotary_dims / 2;
  if (rope.rotary_dims % 2 != 0 || rope.rotary_dims > head_dim || rope.inv_freq.size() != half) {
    return Status::invalid_argument(
        fmt::format("the RoPE record rotates {} dimensions with {} frequencies, which does not fit a head of {}",
                    rope.rotary_dims, rope.inv_freq.size(), head_dim));
  }
  if (keys.size() != static_cast<std::size_t>(heads) * n * head_dim) {
    return Status::invalid_argument(fmt::format("{} numbers are not the keys of {} heads x {} entries x {} dimensions",
                                                keys.size(), heads, n, head_dim));
  }
  constexpr std::uint64_t kMostPositions = 1U << 24;
  if (first_position > kMostPositions || n > kMostPositions - first_position) {
    return Status::invalid_argument(
        fmt::format("positions {} to {} + {} are past 2^24; choose a lower base", first_position, first_position, n));
  }
  std::vector<float> cosines(half);
  std::vector<float> sines(half);
  for (std::uint32_t i = 0; i < n; ++i) {
    const auto position = static_cast<float>(first_position + i);
    for (std::size_t k = 0; k < half; ++k) {
      const float angle = position * rope.inv_freq[k];
      // Rounded from double, as an engine's own tables are: an exported key has the same bytes as a decoded one.
      cosines[k] = static_cast<float>(std::cos(static_cast<double>(angle))) * rope.attention_factor;
      sines[k] = static_cast<float>(std::sin(static_cast<double>(angle))) * rope.attention_factor;
    }
    for (std::uint32_t h = 0; h < heads; ++h) {
      float* key = keys.data() + (static_cast<std::size_t>(h) * n + i) * head_dim;
      for (std::size_t k = 0; k < half; ++k) {
        float& a = key[rope.interleaved ? 2 * k : k];
        float& b = key[rope.interleaved ? 2 * k + 1 : k + half];
        const float x = a;
        const float y = b;
        a = x * cosines[k] - y * sines[k];
        b = x * sines[k] + y * cosines[k];
      }
    }
  }
  return Status::ok();
}

}  // namespace finchkv
