#include "cache_store/direct_read.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace finchkv::cache_store {
namespace {

using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

// A tile stays in a second-level cache between being read and being hashed.
constexpr std::size_t kTile = 256 << 10;
// Values from here on are worth it; below, a copy in cache costs nothing.
constexpr std::size_t kSmallest = 16 << 10;
// Behind the one value of a table block: one restart point, their number, compression type, checksum.
constexpr std::size_t kBehindValue = 4 + 4 + 1 + 4;

thread_local DirectRead* wanted = nullptr;

}  // namespace

DirectRead::DirectRead(std::span<std::byte> into, BlockHasher& hasher) : into_(into), hasher_(hasher) {
  if (into.size() >= kSmallest) wanted = this;
}

DirectRead::~DirectRead() {
  if (wanted == this) wanted = nullptr;
}

std::optional<BlockDigest> DirectRead::took(const char* value, std::size_t bytes) {
  if (wanted == this) wanted = nullptr;
  if (value != reinterpret_cast<const char*>(into_.data()) || bytes != into_.size()) return std::nullopt;
  return digest_;
}

class DirectFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  explicit DirectFile(std::unique_ptr<rocksdb::FSRandomAccessFile> base)
      : FSRandomAccessFileOwnerWrapper(std::move(base)) {}

  IOStatus Read(std::uint64_t offset, std::size_t n, const IOOptions& options, Slice* result, char* scratch,
                IODebugContext* debug) const override {
    DirectRead* const read = wanted;
    if (read == nullptr || n < read->into_.size() + kBehindValue ||
        n - read->into_.size() - kBehindValue > DirectRead::kSlack) {
      return target()->Read(offset, n, options, result, scratch, debug);
    }
    wanted = nullptr;  // the next read is not of this value
    return read_tiles(*read, offset, n, options, result, debug);
  }

 private:
  IOStatus read_tiles(DirectRead& read, std::uint64_t offset, std::size_t n, const IOOptions& options, Slice* result,
                      IODebugContext* debug) const {
    const std::size_t before = n - read.into_.size() - kBehindValue;
    const std::size_t end = before + read.into_.size();
    std::byte* const start = read.into_.data() - before;
    std::size_t done = 0;
    std::size_t hashed = before;
    while (done < n) {
      const std::size_t tile = std::min(kTile, n - done);
      Slice got;
      auto* const to = reinterpret_cast<char*>(start + done);
      const IOStatus status = target()->Read(offset + done, tile, options, &got, to, debug);
      if (!status.ok()) return status;
      if (got.data() != to) std::memcpy(to, got.data(), got.size());
      done += got.size();
      const std::size_t upto = std::min(done, end);
      if (upto > hashed) {
        read.hasher_.update({start + hashed, upto - hashed});
        hashed = upto;
      }
      if (got.size() < tile) break;  // the file ends here: RocksDB finds the block too short
    }
    const BlockDigest digest = read.hasher_.digest();
    if (hashed == end) read.digest_ = digest;
    *result = Slice(reinterpret_cast<const char*>(start), done);
    return IOStatus::OK();
  }
};

namespace {

class CountedFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  CountedFile(std::unique_ptr<rocksdb::FSWritableFile> base, std::shared_ptr<WriteCounter> counter)
      : FSWritableFileOwnerWrapper(std::move(base)), counter_(std::move(counter)) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    counter_->bytes += data.size();
    return target()->Append(data, options, debug);
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo& verification,
                  IODebugContext* debug) override {
    counter_->bytes += data.size();
    return target()->Append(data, options, verification, debug);
  }

 private:
  std::shared_ptr<WriteCounter> counter_;
};

class DirectFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  DirectFileSystem(const std::shared_ptr<rocksdb::FileSystem>& base, std::shared_ptr<WriteCounter> counter)
      : FileSystemWrapper(base), counter_(std::move(counter)) {}
  [[nodiscard]] const char* Name() const override { return "finchkv"; }

  IOStatus NewRandomAccessFile(const std::string& name, const rocksdb::FileOptions& options,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* file, IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSRandomAccessFile> base;
    IOStatus status = target()->NewRandomAccessFile(name, options, &base, debug);
    if (status.ok()) *file = std::make_unique<DirectFile>(std::move(base));
    return status;
  }
  IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file, IODebugContext* debug) override {
    return counted(file, [&](auto* base) { return target()->NewWritableFile(name, options, base, debug); });
  }
  IOStatus ReopenWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                              std::unique_ptr<rocksdb::FSWritableFile>* file, IODebugContext* debug) override {
    return counted(file, [&](auto* base) { return target()->ReopenWritableFile(name, options, base, debug); });
  }
  IOStatus ReuseWritableFile(const std::string& name, const std::string& old_name, const rocksdb::FileOptions& options,
                             std::unique_ptr<rocksdb::FSWritableFile>* file, IODebugContext* debug) override {
    return counted(file, [&](auto* base) { return target()->ReuseWritableFile(name, old_name, options, base, debug); });
  }

 private:
  template <typename Open>
  IOStatus counted(std::unique_ptr<rocksdb::FSWritableFile>* file, const Open& open) {
    std::unique_ptr<rocksdb::FSWritableFile> base;
    IOStatus status = open(&base);
    if (status.ok()) *file = std::make_unique<CountedFile>(std::move(base), counter_);
    return status;
  }

  std::shared_ptr<WriteCounter> counter_;
};

}  // namespace

std::shared_ptr<rocksdb::FileSystem> make_direct_file_system(const std::shared_ptr<rocksdb::FileSystem>& base,
                                                             std::shared_ptr<WriteCounter> counter) {
  return std::make_shared<DirectFileSystem>(base, std::move(counter));
}

}  // namespace finchkv::cache_store
