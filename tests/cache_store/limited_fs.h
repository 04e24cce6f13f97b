// LimitedFs: a file system under RocksDB that is full after so many bytes, or dies after so many changes as a killed
// process does (nothing that it would have done afterwards happens), fails at one change and goes on, and tells when a
// directory is listed. Files are never synced: nobody pulls the plug here, and waiting for the disk would be most of a
// test's time.
//
// Thread-safe once it is set up. For power loss and errors at random see fault_fs.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <rocksdb/file_system.h>

namespace finchkv::cache_store::testing {

class LimitedFs final : public rocksdb::FileSystemWrapper {
 public:
  LimitedFs() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "LimitedFs"; }

  void leave_bytes(std::optional<std::uint64_t> bytes) {
    bytes_ = static_cast<std::int64_t>(bytes.value_or(std::numeric_limits<std::int64_t>::max()));
  }
  void die_after(std::uint64_t changes) { changes_ = static_cast<std::int64_t>(changes); }
  void fail_once_after(std::uint64_t changes) { once_ = static_cast<std::int64_t>(changes) + 1; }
  void on_listing(std::string directory, std::function<void()> hook) {
    listed_ = std::move(directory);
    hook_ = std::move(hook);
  }
  [[nodiscard]] std::uint64_t refused() const { return refused_; }
  [[nodiscard]] bool died() const { return changes_ < 0; }
  [[nodiscard]] std::uint64_t changes() const { return seen_; }  ///< asked for so far

  using Options = rocksdb::IOOptions;
  using Debug = rocksdb::IODebugContext;
  using IOStatus = rocksdb::IOStatus;

  IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file, Debug* debug) override {
    if (auto dead = change(); !dead.ok()) return dead;
    auto status = FileSystemWrapper::NewWritableFile(name, options, file, debug);
    if (status.ok()) *file = std::make_unique<File>(std::move(*file), *this);
    return status;
  }
  IOStatus NewDirectory(const std::string& name, const Options& options, std::unique_ptr<rocksdb::FSDirectory>* file,
                        Debug* debug) override {
    if (auto dead = change(); !dead.ok()) return dead;  // it is opened to be synced
    return FileSystemWrapper::NewDirectory(name, options, file, debug);
  }
  IOStatus CreateDir(const std::string& name, const Options& options, Debug* debug) override {
    if (auto dead = change(); !dead.ok()) return dead;
    return FileSystemWrapper::CreateDir(name, options, debug);
  }
  IOStatus CreateDirIfMissing(const std::string& name, const Options& options, Debug* debug) override {
    if (auto dead = change(); !dead.ok()) return dead;
    return FileSystemWrapper::CreateDirIfMissing(name, options, debug);
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const Options& options, Debug* debug) override {
    if (auto dead = change(); !dead.ok()) return dead;
    return FileSystemWrapper::RenameFile(from, to, options, debug);
  }
  IOStatus DeleteFile(const std::string& name, const Options& options, Debug* debug) override {
    if (auto dead = change(); !dead.ok()) return dead;
    return FileSystemWrapper::DeleteFile(name, options, debug);
  }
  IOStatus DeleteDir(const std::string& name, const Options& options, Debug* debug) override {
    if (auto dead = change(); !dead.ok()) return dead;
    return FileSystemWrapper::DeleteDir(name, options, debug);
  }
  IOStatus GetChildren(const std::string& name, const Options& options, std::vector<std::string>* names,
                       Debug* debug) override {
    if (hook_ && name == listed_) hook_();
    return FileSystemWrapper::GetChildren(name, options, names, debug);
  }

 private:
  class File final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    File(std::unique_ptr<rocksdb::FSWritableFile> file, LimitedFs& fs)
        : FSWritableFileOwnerWrapper(std::move(file)), fs_(fs) {}
    IOStatus Append(const rocksdb::Slice& data, const Options& options, Debug* debug) override {
      if (auto full = fs_.append(data.size()); !full.ok()) return full;
      return FSWritableFileOwnerWrapper::Append(data, options, debug);
    }
    IOStatus Append(const rocksdb::Slice& data, const Options& options, const rocksdb::DataVerificationInfo& info,
                    Debug* debug) override {
      if (auto full = fs_.append(data.size()); !full.ok()) return full;
      return FSWritableFileOwnerWrapper::Append(data, options, info, debug);
    }
    IOStatus Sync(const Options& /*options*/, Debug* /*debug*/) override { return fs_.change(); }
    IOStatus Fsync(const Options& /*options*/, Debug* /*debug*/) override { return fs_.change(); }

   private:
    LimitedFs& fs_;
  };

  IOStatus change() {
    ++seen_;
    if (once_.fetch_sub(1) == 1) return IOStatus::IOError("an error of the disk");
    if (changes_.fetch_sub(1) > 0) return IOStatus::OK();
    changes_ = -1;
    return IOStatus::IOError("the process is dead");
  }
  IOStatus append(std::size_t bytes) {
    if (auto dead = change(); !dead.ok()) return dead;
    if (bytes_.fetch_sub(static_cast<std::int64_t>(bytes)) >= static_cast<std::int64_t>(bytes)) return IOStatus::OK();
    bytes_ = 0;
    ++refused_;
    return IOStatus::NoSpace("no room left");
  }

  std::atomic<std::int64_t> bytes_{std::numeric_limits<std::int64_t>::max()};
  std::atomic<std::int64_t> changes_{std::numeric_limits<std::int64_t>::max()};
  std::atomic<std::int64_t> once_{0};
  std::atomic<std::uint64_t> seen_{0};
  std::atomic<std::uint64_t> refused_{0};
  std::string listed_;
  std::function<void()> hook_;
};

}  // namespace finchkv::cache_store::testing
