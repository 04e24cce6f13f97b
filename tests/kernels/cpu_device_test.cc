// The CPU device's small ops, its options, and the promise of the reference class: the same bytes for any threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "kernels/rope.h"
#include "tests/kernels/device_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

constexpr ElementType kF32 = ElementType::kF32;
constexpr ElementType kBF16 = ElementType::kBF16;

RopeRecord record(std::uint32_t dims, bool interleaved) {
  RopeRecord rope;
  rope.rotary_dims = dims;
  rope.interleaved = interleaved;
  for (std::uint32_t i = 0; i < dims / 2; ++i)
    rope.inv_freq.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / dims)));
  return rope;
}

class CpuDeviceTest : public ::testing::Test {
 protected:
  std::unique_ptr<Device> device = make_device(NumericClass::kReference);
};

TEST(MakeCpuDevice, NegativeThreadsAreRefused) {
  CpuOptions options;
  options.threads = -1;
  const auto made = make_cpu_device(options);
  ASSERT_FALSE(made.is_ok());
  EXPECT_EQ(made.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(made.status().message().find("-1"), std::string::npos) << made.status().message();
}

TEST(MakeCpuDevice, ClassesAndTypes) {
  const auto reference = make_device(NumericClass::kReference, 3);
  EXPECT_EQ(reference->kind(), "cpu");
  EXPECT_EQ(reference->numeric_class(), NumericClass::kReference);
  EXPECT_EQ(reference->kv_type(), kF32);
  EXPECT_EQ(reference->activation_type(1), kF32);
  EXPECT_EQ(reference->activation_type(100), kF32);
  EXPECT_NE(reference->description().find("3 threads"), std::string::npos) << reference->description();

  const auto fast = make_device(NumericClass::kFast);
  EXPECT_EQ(fast->numeric_class(), NumericClass::kFast);
  EXPECT_EQ(fast->activation_type(64), fast->kv_type());
  EXPECT_EQ(make_device(NumericClass::kFast, 1, false)->kv_type(), kF32) << "bf16 was not allowed";
}

TEST(MakeCpuDevice, TheFirstFailureIsTold) {
  const auto made = make_cpu_device({.numeric_class = NumericClass::kReference, .threads = 1, .memory_limit = 4096});
  ASSERT_TRUE(made.is_ok()) << made.status().to_string();
  Device& small = **made;
  const Tensor y = empty_tensor(small, kF32, {1, 16, 32});
  const std::vector<float> stored(16 * 32);
  const auto load = [&] {
    small.load({DType::kF32, GroupAxis::kTokens, DType::kF32, std::as_bytes(std::span(stored)), nullptr}, nullptr, 0,
               y);
  };
  const auto embed = [&] { small.embed(Tensor(), Tensor(), y); };
  const Tensor rest = empty_tensor(small, kF32, {512});
  load();  // its own memory is not there
  embed();
  EXPECT_EQ(small.synchronize().code(), StatusCode::kResourceExhausted);
  embed();
  load();
  EXPECT_EQ(small.synchronize().code(), StatusCode::kInternal);
  EXPECT_TRUE(small.synchronize().is_ok());
}

TEST_F(CpuDeviceTest, UploadDownload) {
  const auto values = random_floats(24, 1);
  const Tensor t = tensor_of(*device, kF32, {2, 3, 4}, values);
  std::vector<float> back(12);
  device->download(t.slice(0, 1, 1), back.data());
  EXPECT_TRUE(std::equal(back.begin(), back.end(), values.begin() + 12));
}

TEST_F(CpuDeviceTest, RmsNormOfHeadsInPlaceBetweenOtherColumns) {
  const std::int64_t rows = 37, heads = 3, d = 20, width = 100;
  const auto x = random_floats(static_cast<std::size_t>(rows * width), 2, -2, 2);
  const auto w = random_floats(20, 3, 0.5F, 1.5F);
  const Tensor all = tensor_of(*device, kF32, {rows, width}, x);
  const Tensor view = all.slice(1, 10, heads * d).split_last(heads, d);
  device->rms_norm(view, tensor_of(*device, kF32, {d}, w), 1e-6F, view);
  const auto got = floats_of(all);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < width; ++c) {
      const auto i = static_cast<std::size_t>(r * width + c);
      if (c < 10 || c >= 70) {
        ASSERT_EQ(got[i], x[i]);
        continue;
      }
      const std::int64_t head = (c - 10) / d;
      double squares = 0;
      for (std::int64_t k = 0; k < d; ++k)
        squares += std::pow(static_cast<double>(x[static_cast<std::size_t>(r * width + 10 + head * d + k)]), 2);
      const double want = static_cast<double>(x[i]) / std::sqrt(squares / d + 1e-6) *
                          static_cast<double>(w[static_cast<std::size_t>((c - 10) % d)]);
      ASSERT_NEAR(static_cast<double>(got[i]), want, 1e-5);
    }
  }
}

TEST_F(CpuDeviceTest, RmsNormOfRowsToBf16) {
  const auto x = random_floats(3 * 33, 4);
  const Tensor in = tensor_of(*device, kF32, {3, 33}, x);
  const Tensor w = tensor_of(*device, kF32, {33}, random_floats(33, 5));
  const Tensor narrow = empty_tensor(*device, kBF16, {3, 33}), wide = empty_tensor(*device, kF32, {3, 33});
  device->rms_norm(in, w, 1e-5F, narrow);
  device->rms_norm(in, w, 1e-5F, wide);
  EXPECT_EQ(floats_of(narrow), rounded_to(kBF16, floats_of(wide)));
}

TEST_F(CpuDeviceTest, CopyConvertsThroughAnyStrides) {
  for (const ElementType from : {kF32, kBF16}) {
    for (const ElementType to : {kF32, kBF16}) {
      const auto values = rounded_to(from, random_floats(6 * 4 * 19, 6, -5, 5));
      const Tensor x = tensor_of(*device, from, {6, 4, 19}, values);
      const Tensor y = tensor_of(*device, to, {4, 9, 19}, std::vector<float>(4 * 9 * 19, 3.0F));
      device->copy(x.transpose(0, 1), y.slice(1, 2, 6));  // [4, 6, 19] into the middle of longer lists
      EXPECT_EQ(floats_of(y.slice(1, 2, 6)), rounded_to(to, floats_of(x.transpose(0, 1))));
      EXPECT_EQ(floats_of(y.slice(1, 0, 2)), std::vector<float>(4 * 2 * 19, 3.0F));
      EXPECT_EQ(floats_of(y.slice(1, 8, 1)), std::vector<float>(4 * 19, 3.0F));
    }
  }
}

TEST_F(CpuDeviceTest, CopyOfIntegersIsVerbatim) {
  const Tensor x = ints_of(*device, {1, 2, 3}, {1, -2, 2147483647, 7, -2147483647, 0});
  const Tensor y = empty_tensor(*device, ElementType::kI32, {1, 2, 3});
  device->copy(x, y);
  EXPECT_EQ(ints_in(*device, y), ints_in(*device, x));
}

TEST_F(CpuDeviceTest, RotateLeavesDimensionsPastTheRotaryOnes) {
  const std::int64_t n = 21, heads = 3, d = 24, first = 300;
  for (const bool interleaved : {true, false}) {
    for (const std::uint32_t dims : {24U, 10U, 2U}) {
      const RopeRecord rope = record(dims, interleaved);
      for (const ElementType from : {kF32, kBF16}) {
        for (const ElementType to : {kF32, kBF16}) {
          const auto values = rounded_to(from, random_floats(static_cast<std::size_t>(n * heads * d), 7));
          // Heads first in the output, as keys lie.
          const Tensor y = empty_tensor(*device, to, {heads, n, d});
          device->rotate(rope, tensor_of(*device, from, {n, heads, d}, values), first, y.transpose(0, 1));
          const auto got = floats_of(y.transpose(0, 1));
          for (std::size_t i = 0; i < got.size(); ++i) {
            const auto x = static_cast<std::int64_t>(i) % d;
            const std::int64_t position = first + static_cast<std::int64_t>(i) / (heads * d);
            double want = static_cast<double>(values[i]);
            if (x < dims) {
              const std::int64_t half = dims / 2;
              const std::int64_t pair = interleaved ? x / 2 : x % half;
              const bool is_first = interleaved ? x % 2 == 0 : x < half;
              const std::int64_t step = interleaved ? 1 : half;
              const auto partner = static_cast<double>(values[i + static_cast<std::size_t>(is_first ? step : -step)]);
              const auto angle =
                  static_cast<double>(static_cast<float>(position) * rope.inv_freq[static_cast<std::size_t>(pair)]);
              want = want * std::cos(angle) + (is_first ? -partner : partner) * std::sin(angle);
            }
            ASSERT_NEAR(static_cast<double>(got[i]), want, to == kBF16 ? 0x1p-7 : 1e-6) << "dimension " << x;
          }
        }
      }
    }
  }
}

TEST_F(CpuDeviceTest, AddBias) {
  const Tensor x = tensor_of(*device, kF32, {2, 5}, {0, 1, 2, 3, 4, 10, 11, 12, 13, 14});
  device->add_bias(x.slice(1, 0, 3), tensor_of(*device, kF32, {3}, {100, 200, 300}));
  EXPECT_EQ(floats_of(x), (std::vector<float>{100, 201, 302, 3, 4, 110, 211, 312, 13, 14}));
}

TEST_F(CpuDeviceTest, ArgmaxTakesTheLowestOfTheLargest) {
  const std::vector<float> rows = {1, 7, 3, 7, 7, -5, -5, -5, -5, -5, -3, -2, -1, -0.5F, -4};
  EXPECT_EQ(argmax_of(*device, tensor_of(*device, kF32, {3, 5}, rows)), (std::vector<std::int32_t>{1, 0, 3}));
  EXPECT_EQ(argmax_of(*device, tensor_of(*device, kF32, {3, 2}, {1, NAN, INFINITY, 0, 2, 1})),
            (std::vector<std::int32_t>{-1, -1, 0}));
}

TEST_F(CpuDeviceTest, TooMuchMemoryIsAnError) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers end the program instead of refusing memory";
#endif
  const auto huge = device->empty(kF32, {std::int64_t{1} << 40, 1 << 10});
  ASSERT_FALSE(huge.is_ok());
  EXPECT_EQ(huge.status().code(), StatusCode::kResourceExhausted);
}

// Every op once, on sizes that make several tasks; all results one after the other.
std::vector<float> run_every_op(Device& dev) {
  std::vector<float> all;
  const auto add = [&all](const Tensor& t) {
    const auto values = floats_of(t);
    all.insert(all.end(), values.begin(), values.end());
  };
  const std::int64_t n = 150, hidden = 96, heads = 6, kv = 2, d = 16, total = 700;
  const auto w = random_floats(600 * 96, 1);
  LinearSource source;
  source.in = hidden;
  source.out = 600;
  source.rows = [&w](std::int64_t first, std::int64_t count, float* dst) {
    std::copy_n(w.data() + first * 96, count * 96, dst);
  };
  const auto linear = dev.pack_linear(source, LinearUse::kEveryRow);
  const auto head = dev.pack_linear(source, LinearUse::kFewRows);
  const auto gated = dev.pack_gated(source, source);
  const Tensor x = tensor_of(dev, kF32, {n, hidden}, random_floats(static_cast<std::size_t>(n * hidden), 2));
  const Tensor y = tensor_of(dev, kF32, {n, 600}, random_floats(static_cast<std::size_t>(n * 600), 3));
  const Tensor normed = empty_tensor(dev, kF32, {n, hidden});
  dev.rms_norm(x, tensor_of(dev, kF32, {hidden}, random_floats(96, 4)), 1e-5F, normed);
  add(normed);
  dev.linear(**linear, normed, y, true);
  dev.add_bias(y, tensor_of(dev, kF32, {600}, random_floats(600, 5)));
  add(y);
  const Tensor inner = empty_tensor(dev, kF32, {n, 600}), one = empty_tensor(dev, kF32, {1, 600});
  dev.linear_swiglu(**gated, normed, inner);
  add(inner);
  dev.linear(**head, normed.slice(0, 3, 1), one, false);
  add(one);
  all.push_back(static_cast<float>(argmax_of(dev, one).front()));

  const RopeRecord rope = record(16, true);
  const Tensor q = empty_tensor(dev, kF32, {n, heads, d}), k = empty_tensor(dev, kF32, {kv, total, d});
  dev.rotate(rope, x.split_last(heads, d), total - n, q);
  const auto keys = random_floats(static_cast<std::size_t>(kv * total * d), 6);
  dev.rotate(rope, tensor_of(dev, kF32, {kv, total, d}, keys).transpose(0, 1), 0, k.transpose(0, 1));
  const Tensor v = empty_tensor(dev, kF32, {kv, total, d});
  dev.copy(tensor_of(dev, kF32, {kv, total, d}, random_floats(keys.size(), 7)), v);
  const Tensor out = empty_tensor(dev, kF32, {n, heads, d}), lse = empty_tensor(dev, kF32, {n, heads});
  dev.attention(q, k, v, 0.25F, out, lse);
  add(q);
  add(out);
  add(lse);
  for (const std::int64_t few : {1, 4}) {
    const Tensor last = empty_tensor(dev, kF32, {few, heads, d});
    dev.attention(q.slice(0, n - few, few), k, v, 0.25F, last, {});
    add(last);
  }
  const std::int64_t candidates = total - n;
  const Tensor mass = empty_tensor(dev, kF32, {kv, candidates}), mean = empty_tensor(dev, kF32, {kv, candidates});
  dev.attention_mass(q, k, lse, 0.25F, mass);
  add(mass);
  std::vector<std::int32_t> places(static_cast<std::size_t>(kv * candidates));
  for (std::size_t i = 0; i < places.size(); ++i) places[i] = static_cast<std::int32_t>(i % 550 * 3);
  const Tensor origins = ints_of(dev, {kv, candidates}, places);
  dev.span_mean(mass, origins, 7, 1.0F / 64, mean);
  add(mean);
  const Tensor sum = empty_tensor(dev, kF32, {1, candidates});
  dev.sum_rows(mean, sum);
  add(sum);
  const Tensor chosen = empty_tensor(dev, ElementType::kI32, {kv, 50});
  dev.top_k(mean, chosen);
  for (const std::int32_t i : ints_in(dev, chosen)) all.push_back(static_cast<float>(i));
  const Tensor gathered = empty_tensor(dev, kF32, {kv, 50, d}), where = empty_tensor(dev, ElementType::kI32, {kv, 50});
  const Tensor gathered_values = empty_tensor(dev, kF32, {kv, 50, d});
  dev.gather({k, v, origins}, chosen, {gathered, gathered_values, where});
  add(gathered);
  add(gathered_values);
  for (const std::int32_t i : ints_in(dev, where)) all.push_back(static_cast<float>(i));
  EXPECT_TRUE(dev.synchronize().is_ok());
  return all;
}

TEST(Reference, SameBytesForAnyNumberOfThreads) {
  const auto one = run_every_op(*make_device(NumericClass::kReference, 1));
  ASSERT_GT(one.size(), 200000U);
  EXPECT_TRUE(std::all_of(one.begin(), one.end(), [](float x) { return std::isfinite(x); }));
  for (const int threads : {2, 7}) {
    const auto other = run_every_op(*make_device(NumericClass::kReference, threads));
    ASSERT_EQ(other.size(), one.size());
    EXPECT_EQ(std::memcmp(other.data(), one.data(), one.size() * sizeof(float)), 0) << threads << " threads";
  }
}

}  // namespace
}  // namespace finchkv::kernels
