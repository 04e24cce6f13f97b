// Attention and the score pass on a GPU against the CPU in f32, over shapes that reach every kernel.
#include "tests/kernels/cuda_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

constexpr ElementType kF32 = ElementType::kF32;

struct Case {
  std::int64_t n, total, heads, kv_heads, d;
};

const std::vector<Case> kCases = {
    {1, 1, 4, 2, 64},        // one key
    {1, 700, 9, 3, 64},      // decode steps, split over the keys
    {1, 2113, 32, 8, 128},   //
    {2, 333, 8, 2, 128},     //
    {1, 90, 8, 8, 128},      // no groups
    {5, 5, 4, 2, 64},        // few rows of their own
    {64, 64, 4, 2, 64},      //
    {100, 100, 4, 4, 128},   // odd lengths
    {77, 401, 6, 2, 64},     // behind a cache
    {64, 2112, 32, 8, 128},  // a prompt behind a cache: keys are split
    {200, 3001, 8, 2, 64},   //
    {300, 811, 8, 2, 128},   // many rows
    {513, 513, 4, 2, 64},    //
    {257, 2999, 4, 1, 128},  //
    {320, 1153, 6, 6, 64},   //
    {700, 990, 24, 8, 128},  // more work than blocks
    {999, 999, 40, 4, 64},   //
    {300, 700, 4, 2, 96},    // many rows of other heads
    {130, 260, 4, 2, 16},    // small heads
    {40, 90, 4, 2, 20},      // heads that no library takes
    {33, 70, 4, 1, 80},      //
    {70, 140, 2, 1, 256},    //
};

class CudaAttention : public CudaTest {
 protected:
  struct Made {
    Tensor q, k, v, out, lse;
  };
  // Keys and values lie in longer lists, as caches do.
  Made make(Device& device, const Case& c, bool full_lists) {
    const ElementType t = &device == gpu ? type() : kF32;
    const auto count = [](std::int64_t n) { return static_cast<std::size_t>(n); };
    const auto list = [&](std::uint32_t seed) {
      const std::int64_t capacity = full_lists ? c.total : c.total + 24;
      const auto x = values(count(c.kv_heads * capacity * c.d), seed);
      return tensor_of(device, t, {c.kv_heads, capacity, c.d}, x).slice(1, 0, c.total);
    };
    Made m;
    m.q = tensor_of(device, t, {c.n, c.heads, c.d}, values(count(c.n * c.heads * c.d), 1, -3, 3));
    m.k = list(2);
    m.v = list(3);
    m.out = empty_tensor(device, t, {c.n, c.heads, c.d});
    m.lse = empty_tensor(device, kF32, {c.n, c.heads});
    return m;
  }
};

TEST_P(CudaAttention, LikeTheCpu) {
  for (const Case& c : kCases) {
    for (const bool full_lists : {true, false}) {
      SCOPED_TRACE(::testing::Message() << c.n << " rows, " << c.total << " keys, " << c.heads << '/' << c.kv_heads
                                        << " heads of " << c.d);
      const float scale = 1.0F / std::sqrt(static_cast<float>(c.d));
      const Made here = make(*gpu, c, full_lists), there = make(*cpu, c, full_lists);
      gpu->attention(here.q, here.k, here.v, scale, here.out, here.lse);
      cpu->attention(there.q, there.k, there.v, scale, there.out, there.lse);
      const Status status = gpu->synchronize();
      ASSERT_TRUE(status.is_ok()) << status.to_string();
      EXPECT_LT(distance(fetch(*gpu, here.out), floats_of(there.out)), tolerance());
      EXPECT_LT(distance(fetch(*gpu, here.lse), floats_of(there.lse)), 1e-4F);
      const Tensor again = empty_tensor(*gpu, type(), {c.n, c.heads, c.d});
      gpu->attention(here.q, here.k, here.v, scale, again, {});
      EXPECT_LT(distance(fetch(*gpu, again), fetch(*gpu, here.out)), tolerance()) << "without the log-sum-exp";
      const auto first = fetch(*gpu, here.out);
      gpu->attention(here.q, here.k, here.v, scale, here.out, here.lse);
      EXPECT_EQ(fetch(*gpu, here.out), first) << "the same from run to run";
    }
  }
}

TEST_P(CudaAttention, ScorePassLikeTheCpu) {
  for (const Case& c : kCases) {
    const std::int64_t prompt = std::min<std::int64_t>(c.n, c.total - 1);
    if (prompt < 1) continue;
    SCOPED_TRACE(::testing::Message() << prompt << " prompt rows, " << c.total << " keys, " << c.heads << '/'
                                      << c.kv_heads << " heads of " << c.d);
    const float scale = 1.0F / std::sqrt(static_cast<float>(c.d));
    const Made there = make(*cpu, c, false), here = make(*gpu, c, false);
    cpu->attention(there.q, there.k, there.v, scale, there.out, there.lse);
    const auto lse = floats_of(there.lse);
    gpu->upload(lse.data(), here.lse);
    const auto run = [&](Device& device, const Made& m) {
      const Tensor mass = empty_tensor(device, kF32, {c.kv_heads, c.total - prompt});
      device.attention_mass(m.q.slice(0, c.n - prompt, prompt), m.k, m.lse.slice(0, c.n - prompt, prompt), scale, mass);
      return fetch(device, mass);
    };
    const auto got = run(*gpu, here);
    EXPECT_LT(distance(got, run(*cpu, there)), 5e-5F);
    EXPECT_EQ(got, run(*gpu, here)) << "the same from run to run";
  }
}

// A decoding step of sequences of different lengths: what is appended, and what each attends to.
TEST_P(CudaAttention, DecodeStepLikeTheCpu) {
  struct Heads {
    std::int64_t heads, kv_heads, d;
  };
  for (const Heads h : {Heads{9, 3, 64}, Heads{32, 8, 128}, Heads{4, 4, 128}, Heads{16, 2, 64}, Heads{24, 2, 128},
                        Heads{4, 2, 20}, Heads{6, 2, 80}}) {
    for (const bool interleaved : {true, false}) {
      const std::vector<std::int64_t> used = {0, 5, 63, 700, 2048, 129, 64};
      const auto n = static_cast<std::int64_t>(used.size());
      RopeRecord rope;
      rope.rotary_dims = static_cast<std::uint32_t>(h.d);
      rope.interleaved = interleaved;
      for (std::int64_t i = 0; i < h.d / 2; ++i)
        rope.inv_freq.push_back(
            static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(h.d))));
      const auto count = [](std::int64_t c) { return static_cast<std::size_t>(c); };
      const auto run = [&](Device& device) {
        const ElementType t = &device == gpu ? type() : kF32;
        const auto tokens = [&](std::int64_t heads, std::uint32_t seed) {
          return tensor_of(device, kF32, {n, heads, h.d}, random_floats(count(n * heads * h.d), seed, -2, 2));
        };
        std::vector<DecodeSlot> slots;
        for (std::size_t i = 0; i < used.size(); ++i) {
          const std::int64_t capacity = used[i] + 3;
          const auto list = [&](std::uint32_t seed) {
            return tensor_of(device, t, {h.kv_heads, capacity, h.d},
                             values(count(h.kv_heads * capacity * h.d), seed + static_cast<std::uint32_t>(i)));
          };
          slots.push_back({list(10), list(30), used[i], used[i] + 4});
        }
        const Tensor out = empty_tensor(device, t, {n, h.heads, h.d});
        auto table = device.make_decode_table({1, n, h.heads, h.kv_heads, h.d, rope});
        if (!table.is_ok()) return std::vector<std::vector<float>>();
        device.fill(**table, slots);
        device.decode_attention(**table, 0, tokens(h.heads, 1), tokens(h.kv_heads, 2), tokens(h.kv_heads, 3), 0.11F,
                                out);
        std::vector<std::vector<float>> all = {fetch(device, out)};
        for (const DecodeSlot& slot : slots) {
          all.push_back(fetch(device, slot.keys));
          all.push_back(fetch(device, slot.values));
        }
        return all;
      };
      const auto got = run(*gpu), want = run(*cpu);
      ASSERT_EQ(got.size(), 1 + 2 * used.size());
      ASSERT_EQ(want.size(), got.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_LT(distance(got[i], want[i]), tolerance()) << (i == 0 ? "attention" : "a cache") << ' ' << i;
      }
      EXPECT_EQ(got, run(*gpu)) << "the same from run to run";
    }
  }
}

// The promise of the reference class: a row's bytes do not depend on the rows before it in the same pass.
TEST_P(CudaAttention, ReferenceRowsDoNotDependOnTheirCompany) {
  if (GetParam() != NumericClass::kReference) GTEST_SKIP() << "promised for f32 only";
  const Case c{200, 500, 4, 2, 64};
  const Made m = make(*gpu, c, true);
  gpu->attention(m.q, m.k, m.v, 0.125F, m.out, m.lse);
  for (const std::int64_t rows : {1, 5, 64, 65}) {
    const Tensor out = empty_tensor(*gpu, kF32, {rows, c.heads, c.d}), lse = empty_tensor(*gpu, kF32, {rows, c.heads});
    gpu->attention(m.q.slice(0, c.n - rows, rows), m.k, m.v, 0.125F, out, lse);
    EXPECT_EQ(fetch(*gpu, out), fetch(*gpu, m.out.slice(0, c.n - rows, rows))) << rows;
    EXPECT_EQ(fetch(*gpu, lse), fetch(*gpu, m.lse.slice(0, c.n - rows, rows))) << rows;
  }
}

INSTANTIATE_TEST_SUITE_P(Class, CudaAttention, ::testing::Values(NumericClass::kReference, NumericClass::kFast),
                         numeric_name);

}  // namespace
}  // namespace finchkv::kernels
