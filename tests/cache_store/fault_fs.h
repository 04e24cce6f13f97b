// FaultFs: a file system under RocksDB that fails as disks do: errors at random, a full disk, and power loss.
//
// Passes everything on to the real file system, except syncs: what is durable is kept in a book (disk_ledger.h), so a
// round with a thousand syncs takes milliseconds. Only what goes through it is seen: files that others write beside it
// count as durable. Thread-safe; which call a fault hits depends on the order in which threads come.
// In the middle of a call a power loss looks so: crash() (or the change that crash_after counted down to) makes that
// and every further call fail; close the database; then drop_unsynced() leaves the directory as the power loss could,
// or keep_unsynced() as a killed process does, where the page cache lives on. After either a database may be opened
// again; files still open from before stay dead.
// Left out and refused: writing in the middle of a file (recycled logs, random-write files) and memory maps for
// writing.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include <rocksdb/file_system.h>

#include "tests/cache_store/disk_ledger.h"

namespace finchkv::cache_store::testing {

enum class Fault : std::uint8_t {
  kReadError,   ///< EIO on opening for reading and on reading
  kShortRead,   ///< a table or blob read that succeeds with too few bytes, as of a file cut under the database
  kWriteError,  ///< EIO on an append, of which a part may have been written
  kSyncError,   ///< EIO on a sync of a file or directory
  kNoSpace,     ///< ENOSPC on an append (a part may have been written) or a preallocation
  kNameError,   ///< EIO on creating, renaming or removing a file
};
inline constexpr std::size_t kFaultKinds = 6;
[[nodiscard]] std::string_view fault_name(Fault fault);

/// For each kind how often it happens per call that could have it, 0 to 1, or how often it did.
struct FaultRates : std::array<double, kFaultKinds> {
  double& operator()(Fault fault) { return (*this)[static_cast<std::size_t>(fault)]; }
};
struct FaultCounts : std::array<std::uint64_t, kFaultKinds> {
  std::uint64_t& operator()(Fault fault) { return (*this)[static_cast<std::size_t>(fault)]; }
  std::uint64_t operator()(Fault fault) const { return (*this)[static_cast<std::size_t>(fault)]; }
  [[nodiscard]] std::uint64_t total() const;
};

// Short reads break the contract of the interface, and RocksDB knows how long a block must be. Sequential reads (logs,
// manifests) are never shortened: there a short read means the end of the file, which nobody could tell from a real
// one.
class FaultFs : public rocksdb::FileSystemWrapper {
 public:
  /// `spare` is the ledger's: a directory that need not exist, on the file system of the store.
  explicit FaultFs(std::string spare);
  const char* Name() const override { return "FaultFs"; }

  void inject(const FaultRates& rates, std::uint64_t seed);
  void stop_injecting() { inject({}, 0); }
  /// From now on only so many more bytes can be appended; nullopt: the disk is as large as it really is.
  void limit_bytes(std::optional<std::uint64_t> bytes);

  void crash();
  void crash_after(std::uint64_t changes);  ///< appends, syncs, and changes of names
  [[nodiscard]] bool crashed() const { return crashed_.load(); }
  void drop_unsynced(std::uint64_t seed, TornEnds ends);
  void keep_unsynced();

  [[nodiscard]] FaultCounts injected() const;  ///< since it was made
  [[nodiscard]] std::uint64_t changes() const;

  // What follows is RocksDB's interface.
  using Options = rocksdb::IOOptions;
  using FileOptions = rocksdb::FileOptions;
  using Debug = rocksdb::IODebugContext;
  using IOStatus = rocksdb::IOStatus;
  IOStatus NewSequentialFile(const std::string& name, const FileOptions& options,
                             std::unique_ptr<rocksdb::FSSequentialFile>* file, Debug* debug) override;
  IOStatus NewRandomAccessFile(const std::string& name, const FileOptions& options,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* file, Debug* debug) override;
  IOStatus NewWritableFile(const std::string& name, const FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file, Debug* debug) override;
  IOStatus ReopenWritableFile(const std::string& name, const FileOptions& options,
                              std::unique_ptr<rocksdb::FSWritableFile>* file, Debug* debug) override;
  IOStatus ReuseWritableFile(const std::string& name, const std::string& old_name, const FileOptions& options,
                             std::unique_ptr<rocksdb::FSWritableFile>* file, Debug* debug) override;
  IOStatus NewRandomRWFile(const std::string& name, const FileOptions& options,
                           std::unique_ptr<rocksdb::FSRandomRWFile>* file, Debug* debug) override;
  IOStatus NewMemoryMappedFileBuffer(const std::string& name,
                                     std::unique_ptr<rocksdb::MemoryMappedFileBuffer>* file) override;
  IOStatus NewDirectory(const std::string& name, const Options& options, std::unique_ptr<rocksdb::FSDirectory>* file,
                        Debug* debug) override;
  IOStatus FileExists(const std::string& name, const Options& options, Debug* debug) override;
  IOStatus GetChildren(const std::string& name, const Options& options, std::vector<std::string>* children,
                       Debug* debug) override;
  IOStatus GetFileSize(const std::string& name, const Options& options, std::uint64_t* size, Debug* debug) override;
  IOStatus DeleteFile(const std::string& name, const Options& options, Debug* debug) override;
  IOStatus Truncate(const std::string& name, std::size_t size, const Options& options, Debug* debug) override;
  IOStatus RenameFile(const std::string& from, const std::string& to, const Options& options, Debug* debug) override;
  IOStatus LinkFile(const std::string& from, const std::string& to, const Options& options, Debug* debug) override;
  IOStatus LockFile(const std::string& name, const Options& options, rocksdb::FileLock** lock, Debug* debug) override;

 private:
  class Reader;
  class SequentialReader;
  class Writer;
  class Directory;

  // Each with mutex_ held.
  bool roll(Fault fault);
  IOStatus before_change(const std::string& name, std::uint64_t life);  // counts down to the crash
  std::uint64_t part_of(std::uint64_t bytes);                           // what a failing append has written

  [[nodiscard]] IOStatus alive(const std::string& name, std::uint64_t life) const;
  IOStatus before_read(const std::string& name, std::uint64_t life);
  [[nodiscard]] static bool is_exempt(const std::string& name);
  IOStatus open_writer(const std::string& name, const FileOptions& options, bool append,
                       std::unique_ptr<rocksdb::FSWritableFile>* file, Debug* debug);
  IOStatus change_names(const std::string& name, const std::function<void()>& note,
                        const std::function<IOStatus()>& change, const std::function<void()>& note_after);

  mutable std::mutex mutex_;
  DiskLedger ledger_;
  FaultRates rates_{};
  FaultCounts counts_{};
  std::mt19937_64 random_;
  std::optional<std::uint64_t> bytes_left_;
  std::optional<std::uint64_t> changes_left_;
  std::uint64_t changes_ = 0;
  std::atomic<bool> crashed_{false};
  std::atomic<std::uint64_t> life_{0};  // raised by each power loss or kill: files of an earlier one are dead
};

}  // namespace finchkv::cache_store::testing
