// Running the built command in a test: a folder of its own, what it printed, how it ended.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace finchkv::testing {

struct Ran {
  int status = -1;
  std::string out;
  std::string err;
  [[nodiscard]] nlohmann::json json() const { return nlohmann::json::parse(out, nullptr, /*allow_exceptions=*/false); }
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// A test with a folder that goes away with it.
class CommandTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "finchkv-cli-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  [[nodiscard]] std::string path(const std::string& name) const { return (folder_ / name).string(); }

  /// Runs `finchkv` with these arguments, each quoted; standard input is `in`.
  Ran run(const std::vector<std::string>& arguments, const std::string& in = "") {
    write_file(path("stdin"), in);
    std::string line = "XDG_CACHE_HOME=" + quote(path("cache")) + " " + quote(FINCHKV_BIN_DIR "/finchkv");
    for (const std::string& argument : arguments) line.append(" ").append(quote(argument));
    line.append(" <").append(quote(path("stdin")));
    line.append(" >").append(quote(path("stdout")));
    line.append(" 2>").append(quote(path("stderr")));
    const int ended = std::system(line.c_str());
    Ran ran;
    ran.status = WIFEXITED(ended) ? WEXITSTATUS(ended) : 128;
    ran.out = read_file(path("stdout"));
    ran.err = read_file(path("stderr"));
    return ran;
  }

 private:
  static std::string quote(const std::string& text) {
    std::string quoted = "'";
    for (const char c : text) {
      if (c == '\'') {
        quoted += "'\\''";
      } else {
        quoted += c;
      }
    }
    return quoted + "'";
  }

  std::filesystem::path folder_;
};

}  // namespace finchkv::testing
