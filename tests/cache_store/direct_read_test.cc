// Large values read straight to their place: digests, and reads that fail on the way.
#include "cache_store/direct_read.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace finchkv::cache_store {
namespace {

using rocksdb::FSRandomAccessFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

// The real file system, but the read with this number fails, counted from 0 over all files.
class FailingReads final : public rocksdb::FileSystemWrapper {
 public:
  FailingReads() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  [[nodiscard]] const char* Name() const override { return "failing reads"; }
  IOStatus NewRandomAccessFile(const std::string& name, const rocksdb::FileOptions& options,
                               std::unique_ptr<FSRandomAccessFile>* file, IODebugContext* debug) override {
    std::unique_ptr<FSRandomAccessFile> base;
    IOStatus status = target()->NewRandomAccessFile(name, options, &base, debug);
    if (status.ok()) *file = std::make_unique<File>(std::move(base), *this);
    return status;
  }

  int failing = -1;
  int reads = 0;

 private:
  class File final : public rocksdb::FSRandomAccessFileOwnerWrapper {
   public:
    File(std::unique_ptr<FSRandomAccessFile> base, FailingReads& all)
        : FSRandomAccessFileOwnerWrapper(std::move(base)), all_(all) {}
    IOStatus Read(std::uint64_t offset, std::size_t n, const IOOptions& options, Slice* result, char* scratch,
                  IODebugContext* debug) const override {
      if (all_.reads++ == all_.failing) return IOStatus::IOError("a bad sector");
      return target()->Read(offset, n, options, result, scratch, debug);
    }

   private:
    FailingReads& all_;
  };
};

class DirectReadTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kValue = (1 << 20) + 12345;  // several tiles
  static constexpr const char* kKey = "sixteen bytes ..";

  void SetUp() override {
    path = std::filesystem::path(::testing::TempDir()) / ("direct_read_test." + std::to_string(::getpid()));
    for (std::size_t i = 0; i < kValue; ++i) value.push_back(static_cast<char>(i * 7 + i / 251));
    // A table block with one entry, as direct_read.cc has it: three varints, the key and its 8 bytes, the value, one
    // restart point at 0, no compression, a checksum.
    std::string block(1, '\0');
    append_varint(block, std::string(kKey).size() + 8);
    append_varint(block, kValue);
    block += kKey;
    block += std::string("\1\0\0\0\0\0\0\0", 8);
    block += value;
    block += std::string("\0\0\0\0\1\0\0\0\0", 9);
    block += "sum.";
    block_bytes = block.size();
    std::ofstream(path, std::ios::binary) << block;
    disk = std::make_shared<FailingReads>();
    const auto files = make_direct_file_system(disk, std::make_shared<WriteCounter>());
    ASSERT_TRUE(files->NewRandomAccessFile(path, {}, &file, nullptr).ok());
  }
  void TearDown() override { std::filesystem::remove(path); }

  static void append_varint(std::string& to, std::size_t n) {
    for (; n >= 0x80; n >>= 7) to.push_back(static_cast<char>(n | 0x80));
    to.push_back(static_cast<char>(n));
  }

  // Reads the block as RocksDB would; the value's digest, if it came to its place.
  std::optional<BlockDigest> read(BlockHasher& hasher) {
    std::vector<std::byte> memory(kValue + 2 * DirectRead::kSlack);
    const std::span<std::byte> into(memory.data() + DirectRead::kSlack, kValue);
    DirectRead direct(kKey, into, hasher);
    std::vector<char> scratch(block_bytes);
    Slice got;
    const IOStatus status = file->Read(0, block_bytes, {}, &got, scratch.data(), nullptr);
    if (!status.ok()) return std::nullopt;
    return direct.took(got.data() + (block_bytes - kValue - 13), kValue);
  }

  [[nodiscard]] BlockDigest digest() const { return block_digest(std::as_bytes(std::span(value))); }

  std::filesystem::path path;
  std::string value;
  std::size_t block_bytes = 0;
  std::shared_ptr<FailingReads> disk;
  std::unique_ptr<FSRandomAccessFile> file;
};

TEST_F(DirectReadTest, TheDigestIsTheValues) {
  BlockHasher hasher;
  EXPECT_EQ(read(hasher), digest());
  EXPECT_GT(disk->reads, 3) << "it is read in tiles";
}

// The reader goes on with the next value, or with this one again: what was read of it before must not count.
TEST_F(DirectReadTest, AReadThatFailsInTheMiddleLeavesNothingBehind) {
  BlockHasher hasher;
  disk->failing = 2;
  EXPECT_EQ(read(hasher), std::nullopt);
  EXPECT_EQ(read(hasher), digest());
}

}  // namespace
}  // namespace finchkv::cache_store
