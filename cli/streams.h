// Long files that are written and read a piece at a time; - is standard output or standard input.
//
// Belong to one thread. Small files: files.h.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/status.h"

namespace finchkv::cli {

/// A file that appears under its name when it is finished, whole and synced; until then, and if it never is, the name
/// is as it was. Standard output gets the bytes at once.
class FileSink {
 public:
  /// invalid_argument for standard output on a terminal.
  [[nodiscard]] static Result<FileSink> create(const std::string& path);
  ~FileSink();
  FileSink(FileSink&& other) noexcept;
  FileSink& operator=(FileSink&&) = delete;

  [[nodiscard]] Status write(std::span<const std::byte> bytes);
  [[nodiscard]] Status finish();

 private:
  FileSink(std::string path, std::string temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

  std::string path_;
  std::string temporary_;  // empty for standard output
  int fd_;                 // -1 once it is closed
};

class FileSource {
 public:
  /// not_found, permission_denied, invalid_argument for a folder.
  [[nodiscard]] static Result<FileSource> open(const std::string& path);
  ~FileSource();
  FileSource(FileSource&& other) noexcept;
  FileSource& operator=(FileSource&&) = delete;

  /// At least one byte; 0 at the end.
  [[nodiscard]] Result<std::size_t> read(std::span<std::byte> into);
  /// What comes next, without taking it: up to `most` bytes, fewer only at the end.
  [[nodiscard]] Result<std::string> peek(std::size_t most);
  [[nodiscard]] const std::string& name() const { return name_; }  ///< for sentences

 private:
  FileSource(std::string name, int fd) : name_(std::move(name)), fd_(fd) {}
  [[nodiscard]] Result<std::size_t> read_file(std::span<std::byte> into);

  std::string name_;
  int fd_;
  std::string peeked_;
};

}  // namespace finchkv::cli
