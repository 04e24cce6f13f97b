#include "cache_store/store_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include <fmt/format.h>

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMarker = "finchkv.store";
constexpr std::string_view kMarkerTemporary = "finchkv.store.new";
constexpr std::string_view kLock = "finchkv.lock";
constexpr std::string_view kMarkerStart = "finchkv store\nformat ";

Status system_error(int error, const std::string& path, std::string_view doing) {
  StatusCode code = StatusCode::kUnavailable;
  std::string_view advice;
  if (error == EACCES || error == EPERM || error == EROFS) {
    code = StatusCode::kPermissionDenied;
    advice = "; check who owns it";
  } else if (error == ENOSPC || error == EDQUOT) {
    code = StatusCode::kResourceExhausted;
    advice = "; free some space and try again";
  }
  return {code, fmt::format("{} failed while {}: {}{}", path, doing, std::strerror(error), advice)};
}

std::string in(const std::string& directory, std::string_view name) { return (fs::path(directory) / name).string(); }

std::string marker_text(std::uint32_t format) { return fmt::format("{}{}\n", kMarkerStart, format); }

// The format that the marker names.
Result<std::uint32_t> read_marker(const std::string& directory) {
  const std::string path = in(directory, kMarker);
  std::ifstream file(path, std::ios::binary);
  char text[64] = {};
  file.read(text, sizeof(text) - 1);
  const std::string_view got(text, static_cast<std::size_t>(file.gcount()));
  for (std::uint32_t format = kOldestStoreFormat; format <= kStoreFormat; ++format) {
    if (got == marker_text(format)) return format;
  }
  if (got.substr(0, kMarkerStart.size()) == kMarkerStart) {
    return Status::unsupported(
        fmt::format("the store {} has {}, this finchkv reads formats {} to {}: use the finchkv that made it", directory,
                    got.substr(14, got.find('\n', 14) - 14), kOldestStoreFormat, kStoreFormat));
  }
  return Status::corrupt(fmt::format("{} does not say which store this is: restore it from a copy", path));
}

bool ends_with(std::string_view name, std::string_view end) {
  return name.size() >= end.size() && name.substr(name.size() - end.size()) == end;
}

struct Contents {
  bool marker = false;
  bool current = false;    // RocksDB's file that names its manifest
  std::string data;        // one file that holds entries
  std::string foreign;     // one file that a fresh directory of ours does not have
  bool restoring = false;  // a restore was begun here
  std::string unrelated;   // one file that is neither a restore's nor a database's
};

Result<Contents> read_contents(const std::string& directory) {
  Contents found;
  std::error_code error;
  fs::directory_iterator it(directory, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name == kMarker) {
      found.marker = true;
    } else if (name == kRestoringFolder) {
      found.restoring = true;
    } else if (name != kMarkerTemporary && name != kLock && !is_database_file(name)) {
      found.unrelated = name;
    }
    if (name != kMarker && name != kMarkerTemporary && name != kLock && found.foreign != "CURRENT") {
      found.foreign = name;
    }
    if (name == "CURRENT") found.current = true;
    if (ends_with(name, ".sst") || ends_with(name, ".blob") || ends_with(name, ".log")) found.data = name;
  }
  if (error) return system_error(error.value(), directory, "listing it");
  return found;
}

std::string owner_of(int fd) {
  char text[32] = {};
  if (pread(fd, text, sizeof(text) - 1, 0) <= 0) return "another process";
  const long pid = std::strtol(text, nullptr, 10);
  if (pid <= 0) return "another process";
  std::ifstream comm(fmt::format("/proc/{}/comm", pid));
  std::string name;
  std::getline(comm, name);
  return name.empty() ? fmt::format("process {}", pid) : fmt::format("process {} ({})", pid, name);
}

Status sync_directory(const std::string& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return system_error(errno, directory, "opening it");
  const int failed = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return failed == 0 ? Status::ok() : system_error(failed, directory, "syncing it");
}

std::optional<std::int64_t> changed_ns(const std::string& path) {
  struct stat now {};
  if (stat(path.c_str(), &now) != 0) return std::nullopt;
  return static_cast<std::int64_t>(now.st_mtim.tv_sec) * 1'000'000'000 + now.st_mtim.tv_nsec;
}

bool same_sizes(const std::string& directory, const std::map<std::string, std::uint64_t>& files) {
  return std::ranges::all_of(files, [&](const auto& file) {
    struct stat now {};
    return stat(in(directory, file.first).c_str(), &now) == 0 && static_cast<std::uint64_t>(now.st_size) == file.second;
  });
}

}  // namespace

bool is_database_file(std::string_view name) {
  const auto starts = [&](std::string_view start) { return name.substr(0, start.size()) == start; };
  return name == "CURRENT" || name == "IDENTITY" || name == "LOCK" || starts("MANIFEST-") || starts("OPTIONS-") ||
         ends_with(name, ".sst") || ends_with(name, ".blob") || ends_with(name, ".log") || ends_with(name, ".dbtmp");
}

Result<DirectoryState> inspect_directory(const std::string& directory) {
  if (directory.empty()) return Status::invalid_argument("the store's directory has an empty name");
  std::error_code error;
  const fs::file_status status = fs::status(directory, error);
  if (status.type() == fs::file_type::not_found) return DirectoryState::kMissing;
  if (error) return system_error(error.value(), directory, "looking at it");
  if (!fs::is_directory(status)) {
    return Status::invalid_argument(fmt::format("{} is not a directory: a store is one", directory));
  }
  FINCHKV_ASSIGN_OR_RETURN(const Contents found, read_contents(directory));
  if (!found.marker) {
    if (found.foreign.empty()) return DirectoryState::kEmpty;
    if (found.restoring && found.unrelated.empty()) {
      return Status::invalid_argument(
          fmt::format("{} holds a restore that was interrupted, and no store yet: run `finchkv restore` into it again, "
                      "or remove it",
                      directory));
    }
    if (found.current) {
      return Status::invalid_argument(
          fmt::format("{} holds another program's database, not a finchkv store: name another directory", directory));
    }
    return Status::invalid_argument(fmt::format(
        "{} holds other files ({}) and is not a finchkv store: name another directory", directory, found.foreign));
  }
  FINCHKV_RETURN_IF_ERROR(read_marker(directory).status());
  if (found.current) return DirectoryState::kStore;
  if (!found.data.empty()) {
    return Status::corrupt(fmt::format("the store {} has lost its file CURRENT but still has data ({}): restore a copy",
                                       directory, found.data));
  }
  return DirectoryState::kUnfinished;
}

Result<std::uint32_t> format_of(const std::string& directory) { return read_marker(directory); }

Result<std::optional<std::string>> writer_of(const std::string& directory) {
  const std::string path = in(directory, kLock);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return std::optional<std::string>();
  if (fd < 0) return system_error(errno, path, "opening it");
  // Shared, and for this moment only: a writer that waits does not mind.
  const int failed = flock(fd, LOCK_SH | LOCK_NB) == 0 ? 0 : errno;
  std::optional<std::string> writer;
  if (failed == EWOULDBLOCK) writer = owner_of(fd);
  close(fd);
  if (failed != 0 && failed != EWOULDBLOCK) return system_error(failed, path, "looking at its lock");
  return writer;
}

Status create_directory(const std::string& directory) {
  fs::path path = fs::path(directory).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "dir/"
  std::error_code error;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
  if (error) return system_error(error.value(), directory, "making its parent directories");
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return system_error(errno, directory, "making it");
  return Status::ok();
}

Status write_marker(const std::string& directory) {
  const std::string temporary = in(directory, kMarkerTemporary);
  const std::string text = marker_text(kStoreFormat);
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return system_error(errno, temporary, "making it");
  const auto written = write(fd, text.data(), text.size());
  int failed = written == static_cast<ssize_t>(text.size()) ? 0 : written < 0 ? errno : ENOSPC;
  if (failed == 0 && fsync(fd) != 0) failed = errno;
  close(fd);
  if (failed == 0 && rename(temporary.c_str(), in(directory, kMarker).c_str()) != 0) failed = errno;
  if (failed != 0) return system_error(failed, temporary, "writing it");
  return sync_directory(directory);
}

Status ensure_current_format(const std::string& directory) {
  FINCHKV_ASSIGN_OR_RETURN(const std::uint32_t format, read_marker(directory));
  return format == kStoreFormat ? Status::ok() : write_marker(directory);
}

Result<WriterLock> WriterLock::acquire(const std::string& directory, std::chrono::milliseconds wait) {
  const std::string path = in(directory, kLock);
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return system_error(errno, path, "opening it");
  WriterLock lock(fd);
  const auto deadline = std::chrono::steady_clock::now() + wait;
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return system_error(errno, path, "locking it");
    if (std::chrono::steady_clock::now() >= deadline) {
      return Status::unavailable(fmt::format("the store {} is open for writing in {}: wait for it, or allow more time",
                                             directory, owner_of(fd)));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  const std::string pid = fmt::format("{}\n", getpid());
  // Only for the sentence above: on a full disk the lock is as good without it.
  if (ftruncate(fd, 0) == 0 && pwrite(fd, pid.data(), pid.size(), 0) < 0) errno = 0;
  return lock;
}

WriterLock::~WriterLock() {
  if (fd_ >= 0) close(fd_);
}

WriterLock& WriterLock::operator=(WriterLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

std::uint64_t directory_bytes(const std::string& directory) {
  std::uint64_t total = 0;
  std::error_code error;
  for (fs::directory_iterator it(directory, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    std::error_code gone;  // a compaction may remove a file meanwhile
    const auto size = it->file_size(gone);
    if (!gone) total += size;
  }
  return total;
}

bool FilesSeen::same_state(const FilesSeen& other) const {
  const auto name = [](const auto& file) { return file.first; };
  return current == other.current && manifests == other.manifests &&
         std::ranges::equal(logs, other.logs, {}, name, name);
}

std::uint64_t FilesSeen::log_bytes() const {
  std::uint64_t total = 0;
  for (const auto& [name, bytes] : logs) total += bytes;
  return total;
}

Result<FilesSeen> look_at_files(const std::string& directory) {
  FilesSeen seen;
  seen.directory_ns = changed_ns(directory).value_or(0);  // first: what changes from here on is seen next time
  std::getline(std::ifstream(in(directory, "CURRENT")), seen.current);
  std::error_code error;
  fs::directory_iterator it(directory, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    const bool manifest = name.compare(0, 9, "MANIFEST-") == 0;
    if (!manifest && !ends_with(name, ".log")) continue;
    std::error_code gone;
    const auto size = it->file_size(gone);
    (manifest ? seen.manifests : seen.logs)[name] = gone ? 0 : size;
  }
  if (error) return system_error(error.value(), directory, "listing it");
  return seen;
}

bool files_changed(const std::string& directory, const FilesSeen& seen) {
  return changed_ns(directory) != seen.directory_ns || !same_sizes(directory, seen.manifests) ||
         !same_sizes(directory, seen.logs);
}

}  // namespace finchkv::cache_store
