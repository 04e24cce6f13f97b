#include "cache_store/rocksdb_database.h"

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "cache_store/acknowledged.h"
#include "cache_store/rocksdb_keys.h"
#include "cache_store/rocksdb_status.h"

namespace finchkv::cache_store {
namespace {

using Descriptors = std::vector<rocksdb::ColumnFamilyDescriptor>;
using Handles = std::vector<rocksdb::ColumnFamilyHandle*>;

Descriptors families(bool with_tables) {
  Descriptors out = {{rocksdb::kDefaultColumnFamilyName, heads_options()}, {kBlocksFamily, blocks_options()}};
  if (with_tables) {
    const rocksdb::ColumnFamilyOptions options = table_options();
    for (unsigned i = 0; i < kTableFamilies; ++i) out.emplace_back(table_family_name(i), options);
  }
  return out;
}

bool lacks_family(const rocksdb::Status& status) {
  return status.IsInvalidArgument() && status.ToString().find("Column family not found") != std::string::npos;
}

// Recovery up to the first damaged record refuses a torn log once one family has been written to tables past it and
// another not yet: an opening that was killed in the middle of writing them leaves that, and so does an ingested table.
// Where the end is cut and no more, the mode that knows cut ends reads it; it would also go on with the next log over a
// hole, which NoHoles looks for; what was acknowledged is checked afterwards in any case.
bool ahead_of_log(const rocksdb::Status& status) {
  return status.IsCorruption() && status.ToString().find("ahead of WALs") != std::string::npos;
}

// Every log goes on where the one before it ended. Where that one was cut by damage instead of a crash, there is a
// hole: its lost writes lie before others that are there, so the last number alone would not show it.
class NoHoles final : public rocksdb::WalFilter {
 public:
  const char* Name() const override { return "FinchkvNoHoles"; }
  WalProcessingOption LogRecordFound(unsigned long long log, const std::string& /*file*/,
                                     const rocksdb::WriteBatch& batch, rocksdb::WriteBatch* /*changed*/,
                                     bool* /*has_changed*/) override {
    const std::uint64_t end = last_sequence_of(batch) + (batch.Count() == 0 ? 0 : 1);
    const std::uint64_t first = end - batch.Count();
    if (log_ != 0 && log != log_ && first > next_) found_ = true;
    log_ = log;
    next_ = end;
    return found_ ? WalProcessingOption::kCorruptedRecord : WalProcessingOption::kContinueProcessing;
  }
  [[nodiscard]] bool found() const { return found_; }

 private:
  unsigned long long log_ = 0;
  std::uint64_t next_ = 0;
  bool found_ = false;
};

Status lost_writes(const std::string& directory, const std::string& how) {
  return Status::corrupt(fmt::format(
      "the store {} has lost acknowledged writes: {}, so the log is damaged; restore a backup, or remove {} and open "
      "it for writing to go on without them",
      directory, how, kAcknowledgedFile));
}

void adopt(rocksdb::DB* db, const Handles& handles, Database& to) {
  to.db.reset(db);
  to.heads = handles[0];  // in the order of families()
  to.blocks = handles[1];
  for (std::size_t i = 2; i < handles.size(); ++i) to.tables[i - 2] = handles[i];
}

Status sync_logs(rocksdb::Env& env, const std::string& directory, const FilesSeen& files) {
  for (const auto& [name, bytes] : files.logs) {
    std::unique_ptr<rocksdb::WritableFile> log;
    rocksdb::Status status = env.ReopenWritableFile(fmt::format("{}/{}", directory, name), &log, rocksdb::EnvOptions());
    if (status.ok()) status = log->Sync();
    if (status.ok()) status = log->Close();
    FINCHKV_RETURN_IF_ERROR(from_rocksdb(status, directory, "syncing its log"));
  }
  return Status::ok();
}

// What was acknowledged must be there again.
Status check_acknowledged(const Database& database, std::uint64_t acknowledged) {
  const std::uint64_t recovered = database.db->GetLatestSequenceNumber();
  if (recovered >= acknowledged) return Status::ok();
  return lost_writes(database.directory,
                     fmt::format("its log ends at {}, {} were acknowledged", recovered, acknowledged));
}

Status open_read_only(const std::string& directory, const OpenKind& kind, bool whole, Database& to) {
  rocksdb::DBOptions options = database_options(kind);
  rocksdb::Status opened;
  NoHoles* holes = nullptr;
  bool with_tables = true;
  for (int attempt = 0; attempt < 3; ++attempt) {
    Handles handles;
    rocksdb::DB* db = nullptr;
    opened = rocksdb::DB::OpenForReadOnly(options, directory, families(with_tables), &handles, &db);
    if (opened.ok()) {
      adopt(db, handles, to);
      break;
    }
    if (lacks_family(opened) && with_tables) {
      with_tables = false;  // a store of format 1
    } else if (ahead_of_log(opened)) {
      options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
      if (!whole) continue;
      auto check = std::make_unique<NoHoles>();
      options.wal_filter = holes = check.get();
      to.log_check = std::move(check);
    } else {
      break;
    }
  }
  if (holes != nullptr && holes->found()) return lost_writes(directory, "what one of its logs lacks, a later one has");
  // The first opening was killed before it had made all families: there is nothing to read yet.
  if (lacks_family(opened)) return no_store(directory);
  return from_rocksdb(opened, directory, "opening it for reading");
}

}  // namespace

Status no_store(const std::string& directory) {
  return Status::not_found(fmt::format("there is no finchkv store in {}", directory));
}

Database::~Database() {
  if (!db) return;
  for (auto* family : tables) {
    if (family != nullptr) db->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  }
  db->DestroyColumnFamilyHandle(heads).PermitUncheckedError();
  db->DestroyColumnFamilyHandle(blocks).PermitUncheckedError();
  db->Close().PermitUncheckedError();  // acknowledged data is durable already
}

Result<std::shared_ptr<Database>> open_for_writing(const std::string& directory, OpenKind kind) {
  FINCHKV_ASSIGN_OR_RETURN(const FilesSeen files, look_at_files(directory));
  kind.reader = false;
  kind.flush_logs = files.logs.size() > kMostLogs || files.log_bytes() > kMostLogBytes;
  const Acknowledged acknowledged = read_acknowledged(directory);
  kind.flush_logs = kind.flush_logs || acknowledged.open;
  // What a killed process wrote and never synced is read now, and found, and built upon.
  FINCHKV_RETURN_IF_ERROR(sync_logs(*kind.env, directory, files));
  // An opening for writing drops the part of a damaged log that it cannot read: whether anything is missing is looked
  // at before.
  if (acknowledged.sequence != 0) FINCHKV_RETURN_IF_ERROR(open_for_reading(directory, kind).status());
  auto database = std::make_shared<Database>();
  database->directory = directory;
  database->env = kind.env;
  Handles handles;
  rocksdb::DB* db = nullptr;
  rocksdb::DBOptions options = database_options(kind);
  rocksdb::Status opened = rocksdb::DB::Open(options, directory, families(/*with_tables=*/true), &handles, &db);
  if (ahead_of_log(opened)) {
    handles.clear();
    options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
    options.avoid_flush_during_recovery = false;  // a torn end is read once
    opened = rocksdb::DB::Open(options, directory, families(/*with_tables=*/true), &handles, &db);
  }
  if (opened.IsInvalidArgument()) {
    return Status::corrupt(
        fmt::format("the store {} does not hold together: {}; restore a copy", directory, opened.ToString()));
  }
  FINCHKV_RETURN_IF_ERROR(from_rocksdb(opened, directory, "opening it"));
  adopt(db, handles, *database);
  FINCHKV_RETURN_IF_ERROR(check_acknowledged(*database, acknowledged.sequence));
  return database;
}

Result<std::shared_ptr<Database>> open_for_reading(const std::string& directory, OpenKind kind) {
  kind.reader = true;
  Status opened = Status::ok();
  // The writer may flush, and remove a log, between our reading its manifest and its logs. Then what was opened is
  // thrown away.
  for (int attempt = 0; attempt < 200; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    auto next = std::make_shared<Database>();
    next->directory = directory;
    next->env = kind.env;
    const std::uint64_t acknowledged = read_acknowledged(directory).sequence;
    FINCHKV_ASSIGN_OR_RETURN(next->seen, look_at_files(directory));
    opened = open_read_only(directory, kind, acknowledged != 0, *next);
    FINCHKV_ASSIGN_OR_RETURN(const FilesSeen now, look_at_files(directory));
    if (!now.same_state(next->seen)) continue;
    FINCHKV_RETURN_IF_ERROR(opened);
    FINCHKV_RETURN_IF_ERROR(check_acknowledged(*next, acknowledged));
    return next;
  }
  FINCHKV_RETURN_IF_ERROR(opened);
  return Status::unavailable(fmt::format("the store {} changes too fast to be read: try again", directory));
}

}  // namespace finchkv::cache_store
