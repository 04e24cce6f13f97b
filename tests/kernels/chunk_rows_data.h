// A chunk's rows and kept entries made from seeded numbers, on any device: what tests of Device::place_chunk start
// from.
#pragma once

#include "tests/kernels/device_data.h"

namespace finchkv::testing {

struct ChunkShape {
  std::int64_t n, kept, heads, kv_heads, d, origin_rows;
};

inline RopeRecord chunk_rope(std::int64_t dims, bool interleaved) {
  RopeRecord rope;
  rope.rotary_dims = static_cast<std::uint32_t>(dims);
  rope.interleaved = interleaved;
  for (std::int64_t i = 0; i < dims / 2; ++i)
    rope.inv_freq.push_back(
        static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dims))));
  return rope;
}

/// q, k and v side by side in rows, as a product leaves them; lists with room behind them, filled with 7.
inline kernels::ChunkRows chunk_rows(Device& device, const ChunkShape& s, ElementType type) {
  const auto count = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const std::int64_t q = s.heads * s.d, kv = s.kv_heads * s.d, total = s.kept + s.n, room = total + 3;
  const Tensor rows =
      tensor_of(device, ElementType::kF32, {s.n, q + 2 * kv}, random_floats(count(s.n * (q + 2 * kv)), 1, -3, 3));
  const auto list = [&](std::int64_t entries, std::int64_t capacity, std::uint32_t seed) {
    auto x = random_floats(count(s.kv_heads * capacity * s.d), seed, -3, 3);
    if (seed == 0) std::fill(x.begin(), x.end(), 7.0F);
    return tensor_of(device, type, {s.kv_heads, capacity, s.d}, x).slice(1, 0, entries);
  };
  std::vector<std::int32_t> origins;
  for (std::int64_t i = 0; i < s.origin_rows * (s.kept + 5); ++i) origins.push_back(static_cast<std::int32_t>(i * 3));
  kernels::ChunkRows c;
  c.q = rows.slice(1, 0, q).split_last(s.heads, s.d);
  c.k = rows.slice(1, q, kv).split_last(s.kv_heads, s.d);
  c.v = rows.slice(1, q + kv, kv).split_last(s.kv_heads, s.d);
  c.kept_keys = list(s.kept, s.kept + 5, 2);
  c.kept_values = list(s.kept, s.kept + 5, 3);
  c.kept_origins = ints_of(device, {s.origin_rows, s.kept + 5}, origins).slice(1, 0, s.kept);
  c.queries = empty_tensor(device, type, {s.n, s.heads, s.d});
  c.plain_keys = list(total, room, 0);
  c.rotated_keys = list(total, room, 0);
  c.values = list(total, room, 0);
  c.origins = ints_of(device, {s.origin_rows, total}, std::vector<std::int32_t>(count(s.origin_rows * total), -1));
  return c;
}

}  // namespace finchkv::testing
