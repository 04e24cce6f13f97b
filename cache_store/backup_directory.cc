#include "cache_store/backup_directory.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <rocksdb/file_system.h>

#include "base/digest.h"
#include "cache_store/rocksdb_status.h"

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMarker = "finchkv.backup";
constexpr std::string_view kLock = "finchkv.lock";
constexpr std::string_view kTemporary = ".new";
constexpr std::string_view kDigestStart = "finchkv.list.";
constexpr std::string_view kMarkerStart = "finchkv backup\nformat ";
constexpr std::string_view kDatabaseStart = "\ndatabase ";
constexpr std::string_view kStoreFormatStart = "store format ";
constexpr std::uint32_t kBackupFormat = 1;
constexpr std::string_view kLists = "meta";
constexpr std::uint64_t kMostMarkerBytes = 4096;

// Leaves out of the engine's view the lists that it must not see.
class ShowLists final : public rocksdb::FileSystemWrapper {
 public:
  ShowLists(const std::shared_ptr<rocksdb::FileSystem>& target, std::string lists, std::set<std::string> hidden)
      : FileSystemWrapper(target), lists_(std::move(lists)), hidden_(std::move(hidden)) {}
  const char* Name() const override { return "FinchkvBackups"; }
  rocksdb::IOStatus GetChildren(const std::string& directory, const rocksdb::IOOptions& options,
                                std::vector<std::string>* names, rocksdb::IODebugContext* debug) override {
    auto status = FileSystemWrapper::GetChildren(directory, options, names, debug);
    if (fs::path(directory).lexically_normal() == lists_) {
      names->erase(std::remove_if(names->begin(), names->end(), [&](const auto& n) { return hidden_.contains(n); }),
                   names->end());
    }
    return status;
  }

 private:
  const fs::path lists_;
  const std::set<std::string> hidden_;
};

std::optional<std::uint32_t> id_of(std::string_view name) {
  std::uint32_t id = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  if (error != std::errc() || end != name.data() + name.size() || id == 0 || name.front() == '0') return std::nullopt;
  return id;
}

std::string digest_text(const std::string& list) { return to_hex(block_digest(as_byte_span(list))) + "\n"; }

// RocksDB's identities are short words; anything else could not stand in a line of ours.
bool plain_identity(std::string_view identity) {
  return !identity.empty() && identity.size() <= 128 &&
         std::all_of(identity.begin(), identity.end(), [](char c) { return c > ' ' && c < 127; });
}

std::string marker_text(std::string_view identity) {
  return fmt::format("{}{}{}{}\n", kMarkerStart, kBackupFormat, kDatabaseStart, identity);
}

std::optional<std::string> identity_in(std::string_view marker) {
  const auto at = marker.find(kDatabaseStart);
  if (at == std::string_view::npos) return std::nullopt;
  const auto start = at + kDatabaseStart.size();
  const std::string identity(marker.substr(start, marker.find('\n', start) - start));
  if (!plain_identity(identity) || marker != marker_text(identity)) return std::nullopt;
  return identity;
}

Status in_use(const std::string& directory) {
  return Status::unavailable(
      fmt::format("another backup or restore is at work in {}: wait for it and try again", directory));
}

}  // namespace

rocksdb::Status sync_directory(rocksdb::Env* env, const std::string& directory) {
  std::unique_ptr<rocksdb::Directory> opened;
  auto status = env->NewDirectory(directory, &opened);
  if (status.ok()) status = opened->Fsync();
  return status;
}

std::string absolute_path(const std::string& directory) {
  std::error_code ignored;
  const fs::path path = fs::absolute(directory, ignored).lexically_normal();
  return path.has_filename() ? path.string() : path.parent_path().string();  // "dir/"
}

std::string parent_of(const std::string& directory) {
  return fs::path(absolute_path(directory)).parent_path().string();
}

bool lies_within(const std::string& inner, const std::string& outer) {
  std::error_code ignored;
  const fs::path in = fs::weakly_canonical(absolute_path(inner), ignored);
  const fs::path out = fs::weakly_canonical(absolute_path(outer), ignored);
  const fs::path relative = in.lexically_relative(out);
  return !relative.empty() && *relative.begin() != "..";
}

std::string BackupDirectory::in(std::string_view name) const { return (fs::path(path_) / name).string(); }

std::string BackupDirectory::list_path(std::uint32_t id) const { return in(fmt::format("{}/{}", kLists, id)); }

std::string BackupDirectory::digest_path(std::uint32_t id) const { return in(fmt::format("{}{}", kDigestStart, id)); }

bool BackupDirectory::has(std::uint32_t id) const {
  return std::binary_search(good_.begin(), good_.end(), id) || std::binary_search(damaged_.begin(), damaged_.end(), id);
}

Status BackupDirectory::failed(const rocksdb::Status& status, std::string_view doing) const {
  if (status.ok()) return Status::ok();
  const StatusCode code = from_rocksdb(status, path_, doing).code();
  std::string_view advice;
  if (code == StatusCode::kResourceExhausted) advice = "; free some space and try again";
  if (code == StatusCode::kPermissionDenied) advice = "; check who owns the directory and its files";
  return {code, fmt::format("the backups in {} failed while {}: {}{}", path_, doing, status.ToString(), advice)};
}

std::string BackupDirectory::metadata() const {
  return fmt::format("{}{}{}\n", marker_text(identity_), kStoreFormatStart, kStoreFormat);
}

Status BackupDirectory::check_metadata(std::uint32_t id, const std::string& metadata) const {
  if (metadata == this->metadata()) return Status::ok();
  const std::string start = marker_text(identity_) + std::string(kStoreFormatStart);
  if (metadata.compare(0, start.size(), start) != 0) {
    return Status::corrupt(
        fmt::format("backup {} in {} is damaged: it is of another store than its directory says", id, path_));
  }
  return Status::unsupported(fmt::format(
      "backup {} in {} is of a store of format {}, this finchkv makes format {}: restore it with the "
      "finchkv that made it, and open the store with this one",
      id, path_, metadata.substr(start.size(), metadata.find('\n', start.size()) - start.size()), kStoreFormat));
}

rocksdb::Status BackupDirectory::write_durably(const std::string& path, const std::string& text) const {
  const std::string temporary = path + std::string(kTemporary);
  auto status = rocksdb::WriteStringToFile(env_, text, temporary, true);
  if (status.ok()) status = env_->RenameFile(temporary, path);
  if (status.ok()) status = sync_directory(env_, path_);
  return status;
}

Result<bool> BackupDirectory::read_marker() {
  std::vector<std::string> names;
  if (const auto listed = env_->GetChildren(path_, &names); !listed.ok()) return failed(listed, "listing them");
  const bool marked = std::find(names.begin(), names.end(), kMarker) != names.end();
  if (!marked) {
    const std::string unfinished = std::string(kMarker) + std::string(kTemporary);
    for (const std::string& name : names) {
      if (name == "." || name == ".." || name == kLock || name == unfinished) continue;
      return Status::invalid_argument(
          fmt::format("{} holds other files ({}) and no backups of a store: name another directory", path_, name));
    }
    return false;
  }
  std::string text;
  std::uint64_t bytes = 0;
  auto status = env_->GetFileSize(in(kMarker), &bytes);
  if (status.ok() && bytes <= kMostMarkerBytes) status = rocksdb::ReadFileToString(env_, in(kMarker), &text);
  if (!status.ok()) return failed(status, "reading what they are of");
  if (auto identity = identity_in(text)) {
    identity_ = *std::move(identity);
    return true;
  }
  const std::string_view got = text;
  if (got.substr(0, kMarkerStart.size()) == kMarkerStart) {
    const auto format = got.substr(kMarkerStart.size(), got.find('\n', kMarkerStart.size()) - kMarkerStart.size());
    if (format != fmt::format("{}", kBackupFormat)) {
      return Status::unsupported(
          fmt::format("the backups in {} have format {}, this finchkv reads {}: use the finchkv "
                      "that made them",
                      path_, format, kBackupFormat));
    }
  }
  return Status::corrupt(fmt::format("{} does not say whose backups these are", in(kMarker)));
}

Status BackupDirectory::look_at_lists() {
  std::vector<std::string> names;
  const auto listed = env_->GetChildren(in(kLists), &names);
  if (listed.IsNotFound() || listed.IsPathNotFound()) return Status::ok();  // nothing was backed up yet
  if (!listed.ok()) return failed(listed, "listing them");
  std::set<std::string> hidden;
  for (const std::string& name : names) {
    const auto id = id_of(name);
    if (!id) continue;  // the engine's own leftovers
    std::string list;
    std::string digest;
    auto status = rocksdb::ReadFileToString(env_, list_path(*id), &list);
    if (!status.ok()) return failed(status, "reading their lists");
    const bool acknowledged = env_->FileExists(digest_path(*id)).ok();
    if (acknowledged) status = rocksdb::ReadFileToString(env_, digest_path(*id), &digest);
    if (!status.ok()) return failed(status, "reading their lists");
    if (digest == digest_text(list)) {
      good_.push_back(*id);
      continue;
    }
    (acknowledged ? damaged_ : unacknowledged_).push_back(*id);
    hidden.insert(name);
  }
  std::sort(good_.begin(), good_.end());
  std::sort(damaged_.begin(), damaged_.end());
  engine_env_ =
      rocksdb::NewCompositeEnv(std::make_shared<ShowLists>(env_->GetFileSystem(), in(kLists), std::move(hidden)));
  return Status::ok();
}

// The engine clears away the files of a backup whose list is gone when it makes the next one.
Status BackupDirectory::remove_unacknowledged() {
  for (const std::uint32_t id : unacknowledged_) {
    const auto status = env_->DeleteFile(list_path(id));
    if (!status.ok()) return failed(status, "removing an unfinished one");
  }
  if (unacknowledged_.empty()) return Status::ok();
  unacknowledged_.clear();
  return failed(sync_directory(env_, in(kLists)), "removing an unfinished one");
}

Result<BackupDirectory> BackupDirectory::open_for_writing(const std::string& directory, rocksdb::Env* env,
                                                          const std::string& database_identity) {
  if (!plain_identity(database_identity)) return Status::internal("the database has no identity");
  std::error_code ignored;
  const bool made = !fs::exists(directory, ignored);
  FINCHKV_RETURN_IF_ERROR(create_directory(directory));
  BackupDirectory backups(absolute_path(directory), env);
  if (made) {
    FINCHKV_RETURN_IF_ERROR(backups.failed(sync_directory(env, parent_of(directory)), "making their directory"));
  }
  FINCHKV_RETURN_IF_ERROR(backups.read_marker().status());  // a foreign directory gets no lock file either
  auto lock = WriterLock::acquire(backups.path_, std::chrono::milliseconds(0));
  if (!lock.is_ok()) return lock.status().code() == StatusCode::kUnavailable ? in_use(directory) : lock.status();
  backups.lock_.emplace(*std::move(lock));

  FINCHKV_ASSIGN_OR_RETURN(const bool marked, backups.read_marker());
  if (marked && backups.identity_ != database_identity) {
    return Status::invalid_argument(
        fmt::format("{} holds the backups of another store: name another directory", directory));
  }
  if (!marked) {
    const auto status = backups.write_durably(backups.in(kMarker), marker_text(database_identity));
    FINCHKV_RETURN_IF_ERROR(backups.failed(status, "starting them"));
    backups.identity_ = database_identity;
  }
  FINCHKV_RETURN_IF_ERROR(backups.look_at_lists());
  if (!backups.damaged_.empty()) {
    const std::uint32_t id = backups.damaged_.front();
    return Status::corrupt(
        fmt::format("the list of backup {} in {} is damaged: back up into another directory, or "
                    "remove {} to go on without that backup",
                    id, directory, backups.list_path(id)));
  }
  FINCHKV_RETURN_IF_ERROR(backups.remove_unacknowledged());
  backups.forget_removed();  // the next backup may take the number of one that failed
  return backups;
}

Result<BackupDirectory> BackupDirectory::open_for_reading(const std::string& directory, rocksdb::Env* env,
                                                          bool exclusive) {
  std::error_code error;
  const fs::file_status kind = fs::status(directory, error);
  if (kind.type() == fs::file_type::not_found) {
    return Status::not_found(fmt::format("there is no backup directory {}", directory));
  }
  if (!fs::is_directory(kind)) {
    return Status::invalid_argument(fmt::format("{} is not a directory: backups are in one", directory));
  }
  BackupDirectory backups(absolute_path(directory), env);
  FINCHKV_ASSIGN_OR_RETURN(const bool marked, backups.read_marker());
  if (!marked) return Status::not_found(fmt::format("{} holds no backups", directory));
  if (exclusive) {
    auto lock = WriterLock::acquire(backups.path_, std::chrono::milliseconds(0));
    if (lock.is_ok()) {
      backups.lock_.emplace(*std::move(lock));
    } else if (lock.status().code() == StatusCode::kUnavailable) {
      return in_use(directory);
    }
    // Else nothing can be written here: a copy on a medium for reading is as good.
  }
  FINCHKV_RETURN_IF_ERROR(backups.look_at_lists());
  return backups;
}

rocksdb::BackupEngineOptions BackupDirectory::engine_options() const {
  rocksdb::BackupEngineOptions options(path_);
  options.backup_env = engine_env_ ? engine_env_.get() : env_;
  options.share_table_files = true;
  options.share_files_with_checksum = true;
  options.sync = true;
  options.info_log = nullptr;
  return options;
}

Result<std::unique_ptr<rocksdb::BackupEngine>> BackupDirectory::open_engine(rocksdb::Env* database_env) const {
  rocksdb::BackupEngine* engine = nullptr;
  const auto status = rocksdb::BackupEngine::Open(engine_options(), database_env, &engine);
  if (!status.ok()) return failed(status, "opening them");
  return std::unique_ptr<rocksdb::BackupEngine>(engine);
}

Result<std::unique_ptr<rocksdb::BackupEngineReadOnly>> BackupDirectory::open_reader(rocksdb::Env* database_env) const {
  rocksdb::BackupEngineReadOnly* engine = nullptr;
  const auto status = rocksdb::BackupEngineReadOnly::Open(engine_options(), database_env, &engine);
  if (!status.ok()) return failed(status, "opening them");
  return std::unique_ptr<rocksdb::BackupEngineReadOnly>(engine);
}

Status BackupDirectory::acknowledge(std::uint32_t id) {
  std::string list;
  auto status = rocksdb::ReadFileToString(env_, list_path(id), &list);
  if (status.ok()) status = write_durably(digest_path(id), digest_text(list));
  FINCHKV_RETURN_IF_ERROR(failed(status, "finishing one"));
  good_.push_back(id);
  return Status::ok();
}

void BackupDirectory::forget_removed() {
  std::vector<std::string> names;
  if (!env_->GetChildren(path_, &names).ok()) return;
  bool any = false;
  for (const std::string& name : names) {
    if (name.compare(0, kDigestStart.size(), kDigestStart) != 0) continue;
    const auto id = id_of(std::string_view(name).substr(kDigestStart.size()));
    if (!id || !env_->FileExists(list_path(*id)).IsNotFound()) continue;
    env_->DeleteFile(in(name)).PermitUncheckedError();
    any = true;
  }
  if (any) sync_directory(env_, path_).PermitUncheckedError();
}

}  // namespace finchkv::cache_store
