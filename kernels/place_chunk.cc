#include "kernels/place_chunk.h"

namespace finchkv::kernels {

void place_chunk_in_steps(Device& device, const RopeRecord& rope, const ChunkRows& c) {
  const std::int64_t n = c.q.dim(0), kept = c.kept_keys.dim(1);
  const auto as_rows = [](const Tensor& t) { return t.split_last(t.dim(1), 1).transpose(1, 2); };  // [R, 1, entries]
  if (kept > 0) {
    device.copy(c.kept_keys, c.plain_keys.slice(1, 0, kept));
    device.copy(c.kept_values, c.values.slice(1, 0, kept));
    device.copy(as_rows(c.kept_origins), as_rows(c.origins.slice(1, 0, kept)));
  }
  device.copy(c.k, c.plain_keys.slice(1, kept, n).transpose(0, 1));
  device.copy(c.v, c.values.slice(1, kept, n).transpose(0, 1));
  device.rotate(rope, c.plain_keys.transpose(0, 1), 0, c.rotated_keys.transpose(0, 1));
  device.rotate(rope, c.q, kept, c.queries);
}

}  // namespace finchkv::kernels
