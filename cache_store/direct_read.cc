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
// Behind the one value of a table block, all little-endian: where its one restart point is (0, 4 bytes), how many there
// are (1, 4 bytes), the compression type (0, 1 byte). Then a checksum of 4 bytes.
constexpr std::string_view kBehindValue("\0\0\0\0\1\0\0\0\0", 9);
constexpr std::size_t kChecksum = 4;

thread_local DirectRead* wanted = nullptr;

void append_varint(std::string& to, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}

// An entry of a table block: shared and own key bytes and value bytes as varints, then the key with the 8 bytes of its
// sequence number (0 in a table that is ingested) and type (1, a value).
std::string before_value(std::string_view key, std::size_t value_bytes) {
  constexpr std::string_view kFirstValue("\1\0\0\0\0\0\0\0", 8);
  std::string bytes;
  append_varint(bytes, 0);
  append_varint(bytes, key.size() + kFirstValue.size());
  append_varint(bytes, value_bytes);
  bytes += key;
  bytes += kFirstValue;
  return bytes;
}

}  // namespace

DirectRead::DirectRead(std::string_view key, std::span<std::byte> into, BlockHasher& hasher, BlockWork* work)
    : before_(before_value(key, into.size())), into_(into), hasher_(hasher), work_(work) {
  if (into.size() >= kSmallest && before_.size() <= kSlack) wanted = this;
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
    if (read == nullptr || n != read->before_.size() + read->into_.size() + kBehindValue.size() + kChecksum) {
      return target()->Read(offset, n, options, result, scratch, debug);
    }
    wanted = nullptr;  // the next read is not of this value
    return read_tiles(*read, offset, n, options, result, debug);
  }

 private:
  IOStatus read_tiles(DirectRead& read, std::uint64_t offset, std::size_t n, const IOOptions& options, Slice* result,
                      IODebugContext* debug) const {
    const std::size_t before = read.before_.size();
    const std::size_t end = before + read.into_.size();
    std::byte* const start = read.into_.data() - before;
    target()->Hint(kSequential);
    read.hasher_.reset();  // an earlier read may have failed in the middle of its value
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
        if (read.work_ != nullptr) read.work_->arrived(upto - before);
      }
      if (got.size() < tile) break;  // the file ends here
    }
    const BlockDigest digest = read.hasher_.digest();
    if (done < n || std::memcmp(start, read.before_.data(), before) != 0 ||
        std::memcmp(start + end, kBehindValue.data(), kBehindValue.size()) != 0) {
      read.irregular_ = true;
      return IOStatus::Corruption("a block of a table is not as it was written");
    }
    read.digest_ = digest;
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
