// Device::place_chunk on a GPU against the CPU, over shapes that one launch takes and shapes that go step by step.
#include "tests/kernels/chunk_rows_data.h"
#include "tests/kernels/cuda_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

class CudaPlaceChunk : public CudaTest {};

TEST_P(CudaPlaceChunk, LikeTheCpu) {
  for (const ChunkShape s :
       {ChunkShape{300, 77, 32, 8, 128, 8}, ChunkShape{65, 0, 9, 3, 64, 1}, ChunkShape{1, 130, 6, 6, 64, 6},
        ChunkShape{17, 40, 4, 1, 48, 1}, ChunkShape{33, 21, 4, 2, 20, 2}, ChunkShape{3, 5, 5, 5, 16, 1}}) {
    for (const bool interleaved : {true, false}) {
      for (const bool whole : {true, false}) {  // every dimension rotates, or some
        SCOPED_TRACE(::testing::Message() << s.n << " rows behind " << s.kept << ", " << s.heads << '/' << s.kv_heads
                                          << " heads of " << s.d << ", " << interleaved << whole);
        const RopeRecord rope = chunk_rope(whole ? s.d : 10, interleaved);
        const ChunkRows here = chunk_rows(*gpu, s, type()), there = chunk_rows(*cpu, s, type());
        gpu->place_chunk(rope, here);
        cpu->place_chunk(rope, there);
        const auto dense = [](Device& device, const Tensor& list) {  // a list's entries without the room behind them
          const Tensor out = empty_tensor(device, list.type(), {list.dim(0), list.dim(1), list.dim(2)});
          device.copy(list, out);
          return fetch(device, out);
        };
        EXPECT_EQ(dense(*gpu, here.plain_keys), dense(*cpu, there.plain_keys));
        EXPECT_EQ(dense(*gpu, here.values), dense(*cpu, there.values));
        const float near = type() == ElementType::kBF16 ? 8e-3F : 1e-6F;
        EXPECT_LT(distance(dense(*gpu, here.rotated_keys), dense(*cpu, there.rotated_keys)), near);
        EXPECT_LT(distance(fetch(*gpu, here.queries), fetch(*cpu, there.queries)), near);
        EXPECT_EQ(ints_in(*gpu, here.origins), ints_in(*cpu, there.origins));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Class, CudaPlaceChunk, ::testing::Values(NumericClass::kReference, NumericClass::kFast),
                         numeric_name);

}  // namespace
}  // namespace finchkv::kernels
