// Fingerprints: a tree hash of the bytes, what is remembered, and what must not be believed.
#include "model/fingerprint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/golden.h"
#include "tests/model/tiny_gguf.h"

namespace finchkv::model {
namespace {

namespace fs = std::filesystem;

class Fingerprint : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "finchkv-fingerprint-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    memory = (folder / "state" / "digests").string();
    path = write("model.gguf", bytes);
  }
  void TearDown() override { fs::remove_all(folder); }

  std::string write(const std::string& name, const std::string& data) const {
    const std::string at = (folder / name).string();
    std::ofstream(at, std::ios::binary) << data;
    return at;
  }
  Result<Sha256> hash(const std::vector<std::string>& parts, const std::string& remembered = "") {
    return weights_fingerprint(parts, remembered, pool);
  }
  std::string hex(const std::vector<std::string>& parts, const std::string& remembered = "") {
    const auto digest = hash(parts, remembered);
    EXPECT_TRUE(digest.is_ok()) << digest.status().to_string();
    return digest.is_ok() ? to_hex(*digest) : "";
  }

  fs::path folder;
  std::string path, memory;
  std::string bytes = std::string(1000, 'x') + "model";
  ThreadPool pool{2};
};

// 4 MiB leaves, then one digest over theirs.
std::string tree(const std::vector<std::string>& files) {
  std::string leaves;
  for (const std::string& data : files) {
    for (std::size_t at = 0; at < data.size(); at += std::size_t{4} << 20) {
      const Sha256 leaf = sha256(as_byte_span(std::string_view(data).substr(at, std::size_t{4} << 20)));
      leaves.append(reinterpret_cast<const char*>(leaf.data()), leaf.size());
    }
  }
  return to_hex(sha256(as_byte_span(leaves)));
}

TEST_F(Fingerprint, IsATreeOfFourMebibyteLeaves) {
  EXPECT_EQ(hex({path}), tree({bytes}));
  for (const std::size_t size : {(std::size_t{4} << 20) - 1, std::size_t{4} << 20, (std::size_t{8} << 20) + 3}) {
    std::string large(size, '\0');
    for (std::size_t i = 0; i < size; i += 4099) large[i] = static_cast<char>(i % 251);
    EXPECT_EQ(hex({write("large", large)}), tree({large})) << size;
  }
}

TEST_F(Fingerprint, EveryByteCounts) {
  std::string data((std::size_t{4} << 20) + 100, 'a');
  const std::string before = hex({write("a", data)});
  EXPECT_EQ(hex({write("copy", data)}), before) << "names do not count";
  for (const std::size_t at : {std::size_t{0}, std::size_t{4} << 20, data.size() - 1}) {
    data[at] = 'b';
    EXPECT_NE(hex({write("b", data)}), before) << at;
    data[at] = 'a';
  }
  EXPECT_NE(hex({write("longer", data + "a")}), before);
}

TEST_F(Fingerprint, PartsOfASplitFileAreOneModelInOrder) {
  const std::string first = write("m-00001-of-00002.gguf", "first"), second = write("m-00002-of-00002.gguf", "second");
  EXPECT_EQ(hex({first, second}), tree({"first", "second"}));
  EXPECT_NE(hex({first, second}), hex({second, first}));
  EXPECT_NE(hex({first, second}), hex({first}));
  EXPECT_EQ(hex({first, second}, memory), tree({"first", "second"}));
  EXPECT_EQ(hex({first}, memory), tree({"first"})) << "a part alone is not the whole";
}

TEST_F(Fingerprint, MissingFileIsNotFound) {
  const auto missing = hash({(folder / "none.gguf").string()});
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find("none.gguf"), std::string::npos);
}

TEST_F(Fingerprint, RemembersAndBelievesItsMemory) {
  const std::string digest = hex({path}, memory);
  std::string remembered = testing::read_file(memory);
  ASSERT_NE(remembered.find(digest), std::string::npos) << remembered;
  // A remembered digest is used instead of hashing: another one in its place comes back.
  const std::string other(64, 'e');
  remembered.replace(remembered.find(digest), 64, other);
  std::ofstream(memory) << remembered;
  EXPECT_EQ(hex({path}, memory), other);
  EXPECT_EQ(hex({path}), digest) << "no memory, no belief";
}

TEST_F(Fingerprint, AChangedFileIsHashedAgain) {
  const std::string before = hex({path}, memory);
  bytes[5] = 'y';  // the same size, another time
  write("model.gguf", bytes);
  fs::last_write_time(path, fs::last_write_time(path) + std::chrono::seconds(2));
  EXPECT_EQ(hex({path}, memory), tree({bytes}));
  EXPECT_NE(hex({path}, memory), before);
}

TEST_F(Fingerprint, AReplacedFileWithTheSameSizeAndTimeIsHashedAgain) {
  const std::string before = hex({path}, memory);
  const auto time = fs::last_write_time(path);
  bytes[5] = 'z';
  const std::string replacement = write("new", bytes);
  fs::rename(replacement, path);
  fs::last_write_time(path, time);
  EXPECT_EQ(hex({path}, memory), tree({bytes})) << "inode and ctime tell";
}

TEST_F(Fingerprint, ADamagedMemoryIsIgnored) {
  const std::string digest = hex({path}, memory);
  const std::string good = testing::read_file(memory);
  const std::string stamp = good.substr(0, good.find(' '));
  for (const std::string& damaged : {std::string("\0\xff garbage\n\n", 12), good.substr(0, good.size() / 2),
                                     stamp + "\n", stamp + " " + std::string(64, 'q') + "\n",
                                     stamp + " " + digest.substr(0, 62) + "\n", std::string(100000, 'a')}) {
    std::ofstream(memory, std::ios::trunc | std::ios::binary) << damaged;
    EXPECT_EQ(hex({path}, memory), digest);
  }
}

TEST_F(Fingerprint, AMemoryThatCannotBeWrittenIsIgnored) {
  EXPECT_EQ(hex({path}, path + "/under/a/file"), tree({bytes}));
  EXPECT_EQ(hex({path}, folder.string()), tree({bytes}));
}

TEST_F(Fingerprint, OfTheModelIsConfigAndTokenizer) {
  const auto of = [](const testing::TinyGguf& tiny) {
    const testing::ParsedGguf parsed(tiny);
    const auto config = ModelConfig::from_gguf(*parsed.file);
    const auto tokenizer = Tokenizer::from_gguf(*parsed.file);
    EXPECT_TRUE(config.is_ok() && tokenizer.is_ok());
    return to_hex(model_fingerprint(*config, **tokenizer));
  };
  const std::string before = of(testing::TinyGguf());
  EXPECT_EQ(of(testing::TinyGguf()), before);
  testing::TinyGguf weights;
  weights.matrix("output_norm.weight", 32, 1);
  EXPECT_EQ(of(weights), before) << "weights have a fingerprint of their own";
  testing::TinyGguf theta;
  theta.keys["llama.rope.freq_base"] = 50000.0;
  EXPECT_NE(of(theta), before);
  testing::TinyGguf words;
  words.vocabulary[3] = "another";
  EXPECT_NE(of(words), before);
}

}  // namespace
}  // namespace finchkv::model
