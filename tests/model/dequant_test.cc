// Dequantising against gguf-py's values, bit for bit (tests/data/quants.gguf, made by scripts/make_quant_golden.py).
//
// No tolerance is needed: gguf-py multiplies and adds in f32 in the order that ggml's C does for all these types.
#include "model/dequant.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <ostream>

#include "base/dtype.h"
#include "tests/model/gguf_writer.h"
#include "tests/test_data.h"

namespace finchkv::model {
namespace {

struct Case {
  const char* name;
  GgmlType type;
  std::uint32_t elements;
  std::uint32_t bytes;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

constexpr Case kCases[] = {
    {"F32", GgmlType::kF32, 1, 4},       {"F16", GgmlType::kF16, 1, 2},         {"BF16", GgmlType::kBF16, 1, 2},
    {"Q4_0", GgmlType::kQ4_0, 32, 18},   {"Q4_1", GgmlType::kQ4_1, 32, 20},     {"Q5_0", GgmlType::kQ5_0, 32, 22},
    {"Q5_1", GgmlType::kQ5_1, 32, 24},   {"Q8_0", GgmlType::kQ8_0, 32, 34},     {"Q2_K", GgmlType::kQ2_K, 256, 84},
    {"Q3_K", GgmlType::kQ3_K, 256, 110}, {"Q4_K", GgmlType::kQ4_K, 256, 144},   {"Q5_K", GgmlType::kQ5_K, 256, 176},
    {"Q6_K", GgmlType::kQ6_K, 256, 210}, {"IQ4_NL", GgmlType::kIQ4_NL, 32, 18}, {"IQ4_XS", GgmlType::kIQ4_XS, 256, 136},
};

class Dequant : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const auto file = GgufFile::open(testing::data_path("quants.gguf"));
    ASSERT_TRUE(file.is_ok()) << file.status().to_string();
    file_ = *file;
    encoded_ = file_->find_tensor(GetParam().name);
    const GgufTensor* values = file_->find_tensor(std::string(GetParam().name) + ".f32");
    ASSERT_NE(encoded_, nullptr);
    ASSERT_NE(values, nullptr);
    expected_.resize(values->elements());
    std::memcpy(expected_.data(), values->data.data(), values->data.size());
  }

  void expect_bits(std::span<const float> got, std::span<const float> want) const {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(want[i]))
          << GetParam().name << " element " << i << ": " << got[i] << " where gguf-py has " << want[i];
    }
  }

  std::shared_ptr<const GgufFile> file_;
  const GgufTensor* encoded_ = nullptr;
  std::vector<float> expected_;
};

TEST_P(Dequant, EqualsGgufPy) {
  EXPECT_EQ(encoded_->type, GetParam().type);
  EXPECT_EQ(ggml_type_name(static_cast<std::uint32_t>(GetParam().type)), GetParam().name);
  EXPECT_EQ(encoded_->rows(), 2U);
  std::vector<float> all(encoded_->elements());
  ASSERT_TRUE(dequantize_rows(*encoded_, 0, 2, all).is_ok());
  expect_bits(all, expected_);
}

TEST_P(Dequant, AnyRowsAlone) {
  const std::size_t length = encoded_->row_length();
  std::vector<float> row(length);
  for (std::size_t r = 0; r < 2; ++r) {
    ASSERT_TRUE(dequantize_rows(*encoded_, r, 1, row).is_ok());
    expect_bits(row, std::span(expected_).subspan(r * length, length));
  }
}

TEST_P(Dequant, FromAnyAddress) {
  std::vector<std::byte> shifted(encoded_->data.size() + 1);
  std::memcpy(shifted.data() + 1, encoded_->data.data(), encoded_->data.size());
  GgufTensor odd = *encoded_;
  odd.data = std::span<const std::byte>(shifted).subspan(1);
  std::vector<float> all(odd.elements());
  ASSERT_TRUE(dequantize_rows(odd, 0, 2, all).is_ok());
  expect_bits(all, expected_);
}

TEST_P(Dequant, BlockSizes) {
  EXPECT_EQ(ggml_block(GetParam().type).elements, GetParam().elements);
  EXPECT_EQ(ggml_block(GetParam().type).bytes, GetParam().bytes);
}

TEST_P(Dequant, RowsThatAreNotThere) {
  const std::size_t length = encoded_->row_length();
  std::vector<float> out(length, 7.0F);
  constexpr auto kMost = ~std::uint64_t{0};
  for (const auto& [first, n] : std::initializer_list<std::pair<std::uint64_t, std::uint64_t>>{
           {2, 1}, {0, 3}, {1, 2}, {kMost, 1}, {1, kMost}, {kMost, 2}}) {
    EXPECT_EQ(dequantize_rows(*encoded_, first, n, out).code(), StatusCode::kInvalidArgument) << first << " " << n;
  }
  EXPECT_EQ(dequantize_rows(*encoded_, 0, 2, out).code(), StatusCode::kInvalidArgument) << "too little room";
  EXPECT_EQ(dequantize_rows(*encoded_, 0, 0, out).code(), StatusCode::kInvalidArgument) << "too much room";
  EXPECT_TRUE(dequantize_rows(*encoded_, 2, 0, {}).is_ok()) << "no rows are fine";
  for (const float v : out) ASSERT_EQ(v, 7.0F) << "a refused call writes nothing";
}

TEST_P(Dequant, BytesThatDoNotFillTheRows) {
  GgufTensor cut = *encoded_;
  cut.data = cut.data.first(cut.data.size() - 1);
  std::vector<float> out(cut.row_length());
  const Status s = dequantize_rows(cut, 0, 1, out);
  EXPECT_EQ(s.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(s.message().find(GetParam().name), std::string::npos) << s.message();
}

INSTANTIATE_TEST_SUITE_P(AllTypes, Dequant, ::testing::ValuesIn(kCases),
                         [](const auto& each) { return std::string(each.param.name); });

TEST(DequantPlain, EveryHalfAndBrainFloat) {
  for (const bool brain : {false, true}) {
    std::vector<std::uint16_t> words(65536);
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint16_t>(i);
    GgufTensor t;
    t.type = brain ? GgmlType::kBF16 : GgmlType::kF16;
    t.dims = {words.size()};
    t.data = std::as_bytes(std::span<const std::uint16_t>(words));
    std::vector<float> out(words.size());
    ASSERT_TRUE(dequantize_rows(t, 0, 1, out).is_ok());
    for (std::size_t i = 0; i < words.size(); ++i) {
      const float want = brain ? bf16_to_f32(words[i]) : f16_to_f32(words[i]);
      ASSERT_EQ(std::bit_cast<std::uint32_t>(out[i]), std::bit_cast<std::uint32_t>(want)) << i;
    }
  }
}

/// A scale that is infinite or NaN gives what arithmetic gives and touches nothing else.
TEST(DequantScales, NonFiniteStayInTheirBlock) {
  std::vector<std::byte> two(2 * 34, std::byte{1});
  two[0] = std::byte{0x00};
  two[1] = std::byte{0x7c};  // +infinity
  GgufTensor t;
  t.name = "t";
  t.type = GgmlType::kQ8_0;
  t.dims = {64};
  t.data = two;
  std::vector<float> out(64);
  ASSERT_TRUE(dequantize_rows(t, 0, 1, out).is_ok());
  EXPECT_TRUE(std::isinf(out[0]));
  EXPECT_TRUE(std::isfinite(out[32]));
}

TEST(DequantRefused, TypesByName) {
  GgufTensor t;
  t.name = "blk.0.x";
  t.dims = {256};
  std::vector<float> out(256);
  for (const auto& [type, name] :
       {std::pair{GgmlType::kQ8_K, "Q8_K"}, std::pair{GgmlType::kQ8_1, "Q8_1"},
        std::pair{static_cast<GgmlType>(19), "IQ1_S"}, std::pair{static_cast<GgmlType>(99), "type 99"}}) {
    t.type = type;
    const Status s = dequantize_rows(t, 0, 1, out);
    EXPECT_EQ(s.code(), StatusCode::kUnsupported);
    EXPECT_NE(s.message().find(name), std::string::npos) << s.message();
    EXPECT_NE(s.message().find("blk.0.x"), std::string::npos) << s.message();
  }
  EXPECT_EQ(ggml_block(static_cast<GgmlType>(19)).elements, 0U);
}

}  // namespace
}  // namespace finchkv::model
