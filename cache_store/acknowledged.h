// The file that remembers how far a store's log was acknowledged.
//
// RocksDB takes a log whose end is damaged for one that a crash cut short, and drops what follows. So the sequence
// number of the last synced write stands in a small file beside the database: an opening that recovers less has lost
// acknowledged entries, and says so. The file is written after the log's sync and never synced itself: it survives
// kill -9, and after a power loss it may be older, which promises less. Two slots in turn, each with a digest, so that
// a torn one leaves the other. A slot also says whether a writer has the store open: after one that did not close it,
// the log may have a torn end, which is to be written to tables once and never read again.
// Internal to cache_store. One writer; note() is thread-safe.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "base/status.h"

namespace finchkv::cache_store {

inline constexpr char kAcknowledgedFile[] = "finchkv.acknowledged";

struct Acknowledged {
  std::uint64_t sequence = 0;
  bool open = false;  ///< a writer has it, or had it and did not close it
};
/// What the file in this directory says; zeros where there is none or it cannot be read.
[[nodiscard]] Acknowledged read_acknowledged(const std::string& directory);

class AcknowledgedFile {
 public:
  /// Opens or makes it, and says that a writer is at work.
  [[nodiscard]] Status open(const std::string& directory);
  AcknowledgedFile() = default;
  ~AcknowledgedFile();
  AcknowledgedFile(const AcknowledgedFile&) = delete;
  AcknowledgedFile& operator=(const AcknowledgedFile&) = delete;

  /// Everything up to this sequence number is durable. Best effort: a full disk leaves the older promise.
  void note(std::uint64_t sequence);
  /// The writer leaves, and all that it wrote is in the log as it should be.
  void note_closed();
  /// Makes the promise outlive a power loss too; now and then, since it costs a sync.
  void sync();

 private:
  void write_slot(const Acknowledged& now);

  std::mutex mutex_;
  int fd_ = -1;
  Acknowledged last_;
  unsigned slot_ = 0;
  bool synced_ = true;
};

}  // namespace finchkv::cache_store
