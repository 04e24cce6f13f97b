#include "cli/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <system_error>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace finchkv::cli {
namespace {

namespace fs = std::filesystem;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ > STDERR_FILENO) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

Status write_all(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ::ssize_t wrote = ::write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return file_error(errno, path, "written");
    bytes.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return Status::ok();
}

}  // namespace

Status file_error(int error, std::string_view what, std::string_view doing) {
  const std::string sentence = fmt::format("{} cannot be {}: {}", what, doing, std::strerror(error));
  switch (error) {
    case ENOENT: return Status::not_found(sentence);
    case EACCES:
    case EPERM:
    case EROFS: return Status::permission_denied(sentence);
    case EISDIR:
    case ENOTDIR:
    case ENAMETOOLONG: return Status::invalid_argument(sentence);
    case ENOSPC:
    case EDQUOT: return Status::resource_exhausted(sentence);
    default: return Status::unavailable(sentence);
  }
}

Result<std::string> read_input(const std::string& path, std::string_view option) {
  const bool standard_input = path == "-";
  const std::string what = standard_input ? fmt::format("{} -", option) : fmt::format("{} {}", option, path);
  const Descriptor file(standard_input ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return file_error(errno, what, "read");
  std::string bytes;
  std::size_t filled = 0;
  while (true) {
    constexpr std::size_t kStep = 1U << 16;
    bytes.resize(std::max(bytes.size(), filled + kStep));
    const ::ssize_t got = ::read(file.get(), bytes.data() + filled, bytes.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return file_error(errno, what, "read");
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  bytes.resize(filled);
  return bytes;
}

Result<std::vector<model::TokenId>> read_token_ids(const std::string& path, std::string_view option) {
  FINCHKV_ASSIGN_OR_RETURN(const std::string text, read_input(path, option));
  const nlohmann::json list = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array()) {
    return Status::invalid_argument(fmt::format("{} {}: not a JSON array of token ids, like [1, 2, 3]", option, path));
  }
  std::vector<model::TokenId> ids;
  ids.reserve(list.size());
  for (const auto& item : list) {
    constexpr auto kLargest = static_cast<std::uint64_t>(std::numeric_limits<model::TokenId>::max());
    if (!item.is_number_unsigned() || item.get<std::uint64_t>() > kLargest) {
      return Status::invalid_argument(
          fmt::format("{} {}: element {} is not a token id (a whole number from 0)", option, path, ids.size()));
    }
    ids.push_back(static_cast<model::TokenId>(item.get<std::uint64_t>()));
  }
  return ids;
}

Status write_whole_file(const std::string& path, std::string_view bytes) {
  std::string temporary = path + ".XXXXXX";
  const Descriptor file(::mkstemp(temporary.data()));
  if (file.get() < 0) return file_error(errno, path, "written");
  Status status = write_all(file.get(), bytes, path);
  if (status.is_ok() && ::fsync(file.get()) != 0) status = file_error(errno, path, "written");
  if (status.is_ok() && ::rename(temporary.c_str(), path.c_str()) != 0) status = file_error(errno, path, "written");
  if (!status.is_ok()) ::unlink(temporary.c_str());
  return status;
}

std::string fingerprint_memory_path() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  fs::path cache = variable("XDG_CACHE_HOME");
  if (!cache.is_absolute()) {  // the specification says to ignore relative ones
    const std::string home = variable("HOME");
    if (home.empty()) return {};
    cache = fs::path(home) / ".cache";
  }
  const fs::path folder = cache / "finchkv";
  std::error_code ignored;  // without the folder nothing is remembered, which model/ takes in its stride
  fs::create_directories(folder, ignored);
  return (folder / "fingerprints").string();
}

}  // namespace finchkv::cli
