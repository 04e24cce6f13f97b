#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include <fmt/format.h>

namespace finchkv {
namespace {

class FileHandle {
 public:
  explicit FileHandle(int fd) : fd_(fd) {}
  ~FileHandle() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileHandle(const FileHandle&) = delete;
  FileHandle& operator=(const FileHandle&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

Status failed(const std::string& path, const char* what, int error) {
  const std::string reason = std::generic_category().message(error);
  switch (error) {
    case ENOENT:
    case ENOTDIR: return Status::not_found(fmt::format("{}: there is no such file; check the path", path));
    case EACCES:
    case EPERM:
      return Status::permission_denied(fmt::format("{}: this user may not {} it; check its permissions", path, what));
    case ENAMETOOLONG:
    case ELOOP:
    case EINVAL: return Status::invalid_argument(fmt::format("{}: cannot {} it: {}", path, what, reason));
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EOVERFLOW:
      return Status::resource_exhausted(fmt::format("{}: cannot {} it: {}; raise the limit", path, what, reason));
    default: return Status::unavailable(fmt::format("{}: cannot {} it: {}", path, what, reason));
  }
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  // Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
  const FileHandle file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return failed(path, "open", errno);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return failed(path, "inspect", errno);
  if (!S_ISREG(info.st_mode)) {
    return Status::invalid_argument(fmt::format("{}: is {}, not a regular file; name a file", path,
                                                S_ISDIR(info.st_mode) ? "a folder" : "a device or pipe"));
  }
  if (info.st_size == 0) {
    return Status::corrupt(fmt::format("{}: is empty; was copying or downloading it interrupted?", path));
  }
  const auto size = static_cast<std::size_t>(info.st_size);
  void* at = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (at == MAP_FAILED) return failed(path, "map", errno);
  return MappedFile(path, {static_cast<const std::byte*>(at), size});
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace finchkv
