// GgufFile on well-formed files: what was written is what is read; split files; the real small model.
#include "model/gguf.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/digest.h"
#include "model/dequant.h"
#include "tests/model/gguf_writer.h"
#include "tests/test_data.h"

namespace finchkv::model {
namespace {

using testing::GgufWriter;

std::vector<std::byte> bytes_of(std::size_t n, unsigned start) {
  std::vector<std::byte> out(n);
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>((start + i) & 255U);
  return out;
}

/// A folder of this test's own, removed with what is in it.
class GgufFiles : public ::testing::Test {
 protected:
  GgufFiles() {
    std::string pattern = (std::filesystem::temp_directory_path() / "finchkv-gguf-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~GgufFiles() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::vector<std::byte>& bytes) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return path;
  }

  /// Part `no` (from 0) of `count`, with one tensor named `tensor`.
  static std::vector<std::byte> part(unsigned no, unsigned count, const std::string& tensor, std::int32_t total) {
    GgufWriter w;
    w.set_scalar("split.no", testing::kGgufU16, static_cast<std::uint16_t>(no));
    w.set_scalar("split.count", testing::kGgufU16, static_cast<std::uint16_t>(count));
    w.set_scalar("split.tensors.count", testing::kGgufI32, total);
    if (no == 0) w.set_string("general.architecture", "llama");
    w.add_tensor_f32(tensor, {2}, {static_cast<float>(no), 0.5F});
    return w.finish();
  }

  std::string folder_;
};

TEST(Gguf, ReadsBackEveryKindOfValue) {
  GgufWriter w;
  w.set_scalar("u8", testing::kGgufU8, std::uint8_t{200});
  w.set_scalar("i8", testing::kGgufI8, std::int8_t{-3});
  w.set_scalar("u16", testing::kGgufU16, std::uint16_t{65535});
  w.set_scalar("i16", testing::kGgufI16, std::int16_t{7});
  w.set_u32("u32", 4000000000U);
  w.set_scalar("i32", testing::kGgufI32, std::int32_t{-1});
  w.set_f32("f32", 1.5F);
  w.set_bool("yes", true);
  w.set_bool("no", false);
  w.set_string("text", "h\xc3\xa9llo");
  w.set_string("empty", "");
  w.set_u64("u64", std::numeric_limits<std::uint64_t>::max());
  w.set_scalar("i64", testing::kGgufI64, std::int64_t{-5});
  w.set_scalar("f64", testing::kGgufF64, 0.1);
  w.set_strings("strings", {"a", "", std::string("\xff\0b", 3)});
  w.set_floats("floats", {0.0F, -2.5F});
  w.set_ints("ints", {-1, 2});
  w.set_array<std::uint8_t>("bools", testing::kGgufBool, {1, 0});
  w.set_array<std::uint64_t>("huge", testing::kGgufU64, {1, ~std::uint64_t{0}});
  w.set_array<std::uint16_t>("none", testing::kGgufU16, {});
  const auto bytes = w.finish();
  const auto opened = GgufFile::parse(bytes, "memory");
  ASSERT_TRUE(opened.is_ok()) << opened.status().to_string();
  const GgufFile& f = **opened;

  EXPECT_EQ(f.path(), "memory");
  EXPECT_EQ(f.part_paths().size(), 1U);
  ASSERT_EQ(f.keys().size(), 20U);
  EXPECT_EQ(f.keys().front(), "u8");
  EXPECT_EQ(f.keys().back(), "none");

  EXPECT_EQ(f.get_u64("u8"), 200U);
  EXPECT_EQ(f.get_u64("i8"), std::nullopt) << "negative";
  EXPECT_EQ(f.get_u64("u16"), 65535U);
  EXPECT_EQ(f.get_u64("i16"), 7U);
  EXPECT_EQ(f.get_u64("u32"), 4000000000U);
  EXPECT_EQ(f.get_u64("i32"), std::nullopt);
  EXPECT_EQ(f.get_u64("u64"), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(f.get_u64("yes"), 1U);
  EXPECT_EQ(f.get_u64("f32"), std::nullopt);
  EXPECT_EQ(f.get_u64("text"), std::nullopt);
  EXPECT_EQ(f.get_u64("ints"), std::nullopt);
  EXPECT_EQ(f.get_u64("absent"), std::nullopt);
  EXPECT_EQ(f.get_f64("f32"), 1.5);
  EXPECT_EQ(f.get_f64("f64"), 0.1);
  EXPECT_EQ(f.get_f64("i8"), -3.0);
  EXPECT_EQ(f.get_f64("text"), std::nullopt);
  EXPECT_EQ(f.get_bool("yes"), true);
  EXPECT_EQ(f.get_bool("no"), false);
  EXPECT_EQ(f.get_bool("u8"), std::nullopt);
  EXPECT_EQ(f.get_string("text"), "h\xc3\xa9llo");
  EXPECT_EQ(f.get_string("empty"), "");
  EXPECT_EQ(f.get_string("strings"), std::nullopt);
  EXPECT_EQ(f.get_strings("strings"), (std::vector<std::string_view>{"a", "", std::string_view("\xff\0b", 3)}));
  EXPECT_EQ(f.get_strings("text"), std::nullopt);
  EXPECT_EQ(f.get_floats("floats"), (std::vector<float>{0.0F, -2.5F}));
  EXPECT_EQ(f.get_floats("ints"), std::nullopt);
  EXPECT_EQ(f.get_ints("ints"), (std::vector<std::int64_t>{-1, 2}));
  EXPECT_EQ(f.get_ints("bools"), (std::vector<std::int64_t>{1, 0}));
  EXPECT_EQ(f.get_ints("huge"), std::nullopt) << "does not fit";
  EXPECT_EQ(f.get_ints("none"), std::vector<std::int64_t>{});
  EXPECT_EQ(f.get_ints("strings"), std::nullopt);
}

TEST(Gguf, DescribesForPeople) {
  GgufWriter w;
  w.set_u32("llama.context_length", 8192);
  w.set_bool("flag", true);
  w.set_string("text", "a\n\x1b[31mred\xff \"quoted\" \xc3\xa9");
  w.set_string("long", std::string(500, 'x'));
  w.set_strings("words", {"a", "b", "c", "d", "e", "f", "g"});
  w.set_ints("ints", {1, 2});
  const auto bytes = w.finish();
  const auto f = GgufFile::parse(bytes, "memory");
  ASSERT_TRUE(f.is_ok());
  EXPECT_EQ((*f)->describe("llama.context_length"), "llama.context_length = 8192");
  EXPECT_EQ((*f)->describe("flag"), "flag = true");
  EXPECT_EQ((*f)->describe("text"), "text = \"a\\n\\x1b[31mred\\xff \\\"quoted\\\" \xc3\xa9\"");
  EXPECT_EQ((*f)->describe("long"), "long = \"" + std::string(80, 'x') + "...\" (500 bytes)");
  EXPECT_EQ((*f)->describe("words"), "words = 7 x string [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", ...]");
  EXPECT_EQ((*f)->describe("ints"), "ints = 2 x i32 [1, 2]");
  EXPECT_EQ((*f)->describe("absent"), "absent is not set");
}

TEST(Gguf, FindsTensorsAtAnyAlignment) {
  for (const std::uint32_t alignment : {8U, 32U, 64U, 4096U}) {
    GgufWriter w;
    w.set_string("general.architecture", "llama");
    w.add_tensor("b.weight", {32, 3}, GgmlType::kQ8_0, bytes_of(3 * 34, 1));
    w.add_tensor_f32("a.bias", {5}, {1, 2, 3, 4, 5});
    w.add_tensor("c", {2, 3, 4, 5}, GgmlType::kBF16, bytes_of(2 * 120, 9));
    const auto bytes = w.finish(alignment);
    const auto opened = GgufFile::parse(bytes, "memory");
    ASSERT_TRUE(opened.is_ok()) << opened.status().to_string();
    const GgufFile& f = **opened;
    ASSERT_EQ(f.tensors().size(), 3U);
    EXPECT_EQ(f.tensors()[0].name, "b.weight");

    const GgufTensor* b = f.find_tensor("b.weight");
    ASSERT_NE(b, nullptr);
    EXPECT_EQ(b->row_length(), 32U);
    EXPECT_EQ(b->rows(), 3U);
    EXPECT_EQ(b->elements(), 96U);
    EXPECT_TRUE(std::ranges::equal(b->data, bytes_of(3 * 34, 1)));
    const GgufTensor* a = f.find_tensor("a.bias");
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(a->rows(), 1U);
    EXPECT_EQ((a->data.data() - bytes.data()) % alignment, 0);
    const GgufTensor* c = f.find_tensor("c");
    ASSERT_NE(c, nullptr);
    EXPECT_EQ(c->rows(), 60U);
    EXPECT_TRUE(std::ranges::equal(c->data, bytes_of(240, 9)));
    EXPECT_EQ(f.find_tensor("b"), nullptr);
    EXPECT_EQ(f.find_tensor(""), nullptr);
  }
}

TEST(Gguf, AFileWithoutTensorsNeedsNoPadding) {
  testing::ByteSink sink;
  sink.text("GGUF").u32(3).u64(0).u64(1).str("k").u32(testing::kGgufU8).u8(1);
  const auto f = GgufFile::parse(sink.bytes(), "memory");
  ASSERT_TRUE(f.is_ok()) << f.status().to_string();
  EXPECT_EQ((*f)->get_u64("k"), 1U);
}

TEST(Gguf, NamesTypes) {
  EXPECT_EQ(ggml_type_name(12), "Q4_K");
  EXPECT_EQ(ggml_type_name(17), "IQ2_XS");
  EXPECT_EQ(ggml_type_name(99), "type 99");
}

TEST_F(GgufFiles, OpensAFile) {
  GgufWriter w;
  w.add_tensor_f32("t", {2}, {1, 2});
  const std::string path = write("model.gguf", w.finish());
  const auto f = GgufFile::open(path);
  ASSERT_TRUE(f.is_ok()) << f.status().to_string();
  EXPECT_EQ((*f)->path(), path);
  float values[2];
  ASSERT_TRUE(dequantize_rows((*f)->tensors()[0], 0, 1, values).is_ok());
  EXPECT_EQ(values[1], 2.0F);
}

TEST_F(GgufFiles, MissingEmptyAndFolder) {
  EXPECT_EQ(GgufFile::open(folder_ + "/none.gguf").status().code(), StatusCode::kNotFound);
  const auto empty = GgufFile::open(write("empty.gguf", {}));
  EXPECT_EQ(empty.status().code(), StatusCode::kCorrupt);
  EXPECT_NE(empty.status().message().find("empty.gguf"), std::string::npos);
  EXPECT_EQ(GgufFile::open(folder_).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(GgufFiles, SplitFilesAreOneModel) {
  const auto first = write("m-00001-of-00003.gguf", part(0, 3, "a", 3));
  const auto second = write("m-00002-of-00003.gguf", part(1, 3, "b", 3));
  write("m-00003-of-00003.gguf", part(2, 3, "c", 3));
  const auto f = GgufFile::open(first);
  ASSERT_TRUE(f.is_ok()) << f.status().to_string();
  EXPECT_EQ((*f)->part_paths().size(), 3U);
  EXPECT_EQ((*f)->part_paths()[1], second);
  EXPECT_EQ((*f)->get_string("general.architecture"), "llama");
  ASSERT_EQ((*f)->tensors().size(), 3U);
  float values[2];
  ASSERT_TRUE(dequantize_rows(*(*f)->find_tensor("c"), 0, 1, values).is_ok());
  EXPECT_EQ(values[0], 2.0F);

  const auto other = GgufFile::open(second);
  EXPECT_EQ(other.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(other.status().message().find(first), std::string::npos) << "the sentence names what to open instead";
}

TEST_F(GgufFiles, OnePartOfOne) {
  EXPECT_TRUE(GgufFile::open(write("m-00001-of-00001.gguf", part(0, 1, "a", 1))).is_ok());
  GgufWriter plain;
  plain.set_u32("k", 1);
  EXPECT_TRUE(GgufFile::open(write("p-00001-of-00001.gguf", plain.finish())).is_ok());
}

TEST_F(GgufFiles, AMissingPartIsNamed) {
  const auto first = write("m-00001-of-00002.gguf", part(0, 2, "a", 2));
  const auto f = GgufFile::open(first);
  EXPECT_EQ(f.status().code(), StatusCode::kNotFound);
  EXPECT_NE(f.status().message().find("m-00002-of-00002.gguf"), std::string::npos) << f.status().message();
}

TEST_F(GgufFiles, PartsThatDisagree) {
  const auto first = write("m-00001-of-00002.gguf", part(0, 2, "a", 2));
  const auto open_with = [&](const std::vector<std::byte>& second) {
    write("m-00002-of-00002.gguf", second);
    return GgufFile::open(first).status();
  };
  ASSERT_TRUE(open_with(part(1, 2, "b", 2)).is_ok());
  EXPECT_EQ(open_with(part(1, 3, "b", 2)).code(), StatusCode::kCorrupt) << "split.count";
  EXPECT_EQ(open_with(part(0, 2, "b", 2)).code(), StatusCode::kCorrupt) << "split.no";
  const Status twice = open_with(part(1, 2, "a", 2));
  EXPECT_EQ(twice.code(), StatusCode::kCorrupt);
  EXPECT_NE(twice.message().find("\"a\" twice"), std::string::npos) << twice.message();
  GgufWriter none;
  none.add_tensor_f32("b", {1}, {1});
  EXPECT_EQ(open_with(none.finish()).code(), StatusCode::kCorrupt) << "no split keys at all";
  EXPECT_EQ(open_with({}).code(), StatusCode::kCorrupt);

  write("m-00001-of-00002.gguf", part(0, 2, "a", 5));
  const Status total = open_with(part(1, 2, "b", 5));
  EXPECT_EQ(total.code(), StatusCode::kCorrupt) << "split.tensors.count";
  write("m-00001-of-00002.gguf", part(0, 3, "a", 2));
  EXPECT_EQ(open_with(part(1, 2, "b", 2)).code(), StatusCode::kCorrupt) << "the first part's split.count";
}

TEST_F(GgufFiles, APartUnderAnotherName) {
  const auto f = GgufFile::open(write("renamed.gguf", part(0, 2, "a", 2)));
  EXPECT_EQ(f.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(f.status().message().find("-00001-of-00002.gguf"), std::string::npos);
  EXPECT_EQ(GgufFile::parse(part(0, 2, "a", 2), "memory").status().code(), StatusCode::kInvalidArgument);
}

TEST(GgufReal, SmolLm2) {
  FINCHKV_REQUIRE_SMOLLM2(path);
  const auto opened = GgufFile::open(path);
  ASSERT_TRUE(opened.is_ok()) << opened.status().to_string();
  const GgufFile& f = **opened;
  EXPECT_EQ(f.get_string("general.architecture"), "llama");
  EXPECT_EQ(f.get_u64("llama.context_length"), 8192U);
  EXPECT_EQ(f.get_f64("llama.rope.freq_base"), 100000.0);
  EXPECT_EQ(f.get_bool("tokenizer.ggml.add_bos_token"), false);
  EXPECT_EQ(f.get_strings("tokenizer.ggml.tokens")->size(), 49152U);
  EXPECT_EQ(f.get_strings("tokenizer.ggml.tokens")->at(1), "<|im_start|>");
  EXPECT_EQ(f.get_ints("tokenizer.ggml.token_type")->at(0), 3);
  EXPECT_EQ(f.get_strings("tokenizer.ggml.merges")->size(), 48900U);
  ASSERT_EQ(f.tensors().size(), 272U);

  // Sums in double and SHA-256 of the f32 bytes, both from gguf-py's dequantize of the same file.
  struct Expected {
    const char* name;
    double sum;
    const char* sha256;
  };
  const Expected expected[] = {
      {"token_embd.weight", -15353.04449415207, "3fd491c8066dd9dc1a2bf6796701526c82817d95c0ecabacdef3013c2b8bbbaa"},
      {"blk.0.attn_q.weight", 59.22322082519531, "aa74111ad24c3624a20374d2026fd1f50bfe2520252e3c9aef4a666a28593cc8"},
      {"blk.29.ffn_down.weight", 49.83570861816406, "c19605745425a11e704e305ce3d27b632c406195d39eb3377e9cfb140ac643d1"},
      {"output_norm.weight", 1038.33203125, "3b87f8e27335e67fc08f159cabfd2d18f205d6c5b225a6f978153552bf01d559"},
  };
  for (const Expected& e : expected) {
    const GgufTensor* t = f.find_tensor(e.name);
    ASSERT_NE(t, nullptr) << e.name;
    std::vector<float> values(t->elements());
    ASSERT_TRUE(dequantize_rows(*t, 0, t->rows(), values).is_ok());
    double sum = 0;
    for (const float v : values) sum += v;
    EXPECT_NEAR(sum, e.sum, 1e-6) << e.name;
    EXPECT_EQ(to_hex(sha256(std::as_bytes(std::span<const float>(values)))), e.sha256) << e.name;
  }
}

}  // namespace
}  // namespace finchkv::model
