// The directory of a RocksDB store from the outside: is it ours, which format, and who writes in it.
//
// Internal to cache_store. A marker file (finchkv.store) is written before the database, so that neither another
// program's database nor a directory of other files is ever taken for a store. A lock file (finchkv.lock) names the
// writing process; the lock itself is the kernel's and ends with the process.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace finchkv::cache_store {

inline constexpr std::uint32_t kStoreFormat = 2;
inline constexpr std::uint32_t kOldestStoreFormat = 1;  ///< read as it is, and brought to ours by a writer

/// Where a restore gathers its files until they are whole (rocksdb_restore.cc).
inline constexpr std::string_view kRestoringFolder = "finchkv.restoring";
/// Whether RocksDB calls its files so.
[[nodiscard]] bool is_database_file(std::string_view name);

enum class DirectoryState : std::uint8_t {
  kMissing,     ///< nothing there
  kEmpty,       ///< an empty directory, or one that a first opening left before its marker
  kUnfinished,  ///< ours, but the database was never made
  kStore,
};

/// invalid_argument: not a directory, or it holds something else, such as a restore that was interrupted. unsupported:
/// another format. corrupt: the marker, or a store that lost the file that names its parts.
[[nodiscard]] Result<DirectoryState> inspect_directory(const std::string& directory);

/// The format that a store's marker names.
[[nodiscard]] Result<std::uint32_t> format_of(const std::string& directory);
/// Who has it open for writing, "process 4711 (finchkv)"; nullopt when nobody has.
[[nodiscard]] Result<std::optional<std::string>> writer_of(const std::string& directory);

/// Makes the directory with mode 0700 (and its parents as usual).
[[nodiscard]] Status create_directory(const std::string& directory);
/// Writes the marker durably. Under the writer lock.
[[nodiscard]] Status write_marker(const std::string& directory);
/// The same for a store of an older format whose records have been brought to ours; nothing otherwise.
[[nodiscard]] Status ensure_current_format(const std::string& directory);

/// Held as long as it lives; move-only.
class WriterLock {
 public:
  /// unavailable, with the process that has it, when it is still taken after `wait`.
  [[nodiscard]] static Result<WriterLock> acquire(const std::string& directory, std::chrono::milliseconds wait);
  ~WriterLock();
  WriterLock(WriterLock&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  WriterLock& operator=(WriterLock&& other) noexcept;

 private:
  explicit WriterLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

/// Bytes of all files in the directory; 0 when it cannot be read.
[[nodiscard]] std::uint64_t directory_bytes(const std::string& directory);

/// What of the database's files a reader depends on: equal before and after an opening, the reader has seen one state.
struct FilesSeen {
  std::string current;                             ///< which manifest counts
  std::map<std::string, std::uint64_t> manifests;  ///< name, bytes
  std::map<std::string, std::uint64_t> logs;
  std::int64_t directory_ns = 0;  ///< when a name in it last changed

  /// Nothing was added to a table or taken away; a log may have grown.
  [[nodiscard]] bool same_state(const FilesSeen& other) const;
  [[nodiscard]] std::uint64_t log_bytes() const;
};
[[nodiscard]] Result<FilesSeen> look_at_files(const std::string& directory);
/// Whether look_at_files would see something else, in a few system calls however many files there are.
[[nodiscard]] bool files_changed(const std::string& directory, const FilesSeen& seen);

}  // namespace finchkv::cache_store
