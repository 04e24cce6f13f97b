// MappedFile: a regular file, mapped read-only as one span.
//
// Move-only owner of the mapping; spans live as long as it does, wherever it is moved to. Reading is thread-safe.
// The mapping shows the file as it is, not as it was: another process that writes to the file changes these bytes, and
// one that shortens it makes reading past the new end a SIGBUS, which nothing here catches. So replace model files by
// renaming a new one over them, never in place. Writing, growing and partial mappings are left out.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/status.h"

namespace finchkv {

class MappedFile {
 public:
  /// not_found (no such file), permission_denied, invalid_argument (a folder, a pipe, a device), corrupt (empty),
  /// resource_exhausted (no address space or handles left), unavailable (the file system failed).
  static Result<MappedFile> open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }  ///< page-aligned
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, std::span<const std::byte> bytes) : path_(std::move(path)), bytes_(bytes) {}

  std::string path_;
  std::span<const std::byte> bytes_;
};

}  // namespace finchkv
