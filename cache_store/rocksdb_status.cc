#include "cache_store/rocksdb_status.h"

#include <string>

#include <fmt/format.h>

namespace finchkv::cache_store {
namespace {

bool mentions(const std::string& text, std::string_view words) { return text.find(words) != std::string::npos; }

}  // namespace

Status from_rocksdb(const rocksdb::Status& status, std::string_view directory, std::string_view doing) {
  if (status.ok()) return Status::ok();
  const std::string text = status.ToString();
  const auto say = [&](StatusCode code, std::string_view advice) {
    return Status(code, fmt::format("the store {} failed while {}: {}{}{}", directory, doing, text,
                                    advice.empty() ? "" : "; ", advice));
  };
  // RocksDB has a sub-code for ENOSPC alone; a quota and a file size limit are the same to us.
  if (status.IsNoSpace() || status.subcode() == rocksdb::Status::kSpaceLimit ||
      mentions(text, "No space left on device") || mentions(text, "Disk quota exceeded") ||
      mentions(text, "File too large")) {
    return say(StatusCode::kResourceExhausted,
               "the disk is full: free some space and try again (nothing that was stored is lost)");
  }
  if (status.IsMemoryLimit()) return say(StatusCode::kResourceExhausted, "there is not enough memory");
  if (status.IsNotFound()) return say(StatusCode::kNotFound, "");
  if (status.IsCorruption()) {
    return say(StatusCode::kCorrupt, "its files are damaged: restore a copy, or remove the entry concerned");
  }
  if (mentions(text, "Permission denied") || mentions(text, "Read-only file system")) {
    return say(StatusCode::kPermissionDenied, "check who owns the directory and its files");
  }
  if (status.IsPathNotFound()) return say(StatusCode::kCorrupt, "a file of the store is missing");
  // RocksDB's words for its own lock file; "lock" alone is also in "blocks".
  if (mentions(text, "lock hold by current process") || mentions(text, "While lock file")) {
    return say(StatusCode::kUnavailable, "another program has it open");
  }
  if (status.IsBusy() || status.IsTimedOut() || status.IsTryAgain() || status.IsIncomplete() ||
      status.IsShutdownInProgress()) {
    return say(StatusCode::kUnavailable, "try again");
  }
  if (status.IsIOError()) return say(StatusCode::kUnavailable, "the disk or file system refused");
  if (status.IsNotSupported()) return say(StatusCode::kUnsupported, "");
  return say(StatusCode::kInternal, "");
}

std::uint64_t last_sequence_of(const rocksdb::WriteBatch& written) {
  const std::string& bytes = written.Data();  // little-endian: sequence number of the first record (8), count (4), ...
  std::uint64_t first = 0;
  for (std::size_t i = 8; i-- > 0;) first = first << 8 | static_cast<std::uint8_t>(bytes[i]);
  return written.Count() == 0 ? first : first + written.Count() - 1;
}

}  // namespace finchkv::cache_store
