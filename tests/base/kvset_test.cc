#include "base/kvset.h"

#include <gtest/gtest.h>

#include <cstring>

namespace finchkv {
namespace {

/// Two layers of 3 and 2 entries, 2 KV heads of 4 dimensions; every element has a value of its own.
KvSet make_set(std::uint32_t origin_rows = 1) {
  KvSet set;
  set.shape = {.n_layers = 2, .n_kv_heads = 2, .head_dim = 4, .origin_rows = origin_rows};
  set.dtype = DType::kF32;
  set.doc_tokens = 10;
  set.next_position = 3;
  set.rope.theta = 5.0F;
  float value = 0.0F;
  for (const std::uint32_t n : {3U, 2U}) {
    KvLayer layer;
    layer.n_kept = n;
    const auto tensor = [&] {
      const std::size_t bytes = set.layer_bytes(n);
      auto memory = allocate_shared_bytes(bytes);
      for (std::size_t at = 0; at < bytes; at += sizeof(float)) {
        value += 0.25F;
        std::memcpy(memory.get() + at, &value, sizeof(float));
      }
      set.memory.push_back(memory);
      return std::span<const std::byte>(memory.get(), bytes);
    };
    layer.keys = tensor();
    layer.values = tensor();
    auto origins = std::make_shared<std::vector<std::uint32_t>>();
    for (std::uint32_t row = 0; row < origin_rows; ++row) {
      for (std::uint32_t i = 0; i < n; ++i) origins->push_back(3 * i + row);
    }
    layer.origins = *origins;
    set.memory.push_back(origins);
    set.layers.push_back(layer);
  }
  return set;
}

void expect_invalid(const KvSet& set, const std::string& part) {
  const Status s = set.validate();
  EXPECT_EQ(s.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(s.message().find(part), std::string::npos) << s.message();
}

TEST(KvSet, Counts) {
  const KvSet set = make_set();
  EXPECT_TRUE(set.validate().is_ok()) << set.validate().to_string();
  EXPECT_TRUE(make_set(2).validate().is_ok());
  EXPECT_EQ(set.max_kept(), 3U);
  EXPECT_EQ(set.layer_bytes(3), 96U);
  EXPECT_EQ(set.tensor_bytes(), 2U * (96 + 64));
  EXPECT_EQ(KvSet{}.max_kept(), 0U);
}

TEST(KvSet, ValidateNamesWhatIsWrong) {
  KvSet set = make_set();
  set.dtype = DType::kQ8;
  expect_invalid(set, "f32, f16 or bf16");
  set = make_set();
  set.shape.n_kv_heads = 0;
  expect_invalid(set, "at least one");
  set = make_set();
  set.shape.n_layers = 3;
  expect_invalid(set, "2 layers where its shape says 3");
  set = make_set();
  set.shape.n_kv_heads = 3;
  set.shape.origin_rows = 2;
  expect_invalid(set, "origin_rows is 2");
  set = make_set();
  set.layers[1].values = set.layers[1].values.first(60);
  expect_invalid(set, "layer 1");
  set = make_set();
  set.layers[0].origins = set.layers[0].origins.first(2);
  expect_invalid(set, "layer 0");
}

TEST(KvSet, OriginsAscendBelowTheDocument) {
  KvSet set = make_set();
  const std::vector<std::uint32_t> equal = {1, 1, 2};
  set.layers[0].origins = equal;
  expect_invalid(set, "layer 0 row 0");
  const std::vector<std::uint32_t> beyond = {1, 2, 10};
  set.layers[0].origins = beyond;
  expect_invalid(set, "origin 10 at place 2");
  const std::vector<std::uint32_t> last = {1, 2, 9};
  set.layers[0].origins = last;
  EXPECT_TRUE(set.validate().is_ok());
  // A row may start below the end of the row before it.
  KvSet two = make_set(2);
  const std::vector<std::uint32_t> rows = {7, 8, 9, 0, 1, 2};
  two.layers[0].origins = rows;
  EXPECT_TRUE(two.validate().is_ok()) << two.validate().to_string();
  const std::vector<std::uint32_t> falling = {7, 8, 9, 2, 1, 3};
  two.layers[0].origins = falling;
  expect_invalid(two, "layer 0 row 1");
}

TEST(KvSet, ConvertsToOtherDtypesInMemoryOfItsOwn) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    Result<KvSet> converted = Status::internal("not yet");
    std::vector<float> want;
    {
      const KvSet set = make_set(2);
      converted = convert_kvset(set, dtype);
      want.resize(set.layers[1].values.size() / sizeof(float));
      std::memcpy(want.data(), set.layers[1].values.data(), set.layers[1].values.size());
    }  // the original and its memory are gone
    ASSERT_TRUE(converted.is_ok()) << converted.status().to_string();
    EXPECT_TRUE(converted->validate().is_ok()) << converted->validate().to_string();
    EXPECT_EQ(converted->dtype, dtype);
    EXPECT_EQ(converted->rope.theta, 5.0F);
    EXPECT_EQ(converted->next_position, 3U);
    EXPECT_EQ(converted->layers[0].origins[2], 6U);
    EXPECT_EQ(converted->layers[1].origins[3], 4U);
    std::vector<float> got(want.size());
    convert_to_f32(dtype, converted->layers[1].values.data(), got.data(), got.size());
    EXPECT_EQ(got, want) << "quarters up to 20 are exact in all three dtypes";
  }
  EXPECT_EQ(convert_kvset(make_set(), DType::kQ4).status().code(), StatusCode::kInvalidArgument);
}

TEST(KvSet, MemoryIsAlignedAndNeverNullForNothing) {
  for (const std::size_t n : {0, 1, 63, 64, 65, 1000000}) {
    const auto p = allocate_shared_bytes(n);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p.get()) % 64, 0U);
  }
}

TEST(KvSet, NamesOfKeyForms) {
  EXPECT_EQ(key_form_name(KeyForm::kPreRope), "pre_rope");
  EXPECT_EQ(key_form_name(KeyForm::kRotated), "rotated");
  EXPECT_EQ(key_form_name(KeyForm::kNone), "none");
  EXPECT_EQ(static_cast<int>(KeyForm::kNone), 2) << "stored in files";
}

}  // namespace
}  // namespace finchkv
