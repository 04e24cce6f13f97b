// Recorded work against the same work called op by op, bit for bit, over caches that change between its runs.
#include <algorithm>

#include "tests/kernels/cuda_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

constexpr ElementType kF32 = ElementType::kF32;
constexpr std::int64_t kHidden = 128, kHeads = 8, kKvHeads = 2, kDim = 64, kLayers = 2;
constexpr std::int64_t kWidth = (kHeads + 2 * kKvHeads) * kDim;

LinearSource source(const std::vector<float>& w, std::int64_t in) {
  return {in, static_cast<std::int64_t>(w.size()) / in,
          [&w, in](std::int64_t first, std::int64_t count, float* to) {
            std::copy_n(w.begin() + first * in, count * in, to);
          },
          0};
}

// A step of a small made-up model: norm, projections, attention, SwiGLU, in two layers.
class Step {
 public:
  Step(Device& device, std::int64_t rows) : device_(device), rows_(rows) {
    const auto matrix = [](std::int64_t in, std::int64_t out, std::uint32_t seed) {
      return random_floats(static_cast<std::size_t>(in * out), seed, -0.1F, 0.1F);
    };
    const auto qkv = matrix(kHidden, kWidth, 1), output = matrix(kHeads * kDim, kHidden, 2);
    const auto gate = matrix(kHidden, 96, 3), up = matrix(kHidden, 96, 4), down = matrix(96, kHidden, 5);
    qkv_ = made(device.pack_linear(source(qkv, kHidden), LinearUse::kEveryRow));
    output_ = made(device.pack_linear(source(output, kHeads * kDim), LinearUse::kEveryRow));
    gated_ = made(device.pack_gated(source(gate, kHidden), source(up, kHidden)));
    down_ = made(device.pack_linear(source(down, 96), LinearUse::kEveryRow));
    RopeRecord rope;
    rope.rotary_dims = kDim;
    for (std::int64_t i = 0; i < kDim / 2; ++i) rope.inv_freq.push_back(1.0F / static_cast<float>(1 + i * i));
    table_ = made(device.make_decode_table({kLayers, rows, kHeads, kKvHeads, kDim, rope}));
    norm_ = tensor_of(device, kF32, {kHidden}, random_floats(kHidden, 6, 0.5F, 1.5F));
    residual_ = empty_tensor(device, kF32, {rows, kHidden});
    normed_ = empty_tensor(device, device.kv_type(), {rows, kHidden});
    projected_ = empty_tensor(device, kF32, {rows, kWidth});
    attended_ = empty_tensor(device, device.kv_type(), {rows, kHeads * kDim});
    inner_ = empty_tensor(device, device.kv_type(), {rows, 96});
  }

  /// Other tokens, and other caches of these lengths with these entries.
  void begin(const std::vector<std::int64_t>& used, std::uint32_t seed) {
    slots_.clear();
    for (std::int64_t l = 0; l < kLayers; ++l) {
      for (const std::int64_t length : used) {
        const std::int64_t capacity = length + 5;
        const auto list = [&] {
          return tensor_of(device_, device_.kv_type(), {kKvHeads, capacity, kDim},
                           random_floats(static_cast<std::size_t>(kKvHeads * capacity * kDim), ++seed));
        };
        slots_.push_back({list(), list(), length, length + 3});
      }
    }
    const auto tokens = random_floats(static_cast<std::size_t>(rows_ * kHidden), ++seed);
    device_.upload(tokens.data(), residual_);
    device_.fill(*table_, slots_);
  }
  void work() {
    for (std::int64_t l = 0; l < kLayers; ++l) {
      device_.rms_norm(residual_, norm_, 1e-5F, normed_);
      device_.linear(*qkv_, normed_, projected_, false);
      const auto part = [&](std::int64_t first, std::int64_t heads) {
        return projected_.slice(1, first * kDim, heads * kDim).split_last(heads, kDim);
      };
      device_.decode_attention(*table_, l, part(0, kHeads), part(kHeads, kKvHeads), part(kHeads + kKvHeads, kKvHeads),
                               0.125F, attended_.split_last(kHeads, kDim));
      device_.linear(*output_, attended_, residual_, true);
      device_.rms_norm(residual_, norm_, 1e-5F, normed_);
      device_.linear_swiglu(*gated_, normed_, inner_);
      device_.linear(*down_, inner_, residual_, true);
    }
  }
  /// What the step gives, and what it left in the caches.
  std::vector<std::vector<float>> results() {
    std::vector<std::vector<float>> all = {fetch(device_, residual_)};
    for (const DecodeSlot& slot : slots_) {
      all.push_back(fetch(device_, slot.keys));
      all.push_back(fetch(device_, slot.values));
    }
    return all;
  }

 private:
  template <typename T>
  static T made(Result<T> result) {
    EXPECT_TRUE(result.is_ok()) << result.status().to_string();
    return *std::move(result);
  }

  Device& device_;
  std::int64_t rows_;
  std::unique_ptr<Linear> qkv_, output_, gated_, down_;
  std::unique_ptr<DecodeTable> table_;
  std::vector<DecodeSlot> slots_;
  Tensor norm_, residual_, normed_, projected_, attended_, inner_;
};

std::vector<std::int64_t> lengths(std::int64_t rows, std::int64_t seed) {
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < rows; ++i) all.push_back((i * 131 + seed * 977) % 300);
  if (seed == 3) all[0] = 4000;  // more shares than any before
  return all;
}

class CudaRecording : public CudaTest {};

// 40 rows are more than our own products take: cuBLASLt and working memory are recorded too.
TEST_P(CudaRecording, GivesWhatTheOpsGive) {
  for (const std::int64_t rows : {1, 3, 17, 40}) {
    Step step(*gpu, rows);
    const auto run = [&](std::int64_t seed, const std::function<void()>& work) {
      step.begin(lengths(rows, seed), static_cast<std::uint32_t>(seed));
      work();
      return step.results();
    };
    const auto direct = [&] { step.work(); };
    const auto first = run(0, direct);
    const auto recording = gpu->record([&] { step.work(); });
    ASSERT_NE(recording, nullptr);
    const auto recorded = [&] { recording->run(); };
    EXPECT_EQ(run(0, recorded), first) << rows << " rows";
    for (std::int64_t seed = 1; seed < 6; ++seed) {
      const auto want = run(seed, direct);
      EXPECT_NE(want.front(), first.front());
      EXPECT_EQ(run(seed, recorded), want) << rows << " rows, caches " << seed;
    }
    EXPECT_EQ(run(0, recorded), first) << rows << " rows, again";
  }
}

// In f32 what a sequence gets does not depend on the others in its step.
TEST_P(CudaRecording, ReferenceSequencesDoNotDependOnTheirCompany) {
  if (GetParam() != NumericClass::kReference) GTEST_SKIP() << "promised for f32 only";
  const std::vector<std::int64_t> used = {700, 0, 63, 64, 1500};
  const auto rows = static_cast<std::int64_t>(used.size());
  RopeRecord rope;
  rope.rotary_dims = kDim;
  rope.inv_freq.assign(kDim / 2, 0.25F);
  const auto floats = [](std::int64_t count, std::uint32_t seed) {
    return random_floats(static_cast<std::size_t>(count), seed);
  };
  const Tensor q = tensor_of(*gpu, kF32, {rows, kHeads, kDim}, floats(rows * kHeads * kDim, 1));
  const Tensor k = tensor_of(*gpu, kF32, {rows, kKvHeads, kDim}, floats(rows * kKvHeads * kDim, 2));
  std::vector<DecodeSlot> slots;
  for (const std::int64_t length : used) {
    const auto list = floats(kKvHeads * (length + 1) * kDim, static_cast<std::uint32_t>(length));
    slots.push_back({tensor_of(*gpu, kF32, {kKvHeads, length + 1, kDim}, list),
                     tensor_of(*gpu, kF32, {kKvHeads, length + 1, kDim}, list), length, length});
  }
  const auto run = [&](std::int64_t first, std::int64_t n) {
    auto table = gpu->make_decode_table({1, n, kHeads, kKvHeads, kDim, rope});
    EXPECT_TRUE(table.is_ok());
    const Tensor out = empty_tensor(*gpu, kF32, {n, kHeads, kDim});
    gpu->fill(**table, std::span(slots).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n)));
    gpu->decode_attention(**table, 0, q.slice(0, first, n), k.slice(0, first, n), k.slice(0, first, n), 0.1F, out);
    return fetch(*gpu, out);
  };
  const auto all = run(0, rows);
  const auto size = static_cast<std::size_t>(kHeads * kDim);
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto from = all.begin() + i * static_cast<std::ptrdiff_t>(size);
    EXPECT_EQ(run(i, 1), std::vector<float>(from, from + static_cast<std::ptrdiff_t>(size))) << i;
  }
}

// Waiting cannot be recorded: the work is called instead, and nothing of the attempt is left.
TEST_P(CudaRecording, WorkThatCannotBeRecordedIsCalled) {
  const Tensor x = tensor_of(*gpu, kF32, {1, 1, 3}, {1, 2, 3}), y = tensor_of(*gpu, kF32, {1, 1, 3}, {0, 0, 0});
  int calls = 0;
  const auto recording = gpu->record([&] {
    ++calls;
    gpu->copy(x, y);
    static_cast<void>(gpu->synchronize());
  });
  ASSERT_NE(recording, nullptr);
  ASSERT_TRUE(gpu->synchronize().is_ok());
  EXPECT_EQ(fetch(*gpu, y), (std::vector<float>{0, 0, 0})) << "recording runs nothing";
  const int while_recording = calls;
  recording->run();
  recording->run();
  EXPECT_EQ(calls, while_recording + 2);
  EXPECT_EQ(fetch(*gpu, y), (std::vector<float>{1, 2, 3}));
}

// Working memory of a recording counts like any other: where there is none, the ops are called, and say so themselves.
TEST_P(CudaRecording, TheMemoryLimitHoldsForRecordings) {
  constexpr std::size_t kLimit = std::size_t{256} << 20;
  auto made = make_cuda_device({.numeric_class = GetParam(), .threads = 2, .memory_limit = kLimit});
  ASSERT_TRUE(made.is_ok()) << made.status().to_string();
  Device& device = **made;
  constexpr std::int64_t kRows = 40;  // more than our own products take: a gated one needs working memory
  Step step(device, kRows);
  step.begin(lengths(kRows, 0), 0);
  step.work();
  const auto want = step.results();
  step.begin(lengths(kRows, 0), 0);
  ASSERT_TRUE(device.synchronize().is_ok());
  Tensor filler = empty_tensor(device, kF32, {static_cast<std::int64_t>(device.free_memory() / sizeof(float))});
  ASSERT_LT(device.free_memory(), sizeof(float));
  int calls = 0;
  const auto recording = device.record([&] {
    ++calls;
    step.work();
  });
  ASSERT_NE(recording, nullptr);
  EXPECT_TRUE(device.synchronize().is_ok()) << "a recording that fails is nobody's failure";
  const int while_recording = calls;
  recording->run();
  EXPECT_EQ(calls, while_recording + 1);
  EXPECT_EQ(device.synchronize().code(), StatusCode::kResourceExhausted);
  filler = {};
  step.begin(lengths(kRows, 0), 0);
  recording->run();
  EXPECT_EQ(step.results(), want);
  EXPECT_TRUE(device.synchronize().is_ok());
}

INSTANTIATE_TEST_SUITE_P(Class, CudaRecording, ::testing::Values(NumericClass::kReference, NumericClass::kFast),
                         numeric_name);

}  // namespace
}  // namespace finchkv::kernels
