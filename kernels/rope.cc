#include "kernels/rope.h"

#include <algorithm>
#include <cmath>

namespace finchkv::kernels {
namespace {

std::shared_ptr<const RopeTable> make_table(const RopeRecord& rope, std::int64_t positions) {
  auto table = std::make_shared<RopeTable>();
  const std::size_t half = rope.inv_freq.size();
  const std::size_t dims = 2 * half;
  table->positions = positions;
  table->cos.resize(static_cast<std::size_t>(positions) * dims);
  table->sin.resize(table->cos.size());
  for (std::int64_t p = 0; p < positions; ++p) {
    float* cos = table->cos.data() + static_cast<std::size_t>(p) * dims;
    float* sin = table->sin.data() + static_cast<std::size_t>(p) * dims;
    for (std::size_t i = 0; i < half; ++i) {
      const auto angle = static_cast<double>(static_cast<float>(p) * rope.inv_freq[i]);
      const std::size_t first = rope.interleaved ? 2 * i : i;
      const std::size_t second = rope.interleaved ? 2 * i + 1 : i + half;
      cos[first] = cos[second] = static_cast<float>(std::cos(angle)) * rope.attention_factor;
      sin[second] = static_cast<float>(std::sin(angle)) * rope.attention_factor;
      sin[first] = -sin[second];
    }
  }
  return table;
}

}  // namespace

std::shared_ptr<const RopeTable> RopeTables::get(const RopeRecord& rope, std::int64_t positions) {
  const std::lock_guard lock(mutex_);
  for (auto& [record, table] : tables_) {
    if (record != rope) continue;
    // Growing by half again keeps the cost of a slowly rising position (decoding) small.
    if (table->positions < positions) table = make_table(rope, positions + positions / 2);
    return table;
  }
  tables_.emplace_back(rope, make_table(rope, std::max<std::int64_t>(positions, 256)));
  return tables_.back().second;
}

}  // namespace finchkv::kernels
