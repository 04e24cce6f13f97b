#include "base/mapped_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace finchkv {
namespace {

class MappedFileTest : public ::testing::Test {
 protected:
  MappedFileTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "finchkv-map-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~MappedFileTest() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& text) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

  static std::string text_of(const MappedFile& file) {
    return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
  }

  static void expect_refused(const std::string& path, StatusCode code) {
    const auto file = MappedFile::open(path);
    ASSERT_FALSE(file.is_ok());
    EXPECT_EQ(file.status().code(), code) << file.status().message();
    EXPECT_EQ(file.status().message().find(path), 0U) << "the sentence names the file: " << file.status().message();
  }

  std::string folder_;
};

TEST_F(MappedFileTest, ShowsTheBytes) {
  const std::string text(10000, 'z');
  const auto file = MappedFile::open(write("f", text));
  ASSERT_TRUE(file.is_ok()) << file.status().to_string();
  EXPECT_EQ(text_of(*file), text);
  EXPECT_EQ(file->path(), folder_ + "/f");
}

TEST_F(MappedFileTest, OutlivesTheNameOfTheFile) {
  const std::string path = write("f", "still here");
  const auto file = MappedFile::open(path);
  ASSERT_TRUE(file.is_ok());
  std::filesystem::remove(path);
  EXPECT_EQ(text_of(*file), "still here");
}

TEST_F(MappedFileTest, MovesWithItsBytesInPlace) {
  auto first = MappedFile::open(write("a", "first"));
  auto second = MappedFile::open(write("b", "second"));
  ASSERT_TRUE(first.is_ok() && second.is_ok());
  const std::byte* at = first->bytes().data();
  MappedFile moved = *std::move(first);
  EXPECT_EQ(moved.bytes().data(), at) << "views stay valid";
  EXPECT_EQ(text_of(moved), "first");
  moved = *std::move(second);
  EXPECT_EQ(text_of(moved), "second");
  EXPECT_EQ(moved.path(), folder_ + "/b");
}

TEST_F(MappedFileTest, MissingFiles) {
  expect_refused(folder_ + "/none", StatusCode::kNotFound);
  expect_refused(write("f", "x") + "/below-a-file", StatusCode::kNotFound);
}

TEST_F(MappedFileTest, WhatIsNoFile) {
  expect_refused(folder_, StatusCode::kInvalidArgument);
  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  expect_refused(pipe, StatusCode::kInvalidArgument);  // and does not wait for a writer
  expect_refused("/dev/null", StatusCode::kInvalidArgument);
  expect_refused(folder_ + "/" + std::string(300, 'n'), StatusCode::kInvalidArgument);
}

TEST_F(MappedFileTest, EmptyFile) { expect_refused(write("empty", ""), StatusCode::kCorrupt); }

TEST_F(MappedFileTest, UnreadableFile) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read every file, so none is unreadable here";
  const std::string path = write("secret", "x");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  expect_refused(path, StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace finchkv
