// The directory of backups from the outside: is it ours, whose backups are in it, and which of them are whole.
//
// Internal to cache_store. Beside RocksDB's own folders (meta, private, shared_checksum) it holds
//   finchkv.backup     which database's backups these are; written, durably, before the first one
//   finchkv.list.ID    the digest of meta/ID, RocksDB's list of the backup's files, which has none of its own;
//                      written, durably, when the backup has been verified: from then on it counts
//   finchkv.lock       who is at work here
// RocksDB's engine must not see damaged lists: it checks little of what they say, and Debian's library ends the process
// over some of it. It gets a file system that shows it the good ones only.
// Belongs to one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <rocksdb/env.h>
#include <rocksdb/utilities/backup_engine.h>

#include "base/status.h"
#include "cache_store/store_directory.h"

namespace finchkv::cache_store {

class BackupDirectory {
 public:
  /// Makes the directory and its marker where they are missing, and clears away what unfinished backups left.
  /// invalid_argument for other files or another database's backups, corrupt when a list is damaged, unavailable while
  /// somebody else is at work.
  [[nodiscard]] static Result<BackupDirectory> open_for_writing(const std::string& directory, rocksdb::Env* env,
                                                                const std::string& database_identity);
  /// `exclusive` keeps writers away, where the directory can be written to at all. not_found, and as above.
  [[nodiscard]] static Result<BackupDirectory> open_for_reading(const std::string& directory, rocksdb::Env* env,
                                                                bool exclusive);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& database_identity() const { return identity_; }
  [[nodiscard]] const std::vector<std::uint32_t>& good() const { return good_; }        ///< ascending
  [[nodiscard]] const std::vector<std::uint32_t>& damaged() const { return damaged_; }  ///< ascending
  [[nodiscard]] bool has(std::uint32_t id) const;

  /// Engines live no longer than this object.
  [[nodiscard]] Result<std::unique_ptr<rocksdb::BackupEngine>> open_engine(rocksdb::Env* database_env) const;
  [[nodiscard]] Result<std::unique_ptr<rocksdb::BackupEngineReadOnly>> open_reader(rocksdb::Env* database_env) const;

  /// From now on this backup counts.
  [[nodiscard]] Status acknowledge(std::uint32_t id);
  /// Clears away the digests of lists that are gone.
  void forget_removed();

  /// What a backup's own metadata say of it, so that its digest covers that too.
  [[nodiscard]] std::string metadata() const;
  /// corrupt for metadata that are not ours or another database's, unsupported for a store of another format.
  [[nodiscard]] Status check_metadata(std::uint32_t id, const std::string& metadata) const;

  /// "the backups in DIRECTORY failed while DOING: ..." with the code that from_rocksdb gives.
  [[nodiscard]] Status failed(const rocksdb::Status& status, std::string_view doing) const;

 private:
  BackupDirectory(std::string path, rocksdb::Env* env) : path_(std::move(path)), env_(env) {}

  [[nodiscard]] std::string in(std::string_view name) const;
  [[nodiscard]] std::string list_path(std::uint32_t id) const;
  [[nodiscard]] std::string digest_path(std::uint32_t id) const;
  [[nodiscard]] rocksdb::BackupEngineOptions engine_options() const;
  [[nodiscard]] rocksdb::Status write_durably(const std::string& path, const std::string& text) const;
  [[nodiscard]] Result<bool> read_marker();  // false when there is none in a directory that we may use
  [[nodiscard]] Status look_at_lists();
  [[nodiscard]] Status remove_unacknowledged();

  std::string path_;
  rocksdb::Env* env_;
  std::optional<WriterLock> lock_;
  std::string identity_;
  std::vector<std::uint32_t> good_;
  std::vector<std::uint32_t> damaged_;
  std::vector<std::uint32_t> unacknowledged_;
  std::unique_ptr<rocksdb::Env> engine_env_;  // shows good lists only
};

/// Makes new names in a directory durable.
[[nodiscard]] rocksdb::Status sync_directory(rocksdb::Env* env, const std::string& directory);
/// Without "..", and without a slash at the end.
[[nodiscard]] std::string absolute_path(const std::string& directory);
/// Where a directory's own name stands.
[[nodiscard]] std::string parent_of(const std::string& directory);
/// `inner` is `outer` or lies somewhere in it.
[[nodiscard]] bool lies_within(const std::string& inner, const std::string& outer);

}  // namespace finchkv::cache_store
