// The CUDA device's products, norms, copies and rotations against plain loops on the host.
#include <algorithm>

#include "tests/kernels/cuda_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

constexpr ElementType kF32 = ElementType::kF32;
constexpr ElementType kBF16 = ElementType::kBF16;

class CudaDevice : public CudaTest {
 protected:
  static LinearSource source(const std::vector<float>& w, std::int64_t in) {
    LinearSource s;
    s.in = in;
    s.out = static_cast<std::int64_t>(w.size()) / in;
    s.rows = [&w, in](std::int64_t first, std::int64_t count, float* dst) {
      std::copy_n(w.data() + first * in, count * in, dst);
    };
    return s;
  }
  static std::vector<float> product(const std::vector<float>& x, const std::vector<float>& w, std::size_t in) {
    const std::size_t n = x.size() / in, out = w.size() / in;
    std::vector<float> y(n * out);
    for (std::size_t r = 0; r < n; ++r) {
      for (std::size_t c = 0; c < out; ++c) {
        double sum = 0;
        for (std::size_t k = 0; k < in; ++k)
          sum += static_cast<double>(x[r * in + k]) * static_cast<double>(w[c * in + k]);
        y[r * out + c] = static_cast<float>(sum);
      }
    }
    return y;
  }
};

TEST_P(CudaDevice, SaysWhatItIs) {
  EXPECT_EQ(gpu->kind(), "cuda");
  EXPECT_EQ(gpu->numeric_class(), GetParam());
  std::printf("%s\n", gpu->description().c_str());
}

TEST_P(CudaDevice, UploadDownloadOfManyPieces) {
  const std::size_t count = 3'000'001;  // more than the staging memory at once, and no round number
  const auto sent = random_floats(count, 1);
  const Tensor t = tensor_of(*gpu, kF32, {static_cast<std::int64_t>(count)}, sent);
  std::vector<float> back(count);
  gpu->download(t, back.data());
  EXPECT_EQ(back, sent);
  const auto many = random_floats(20'000'000, 2);  // several rounds through the staging slots
  const Tensor large = tensor_of(*gpu, kF32, {20'000'000}, many);
  back.resize(many.size());
  gpu->download(large, back.data());
  EXPECT_EQ(back, many);
}

TEST_P(CudaDevice, TooMuchMemoryIsAnErrorAndWorkGoesOn) {
  const auto huge = gpu->empty(kF32, {std::int64_t{1} << 40, 1 << 10});
  ASSERT_FALSE(huge.is_ok());
  EXPECT_EQ(huge.status().code(), StatusCode::kResourceExhausted);
  const Tensor x = tensor_of(*gpu, kF32, {1, 1, 3}, {1, 2, 3});
  const Tensor y = empty_tensor(*gpu, kF32, {1, 1, 3});
  gpu->copy(x, y);
  EXPECT_EQ(fetch(*gpu, y), (std::vector<float>{1, 2, 3}));
}

TEST_P(CudaDevice, LinearOfManyAndFewRows) {
  for (const std::int64_t in : {96, 200, 1056}) {
    for (const std::int64_t out : {72, 264}) {
      const auto w = values(static_cast<std::size_t>(in * out), 3, -0.3F, 0.3F);
      const auto packed = gpu->pack_linear(source(w, in), LinearUse::kEveryRow);
      ASSERT_TRUE(packed.is_ok()) << packed.status().to_string();
      EXPECT_EQ((*packed)->in(), in);
      EXPECT_EQ((*packed)->out(), out);
      for (const std::int64_t n : {1, 2, 5, 8, 9, 16, 17, 32, 33, 130}) {
        SCOPED_TRACE(::testing::Message() << n << " x " << out << " x " << in);
        const auto x = values(static_cast<std::size_t>(n * in), 4);
        auto want = product(x, w, static_cast<std::size_t>(in));
        const Tensor xt = tensor_of(*gpu, type(), {n, in}, x);
        const Tensor y = tensor_of(*gpu, kF32, {n, out}, std::vector<float>(want.size(), NAN));
        gpu->linear(**packed, xt, y, false);
        EXPECT_LT(distance(fetch(*gpu, y), want), 2e-5F);
        gpu->linear(**packed, xt, y, true);
        for (float& v : want) v *= 2;
        EXPECT_LT(distance(fetch(*gpu, y), want), 2e-5F);
      }
    }
  }
}

TEST_P(CudaDevice, LinearToAndFromRowsWithGaps) {
  const std::int64_t n = 40, in = 64, out = 80;
  const auto w = values(static_cast<std::size_t>(in * out), 3, -0.3F, 0.3F);
  const auto packed = gpu->pack_linear(source(w, in), LinearUse::kEveryRow);
  ASSERT_TRUE(packed.is_ok());
  const auto x = values(static_cast<std::size_t>(n * in), 4);
  const Tensor wide = tensor_of(*gpu, kF32, {n, out + 16}, std::vector<float>(static_cast<std::size_t>(n * 96), 7));
  gpu->linear(**packed, tensor_of(*gpu, type(), {n, in}, x), wide.slice(1, 8, out), false);
  const auto got = fetch(*gpu, wide);
  const auto want = product(x, w, 64);
  for (std::size_t r = 0; r < 40; ++r) {
    EXPECT_EQ(got[r * 96 + 7], 7);
    EXPECT_EQ(got[r * 96 + 88], 7);
    for (std::size_t c = 0; c < 80; ++c) ASSERT_NEAR(got[r * 96 + 8 + c], want[r * 80 + c], 1e-4);
  }
}

TEST_P(CudaDevice, SwigluOfManyAndFewRows) {
  const std::int64_t in = 96, ffn = 136;
  const auto gate = values(static_cast<std::size_t>(in * ffn), 5, -0.5F, 0.5F);
  const auto up = values(static_cast<std::size_t>(in * ffn), 6, -0.5F, 0.5F);
  const auto packed = gpu->pack_gated(source(gate, in), source(up, in));
  ASSERT_TRUE(packed.is_ok());
  EXPECT_EQ((*packed)->out(), ffn);
  for (const std::int64_t n : {1, 3, 8, 12, 27, 33, 140}) {
    const auto x = values(static_cast<std::size_t>(n * in), 7);
    auto want = product(x, gate, 96);
    const auto other = product(x, up, 96);
    for (std::size_t i = 0; i < want.size(); ++i) want[i] = want[i] / (1 + std::exp(-want[i])) * other[i];
    const Tensor y = empty_tensor(*gpu, type(), {n, ffn});
    gpu->linear_swiglu(**packed, tensor_of(*gpu, type(), {n, in}, x), y);
    EXPECT_LT(distance(fetch(*gpu, y), want), tolerance()) << n << " rows";
  }
}

// Decoding's products: what a sequence gets does not depend on how many others are in its step.
TEST_P(CudaDevice, FewRowsDoNotDependOnTheirCompany) {
  const std::int64_t in = 1056, out = 200, most = 32;
  const auto w = values(static_cast<std::size_t>(in * out), 3, -0.3F, 0.3F);
  const auto packed = gpu->pack_linear(source(w, in), LinearUse::kEveryRow);
  const auto gated = gpu->pack_gated(source(w, in), source(w, in));
  ASSERT_TRUE(packed.is_ok() && gated.is_ok());
  const Tensor x = tensor_of(*gpu, type(), {most, in}, values(static_cast<std::size_t>(most * in), 4));
  const auto run = [&](std::int64_t first, std::int64_t n) {
    const Tensor y = empty_tensor(*gpu, kF32, {n, out}), inner = empty_tensor(*gpu, type(), {n, out});
    gpu->linear(**packed, x.slice(0, first, n), y, false);
    gpu->linear_swiglu(**gated, x.slice(0, first, n), inner);
    return std::pair(fetch(*gpu, y), fetch(*gpu, inner));
  };
  const auto all = run(0, most);
  for (const std::int64_t n : {1, 7, 8, 13, 16, 20}) {
    for (const std::int64_t first : {std::int64_t{0}, most - n}) {
      const auto some = run(first, n);
      const auto from = static_cast<std::ptrdiff_t>(first * out);
      EXPECT_TRUE(std::equal(some.first.begin(), some.first.end(), all.first.begin() + from)) << n << " from " << first;
      EXPECT_TRUE(std::equal(some.second.begin(), some.second.end(), all.second.begin() + from)) << n << " gated";
    }
  }
}

// 8 bits: e4m3 has 3 bits after the point, so a value is off by up to 1/16, a sum of many by less (0.037 was seen).
TEST_P(CudaDevice, EightBitWeightsMultiplyNearlyTheSame) {
  if (GetParam() != NumericClass::kFast) GTEST_SKIP() << "f32 keeps its weights";
  const auto made = make_cuda_device({.numeric_class = NumericClass::kFp8});
  ASSERT_TRUE(made.is_ok()) << made.status().to_string();
  Device& eight = **made;
  const std::int64_t in = 512, out = 256;
  const auto w = values(static_cast<std::size_t>(in * out), 3, -0.3F, 0.3F);
  const auto packed = eight.pack_linear(source(w, in), LinearUse::kEveryRow);
  ASSERT_TRUE(packed.is_ok());
  EXPECT_LT((*packed)->bytes(), static_cast<std::size_t>(in * out) * 3 / 2);
  const auto head = eight.pack_linear(source(w, in), LinearUse::kFewRows);
  ASSERT_TRUE(head.is_ok());
  EXPECT_EQ((*head)->bytes(), static_cast<std::size_t>(in * out) * 2) << "the output head keeps 16 bits";
  const auto gated = eight.pack_gated(source(w, in), source(w, in));
  ASSERT_TRUE(gated.is_ok());
  for (const std::int64_t n : {1, 3, 5, 33, 144, 577}) {
    const auto x = values(static_cast<std::size_t>(n * in), 4);
    auto want = product(x, w, static_cast<std::size_t>(in));
    const Tensor xt = tensor_of(eight, type(), {n, in}, x);
    const Tensor y = tensor_of(eight, kF32, {n, out}, std::vector<float>(want.size(), NAN));
    eight.linear(**packed, xt, y, false);
    EXPECT_LT(distance(fetch(eight, y), want), 0.05F) << n << " rows";
    eight.linear(**packed, xt, y, true);
    auto twice = want;
    for (float& v : twice) v *= 2;
    EXPECT_LT(distance(fetch(eight, y), twice), 0.05F) << n << " rows";
    const Tensor inner = empty_tensor(eight, type(), {n, out});
    eight.linear_swiglu(**gated, xt, inner);
    for (float& v : want) v = v / (1 + std::exp(-v)) * v;
    EXPECT_LT(distance(fetch(eight, inner), want), 0.08F) << n << " rows";
    const Status status = eight.synchronize();
    ASSERT_TRUE(status.is_ok()) << status.to_string();
  }
}

TEST_P(CudaDevice, RmsNormOfLongRowsAndHeads) {
  for (const std::int64_t d : {576, 4096, 8192, 33, 9000}) {
    const auto x = random_floats(static_cast<std::size_t>(7 * d), 8, -2, 2);
    const auto w = random_floats(static_cast<std::size_t>(d), 9, 0.5F, 1.5F);
    for (const ElementType to : {kF32, type()}) {
      const Tensor y = empty_tensor(*gpu, to, {7, d}), want = empty_tensor(*cpu, kF32, {7, d});
      gpu->rms_norm(tensor_of(*gpu, kF32, {7, d}, x), tensor_of(*gpu, kF32, {d}, w), 1e-6F, y);
      cpu->rms_norm(tensor_of(*cpu, kF32, {7, d}, x), tensor_of(*cpu, kF32, {d}, w), 1e-6F, want);
      EXPECT_LT(distance(fetch(*gpu, y), floats_of(want)), to == kF32 ? 2e-6F : 5e-3F) << d;
    }
  }
  // Heads in place, between other columns.
  const auto x = random_floats(static_cast<std::size_t>(37 * 100), 10, -2, 2);
  const auto w = random_floats(20, 11, 0.5F, 1.5F);
  const Tensor here = tensor_of(*gpu, kF32, {37, 100}, x), there = tensor_of(*cpu, kF32, {37, 100}, x);
  const auto heads = [](const Tensor& t) { return t.slice(1, 10, 60).split_last(3, 20); };
  gpu->rms_norm(heads(here), tensor_of(*gpu, kF32, {20}, w), 1e-6F, heads(here));
  cpu->rms_norm(heads(there), tensor_of(*cpu, kF32, {20}, w), 1e-6F, heads(there));
  EXPECT_LT(distance(fetch(*gpu, here), floats_of(there)), 1e-6F);
}

TEST_P(CudaDevice, CopyConvertsThroughAnyStrides) {
  for (const std::int64_t d : {19, 24}) {
    for (const ElementType from : {kF32, kBF16}) {
      for (const ElementType to : {kF32, kBF16}) {
        const auto x = rounded_to(from, random_floats(static_cast<std::size_t>(6 * 4 * d), 6, -5, 5));
        const std::vector<float> before(static_cast<std::size_t>(4 * 9 * d), 3.0F);
        const auto run = [&](Device& device) {
          const Tensor y = tensor_of(device, to, {4, 9, d}, before);
          device.copy(tensor_of(device, from, {6, 4, d}, x).transpose(0, 1), y.slice(1, 2, 6));
          return fetch(device, y);
        };
        EXPECT_EQ(run(*gpu), run(*cpu));
      }
    }
  }
  const Tensor x = ints_of(*gpu, {1, 2, 3}, {1, -2, 2147483647, 7, -2147483647, 0});
  const Tensor y = empty_tensor(*gpu, ElementType::kI32, {1, 2, 3});
  gpu->copy(x, y);
  EXPECT_EQ(ints_in(*gpu, y), ints_in(*gpu, x));
}

TEST_P(CudaDevice, RotateLikeTheHost) {
  for (const std::int64_t d : {24, 64, 128}) {
    for (const std::uint32_t dims : {static_cast<std::uint32_t>(d), 10U}) {
      for (const bool interleaved : {true, false}) {
        for (const ElementType from : {kF32, kBF16}) {
          for (const ElementType to : {kF32, kBF16}) {
            RopeRecord rope;
            rope.rotary_dims = dims;
            rope.interleaved = interleaved;
            for (std::uint32_t i = 0; i < dims / 2; ++i)
              rope.inv_freq.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / dims)));
            const auto x = rounded_to(from, random_floats(static_cast<std::size_t>(21 * 3 * d), 7));
            const auto run = [&](Device& device) {  // heads first in the output, as keys lie
              const Tensor y = empty_tensor(device, to, {3, 21, d});
              device.rotate(rope, tensor_of(device, from, {21, 3, d}, x), 300, y.transpose(0, 1));
              return fetch(device, y);
            };
            EXPECT_LT(distance(run(*gpu), run(*cpu)), to == kBF16 ? 8e-3F : 1e-6F) << d << ' ' << dims;
          }
        }
      }
    }
  }
}

TEST_P(CudaDevice, BiasEmbeddingArgmax) {
  const Tensor x = tensor_of(*gpu, kF32, {2, 5}, {0, 1, 2, 3, 4, 10, 11, 12, 13, 14});
  gpu->add_bias(x.slice(1, 0, 3), tensor_of(*gpu, kF32, {3}, {100, 200, 300}));
  EXPECT_EQ(fetch(*gpu, x), (std::vector<float>{100, 201, 302, 3, 4, 110, 211, 312, 13, 14}));

  const auto table = values(50 * 12, 12);
  const auto packed = gpu->pack_embedding(source(table, 12));
  ASSERT_TRUE(packed.is_ok());
  const std::vector<std::int32_t> ids = {49, 0, 7, 7};
  const Tensor rows = empty_tensor(*gpu, kF32, {4, 12});
  gpu->embed(*packed, ints_of(*gpu, {4}, ids), rows);
  const auto got = fetch(*gpu, rows);
  for (std::size_t i = 0; i < 4; ++i) {
    for (std::size_t c = 0; c < 12; ++c) EXPECT_EQ(got[i * 12 + c], table[static_cast<std::size_t>(ids[i]) * 12 + c]);
  }

  EXPECT_EQ(argmax_of(*gpu, tensor_of(*gpu, kF32, {3, 4}, {1, 7, 3, 7, -3, -2, -1, -0.5F, -5, -5, -5, -5})),
            (std::vector<std::int32_t>{1, 3, 0}));
  EXPECT_EQ(argmax_of(*gpu, tensor_of(*gpu, kF32, {3, 2}, {1, NAN, INFINITY, 0, 2, 1})),
            (std::vector<std::int32_t>{-1, -1, 0}));
  auto many = random_floats(260'000, 13);
  many[99'999] = many[70'000] = many[260'000 - 1] = many[130'000 + 5] = 2;
  EXPECT_EQ(argmax_of(*gpu, tensor_of(*gpu, kF32, {2, 130'000}, many)), (std::vector<std::int32_t>{70'000, 5}));
}

// The promise of the reference class: a row's bytes do not depend on the rows beside it.
TEST_P(CudaDevice, ReferenceRowsDoNotDependOnTheirCompany) {
  if (GetParam() != NumericClass::kReference) GTEST_SKIP() << "promised for f32 only";
  const std::int64_t in = 200, out = 300;
  const auto w = values(static_cast<std::size_t>(in * out), 3);
  const auto packed = gpu->pack_linear(source(w, in), LinearUse::kEveryRow);
  ASSERT_TRUE(packed.is_ok());
  const auto x = values(static_cast<std::size_t>(200 * in), 4);
  const Tensor all = tensor_of(*gpu, kF32, {200, in}, x);
  const Tensor many = empty_tensor(*gpu, kF32, {200, out});
  gpu->linear(**packed, all, many, false);
  for (const std::int64_t row : {0, 63, 64, 150, 199}) {
    const Tensor one = empty_tensor(*gpu, kF32, {1, out});
    gpu->linear(**packed, all.slice(0, row, 1), one, false);
    EXPECT_EQ(fetch(*gpu, one), fetch(*gpu, many.slice(0, row, 1))) << "row " << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Class, CudaDevice, ::testing::Values(NumericClass::kReference, NumericClass::kFast),
                         numeric_name);

}  // namespace
}  // namespace finchkv::kernels
