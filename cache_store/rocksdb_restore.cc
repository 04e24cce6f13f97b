// From a backup to a store (rocksdb_backup.h).
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/utilities/backup_engine.h>

#include "cache_store/backup_directory.h"
#include "cache_store/rocksdb_backup.h"
#include "cache_store/rocksdb_options.h"
#include "cache_store/rocksdb_status.h"
#include "cache_store/store_directory.h"

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kCurrent = "CURRENT";

// The directory that becomes a store. Files are restored into a folder inside it (another file system could not be
// renamed from, and the engine empties the folder that it restores into), and moved up when they are whole.
class Target {
 public:
  static Result<Target> prepare(const std::string& directory, rocksdb::Env* env) {
    Target target(absolute_path(directory), env);
    FINCHKV_ASSIGN_OR_RETURN(const DirectoryState state, target.check());
    FINCHKV_RETURN_IF_ERROR(create_directory(directory));
    if (state == DirectoryState::kMissing) {
      FINCHKV_RETURN_IF_ERROR(target.failed(sync_directory(env, parent_of(directory)), "making its directory"));
    }
    FINCHKV_ASSIGN_OR_RETURN(WriterLock lock, WriterLock::acquire(directory, std::chrono::milliseconds(0)));
    target.lock_.emplace(std::move(lock));
    FINCHKV_RETURN_IF_ERROR(target.check().status());  // somebody may have been faster
    target.clear();
    return target;
  }

  [[nodiscard]] std::string staging() const { return in(kRestoringFolder); }

  Status publish() {
    std::vector<std::string> names;
    auto status = env_->GetChildren(staging(), &names);
    for (const std::string& name : names) {
      if (status.ok() && name != kCurrent && is_database_file(name)) status = move_up(name);
    }
    if (status.ok()) status = move_up(std::string(kCurrent));
    if (status.ok()) status = sync_directory(env_, staging());
    if (status.ok()) status = sync_directory(env_, path_);
    FINCHKV_RETURN_IF_ERROR(failed(status, "moving the restored files to their place"));
    FINCHKV_RETURN_IF_ERROR(write_marker(path_));
    env_->DeleteDir(staging()).PermitUncheckedError();  // empty; nobody minds it
    return Status::ok();
  }

  // Everything but the lock: the directory counts as empty again.
  void clear() {
    for (const std::string& directory : {staging(), path_}) {
      std::vector<std::string> names;
      if (!env_->GetChildren(directory, &names).ok()) continue;
      for (const std::string& name : names) {
        if (directory != path_ || is_database_file(name)) env_->DeleteFile(in(directory, name)).PermitUncheckedError();
      }
    }
    env_->DeleteDir(staging()).PermitUncheckedError();
  }

  [[nodiscard]] Status failed(const rocksdb::Status& status, std::string_view doing) const {
    return from_rocksdb(status, path_, doing);
  }

 private:
  Target(std::string path, rocksdb::Env* env) : path_(std::move(path)), env_(env) {}

  static std::string in(const std::string& directory, std::string_view name) {
    return (fs::path(directory) / name).string();
  }
  [[nodiscard]] std::string in(std::string_view name) const { return in(path_, name); }

  rocksdb::Status move_up(const std::string& name) { return env_->RenameFile(in(staging(), name), in(name)); }

  // What an interrupted restore left: its folder, perhaps some files that were moved already, and no marker.
  [[nodiscard]] bool only_leftovers() const {
    std::vector<std::string> names;
    if (!env_->GetChildren(path_, &names).ok()) return false;
    bool staged = false;
    for (const std::string& name : names) {
      if (name == kRestoringFolder) staged = true;
      const bool known = name == "." || name == ".." || name == kRestoringFolder || name == "finchkv.lock" ||
                         name == "finchkv.store.new" || is_database_file(name);
      if (!known) return false;
    }
    return staged;
  }

  [[nodiscard]] Result<DirectoryState> check() const {
    if (only_leftovers()) return DirectoryState::kEmpty;
    FINCHKV_ASSIGN_OR_RETURN(const DirectoryState state, inspect_directory(path_));
    if (state == DirectoryState::kMissing || state == DirectoryState::kEmpty) return state;
    return Status::invalid_argument(
        fmt::format("{} is a store already: restore into a directory that is missing or empty", path_));
  }

  std::string path_;
  rocksdb::Env* env_;
  std::optional<WriterLock> lock_;
};

Status damaged(const BackupDirectory& backups, std::uint32_t id, std::string_view what) {
  return Status::corrupt(fmt::format("backup {} in {} is damaged: {}; restore another one", id, backups.path(), what));
}

Result<std::uint32_t> choose(const BackupDirectory& backups, std::optional<std::uint32_t> wanted) {
  std::uint32_t newest = 0;
  for (const auto* ids : {&backups.good(), &backups.damaged()}) {
    if (!ids->empty()) newest = std::max(newest, ids->back());
  }
  if (newest == 0) return Status::not_found(fmt::format("{} holds no backups", backups.path()));
  const std::uint32_t id = wanted.value_or(newest);
  if (!backups.has(id)) {
    return Status::not_found(fmt::format("there is no backup {} in {}, the newest is {}", id, backups.path(), newest));
  }
  for (const std::uint32_t bad : backups.damaged()) {
    if (bad == id) return damaged(backups, id, "its list of files is not what was written");
  }
  return id;
}

// That the files make a database: it opens, with all its families.
Status check_database(const Target& target, rocksdb::Env* env) {
  const std::string directory = target.staging();
  OpenKind kind;
  kind.reader = true;
  rocksdb::DBOptions options = database_options(kind);
  options.env = env;
  std::vector<std::string> names;
  auto status = rocksdb::DB::ListColumnFamilies(options, directory, &names);
  if (!status.ok()) return target.failed(status, "looking at the restored database");
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  families.reserve(names.size());
  for (const std::string& name : names) families.emplace_back(name, rocksdb::ColumnFamilyOptions());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  status = rocksdb::DB::OpenForReadOnly(options, directory, families, &handles, &opened);
  if (!status.ok()) return target.failed(status, "opening the restored database");
  const std::unique_ptr<rocksdb::DB> db(opened);
  for (auto* handle : handles) db->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  return Status::ok();
}

Status fill(Target& target, const BackupDirectory& backups, const rocksdb::BackupEngineReadOnly& engine,
            const rocksdb::BackupInfo& info, rocksdb::Env* env) {
  const auto copied =
      engine.RestoreDBFromBackup(rocksdb::RestoreOptions(), info.backup_id, target.staging(), target.staging());
  if (copied.IsCorruption()) return damaged(backups, info.backup_id, copied.ToString());
  FINCHKV_RETURN_IF_ERROR(target.failed(copied, fmt::format("restoring it from {}", backups.path())));
  // Backups leave this file out, and a database without it takes a new identity.
  const auto identified =
      rocksdb::WriteStringToFile(env, backups.database_identity(), target.staging() + "/IDENTITY", true);
  FINCHKV_RETURN_IF_ERROR(target.failed(identified, "restoring its identity"));
  FINCHKV_RETURN_IF_ERROR(check_database(target, env));
  return target.publish();
}

}  // namespace

Result<BackupRecord> restore(const std::string& backup_directory, const std::string& store_directory,
                             const RestoreOptions& options) {
  rocksdb::Env* const env = options.env != nullptr ? options.env : rocksdb::Env::Default();
  if (lies_within(store_directory, backup_directory) || lies_within(backup_directory, store_directory)) {
    return Status::invalid_argument(
        fmt::format("the store {} cannot lie in the backups {}, nor they in it: name "
                    "another directory",
                    store_directory, backup_directory));
  }
  FINCHKV_ASSIGN_OR_RETURN(const BackupDirectory backups,
                           BackupDirectory::open_for_reading(backup_directory, env, true));
  FINCHKV_ASSIGN_OR_RETURN(const std::uint32_t id, choose(backups, options.id));
  FINCHKV_ASSIGN_OR_RETURN(auto engine, backups.open_reader(env));
  rocksdb::BackupInfo info;
  const auto found = engine->GetBackupInfo(id, &info);
  if (!found.ok()) return damaged(backups, id, found.ToString());
  FINCHKV_RETURN_IF_ERROR(backups.check_metadata(id, info.app_metadata));

  FINCHKV_ASSIGN_OR_RETURN(Target target, Target::prepare(store_directory, env));
  if (const Status filled = fill(target, backups, *engine, info, env); !filled.is_ok()) {
    engine.reset();  // its threads may still be copying
    target.clear();
    return filled;
  }
  return BackupRecord{.id = id,
                      .created_unix_ms = static_cast<std::uint64_t>(std::max<std::int64_t>(info.timestamp, 0)) * 1000,
                      .bytes = info.size,
                      .files = info.number_files,
                      .damaged = false};
}

}  // namespace finchkv::cache_store
