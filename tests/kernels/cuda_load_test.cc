// Device::load() on a GPU: expanded there, from ordinary and from page-locked memory.
#include <thread>

#include "tests/kernels/cuda_data.h"
#include "tests/kernels/load_cases.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

class CudaLoad : public CudaTest {};

TEST_P(CudaLoad, AsDecodedOnTheHost) { expect_loads(*gpu); }

TEST_P(CudaLoad, FromPageLockedMemory) { expect_loads_from_own_memory(*gpu); }

TEST_P(CudaLoad, TheCpuDecodesTheSame) {
  const auto like_gpu = make_device(GetParam(), 2, GetParam() == NumericClass::kFast);
  for (const LoadCase& c : load_cases()) {
    if (like_gpu->kv_type() != gpu->kv_type()) break;  // a processor without bf16
    SCOPED_TRACE(describe(c));
    const StoredNumbers numbers = stored_numbers(c, 7);
    const Tensor here = empty_tensor(*like_gpu, like_gpu->kv_type(), {c.heads, c.tokens, c.dim});
    const Tensor there = empty_tensor(*gpu, gpu->kv_type(), {c.heads, c.tokens, c.dim});
    like_gpu->load({c.layout, c.axis, c.decoded, numbers.bytes, nullptr}, nullptr, 0, here);
    gpu->load({c.layout, c.axis, c.decoded, numbers.bytes, nullptr}, nullptr, 0, there);
    EXPECT_EQ(testing::bytes_of(*gpu, there), testing::bytes_of(*like_gpu, here));
  }
}

// Pieces come and go from several threads while the GPU fetches others: what arrives is what was sent, in order.
TEST_P(CudaLoad, ManyPiecesFilledMeanwhile) {
  constexpr std::int64_t kHeads = 4, kTokens = 1024, kDim = 128;
  constexpr int kRounds = 60;
  const Tensor cache = empty_tensor(*gpu, gpu->kv_type(), {kHeads, kTokens * kRounds, kDim});
  const auto elements = static_cast<std::size_t>(kHeads * kTokens * kDim);
  std::vector<std::shared_ptr<std::byte>> filled(kRounds);
  const auto value = [](int round, std::size_t i) { return static_cast<BF16>(0x3f80U + (round * 7 + i % 97) % 128); };
  for (int round = 0; round < kRounds; round += 4) {
    std::vector<std::thread> readers;
    for (int r = round; r < round + 4; ++r) {
      readers.emplace_back([&, r] {
        auto piece = gpu->host_memory()->take(elements * 2);
        auto* to = reinterpret_cast<BF16*>(piece.get());
        for (std::size_t i = 0; i < elements; ++i) to[i] = value(r, i);
        filled[static_cast<std::size_t>(r)] = std::move(piece);
      });
    }
    for (std::thread& reader : readers) reader.join();
    for (int r = round; r < round + 4; ++r) {
      const std::shared_ptr<std::byte> piece = std::move(filled[static_cast<std::size_t>(r)]);
      gpu->load({DType::kBF16, GroupAxis::kTokens, DType::kBF16, {piece.get(), elements * 2}, piece}, nullptr, 0,
                cache.slice(1, r * kTokens, kTokens));
    }
  }
  const auto got = fetch(*gpu, cache);
  std::size_t wrong = 0;
  for (std::size_t h = 0; h < kHeads; ++h) {
    for (int r = 0; r < kRounds; ++r) {
      for (std::size_t i = 0; i < kTokens * kDim; ++i) {
        const std::size_t at = (h * kRounds + static_cast<std::size_t>(r)) * kTokens * kDim + i;
        wrong += got[at] != bf16_to_f32(value(r, h * kTokens * kDim + i)) ? 1 : 0;
      }
    }
  }
  EXPECT_EQ(wrong, 0U);
}

// Heads that go over in several pieces: an even number of tiles to a piece, a short one at the end.
TEST_P(CudaLoad, HeadsLargerThanASlot) {
  struct Length {
    DType layout;
    std::int64_t tokens;
  };
  const Length lengths[] = {{DType::kF32, 9001}, {DType::kBF16, 17001}, {DType::kQ8, 33001}, {DType::kQ4, 66001}};
  const RopeRecord rope = half_rope(128, false);
  std::uint32_t seed = 300;
  for (const auto& [layout, tokens] : lengths) {
    for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
      const LoadCase c{layout, layout == DType::kBF16 ? DType::kBF16 : DType::kF32, axis, 2, tokens, 128};
      SCOPED_TRACE(describe(c));
      const StoredNumbers numbers = stored_numbers(c, seed++);
      ASSERT_GT(numbers.bytes.size(), std::size_t{2} * (4 << 20));
      expect_loaded(*gpu, c, numbers, numbers.bytes, nullptr, nullptr, 0);
      expect_loaded(*gpu, c, numbers, numbers.bytes, nullptr, &rope, 5);
    }
  }
}

// What is kept of the GPU's memory for what arrives does not grow with the largest head.
TEST_P(CudaLoad, LargeHeadsLeaveNothingBehind) {
  constexpr std::int64_t kTokens = 65536, kDim = 128;
  auto made = make_cuda_device({.numeric_class = GetParam(), .threads = 2, .memory_limit = std::size_t{1} << 30});
  ASSERT_TRUE(made.is_ok()) << made.status().to_string();
  Device& device = **made;
  const Tensor cache = empty_tensor(device, device.kv_type(), {1, kTokens, kDim});
  const std::vector<float> stored(static_cast<std::size_t>(kTokens * kDim), 1.0F);
  const std::size_t free_before = device.free_memory();
  for (int i = 0; i < 10; ++i) {
    device.load({DType::kF32, GroupAxis::kTokens, DType::kF32, std::as_bytes(std::span(stored)), nullptr}, nullptr, 0,
                cache);
  }
  EXPECT_TRUE(device.synchronize().is_ok());
  EXPECT_LE(free_before - device.free_memory(), std::size_t{8} * (4 << 20));
  EXPECT_EQ(fetch(device, cache), stored);
}

INSTANTIATE_TEST_SUITE_P(Gpu, CudaLoad, ::testing::Values(NumericClass::kReference, NumericClass::kFast), numeric_name);

}  // namespace
}  // namespace finchkv::kernels
