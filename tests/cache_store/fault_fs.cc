#include "tests/cache_store/fault_fs.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

namespace finchkv::cache_store::testing {
namespace {

using rocksdb::IOStatus;
using rocksdb::Slice;

IOStatus io_error(const std::string& name) { return IOStatus::IOError(name, "Input/output error"); }

IOStatus no_space(const std::string& name) {
  IOStatus status = IOStatus::NoSpace(name, "No space left on device");
  status.SetRetryable(true);  // as the POSIX file system says it
  return status;
}

}  // namespace

std::string_view fault_name(Fault fault) {
  switch (fault) {
    case Fault::kReadError: return "read error";
    case Fault::kShortRead: return "short read";
    case Fault::kWriteError: return "write error";
    case Fault::kSyncError: return "sync error";
    case Fault::kNoSpace: return "no space";
    case Fault::kNameError: return "name error";
  }
  return "?";
}

std::uint64_t FaultCounts::total() const { return std::accumulate(begin(), end(), std::uint64_t{0}); }

class FaultFs::SequentialReader : public rocksdb::FSSequentialFileOwnerWrapper {
 public:
  SequentialReader(std::unique_ptr<rocksdb::FSSequentialFile>&& file, FaultFs& fs, std::string name)
      : FSSequentialFileOwnerWrapper(std::move(file)), fs_(fs), name_(std::move(name)), life_(fs.life_) {}

  IOStatus Read(std::size_t n, const Options& options, Slice* result, char* scratch, Debug* debug) override {
    IOStatus status = fs_.before_read(name_, life_);
    return status.ok() ? FSSequentialFileOwnerWrapper::Read(n, options, result, scratch, debug) : status;
  }
  IOStatus PositionedRead(std::uint64_t offset, std::size_t n, const Options& options, Slice* result, char* scratch,
                          Debug* debug) override {
    IOStatus status = fs_.before_read(name_, life_);
    return status.ok() ? FSSequentialFileOwnerWrapper::PositionedRead(offset, n, options, result, scratch, debug)
                       : status;
  }

 private:
  FaultFs& fs_;
  std::string name_;
  std::uint64_t life_;
};

class FaultFs::Reader : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  Reader(std::unique_ptr<rocksdb::FSRandomAccessFile>&& file, FaultFs& fs, std::string name)
      : FSRandomAccessFileOwnerWrapper(std::move(file)), fs_(fs), name_(std::move(name)), life_(fs.life_) {}

  IOStatus Read(std::uint64_t offset, std::size_t n, const Options& options, Slice* result, char* scratch,
                Debug* debug) const override {
    IOStatus status = fs_.before_read(name_, life_);
    if (!status.ok()) return status;
    status = FSRandomAccessFileOwnerWrapper::Read(offset, n, options, result, scratch, debug);
    if (status.ok() && result->size() == n && n > 0 && !is_exempt(name_)) {
      const std::lock_guard lock(fs_.mutex_);
      if (fs_.roll(Fault::kShortRead)) *result = Slice(result->data(), fs_.random_() % n);
    }
    return status;
  }
  // Both by way of Read, as the base class does it: the real file's own would go around the faults.
  IOStatus MultiRead(rocksdb::FSReadRequest* requests, std::size_t count, const Options& options,
                     Debug* debug) override {
    return FSRandomAccessFile::MultiRead(requests, count, options, debug);  // NOLINT(bugprone-parent-virtual-call)
  }
  IOStatus ReadAsync(rocksdb::FSReadRequest& request, const Options& options,
                     std::function<void(const rocksdb::FSReadRequest&, void*)> done, void* argument, void** handle,
                     rocksdb::IOHandleDeleter* deleter, Debug* debug) override {
    return FSRandomAccessFile::ReadAsync(  // NOLINT(bugprone-parent-virtual-call)
        request, options, std::move(done), argument, handle, deleter, debug);
  }

 private:
  FaultFs& fs_;
  std::string name_;
  std::uint64_t life_;
};

class FaultFs::Writer : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  Writer(std::unique_ptr<rocksdb::FSWritableFile>&& file, FaultFs& fs, std::string name, DiskLedger::FilePtr entry)
      : FSWritableFileOwnerWrapper(std::move(file)),
        fs_(fs),
        name_(std::move(name)),
        entry_(std::move(entry)),
        life_(fs.life_) {}

  IOStatus Append(const Slice& data, const Options& options, Debug* debug) override {
    const std::lock_guard lock(fs_.mutex_);
    IOStatus status = fs_.before_change(name_, life_);
    if (!status.ok()) return status;
    std::uint64_t bytes = data.size();
    if (fs_.roll(Fault::kWriteError)) {
      status = io_error(name_);
      bytes = fs_.part_of(bytes);
    } else if (fs_.bytes_left_ && *fs_.bytes_left_ < bytes) {
      ++fs_.counts_(Fault::kNoSpace);
      status = no_space(name_);
      bytes = *fs_.bytes_left_;
    } else if (fs_.roll(Fault::kNoSpace)) {
      status = no_space(name_);
      bytes = fs_.part_of(bytes);
    }
    IOStatus written = FSWritableFileOwnerWrapper::Append(Slice(data.data(), bytes), options, debug);
    if (!written.ok()) return written;
    DiskLedger::appended(*entry_, bytes);
    if (fs_.bytes_left_) *fs_.bytes_left_ -= bytes;
    return status;
  }
  IOStatus Append(const Slice& data, const Options& options, const rocksdb::DataVerificationInfo& /*checksum*/,
                  Debug* debug) override {
    return Append(data, options, debug);
  }
  IOStatus PositionedAppend(const Slice& /*data*/, std::uint64_t /*offset*/, const Options& /*options*/,
                            Debug* /*debug*/) override {
    return IOStatus::NotSupported("positioned appends");
  }
  IOStatus PositionedAppend(const Slice& /*data*/, std::uint64_t /*offset*/, const Options& /*options*/,
                            const rocksdb::DataVerificationInfo& /*checksum*/, Debug* /*debug*/) override {
    return IOStatus::NotSupported("positioned appends");
  }
  IOStatus Truncate(std::uint64_t size, const Options& options, Debug* debug) override {
    const std::lock_guard lock(fs_.mutex_);
    IOStatus status = fs_.before_change(name_, life_);
    if (!status.ok()) return status;
    fs_.ledger_.truncating(name_, size);
    return FSWritableFileOwnerWrapper::Truncate(size, options, debug);
  }
  IOStatus Sync(const Options& /*options*/, Debug* /*debug*/) override { return sync(); }
  IOStatus Fsync(const Options& /*options*/, Debug* /*debug*/) override { return sync(); }
  // Only starts the writing: promises nothing.
  IOStatus RangeSync(std::uint64_t /*offset*/, std::uint64_t /*bytes*/, const Options& /*options*/,
                     Debug* /*debug*/) override {
    return fs_.alive(name_, life_);
  }
  IOStatus Close(const Options& options, Debug* debug) override {
    IOStatus status = FSWritableFileOwnerWrapper::Close(options, debug);
    IOStatus dead = fs_.alive(name_, life_);
    return dead.ok() ? status : dead;
  }
  // Its failure is not an error for anybody: the append finds out.
  void PrepareWrite(std::size_t offset, std::size_t length, const Options& options, Debug* debug) override {
    {
      const std::lock_guard lock(fs_.mutex_);
      if (!fs_.alive(name_, life_).ok() || fs_.roll(Fault::kNoSpace)) return;
    }
    FSWritableFileOwnerWrapper::PrepareWrite(offset, length, options, debug);
  }
  IOStatus Allocate(std::uint64_t offset, std::uint64_t length, const Options& options, Debug* debug) override {
    {
      const std::lock_guard lock(fs_.mutex_);
      IOStatus status = fs_.alive(name_, life_);
      if (!status.ok()) return status;
      if (fs_.roll(Fault::kNoSpace)) return no_space(name_);
    }
    return FSWritableFileOwnerWrapper::Allocate(offset, length, options, debug);
  }

 private:
  IOStatus sync() {
    const std::lock_guard lock(fs_.mutex_);
    IOStatus status = fs_.before_change(name_, life_);
    if (!status.ok()) return status;
    if (fs_.roll(Fault::kSyncError)) {
      DiskLedger::sync_failed(*entry_);
      return io_error(name_);
    }
    DiskLedger::synced(*entry_, entry_->size);
    return status;
  }

  FaultFs& fs_;
  std::string name_;
  DiskLedger::FilePtr entry_;
  std::uint64_t life_;
};

class FaultFs::Directory : public rocksdb::FSDirectory {
 public:
  Directory(std::unique_ptr<rocksdb::FSDirectory>&& real, FaultFs& fs, std::string name)
      : real_(std::move(real)), fs_(fs), name_(std::move(name)), life_(fs.life_) {}

  IOStatus Fsync(const Options& /*options*/, Debug* /*debug*/) override {
    const std::lock_guard lock(fs_.mutex_);
    IOStatus status = fs_.before_change(name_, life_);
    if (!status.ok()) return status;
    if (fs_.roll(Fault::kSyncError)) return io_error(name_);
    fs_.ledger_.directory_synced(name_);
    return status;
  }
  IOStatus Close(const Options& options, Debug* debug) override { return real_->Close(options, debug); }
  std::size_t GetUniqueId(char* id, std::size_t size) const override { return real_->GetUniqueId(id, size); }

 private:
  std::unique_ptr<rocksdb::FSDirectory> real_;
  FaultFs& fs_;
  std::string name_;
  std::uint64_t life_;
};

FaultFs::FaultFs(std::string spare)
    : FileSystemWrapper(rocksdb::FileSystem::Default()), ledger_(std::move(spare)), random_(0) {}

void FaultFs::inject(const FaultRates& rates, std::uint64_t seed) {
  const std::lock_guard lock(mutex_);
  rates_ = rates;
  random_.seed(seed);
}

void FaultFs::limit_bytes(std::optional<std::uint64_t> bytes) {
  const std::lock_guard lock(mutex_);
  bytes_left_ = bytes;
}

void FaultFs::crash() {
  const std::lock_guard lock(mutex_);
  crashed_ = true;
}

void FaultFs::crash_after(std::uint64_t changes) {
  const std::lock_guard lock(mutex_);
  changes_left_ = changes;
}

void FaultFs::drop_unsynced(std::uint64_t seed, TornEnds ends) {
  keep_unsynced();
  const std::lock_guard lock(mutex_);
  std::mt19937_64 random(seed);
  ledger_.lose_power(random, ends);
}

void FaultFs::keep_unsynced() {
  const std::lock_guard lock(mutex_);
  assert(crashed_);
  ++life_;
  changes_left_.reset();
  crashed_ = false;
}

FaultCounts FaultFs::injected() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

std::uint64_t FaultFs::changes() const {
  const std::lock_guard lock(mutex_);
  return changes_;
}

bool FaultFs::roll(Fault fault) {
  const double rate = rates_(fault);
  if (rate <= 0 || std::uniform_real_distribution<double>(0, 1)(random_) >= rate) return false;
  ++counts_(fault);
  return true;
}

IOStatus FaultFs::before_change(const std::string& name, std::uint64_t life) {
  IOStatus status = alive(name, life);
  if (!status.ok()) return status;
  ++changes_;
  if (!changes_left_) return status;
  if (*changes_left_ == 0) {
    crashed_ = true;
    return io_error(name);
  }
  --*changes_left_;
  return status;
}

std::uint64_t FaultFs::part_of(std::uint64_t bytes) { return random_() % 2 == 0 ? 0 : random_() % (bytes + 1); }

IOStatus FaultFs::alive(const std::string& name, std::uint64_t life) const {
  if (crashed_ || life != life_) return io_error(name);
  return IOStatus::OK();
}

// RocksDB 7.8 asserts that it can read the first and last key of a table that it ingests. That one was written a moment
// ago and is read from the page cache.
bool FaultFs::is_exempt(const std::string& name) { return name.find("/incoming/") != std::string::npos; }

IOStatus FaultFs::before_read(const std::string& name, std::uint64_t life) {
  if (is_exempt(name)) return IOStatus::OK();
  const IOStatus status = alive(name, life);
  if (!status.ok()) return status;
  const std::lock_guard lock(mutex_);
  return roll(Fault::kReadError) ? io_error(name) : IOStatus::OK();
}

IOStatus FaultFs::NewSequentialFile(const std::string& name, const FileOptions& options,
                                    std::unique_ptr<rocksdb::FSSequentialFile>* file, Debug* debug) {
  IOStatus status = before_read(name, life_);
  std::unique_ptr<rocksdb::FSSequentialFile> real;
  if (status.ok()) status = target()->NewSequentialFile(name, options, &real, debug);
  if (status.ok()) *file = std::make_unique<SequentialReader>(std::move(real), *this, name);
  return status;
}

IOStatus FaultFs::NewRandomAccessFile(const std::string& name, const FileOptions& options,
                                      std::unique_ptr<rocksdb::FSRandomAccessFile>* file, Debug* debug) {
  IOStatus status = before_read(name, life_);
  std::unique_ptr<rocksdb::FSRandomAccessFile> real;
  if (status.ok()) status = target()->NewRandomAccessFile(name, options, &real, debug);
  if (status.ok()) *file = std::make_unique<Reader>(std::move(real), *this, name);
  return status;
}

IOStatus FaultFs::open_writer(const std::string& name, const FileOptions& options, bool append,
                              std::unique_ptr<rocksdb::FSWritableFile>* file, Debug* debug) {
  const std::lock_guard lock(mutex_);
  IOStatus status = before_change(name, life_);
  if (status.ok() && roll(Fault::kNameError)) status = io_error(name);
  if (!status.ok()) return status;
  const bool keeps = append && target()->FileExists(name, options.io_options, debug).ok();
  DiskLedger::FilePtr entry = keeps ? ledger_.at(name) : ledger_.creating(name);
  std::unique_ptr<rocksdb::FSWritableFile> real;
  status = append ? target()->ReopenWritableFile(name, options, &real, debug)
                  : target()->NewWritableFile(name, options, &real, debug);
  if (status.ok()) *file = std::make_unique<Writer>(std::move(real), *this, name, std::move(entry));
  return status;
}

IOStatus FaultFs::NewWritableFile(const std::string& name, const FileOptions& options,
                                  std::unique_ptr<rocksdb::FSWritableFile>* file, Debug* debug) {
  return open_writer(name, options, false, file, debug);
}

IOStatus FaultFs::ReopenWritableFile(const std::string& name, const FileOptions& options,
                                     std::unique_ptr<rocksdb::FSWritableFile>* file, Debug* debug) {
  return open_writer(name, options, true, file, debug);
}

IOStatus FaultFs::ReuseWritableFile(const std::string& /*name*/, const std::string& /*old_name*/,
                                    const FileOptions& /*options*/, std::unique_ptr<rocksdb::FSWritableFile>* /*file*/,
                                    Debug* /*debug*/) {
  return IOStatus::NotSupported("files written over");
}

IOStatus FaultFs::NewRandomRWFile(const std::string& /*name*/, const FileOptions& /*options*/,
                                  std::unique_ptr<rocksdb::FSRandomRWFile>* /*file*/, Debug* /*debug*/) {
  return IOStatus::NotSupported("files written in their middle");
}

IOStatus FaultFs::NewMemoryMappedFileBuffer(const std::string& /*name*/,
                                            std::unique_ptr<rocksdb::MemoryMappedFileBuffer>* /*file*/) {
  return IOStatus::NotSupported("maps for writing");
}

IOStatus FaultFs::NewDirectory(const std::string& name, const Options& options,
                               std::unique_ptr<rocksdb::FSDirectory>* file, Debug* debug) {
  IOStatus status = alive(name, life_);
  std::unique_ptr<rocksdb::FSDirectory> real;
  if (status.ok()) status = target()->NewDirectory(name, options, &real, debug);
  if (status.ok()) *file = std::make_unique<Directory>(std::move(real), *this, name);
  return status;
}

IOStatus FaultFs::FileExists(const std::string& name, const Options& options, Debug* debug) {
  IOStatus status = alive(name, life_);
  return status.ok() ? target()->FileExists(name, options, debug) : status;
}

IOStatus FaultFs::GetChildren(const std::string& name, const Options& options, std::vector<std::string>* children,
                              Debug* debug) {
  IOStatus status = alive(name, life_);
  return status.ok() ? target()->GetChildren(name, options, children, debug) : status;
}

IOStatus FaultFs::GetFileSize(const std::string& name, const Options& options, std::uint64_t* size, Debug* debug) {
  IOStatus status = alive(name, life_);
  return status.ok() ? target()->GetFileSize(name, options, size, debug) : status;
}

IOStatus FaultFs::change_names(const std::string& name, const std::function<void()>& note,
                               const std::function<IOStatus()>& change, const std::function<void()>& note_after) {
  const std::lock_guard lock(mutex_);
  IOStatus status = before_change(name, life_);
  if (status.ok() && roll(Fault::kNameError)) status = io_error(name);
  if (!status.ok()) return status;
  if (!target()->FileExists(name, {}, nullptr).ok()) return change();  // which says what is wrong
  note();
  status = change();
  if (status.ok()) note_after();
  return status;
}

IOStatus FaultFs::DeleteFile(const std::string& name, const Options& options, Debug* debug) {
  return change_names(
      name, [&] { ledger_.removing(name); }, [&] { return target()->DeleteFile(name, options, debug); }, [] {});
}

IOStatus FaultFs::Truncate(const std::string& name, std::size_t size, const Options& options, Debug* debug) {
  return change_names(
      name, [&] { ledger_.truncating(name, size); }, [&] { return target()->Truncate(name, size, options, debug); },
      [] {});
}

IOStatus FaultFs::RenameFile(const std::string& from, const std::string& to, const Options& options, Debug* debug) {
  return change_names(
      from, [&] { ledger_.renaming(from, to); }, [&] { return target()->RenameFile(from, to, options, debug); }, [] {});
}

IOStatus FaultFs::LinkFile(const std::string& from, const std::string& to, const Options& options, Debug* debug) {
  return change_names(
      from, [] {}, [&] { return target()->LinkFile(from, to, options, debug); }, [&] { ledger_.linked(from, to); });
}

IOStatus FaultFs::LockFile(const std::string& name, const Options& options, rocksdb::FileLock** lock, Debug* debug) {
  IOStatus status = alive(name, life_);
  return status.ok() ? target()->LockFile(name, options, lock, debug) : status;
}

}  // namespace finchkv::cache_store::testing
