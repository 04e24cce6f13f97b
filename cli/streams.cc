#include "cli/streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "cli/files.h"
#include "cli/output.h"

namespace finchkv::cli {

Result<FileSink> FileSink::create(const std::string& path) {
  if (path == "-") {
    if (is_terminal(STDOUT_FILENO)) {
      return Status::invalid_argument("- is standard output, and that is a terminal: send it to a file or a pipe");
    }
    return FileSink("standard output", "", STDOUT_FILENO);
  }
  std::string temporary = path + ".XXXXXX";
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) return file_error(errno, path, "written");
  return FileSink(path, std::move(temporary), fd);
}

FileSink::FileSink(FileSink&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      fd_(std::exchange(other.fd_, -1)) {}

FileSink::~FileSink() {
  if (fd_ > STDERR_FILENO) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Status FileSink::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ::ssize_t wrote = ::write(fd_, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return file_error(errno, path_, "written");
    bytes = bytes.subspan(static_cast<std::size_t>(wrote));
  }
  return Status::ok();
}

Status FileSink::finish() {
  if (temporary_.empty()) return Status::ok();
  if (::fsync(fd_) != 0) return file_error(errno, path_, "written");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return file_error(errno, path_, "written");
  temporary_.clear();
  return Status::ok();
}

Result<FileSource> FileSource::open(const std::string& path) {
  if (path == "-") return FileSource("standard input", STDIN_FILENO);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return file_error(errno, path, "read");
  return FileSource(path, fd);
}

FileSource::FileSource(FileSource&& other) noexcept
    : name_(std::move(other.name_)), fd_(std::exchange(other.fd_, -1)), peeked_(std::move(other.peeked_)) {}

FileSource::~FileSource() {
  if (fd_ > STDERR_FILENO) ::close(fd_);
}

Result<std::size_t> FileSource::read_file(std::span<std::byte> into) {
  while (true) {
    const ::ssize_t got = ::read(fd_, into.data(), into.size());
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno != EINTR) return file_error(errno, name_, "read");
  }
}

Result<std::size_t> FileSource::read(std::span<std::byte> into) {
  if (peeked_.empty()) return read_file(into);
  const std::size_t n = std::min(into.size(), peeked_.size());
  std::memcpy(into.data(), peeked_.data(), n);
  peeked_.erase(0, n);
  return n;
}

Result<std::string> FileSource::peek(std::size_t most) {
  while (peeked_.size() < most) {
    std::string more(most - peeked_.size(), '\0');
    FINCHKV_ASSIGN_OR_RETURN(const std::size_t got, read_file(std::as_writable_bytes(std::span(more))));
    if (got == 0) break;
    peeked_.append(more, 0, got);
  }
  return peeked_.substr(0, most);
}

}  // namespace finchkv::cli
