// The local store: one RocksDB directory (layout in docs/formats.md).
//
// One process may have it open for writing, any number for reading beside it. A reader sees what was written up to its
// last call; its hits are noted in a file that the writer reads. Thread-safe. The directory is made with mode 0700.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "cache_store/store.h"

namespace rocksdb {
class Env;
}

namespace finchkv::cache_store {

/// The steps of a put, in order, for tests that stop a process between any two of them.
enum class PutStep : std::uint8_t { kClaimed, kBlocksWritten, kHeadWritten, kOldBlocksRemoved };

struct RocksDbOptions {
  enum class Mode : std::uint8_t { kWrite, kRead };
  Mode mode = Mode::kWrite;
  /// How long to wait for another process that has the directory open for writing.
  std::chrono::milliseconds wait{0};
  /// Makes a directory that is missing or empty into a store; otherwise that is not_found. Writing mode only.
  bool create_if_missing = true;
  /// Puts with at least this many bytes become a table of their own, written once. Smaller ones share a log, which
  /// every opening reads again, and files, which are rewritten as their entries go.
  std::uint64_t large_put_bytes = 4U << 20;
  /// In place of those that are kept in the store; not kept.
  std::optional<StoreSettings> settings = std::nullopt;
  /// Threads that help whoever reads a large entry. None given: one per processor but one, from 2 to 15 (with 15 of 16
  /// an entry was read fastest; with 16, and whoever asked for it, much slower).
  std::optional<std::size_t> read_threads = std::nullopt;
  /// How often hits are written down, expired entries removed, and freed space given back. 0: never by itself.
  std::chrono::milliseconds upkeep_interval{1000};

  rocksdb::Env* env = nullptr;                    ///< for fault injection; outlives the host
  std::function<void(PutStep)> on_put_step = {};  ///< for fault injection
};

/// not_found: no store there (reading, or create_if_missing off). invalid_argument: a directory that holds something
/// else. unsupported: a store of a newer format. unavailable: another process has it (the sentence says which).
/// corrupt: damaged beyond what a crash leaves.
[[nodiscard]] Result<std::shared_ptr<StoreHost>> open_rocksdb_store(const std::string& directory,
                                                                    const RocksDbOptions& options = {});

}  // namespace finchkv::cache_store
