// A test of the command with a small model, a document and a store of its own.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "cache_store/rocksdb_store.h"
#include "cache_store/safetensors.h"
#include "tests/cli/command.h"
#include "tests/test_data.h"

namespace finchkv::testing {

using Arguments = std::vector<std::string>;

inline Arguments operator+(Arguments left, const Arguments& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

class StoreCommandTest : public CommandTest {
 protected:
  void SetUp() override {
    CommandTest::SetUp();
    write_document("doc.json", 37);
    write_file(path("prompt.json"), "[5, 17, 42]");
  }

  const std::string model_ = data_path("tiny-llama/model.gguf");

  /// 96 token ids; another step is another document.
  void write_document(const std::string& name, int step) {
    std::string doc = "[";
    for (int i = 0; i < 96; ++i) {
      if (i > 0) doc += ',';
      doc += std::to_string((i * step + 11) % 200);
    }
    write_file(path(name), doc + "]");
  }

  /// `verb` on token ids, with a store.
  Arguments on_tokens(const std::string& verb, const std::string& model = "",
                      const std::string& doc = "doc.json") const {
    return {verb,
            "--model",
            model.empty() ? model_ : model,
            "--store",
            path("store"),
            "--doc-tokens",
            path(doc),
            "--prompt-tokens",
            path("prompt.json"),
            "--keep",
            "24",
            "--chunk",
            "32"};
  }
  Arguments in_store(const Arguments& verb) const { return verb + Arguments{"--store", path("store")}; }

  std::string compress(const Arguments& more = {}, const std::string& doc = "doc.json") {
    const Ran ran = run(on_tokens("compress", "", doc) + Arguments{"--quiet"} + more);
    EXPECT_EQ(ran.status, 0) << ran.err;
    return ran.out.substr(0, 64);
  }

  /// What the store lists, by id.
  nlohmann::json entries(const std::string& store = "store", const Arguments& more = {}) {
    const Ran ran = run(Arguments{"ls", "--json", "--store", path(store)} + more);
    EXPECT_EQ(ran.status, 0) << ran.err;
    nlohmann::json by_id = nlohmann::json::object();
    const nlohmann::json listed = ran.json();
    for (const auto& entry : listed["entries"]) by_id[entry["id"].get<std::string>()] = entry;
    return by_id;
  }

  nlohmann::json must_json(const Arguments& arguments, const std::string& in = "") {
    const Ran ran = run(arguments + Arguments{"--json"}, in);
    EXPECT_EQ(ran.status, 0) << ran.err;
    EXPECT_EQ(std::count(ran.out.begin(), ran.out.end(), '\n'), 1) << ran.out;
    return ran.json();
  }

  void expect_refused(const Arguments& arguments, int status, std::string_view sentence, const std::string& in = "") {
    const Ran ran = run(arguments, in);
    EXPECT_EQ(ran.status, status) << ran.err;
    EXPECT_EQ(ran.out, "");
    EXPECT_EQ(ran.err.rfind("finchkv: ", 0), 0U) << ran.err;
    EXPECT_NE(ran.err.find(sentence), std::string::npos) << ran.err;
  }
};

/// Flips one bit in whichever files of a folder hold these bytes; the number of those files.
inline int damage(const std::string& folder, const std::string& bytes) {
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::string content = read_file(entry.path());
    const std::size_t found = content.find(bytes);
    if (found == std::string::npos) continue;
    content[found + 9] = static_cast<char>(content[found + 9] ^ 1);
    write_file(entry.path(), content);
    ++files;
  }
  return files;
}

/// The first keys of the first layer, as they stand in an exported file.
inline std::string first_keys(const std::string& safetensors) {
  const std::string file = read_file(safetensors);
  std::uint64_t header = 0;
  for (int i = 7; i >= 0; --i) header = header << 8 | static_cast<unsigned char>(file.at(static_cast<std::size_t>(i)));
  const auto tensors = nlohmann::json::parse(file.substr(8, header));
  return file.substr(8 + header + tensors["layers.0.key"]["data_offsets"][0].get<std::size_t>(), 24);
}

/// Puts an exported entry into a store of its own, its blocks in a table file of the database and not in its log, where
/// damage would be taken for a write that was cut short.
inline void store_in_tables(const std::string& safetensors, const std::string& directory) {
  auto imported = cache_store::import_safetensors(safetensors);
  ASSERT_TRUE(imported.is_ok()) << imported.status().message();
  cache_store::RocksDbOptions options;
  options.large_put_bytes = 1;
  auto host = cache_store::open_rocksdb_store(directory, options);
  ASSERT_TRUE(host.is_ok()) << host.status().message();
  auto store = (*host)->view({});
  ASSERT_TRUE(store.is_ok());
  cache_store::PutRequest put;
  put.identity = imported->identity;
  put.set = imported->set;
  ASSERT_TRUE((*store)->put(put).is_ok());
}

}  // namespace finchkv::testing
