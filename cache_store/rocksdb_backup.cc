#include "cache_store/rocksdb_backup.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/utilities/backup_engine.h>
#include <rocksdb/utilities/stackable_db.h>

#include "cache_store/backup_directory.h"

namespace finchkv::cache_store {
namespace {

// Lists the database's files while heads rest; all else is the database's own.
class RestingDb final : public rocksdb::StackableDB {
 public:
  RestingDb(rocksdb::DB& db, const std::function<void(const std::function<void()>&)>& while_heads_rest)
      : StackableDB(std::shared_ptr<rocksdb::DB>(&db, [](rocksdb::DB* /*not ours*/) {})),
        while_heads_rest_(while_heads_rest) {}

  rocksdb::Status GetLiveFilesStorageInfo(const rocksdb::LiveFilesStorageInfoOptions& options,
                                          std::vector<rocksdb::LiveFileStorageInfo>* files) override {
    if (!while_heads_rest_) return db_->GetLiveFilesStorageInfo(options, files);
    auto status = rocksdb::Status::Incomplete("the database's files were not listed");
    while_heads_rest_([&] { status = db_->GetLiveFilesStorageInfo(options, files); });
    return status;
  }

 private:
  const std::function<void(const std::function<void()>&)>& while_heads_rest_;
};

BackupRecord record_of(const rocksdb::BackupInfo& info) {
  return {.id = info.backup_id,
          .created_unix_ms = static_cast<std::uint64_t>(std::max<std::int64_t>(info.timestamp, 0)) * 1000,
          .bytes = info.size,
          .files = info.number_files,
          .damaged = false};
}

Status damaged(const BackupDirectory& backups, std::uint32_t id, std::string_view what) {
  return Status::corrupt(fmt::format("backup {} in {} is damaged: {}", id, backups.path(), what));
}

Status check_files(const BackupDirectory& backups, const rocksdb::BackupEngineReadOnlyBase& engine, std::uint32_t id) {
  const auto checked = engine.VerifyBackup(id, true);
  if (checked.IsCorruption() || checked.IsNotFound() || checked.IsPathNotFound()) {
    return damaged(backups, id, checked.ToString());
  }
  return backups.failed(checked, fmt::format("verifying backup {}", id));
}

// Names and sizes of a backup's files.
std::vector<rocksdb::BackupFileInfo> files_of(const rocksdb::BackupEngineReadOnlyBase& engine, std::uint32_t id) {
  rocksdb::BackupInfo info;
  if (!engine.GetBackupInfo(id, &info, true).ok()) return {};
  return std::move(info.file_details);
}

std::set<std::string> names_of_all(const BackupDirectory& backups, const rocksdb::BackupEngineReadOnlyBase& engine) {
  std::set<std::string> names;
  for (const std::uint32_t id : backups.good()) {
    for (const auto& file : files_of(engine, id)) names.insert(file.relative_filename);
  }
  return names;
}

std::vector<std::uint32_t> ids_in(const rocksdb::BackupEngineReadOnlyBase& engine) {
  std::vector<rocksdb::BackupInfo> infos;
  engine.GetBackupInfo(&infos);
  std::vector<std::uint32_t> ids;
  ids.reserve(infos.size());
  for (const auto& info : infos) ids.push_back(info.backup_id);
  return ids;
}

// The older ones go only when the new one is sure.
Status remove_older(BackupDirectory& backups, rocksdb::BackupEngine& engine, std::uint32_t keep, BackupReport& report) {
  const auto before = ids_in(engine);
  const auto purged = engine.PurgeOldBackups(keep);
  const auto after = ids_in(engine);
  std::set_difference(before.begin(), before.end(), after.begin(), after.end(), std::back_inserter(report.removed));
  backups.forget_removed();
  return backups.failed(purged, fmt::format("removing older ones (backup {} was made)", report.backup.id));
}

Status check_apart(const std::string& store_directory, const std::string& backup_directory) {
  if (!lies_within(backup_directory, store_directory) && !lies_within(store_directory, backup_directory)) {
    return Status::ok();
  }
  return Status::invalid_argument(
      fmt::format("the backups in {} would lie in the store {} or the other way round: what destroys one must not "
                  "destroy the other; name another directory",
                  backup_directory, store_directory));
}

}  // namespace

Result<BackupReport> back_up(rocksdb::DB& db, const std::string& store_directory, const std::string& backup_directory,
                             const BackupOptions& options) {
  FINCHKV_RETURN_IF_ERROR(check_apart(store_directory, backup_directory));
  std::string identity;
  if (!db.GetDbIdentity(identity).ok()) {
    return Status::internal(fmt::format("the store {} does not say which database it is", store_directory));
  }
  rocksdb::Env* const env = options.env != nullptr ? options.env : db.GetEnv();
  FINCHKV_ASSIGN_OR_RETURN(BackupDirectory backups, BackupDirectory::open_for_writing(backup_directory, env, identity));
  FINCHKV_ASSIGN_OR_RETURN(const std::unique_ptr<rocksdb::BackupEngine> engine, backups.open_engine(db.GetEnv()));
  const std::set<std::string> known = names_of_all(backups, *engine);

  RestingDb resting(db, options.while_heads_rest);
  std::uint32_t id = 0;
  const auto made = engine->CreateNewBackupWithMetadata({}, &resting, backups.metadata(), &id);
  FINCHKV_RETURN_IF_ERROR(backups.failed(made, fmt::format("backing up {}", store_directory)));
  Status sure = check_files(backups, *engine, id);
  if (sure.is_ok()) sure = backups.acknowledge(id);
  if (!sure.is_ok()) {
    engine->DeleteBackup(id).PermitUncheckedError();  // the next backup tries again; without its digest it never counts
    if (sure.code() != StatusCode::kCorrupt) return sure;
    return Status::corrupt(sure.message() + "; it was removed, back up into another directory");
  }

  BackupReport report;
  rocksdb::BackupInfo info;
  if (engine->GetBackupInfo(id, &info, true).ok()) report.backup = record_of(info);
  for (const auto& file : info.file_details) {
    if (known.contains(file.relative_filename)) continue;
    report.copied_bytes += file.size;
    ++report.copied_files;
  }
  if (options.keep != 0) FINCHKV_RETURN_IF_ERROR(remove_older(backups, *engine, options.keep, report));
  return report;
}

Result<std::vector<BackupRecord>> list_backups(const std::string& backup_directory, rocksdb::Env* env) {
  if (env == nullptr) env = rocksdb::Env::Default();
  FINCHKV_ASSIGN_OR_RETURN(const BackupDirectory backups,
                           BackupDirectory::open_for_reading(backup_directory, env, false));
  std::vector<BackupRecord> records;
  for (const std::uint32_t id : backups.damaged()) records.push_back({.id = id, .damaged = true});
  if (!backups.good().empty()) {
    FINCHKV_ASSIGN_OR_RETURN(const auto engine, backups.open_reader(env));
    for (const std::uint32_t id : backups.good()) {
      rocksdb::BackupInfo info;
      const bool whole = engine->GetBackupInfo(id, &info).ok();  // not, when it lacks a file
      records.push_back(whole ? record_of(info) : BackupRecord{.id = id, .damaged = true});
    }
  }
  std::sort(records.begin(), records.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  return records;
}

Status verify_backup(const std::string& backup_directory, std::optional<std::uint32_t> id, rocksdb::Env* env) {
  if (env == nullptr) env = rocksdb::Env::Default();
  FINCHKV_ASSIGN_OR_RETURN(const BackupDirectory backups,
                           BackupDirectory::open_for_reading(backup_directory, env, true));
  if (id && !backups.has(*id))
    return Status::not_found(fmt::format("there is no backup {} in {}", *id, backups.path()));
  for (const std::uint32_t bad : backups.damaged()) {
    if (!id || *id == bad) return damaged(backups, bad, "its list of files is not what was written");
  }
  if (backups.good().empty()) return Status::ok();
  FINCHKV_ASSIGN_OR_RETURN(const auto engine, backups.open_reader(env));
  for (const std::uint32_t good : backups.good()) {
    if (id && *id != good) continue;
    rocksdb::BackupInfo info;
    const auto found = engine->GetBackupInfo(good, &info);
    if (!found.ok()) return damaged(backups, good, found.ToString());
    FINCHKV_RETURN_IF_ERROR(backups.check_metadata(good, info.app_metadata));
    FINCHKV_RETURN_IF_ERROR(check_files(backups, *engine, good));
  }
  return Status::ok();
}

}  // namespace finchkv::cache_store
