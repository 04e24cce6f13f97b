// Archives: many entries as one stream of bytes, for files, pipes and sockets (docs/formats.md).
//
// An entry is in an archive as an unsealed store would keep it: its head record, its block table, its blocks; around
// them stands what a store keeps apart from the head. Every record's digest continues the digest of the one before, and
// the end has a record of its own, so that damage, cutting, dropping and reordering are noticed, at the entry where
// they happened.
//
// **An archive is not encrypted and not authenticated**, whatever the store it came from did: it belongs where its
// entries may be read, or through a program that encrypts. Its digests notice damage, not an attacker.
// The token hashes in an identity are made with the tenant's key, so an entry of a named tenant can be imported into
// that tenant alone. No id stands in an archive: whoever puts an entry computes it from the identity, and calls
// check_packed (packed_entry.h) before it trusts the bytes.
//
// Writers and readers belong to one thread at a time. Entries read own their memory; one is in memory at a time unless
// the caller keeps more. Left out: hits and last use, which are the store's own; compression and encryption of the
// stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "base/status.h"
#include "cache_store/codec.h"
#include "cache_store/store.h"

namespace finchkv::cache_store {

inline constexpr std::uint32_t kArchiveVersion = 1;
inline constexpr std::string_view kArchiveMagic = "finchkv archive\n";  ///< how an archive begins

/// One entry and what a store keeps about it. Its provenance and its time of creation are in the head.
struct ArchivedEntry {
  PackedEntry packed;
  std::string label;
  std::uint64_t expires_unix_ms = 0;  ///< 0: never
  bool pinned = false;
  Sharing sharing = Sharing::kPrivate;
};

class ArchiveWriter {
 public:
  /// Takes all of the bytes or fails.
  using Sink = std::function<Status(std::span<const std::byte>)>;
  explicit ArchiveWriter(Sink sink) : sink_(std::move(sink)) {}

  /// invalid_argument for an entry that could not be read back; nothing of it has been written then, and others may
  /// follow. When the sink fails, so does everything after it.
  [[nodiscard]] Status add(const ArchivedEntry& entry);
  /// Writes the end: without it an archive counts as cut off.
  [[nodiscard]] Status finish();

  [[nodiscard]] std::uint64_t entries() const { return entries_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  Status begin();
  Status write(std::span<const std::byte> bytes);
  Status write_record(std::span<const std::byte> record);

  Sink sink_;
  Status status_;  // of the sink; stays once it failed
  bool begun_ = false;
  bool finished_ = false;
  BlockDigest chain_{};  // of the last record
  std::uint64_t entries_ = 0;
  std::uint64_t bytes_ = 0;
};

struct ArchiveLimits {
  std::uint64_t entry_bytes = std::uint64_t{64} << 30;  ///< of one entry's blocks, which are in memory at once
};

class ArchiveReader {
 public:
  /// Puts up to so many bytes into the span (at least one) and says how many; 0 at the end.
  using Source = std::function<Result<std::size_t>(std::span<std::byte>)>;
  explicit ArchiveReader(Source source, ArchiveLimits limits = {}) : source_(std::move(source)), limits_(limits) {}

  /// The next entry; nullopt behind the last one, when the archive was whole. corrupt, saying at which entry; what was
  /// returned before is good. unsupported for what a newer finchkv wrote, resource_exhausted beyond a limit; the
  /// source's own errors as they are. Once it failed it keeps failing.
  /// Reads not a byte more than the archive has: more may follow on a socket.
  [[nodiscard]] Result<std::optional<ArchivedEntry>> next();
  /// For a file: corrupt when something stands behind the end.
  [[nodiscard]] Status expect_end_of_source();

  [[nodiscard]] std::uint64_t entries() const { return entries_; }  ///< read so far
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  class Blocks;

  Result<std::optional<ArchivedEntry>> read_record();
  Result<ArchivedEntry> read_entry(std::span<const std::byte> start);
  Result<PackedEntry> read_packed(std::span<const std::byte> head_record);
  Status read_header();
  Status read_end(std::span<const std::byte> start);
  Status check_chain(std::span<const std::byte> record);
  Result<std::size_t> read_some(std::span<std::byte> into);
  Status read_all(std::span<std::byte> into);

  Source source_;
  ArchiveLimits limits_;
  Status status_;
  bool begun_ = false;
  bool finished_ = false;
  BlockDigest chain_{};
  std::uint64_t entries_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace finchkv::cache_store
