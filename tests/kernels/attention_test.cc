// Attention and the prompt rows' mass against plain softmax in double, in both numeric classes.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/kernels/device_data.h"

namespace finchkv::kernels {
namespace {

using namespace finchkv::testing;  // NOLINT: the file's helpers

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Shape {
  std::int64_t n, total, kv_heads, group, d;
};

struct Inputs {
  Shape s;
  float scale;
  std::vector<float> q, k, v;  // [n, H, D], [KV, T, D], [KV, T, D]

  // Numbers as the device will see them; a spread of logits of several units, so that a wrong mask or order shows.
  Inputs(const Shape& shape, ElementType q_type, ElementType kv_type) : s(shape) {
    scale = 1.0F / std::sqrt(static_cast<float>(s.d));
    const auto seed = static_cast<std::uint32_t>(s.n * 7 + s.total * 3 + s.d);
    q = rounded_to(q_type, random_floats(at(s.n * s.kv_heads * s.group * s.d), seed, -3, 3));
    k = rounded_to(kv_type, random_floats(at(s.kv_heads * s.total * s.d), seed + 1, -2, 2));
    v = rounded_to(kv_type, random_floats(at(s.kv_heads * s.total * s.d), seed + 2, -1, 1));
  }
  [[nodiscard]] std::int64_t heads() const { return s.kv_heads * s.group; }
  // Scaled logits of row r, head h on the keys that it sees.
  [[nodiscard]] std::vector<double> logits(std::int64_t r, std::int64_t h) const {
    const float* query = q.data() + (r * heads() + h) * s.d;
    std::vector<double> out;
    for (std::int64_t j = 0; j < s.total - s.n + r + 1; ++j) {
      const float* key = k.data() + (h / s.group * s.total + j) * s.d;
      double sum = 0;
      for (std::int64_t i = 0; i < s.d; ++i) sum += static_cast<double>(query[i]) * static_cast<double>(key[i]);
      out.push_back(sum * static_cast<double>(scale));
    }
    return out;
  }
};

double log_sum_exp(const std::vector<double>& logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double x : logits) sum += std::exp(x - most);
  return most + std::log(sum);
}

struct Attended {
  std::vector<double> out;  // [n, H, D]
  std::vector<double> lse;  // [n, H]
};
Attended plain_attention(const Inputs& in) {
  Attended a;
  for (std::int64_t r = 0; r < in.s.n; ++r) {
    for (std::int64_t h = 0; h < in.heads(); ++h) {
      const auto logits = in.logits(r, h);
      const double lse = log_sum_exp(logits);
      a.lse.push_back(lse);
      std::vector<double> sum(at(in.s.d));
      for (std::size_t j = 0; j < logits.size(); ++j) {
        const double p = std::exp(logits[j] - lse);
        const float* value = in.v.data() + (h / in.s.group * in.s.total + static_cast<std::int64_t>(j)) * in.s.d;
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += p * static_cast<double>(value[i]);
      }
      a.out.insert(a.out.end(), sum.begin(), sum.end());
    }
  }
  return a;
}

std::vector<double> plain_mass(const Inputs& in) {  // [KV, T - P]
  const std::int64_t candidates = in.s.total - in.s.n;
  std::vector<double> mass(at(in.s.kv_heads * candidates));
  for (std::int64_t r = 0; r < in.s.n; ++r) {
    const double weight = static_cast<double>(candidates + r + 1) / static_cast<double>(in.s.total);
    for (std::int64_t h = 0; h < in.heads(); ++h) {
      const auto logits = in.logits(r, h);
      const double lse = log_sum_exp(logits);
      for (std::int64_t j = 0; j < candidates; ++j)
        mass[at(h / in.s.group * candidates + j)] += weight * std::exp(logits[at(j)] - lse);
    }
  }
  return mass;
}

void expect_near(const std::vector<float>& got, const std::vector<double>& want, double relative, double absolute) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(static_cast<double>(got[i]), want[i], absolute + relative * std::abs(want[i])) << "at " << i;
}

class AttentionTest : public ::testing::TestWithParam<NumericClass> {
 protected:
  void SetUp() override {
    device = make_device(GetParam());
    ASSERT_NE(device, nullptr);
  }
  [[nodiscard]] bool exact() const { return device->kv_type() == ElementType::kF32; }

  void check(const Shape& s) {
    SCOPED_TRACE(::testing::Message() << "n " << s.n << " T " << s.total << " group " << s.group << " D " << s.d);
    const ElementType type = device->activation_type(s.n), kv_type = device->kv_type();
    const Inputs in(s, type, kv_type);
    const Attended want = plain_attention(in);
    const std::int64_t heads = in.heads();
    // Queries between other columns, keys and values in longer lists, as the forward pass has them.
    const std::int64_t width = heads * s.d, stride = width + 24, capacity = s.total + 5;
    std::vector<float> q_wide(at(s.n * stride), NAN), k_wide(at(s.kv_heads * capacity * s.d), NAN), v_wide = k_wide;
    for (std::int64_t r = 0; r < s.n; ++r) std::copy_n(in.q.data() + r * width, width, q_wide.data() + r * stride + 8);
    for (std::int64_t g = 0; g < s.kv_heads; ++g) {
      std::copy_n(in.k.data() + g * s.total * s.d, s.total * s.d, k_wide.data() + g * capacity * s.d);
      std::copy_n(in.v.data() + g * s.total * s.d, s.total * s.d, v_wide.data() + g * capacity * s.d);
    }
    const Tensor q = tensor_of(*device, type, {s.n, stride}, q_wide).slice(1, 8, width).split_last(heads, s.d);
    const Tensor k = tensor_of(*device, kv_type, {s.kv_heads, capacity, s.d}, k_wide).slice(1, 0, s.total);
    const Tensor v = tensor_of(*device, kv_type, {s.kv_heads, capacity, s.d}, v_wide).slice(1, 0, s.total);
    const Tensor out = empty_tensor(*device, type, {s.n, heads, s.d});
    const Tensor lse = empty_tensor(*device, ElementType::kF32, {s.n, heads});
    device->attention(q, k, v, in.scale, out, lse);
    ASSERT_TRUE(device->synchronize().is_ok());
    expect_near(floats_of(out), want.out, 0, exact() ? 1e-5 : 8e-3);
    expect_near(floats_of(lse), want.lse, 0, 2e-5);

    const Tensor again = empty_tensor(*device, type, {s.n, heads, s.d});
    device->attention(q, k, v, in.scale, again, {});  // without the log-sum-exp
    EXPECT_EQ(floats_of(again), floats_of(out));
  }

  std::unique_ptr<Device> device;
};

TEST_P(AttentionTest, FewRows) {
  for (const std::int64_t n : {1, 2, 3, 4, 5}) {
    for (const std::int64_t total : {n, n + 1, std::int64_t{257}, std::int64_t{512}, std::int64_t{700}}) {
      check({n, total, 2, 1, 16});
      check({n, total, 2, 3, 40});
      check({n, total, 1, 7, 64});
      check({n, total, 2, 3, 128});
    }
  }
}

TEST_P(AttentionTest, ManyRows) {
  for (const std::int64_t n : {40, 130}) {
    for (const std::int64_t total : {n, n + 216, std::int64_t{700}}) {
      check({n, total, 2, 1, 16});
      check({n, total, 2, 3, 40});
      check({n, total, 1, 7, 64});
    }
  }
  check({40, 300, 1, 1, 128});
  check({300, 300, 2, 3, 16});
  check({300, 555, 1, 7, 16});
  check({256, 512, 1, 1, 64});
}

TEST_P(AttentionTest, MassOfThePrompt) {
  for (const Shape& s :
       {Shape{1, 2, 2, 3, 16}, Shape{1, 257, 2, 1, 64}, Shape{1, 700, 2, 3, 40}, Shape{17, 273, 2, 3, 16},
        Shape{33, 290, 1, 7, 40}, Shape{200, 456, 2, 3, 16}, Shape{200, 201, 1, 1, 64}, Shape{60, 573, 1, 2, 128}}) {
    SCOPED_TRACE(::testing::Message() << "P " << s.n << " T " << s.total << " group " << s.group << " D " << s.d);
    const ElementType type = device->kv_type();
    const Inputs in(s, type, type);
    const std::int64_t heads = in.heads();
    const std::vector<double> exact_lse = plain_attention(in).lse;
    const Tensor q = tensor_of(*device, type, {s.n, heads, s.d}, in.q);
    const Tensor k = tensor_of(*device, type, {s.kv_heads, s.total, s.d}, in.k);
    const Tensor lse =
        tensor_of(*device, ElementType::kF32, {s.n, heads}, std::vector<float>(exact_lse.begin(), exact_lse.end()));
    const Tensor mass = tensor_of(*device, ElementType::kF32, {s.kv_heads, s.total - s.n},
                                  std::vector<float>(at(s.kv_heads * (s.total - s.n)), 5.0F));
    device->attention_mass(q, k, lse, in.scale, mass);
    ASSERT_TRUE(device->synchronize().is_ok());
    expect_near(floats_of(mass), plain_mass(in), 5e-5, 1e-7);
  }
}

INSTANTIATE_TEST_SUITE_P(Classes, AttentionTest, ::testing::Values(NumericClass::kReference, NumericClass::kFast),
                         [](const auto& tested) { return class_name(tested.param); });

// Every row sees one key more than the one before; a value that only later rows may see must not leak.
TEST(Attention, IsCausalFromTheBottomRight) {
  const auto device = make_device(NumericClass::kReference);
  for (const std::int64_t n : {3, 9}) {
    const std::int64_t total = n + 4;
    std::vector<float> values(at(total));
    for (std::int64_t j = 0; j < total; ++j) values[at(j)] = static_cast<float>(j);
    const Tensor zeros = tensor_of(*device, ElementType::kF32, {n, 1, 1}, std::vector<float>(at(n)));
    const Tensor k = tensor_of(*device, ElementType::kF32, {1, total, 1}, std::vector<float>(at(total)));
    const Tensor v = tensor_of(*device, ElementType::kF32, {1, total, 1}, values);
    const Tensor out = empty_tensor(*device, ElementType::kF32, {n, 1, 1});
    device->attention(zeros, k, v, 1.0F, out, {});
    const auto got = floats_of(out);
    for (std::int64_t r = 0; r < n; ++r)  // equal logits: the mean of 0 .. 4 + r
      EXPECT_NEAR(got[at(r)], static_cast<float>(4 + r) / 2, 1e-5F);
  }
}

TEST(Attention, HugeLogitsStayFinite) {
  for (const NumericClass numeric : {NumericClass::kReference, NumericClass::kFast}) {
    const auto device = make_device(numeric);
    for (const std::int64_t n : {2, 20}) {
      const ElementType type = device->activation_type(n);
      const std::int64_t total = 600;
      std::vector<float> keys(at(total * 16), -100.0F), values(at(total * 16), -1.0F);
      std::fill_n(keys.begin() + 300 * 16, 16, 100.0F);  // one key in the second block outweighs all others
      std::fill_n(values.begin() + 300 * 16, 16, 1.0F);
      const Tensor q = tensor_of(*device, type, {n, 1, 16}, std::vector<float>(at(n * 16), 100.0F));
      const Tensor out = empty_tensor(*device, type, {n, 1, 16});
      const Tensor lse = empty_tensor(*device, ElementType::kF32, {n, 1});
      device->attention(q, tensor_of(*device, device->kv_type(), {1, total, 16}, keys),
                        tensor_of(*device, device->kv_type(), {1, total, 16}, values), 1.0F, out, lse);
      for (const float x : floats_of(out)) EXPECT_EQ(x, 1.0F);
      for (const float x : floats_of(lse)) EXPECT_EQ(x, 160000.0F);
    }
  }
}

}  // namespace
}  // namespace finchkv::kernels
