// Device::place_chunk on a CPU: what lies where, entry by entry.
#include <gtest/gtest.h>

#include "tests/kernels/chunk_rows_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

class PlaceChunk : public ::testing::TestWithParam<ElementType> {};

TEST_P(PlaceChunk, KeptEntriesComeFirstAndEveryKeyIsTurnedToItsPlace) {
  const auto device = make_device(NumericClass::kReference);
  for (const ChunkShape s :
       {ChunkShape{5, 3, 4, 2, 16, 2}, ChunkShape{4, 0, 3, 1, 24, 1}, ChunkShape{1, 6, 2, 2, 8, 1}}) {
    for (const bool interleaved : {true, false}) {
      const ChunkRows c = chunk_rows(*device, s, GetParam());
      const RopeRecord rope = chunk_rope(s.d, interleaved);
      device->place_chunk(rope, c);
      const auto turned = [&](const Tensor& x, std::int64_t position) {  // x [1, heads, D]
        const Tensor y = empty_tensor(*device, GetParam(), {1, x.dim(1), s.d});
        device->rotate(rope, x, position, y);
        return floats_of(y);
      };
      const auto entry = [](const Tensor& list, std::int64_t i) { return list.slice(1, i, 1).transpose(0, 1); };
      const auto narrowed = [](const Tensor& x) { return rounded_to(GetParam(), floats_of(x)); };
      for (std::int64_t i = 0; i < s.kept + s.n; ++i) {
        const bool was_kept = i < s.kept;
        const Tensor key = was_kept ? entry(c.kept_keys, i) : c.k.slice(0, i - s.kept, 1);
        const Tensor value = was_kept ? entry(c.kept_values, i) : c.v.slice(0, i - s.kept, 1);
        EXPECT_EQ(floats_of(entry(c.plain_keys, i)), narrowed(key)) << i;
        EXPECT_EQ(floats_of(entry(c.values, i)), narrowed(value)) << i;
        EXPECT_EQ(floats_of(entry(c.rotated_keys, i)), turned(entry(c.plain_keys, i), i)) << i;
      }
      for (std::int64_t i = 0; i < s.n; ++i)
        EXPECT_EQ(floats_of(c.queries.slice(0, i, 1)), turned(c.q.slice(0, i, 1), s.kept + i)) << i;
      const auto origins = ints_in(*device, c.origins);
      for (std::int64_t r = 0; r < s.origin_rows; ++r) {
        for (std::int64_t i = 0; i < s.kept + s.n; ++i) {
          const std::int64_t want = i < s.kept ? (r * (s.kept + 5) + i) * 3 : -1;
          EXPECT_EQ(origins[static_cast<std::size_t>(r * (s.kept + s.n) + i)], want) << "the rest stays as it is";
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, PlaceChunk, ::testing::Values(ElementType::kF32, ElementType::kBF16));

}  // namespace
}  // namespace finchkv::kernels
