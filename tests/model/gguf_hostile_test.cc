// GgufFile on damaged, lying and hostile bytes: each is a sentence with the right code, quickly and without taking
// memory for what the file only claims.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <limits>

#include <fmt/format.h>

#include "model/dequant.h"
#include "model/gguf.h"
#include "tests/model/gguf_writer.h"

namespace finchkv::model {
namespace {

using testing::ByteSink;
using testing::GgufWriter;

constexpr std::uint64_t kHuge = std::uint64_t{1} << 63;

/// Expects this code and a sentence that names the file and holds `part`.
void expect_refused(const std::vector<std::byte>& bytes, StatusCode code, const std::string& part) {
  const auto f = GgufFile::parse(bytes, "bad.gguf");
  ASSERT_FALSE(f.is_ok()) << "accepted; expected: " << part;
  EXPECT_EQ(f.status().code(), code) << f.status().message();
  EXPECT_NE(f.status().message().find("bad.gguf"), std::string::npos) << f.status().message();
  EXPECT_NE(f.status().message().find(part), std::string::npos) << f.status().message();
}

ByteSink header(std::uint64_t n_tensors, std::uint64_t n_keys, std::uint32_t version = 3) {
  ByteSink s;
  s.text("GGUF").u32(version).u64(n_tensors).u64(n_keys);
  return s;
}

/// Room behind a lie, so that it is the lie that is noticed and not the end of the file.
ByteSink& filler(ByteSink& s) { return s.raw(std::vector<std::byte>(256)); }

std::vector<std::byte> small_valid_file() {
  GgufWriter w;
  w.set_string("general.architecture", "llama");
  w.set_u32("n", 3);
  w.set_strings("words", {"a", "bc"});
  w.set_floats("floats", {1, 2});
  w.add_tensor_f32("x", {3, 2}, {1, 2, 3, 4, 5, 6});
  w.add_tensor("q", {32}, GgmlType::kQ8_0, std::vector<std::byte>(34));
  return w.finish();
}

struct Description {
  std::vector<std::uint64_t> dims = {4};
  std::uint32_t type = 0;
  std::uint64_t offset = 0;
  std::string name = "t";
};

/// A file that describes these tensors and has 64 bytes of data.
std::vector<std::byte> describing(const std::vector<Description>& tensors) {
  ByteSink s = header(tensors.size(), 0);
  for (const Description& d : tensors) {
    s.str(d.name).u32(static_cast<std::uint32_t>(d.dims.size()));
    for (const std::uint64_t n : d.dims) s.u64(n);
    s.u32(d.type).u64(d.offset);
  }
  s.pad_to(32).raw(std::vector<std::byte>(64));
  return s.bytes();
}

std::vector<std::byte> with_alignment(std::uint32_t type, std::uint64_t value, std::size_t value_bytes) {
  ByteSink v;
  v.u64(value);
  GgufWriter w;
  w.set_raw("general.alignment", type, std::span(v.bytes()).first(value_bytes));
  w.add_tensor_f32("x", {1}, {1});
  return w.finish();
}

TEST(GgufHostile, MagicVersionByteOrder) {
  expect_refused({}, StatusCode::kCorrupt, "is empty");
  ByteSink zip;
  expect_refused(zip.text("PK\3\4").raw(std::vector<std::byte>(100)).bytes(), StatusCode::kCorrupt, "not a GGUF file");
  ByteSink old;
  expect_refused(filler(old.text("tjgg")).bytes(), StatusCode::kUnsupported, "older than GGUF");
  for (const std::uint32_t version : {0U, 1U, 4U, 99U}) {
    ByteSink s = header(0, 0, version);
    expect_refused(filler(s).bytes(), StatusCode::kUnsupported, "GGUF version " + std::to_string(version));
  }
  ByteSink swapped = header(0, 0, 0x03000000U);
  expect_refused(filler(swapped).bytes(), StatusCode::kUnsupported, "big-endian");
  ByteSink reversed;
  expect_refused(filler(reversed.text("FUGG")).bytes(), StatusCode::kUnsupported, "big-endian");
  const ByteSink two = header(0, 0, 2);
  EXPECT_TRUE(GgufFile::parse(two.bytes(), "v2").is_ok());
}

TEST(GgufHostile, TruncatedAnywhere) {
  const auto whole = small_valid_file();
  ASSERT_TRUE(GgufFile::parse(whole, "whole").is_ok());
  std::size_t padding = 0;  // the writer pads behind the last tensor; nothing is missing without that
  while (whole.size() - padding > 0 && GgufFile::parse(std::span(whole).first(whole.size() - padding), "x").is_ok()) {
    ++padding;
  }
  EXPECT_EQ(padding, 32U - 34U % 32U + 1U);
  for (std::size_t n = 0; n + padding <= whole.size(); ++n) {
    // A copy of its own, so that the address sanitizer sees every read past its end.
    const std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
    const auto f = GgufFile::parse(cut, "cut.gguf");
    ASSERT_FALSE(f.is_ok()) << "accepted the first " << n << " bytes";
    EXPECT_EQ(f.status().code(), StatusCode::kCorrupt) << n << ": " << f.status().message();
  }
}

TEST(GgufHostile, EveryByteDamaged) {
  const auto whole = small_valid_file();
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (const unsigned flip : {0x01U, 0x80U, 0xffU}) {
      auto damaged = whole;
      damaged[i] ^= static_cast<std::byte>(flip);
      const auto f = GgufFile::parse(damaged, "damaged.gguf");
      if (!f.is_ok()) {
        EXPECT_FALSE(f.status().message().empty());
        continue;
      }
      for (const GgufTensor& t : (*f)->tensors()) {  // whatever was accepted can be read
        std::vector<float> row(t.row_length());
        EXPECT_TRUE(dequantize_rows(t, 0, 1, row).is_ok() || t.type == GgmlType::kQ8_1 || t.type == GgmlType::kQ8_K);
      }
    }
  }
}

TEST(GgufHostile, AbsurdCounts) {
  for (const std::uint64_t n : {kHuge, ~std::uint64_t{0}, std::uint64_t{1} << 40, std::uint64_t{50}}) {
    ByteSink keys = header(0, n);
    expect_refused(filler(keys).bytes(), StatusCode::kCorrupt, "claims " + std::to_string(n) + " metadata keys");
    ByteSink tensors = header(n, 0);
    expect_refused(filler(tensors).bytes(), StatusCode::kCorrupt, "claims " + std::to_string(n) + " tensors");
  }
}

TEST(GgufHostile, AbsurdStringLengths) {
  for (const std::uint64_t n : {std::uint64_t{10'000'000'000}, kHuge, ~std::uint64_t{0}}) {
    ByteSink key = header(0, 1);
    key.u64(n);
    expect_refused(filler(key).bytes(), StatusCode::kCorrupt, "name of metadata key 1");
    ByteSink value = header(0, 1);
    value.str("k").u32(testing::kGgufString).u64(n);
    expect_refused(filler(value).bytes(), StatusCode::kCorrupt, "string of key \"k\"");
    ByteSink element = header(0, 1);
    element.str("k").u32(testing::kGgufArray).u32(testing::kGgufString).u64(2).str("ok").u64(n);
    expect_refused(filler(element).bytes(), StatusCode::kCorrupt, "string 1 of key \"k\"");
    ByteSink tensor = header(1, 0);
    tensor.u64(n);
    expect_refused(filler(tensor).bytes(), StatusCode::kCorrupt, "name of tensor 1");
  }
}

TEST(GgufHostile, LongNames) {
  ByteSink key = header(0, 1);
  key.str(std::string(70000, 'k')).u32(testing::kGgufU8).u8(1);
  expect_refused(key.bytes(), StatusCode::kCorrupt, "70000 bytes");
  expect_refused(describing({{.name = std::string(2000, 't')}}), StatusCode::kCorrupt, "2000 bytes");
}

TEST(GgufHostile, Arrays) {
  ByteSink nested = header(0, 1);
  nested.str("k").u32(testing::kGgufArray).u32(testing::kGgufArray).u64(1).u32(testing::kGgufU8).u64(1).u8(1);
  expect_refused(nested.bytes(), StatusCode::kUnsupported, "array of arrays");
  for (const std::uint32_t type : {testing::kGgufU8, testing::kGgufU64, testing::kGgufString}) {
    // 2^61 elements of 8 bytes are 2^64 bytes: zero, to whoever multiplies first.
    for (const std::uint64_t n : {std::uint64_t{1} << 61, kHuge, ~std::uint64_t{0}, std::uint64_t{1000}}) {
      ByteSink s = header(0, 1);
      s.str("k").u32(testing::kGgufArray).u32(type).u64(n);
      expect_refused(filler(s).bytes(), StatusCode::kCorrupt, "claims " + std::to_string(n) + " array elements");
    }
  }
  ByteSink unknown = header(0, 1);
  unknown.str("k").u32(testing::kGgufArray).u32(13).u64(1);
  expect_refused(filler(unknown).bytes(), StatusCode::kCorrupt, "array of type 13");
}

TEST(GgufHostile, Values) {
  for (const std::uint32_t type : {13U, 255U, ~0U}) {
    ByteSink s = header(0, 1);
    s.str("k").u32(type);
    expect_refused(filler(s).bytes(), StatusCode::kCorrupt, "value type " + std::to_string(type));
  }
  ByteSink boolean = header(0, 1);
  boolean.str("k").u32(testing::kGgufBool).u8(2);
  expect_refused(boolean.bytes(), StatusCode::kCorrupt, "bool of value 2");
}

TEST(GgufHostile, Duplicates) {
  GgufWriter keys;
  keys.set_u32("a", 1);
  keys.set_u32("b", 1);
  keys.set_string("a", "x");
  expect_refused(keys.finish(), StatusCode::kCorrupt, "key \"a\" twice");
  expect_refused(describing({{.offset = 0}, {.offset = 32}}), StatusCode::kCorrupt, "tensor \"t\" twice");
}

TEST(GgufHostile, NamesInSentencesAreEscaped) {
  GgufWriter w;
  w.set_u32("a\x1b[2J\xff", 1);
  w.set_u32("a\x1b[2J\xff", 1);
  expect_refused(w.finish(), StatusCode::kCorrupt, "a\\x1b[2J\\xff");
}

TEST(GgufHostile, Dimensions) {
  expect_refused(describing({{.dims = {}}}), StatusCode::kCorrupt, "0 dimensions");
  expect_refused(describing({{.dims = {1, 1, 1, 1, 1}}}), StatusCode::kCorrupt, "5 dimensions");
  ByteSink many = header(1, 0);
  many.str("t").u32(~0U);
  expect_refused(filler(many).bytes(), StatusCode::kCorrupt, "4294967295 dimensions");
  expect_refused(describing({{.dims = {0}}}), StatusCode::kCorrupt, "dimension of 0");
  expect_refused(describing({{.dims = {4, 0, 4}}}), StatusCode::kCorrupt, "dimension of 0");
  expect_refused(describing({{.dims = {kHuge, 2}}}), StatusCode::kCorrupt, "more elements");
  expect_refused(describing({{.dims = {std::uint64_t{1} << 32, std::uint64_t{1} << 32}}}), StatusCode::kCorrupt,
                 "more elements");
  // Fits as a count, not as bytes: 2^62 elements of four bytes are 2^64.
  expect_refused(describing({{.dims = {std::uint64_t{1} << 62}}}), StatusCode::kCorrupt, "more bytes");
  expect_refused(describing({{.dims = {1000}}}), StatusCode::kCorrupt, "past the end");
  expect_refused(describing({{.dims = {33}, .type = 8}}), StatusCode::kCorrupt, "blocks of 32");
  expect_refused(describing({{.dims = {32, 8}, .type = 12}}), StatusCode::kCorrupt, "blocks of 256");
}

TEST(GgufHostile, Offsets) {
  expect_refused(describing({{.offset = 96}}), StatusCode::kCorrupt, "past the end");
  expect_refused(describing({{.dims = {12}, .offset = 32}}), StatusCode::kCorrupt, "past the end");
  expect_refused(describing({{.offset = 8}}), StatusCode::kCorrupt, "alignment 32");
  expect_refused(describing({{.offset = ~std::uint64_t{31}}}), StatusCode::kCorrupt, "past the end");
  expect_refused(describing({{.offset = kHuge}}), StatusCode::kCorrupt, "past the end");
  expect_refused(describing({{.dims = {9}, .offset = 0, .name = "a"}, {.offset = 32, .name = "b"}}),
                 StatusCode::kCorrupt, "\"a\" and \"b\" overlap");
  expect_refused(describing({{.offset = 0, .name = "a"}, {.offset = 0, .name = "b"}}), StatusCode::kCorrupt, "overlap");
  EXPECT_TRUE(
      GgufFile::parse(describing({{.dims = {8}, .offset = 32, .name = "b"}, {.dims = {8}, .name = "a"}}), "x").is_ok())
      << "out of order is allowed";
}

TEST(GgufHostile, Alignment) {
  for (const std::uint64_t n : {0U, 1U, 4U, 24U, 33U, 0xffffffffU}) {
    expect_refused(with_alignment(testing::kGgufU32, n, 4), StatusCode::kCorrupt, "alignment is " + std::to_string(n));
  }
  expect_refused(with_alignment(testing::kGgufU32, 1U << 31, 4), StatusCode::kCorrupt, "truncated");
  expect_refused(with_alignment(testing::kGgufU64, kHuge, 8), StatusCode::kCorrupt, "truncated");
  expect_refused(with_alignment(testing::kGgufF32, 32, 4), StatusCode::kCorrupt, "not a whole number");
  expect_refused(with_alignment(testing::kGgufI32, 0xffffffe0U, 4), StatusCode::kCorrupt, "not a whole number");
}

TEST(GgufHostile, TensorTypes) {
  expect_refused(describing({{.type = 16}}), StatusCode::kUnsupported, "tensor \"t\" has the type IQ2_XXS (number 16)");
  expect_refused(describing({{.type = 4}}), StatusCode::kUnsupported, "type 4");
  expect_refused(describing({{.type = ~0U}}), StatusCode::kUnsupported, "type 4294967295");
  const auto bytes = describing({{.dims = {32}, .type = 9}});
  const auto f = GgufFile::parse(bytes, "x");
  ASSERT_TRUE(f.is_ok()) << "Q8_1 has a size, so the rest of such a file can be looked at";
  std::vector<float> row(32);
  const Status s = dequantize_rows((*f)->tensors()[0], 0, 1, row);
  EXPECT_EQ(s.code(), StatusCode::kUnsupported);
  EXPECT_NE(s.message().find("Q8_1"), std::string::npos);
}

/// Many names with a long common beginning, in falling order, and one of them twice at the very end.
TEST(GgufHostile, ManyNamesTakeNoQuadraticTime) {
  const auto started = std::chrono::steady_clock::now();
  GgufWriter w;
  const std::string common(40, 'a');
  for (std::uint32_t i = 60000; i > 0; --i) w.set_u32(common + std::to_string(i), i);
  w.set_u32(common + "60000", 0);
  expect_refused(w.finish(), StatusCode::kCorrupt, "twice");

  std::vector<Description> tensors(200000);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    tensors[i] = {.dims = {1}, .type = 0, .offset = 32 * (tensors.size() - i), .name = fmt::format("t{}", i)};
  }
  expect_refused(describing(tensors), StatusCode::kCorrupt, "past the end");
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  EXPECT_LT(took.count(), 20.0) << "quadratic time would be minutes";

  ByteSink keys = header(0, 70000);
  for (int i = 0; i < 70000; ++i) keys.str(fmt::format("k{}", i)).u32(testing::kGgufU8).u8(1);
  expect_refused(keys.bytes(), StatusCode::kUnsupported, "at most 65536");
}

/// Arrays of up to 2^59 bytes, claimed by some 300 bytes each.
TEST(GgufHostile, TakesNoMemoryForClaims) {
  rusage before{};
  getrusage(RUSAGE_SELF, &before);
  for (int i = 0; i < 1000; ++i) {
    ByteSink s = header(0, 1);
    s.str("k").u32(testing::kGgufArray).u32(testing::kGgufU8).u64(std::uint64_t{1} << (20 + i % 40));
    EXPECT_FALSE(GgufFile::parse(filler(s).bytes(), "x").is_ok());
  }
  rusage after{};
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 200 * 1024);  // KiB
}

}  // namespace
}  // namespace finchkv::model
