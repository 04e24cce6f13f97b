// RoPE on the host: resolved frequencies, and tables of cosines and sines.
//
// Angles are f32(position) * f32(frequency), their cosine and sine rounded from double: the same on every processor.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/kvset.h"

namespace finchkv::kernels {

/// Cosines and sines times the attention factor, one per rotated dimension: [positions, rotary_dims] each. Element x of
/// a pair becomes x * cos + partner * sin, so the first of a pair has its sine negated. Pairs as the record says.
struct RopeTable {
  std::int64_t positions = 0;
  std::vector<float> cos;
  std::vector<float> sin;
};

/// Grows tables on demand and keeps those of the records seen. Thread-safe.
class RopeTables {
 public:
  /// A table of at least `positions` positions.
  [[nodiscard]] std::shared_ptr<const RopeTable> get(const RopeRecord& rope, std::int64_t positions);

 private:
  std::mutex mutex_;
  std::vector<std::pair<RopeRecord, std::shared_ptr<const RopeTable>>> tables_;
};

}  // namespace finchkv::kernels
