#include "cache_store/safetensors.h"

#include <sys/stat.h>

#include <cmath>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cache_store/codec.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::expect_same_set;
using testing::make_put;
using testing::make_set;
using testing::same_bytes;
using testing::ScratchDirectory;
using Json = nlohmann::json;

std::vector<std::byte> read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const auto bytes = as_byte_span(text);
  return {bytes.begin(), bytes.end()};
}

Json header_of(const std::vector<std::byte>& file) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  return Json::parse(std::string_view(reinterpret_cast<const char*>(file.data()) + 8, length));
}

std::vector<std::byte> with_header(const std::vector<std::byte>& file, const std::string& header) {
  std::uint64_t old = 0;
  std::memcpy(&old, file.data(), 8);
  const std::uint64_t length = header.size();
  std::string text(reinterpret_cast<const char*>(&length), sizeof(length));
  text += header;
  text.append(reinterpret_cast<const char*>(file.data()) + 8 + old, file.size() - 8 - old);
  const auto bytes = as_byte_span(text);
  return {bytes.begin(), bytes.end()};
}

class Safetensors : public ::testing::Test {
 protected:
  std::string path_ = (scratch().path() / "entry.safetensors").string();
  ScratchDirectory& scratch() {
    static ScratchDirectory directory;
    return directory;
  }
};

TEST_F(Safetensors, ComesBackAsItWent) {
  for (const bool per_head : {false, true}) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      const PutRequest request = make_put({.origins_per_head = per_head, .dtype = dtype}, 1, {}, dtype);
      ASSERT_TRUE(export_safetensors(request.set, request.identity, path_).is_ok());
      auto imported = import_safetensors(path_);
      ASSERT_TRUE(imported.is_ok()) << imported.status().message();
      expect_same_set(imported->set, request.set);
      EXPECT_EQ(imported->identity, request.identity);
      EXPECT_EQ(cache_id(imported->identity, {}), cache_id(request.identity, {}));
    }
  }
}

TEST_F(Safetensors, LayersMayKeepDifferentCountsOrNothing) {
  PutRequest request = make_put({}, 1);
  request.set.layers[0] = KvLayer{};
  ASSERT_TRUE(export_safetensors(request.set, request.identity, path_).is_ok());
  auto imported = import_safetensors(path_);
  ASSERT_TRUE(imported.is_ok()) << imported.status().message();
  expect_same_set(imported->set, request.set);
}

TEST_F(Safetensors, NamesShapesAndAlignmentAreTheFormats) {
  const PutRequest request = make_put({.origins_per_head = true}, 1);
  ASSERT_TRUE(export_safetensors(request.set, request.identity, path_).is_ok());
  const auto file = read_bytes(path_);
  const Json header = header_of(file);
  EXPECT_EQ(header.size(), 1U + 2 * 3);
  EXPECT_EQ(header["layers.1.key"]["shape"], Json({2, 5, 8}));
  EXPECT_EQ(header["layers.1.key"]["dtype"], "F32");
  EXPECT_EQ(header["layers.1.value"]["shape"], Json({2, 5, 8}));
  EXPECT_EQ(header["layers.1.origin"]["shape"], Json({2, 5}));
  EXPECT_EQ(header["layers.1.origin"]["dtype"], "I32");
  const Json metadata = header["__metadata__"];
  for (const auto& value : metadata) EXPECT_TRUE(value.is_string());
  EXPECT_EQ(metadata["key_form"], "pre_rope");
  const auto canonical = canonical_encoding(request.identity);
  EXPECT_EQ(metadata["identity"].get<std::string>(),
            to_hex({reinterpret_cast<const std::uint8_t*>(canonical.data()), canonical.size()}));
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  EXPECT_EQ((8 + length) % 64, 0U);
  const std::size_t begin = header["layers.1.key"]["data_offsets"][0];
  EXPECT_TRUE(same_bytes(std::span(file).subspan(8 + length + begin, request.set.layers[1].keys.size()),
                         request.set.layers[1].keys));
}

TEST_F(Safetensors, RopeRotatesToTheBase) {
  PutRequest request = make_put({}, 1);
  // The first layer keeps two entries fewer: its entries move to the end of the same range.
  const KvSet shorter = make_set({.kept = 3}, 9);
  request.set.layers[0] = shorter.layers[0];
  request.set.memory.insert(request.set.memory.end(), shorter.memory.begin(), shorter.memory.end());
  ASSERT_TRUE(export_safetensors(request.set, request.identity, path_, {.rope_base = 100}).is_ok());
  const auto file = read_bytes(path_);
  const Json header = header_of(file);
  EXPECT_EQ(header["__metadata__"]["key_form"], "rotated");
  EXPECT_EQ(header["__metadata__"]["rope_base"], "100");
  EXPECT_EQ(header["__metadata__"]["next_position"], "105");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  for (std::size_t l = 0; l < 2; ++l) {
    const std::uint32_t n = request.set.layers[l].n_kept;
    const std::size_t begin = header["layers." + std::to_string(l) + ".key"]["data_offsets"][0];
    std::vector<float> got(2 * n * 8);
    std::memcpy(got.data(), file.data() + 8 + length + begin, got.size() * 4);
    std::vector<float> in(got.size());
    std::memcpy(in.data(), request.set.layers[l].keys.data(), in.size() * 4);
    for (std::size_t row = 0; row < 2 * n; ++row) {
      const double position = 100.0 + 5 - n + static_cast<double>(row % n);
      for (std::size_t i = 0; i < 4; ++i) {
        const double angle = position * static_cast<double>(request.set.rope.inv_freq[i]);
        const double x = in[row * 8 + i];
        const double y = in[row * 8 + i + 4];
        EXPECT_NEAR(got[row * 8 + i], x * std::cos(angle) - y * std::sin(angle), 5e-5);
        EXPECT_NEAR(got[row * 8 + i + 4], x * std::sin(angle) + y * std::cos(angle), 5e-5);
      }
    }
  }
  // It would come back under the id of the set before rotation.
  EXPECT_EQ(import_safetensors(path_).status().code(), StatusCode::kUnsupported);
}

TEST_F(Safetensors, RotatedSetsCannotBeRotatedAgain) {
  PutRequest request = make_put({}, 1);
  request.set.key_form = KeyForm::kRotated;
  const Status refused = export_safetensors(request.set, request.identity, path_, {.rope_base = 0});
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  ASSERT_TRUE(export_safetensors(request.set, request.identity, path_).is_ok());
  EXPECT_EQ(import_safetensors(path_)->set.key_form, KeyForm::kRotated);
}

TEST_F(Safetensors, ExportIsWholeOrNotThere) {
  const PutRequest request = make_put({}, 1);
  const std::string nowhere = (scratch().path() / "no" / "such" / "file").string();
  EXPECT_EQ(export_safetensors(request.set, request.identity, nowhere).code(), StatusCode::kInvalidArgument);
  KvSet broken = request.set;
  broken.layers.pop_back();
  std::filesystem::remove(path_);
  EXPECT_EQ(export_safetensors(broken, request.identity, path_).code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(std::filesystem::exists(path_));
  std::filesystem::create_directory(path_);
  EXPECT_FALSE(export_safetensors(request.set, request.identity, path_).is_ok());
  std::filesystem::remove(path_);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch().path()), {}), 0) << "a file was left behind";
}

TEST_F(Safetensors, ImportNamesTheFile) {
  const Status missing = import_safetensors(path_ + ".missing").status();
  EXPECT_EQ(missing.code(), StatusCode::kNotFound);
  EXPECT_NE(missing.message().find(".missing"), std::string::npos);
  std::ofstream(path_) << "short";
  const Status damaged = import_safetensors(path_).status();
  EXPECT_EQ(damaged.code(), StatusCode::kCorrupt);
  EXPECT_NE(damaged.message().find(path_), std::string::npos);
}

TEST_F(Safetensors, HostileFilesAreRefused) {
  const PutRequest request = make_put({}, 1);
  ASSERT_TRUE(export_safetensors(request.set, request.identity, path_).is_ok());
  const auto file = read_bytes(path_);
  const Json good = header_of(file);
  ASSERT_TRUE(parse_safetensors(with_header(file, good.dump()), "f").is_ok());
  const auto code = [&](const std::string& header) {
    return parse_safetensors(with_header(file, header), "f").status().code();
  };
  const auto changed = [&](const std::function<void(Json&)>& change) {
    Json header = good;
    change(header);
    return code(header.dump());
  };
  const auto corrupt = StatusCode::kCorrupt;
  for (std::size_t n = 0; n < file.size(); n += 61) {
    EXPECT_FALSE(parse_safetensors(std::span(file).first(n), "f").is_ok()) << n;
  }
  auto lying = file;
  for (std::size_t i = 0; i < 8; ++i) lying[i] = std::byte{0xff};
  EXPECT_EQ(parse_safetensors(lying, "f").status().code(), corrupt);
  EXPECT_EQ(code("null"), corrupt);
  EXPECT_EQ(code("{\"a\":"), corrupt);
  EXPECT_EQ(code(std::string(100000, '[')), corrupt);
  EXPECT_EQ(code("{}"), StatusCode::kUnsupported);
  EXPECT_EQ(changed([](Json& h) { h["__metadata__"]["finchkv_export"] = "2"; }), StatusCode::kUnsupported);
  EXPECT_EQ(changed([](Json& h) { h["__metadata__"]["identity"] = "00"; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["__metadata__"]["identity"] = 5; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["__metadata__"].erase("rope"); }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["__metadata__"]["rope"] = "{\"inv_freq\":[1e999]}"; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["__metadata__"]["key_form"] = "sideways"; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["__metadata__"]["next_position"] = "-1"; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["__metadata__"]["next_position"] = "1"; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h.erase("layers.0.origin"); }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["layers.7.key"] = h["layers.0.key"]; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["layers.0.key"]["dtype"] = "F64"; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["layers.0.key"]["shape"] = {1ULL << 40, 1ULL << 40, 1ULL << 40}; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["layers.0.key"]["shape"] = {2, 5, -8}; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["layers.0.key"]["shape"] = {2, 5, 8.5}; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["layers.0.key"]["data_offsets"] = {320, 0}; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["layers.0.key"]["data_offsets"] = {0, 1ULL << 60}; }), corrupt);
  EXPECT_EQ(changed([](Json& h) { h["layers.0.key"]["data_offsets"] = h["layers.0.value"]["data_offsets"]; }), corrupt);
  // Origins that do not ascend.
  auto unordered = file;
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  const std::size_t origin = 8 + length + good["layers.0.origin"]["data_offsets"][0].get<std::size_t>();
  std::memset(unordered.data() + origin, 0, 8);
  EXPECT_EQ(parse_safetensors(unordered, "f").status().code(), corrupt);
}

}  // namespace
}  // namespace finchkv::cache_store
