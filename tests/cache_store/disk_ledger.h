// DiskLedger: what of a directory's files would still be there after the power went off.
//
// A book beside the real files: it is told of every change and every sync, and on lose_power() rewrites the real files
// to one of the states that a disk may be left in:
// - bytes count from a successful sync of their file on; before that any part of them may be there;
// - names count from a sync of their directory on, whether or not the file's bytes were synced; before that a created,
//   renamed or removed name may be as it was. Changes of names reach the disk in their order, as journals have it
//   (RocksDB relies on that: it renames CURRENT to name a manifest before it syncs the directory of both);
// - bytes whose sync failed stay doubtful for ever: the kernel does not write them again.
// A file that it meets for the first time is taken as durable. Not thread-safe (FaultFs locks). Files that were removed
// and could come back wait under other names in the `spare` directory, which belongs to the ledger and must be on the
// same file system. Left out: writes in the middle of a file, directories that vanish, damage to what was synced.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace finchkv::cache_store::testing {

/// What may become of the end of a file that was written and not synced.
enum class TornEnds : std::uint8_t {
  kCut,       ///< it ends anywhere from its synced size on
  kWithHoles  ///< besides, its later pages may be there and earlier ones zero: pages are not written in order
};

class DiskLedger {
 public:
  explicit DiskLedger(std::string spare) : spare_(std::move(spare)) {}

  struct File {
    std::uint64_t number = 0;  ///< its name among the spare files
    std::uint64_t size = 0;
    std::uint64_t synced = 0;  ///< [0, synced) is on the disk, but for
    std::vector<std::pair<std::uint64_t, std::uint64_t>> doubtful;
    // Synced bytes from cut_at on that a truncation took away and no sync has confirmed.
    std::uint64_t cut_at = 0;
    std::string cut;
  };
  using FilePtr = std::shared_ptr<File>;

  /// The file of that name, which exists.
  [[nodiscard]] FilePtr at(const std::string& name);
  /// Call before it happens; the name may exist already and is then emptied.
  FilePtr creating(const std::string& name);
  void truncating(const std::string& name, std::uint64_t size);
  void removing(const std::string& name);
  void renaming(const std::string& from, const std::string& to);  ///< `to` may exist
  /// Call after it happened.
  void linked(const std::string& from, const std::string& to);
  static void appended(File& file, std::uint64_t bytes) { file.size += bytes; }
  static void synced(File& file, std::uint64_t size);  ///< everything up to `size`, at most the file's
  static void sync_failed(File& file);
  void directory_synced(const std::string& directory);

  /// Leaves on the disk what the power loss left. Every file must be closed. Afterwards all that is there is durable.
  void lose_power(std::mt19937_64& random, TornEnds ends);

 private:
  struct Change {
    enum class Kind : std::uint8_t { kLink, kRename, kRemove } kind;
    std::string name;
    std::string from;  // of a rename
    FilePtr file;      // of a link and a rename
  };
  using Names = std::map<std::string, FilePtr>;

  FilePtr fresh(std::uint64_t size);
  void put_aside(const std::string& name);
  static void apply(const Change& change, Names& names);
  [[nodiscard]] Names survivors(std::mt19937_64& random) const;
  void drop_spare_files();
  [[nodiscard]] std::string spare_of(const File& file) const;
  static void tear(const std::string& path, const File& file, std::mt19937_64& random, TornEnds ends);

  std::string spare_;
  std::uint64_t next_number_ = 0;
  Names names_;                  // as the program sees them
  Names durable_;                // as they stand on the disk
  std::vector<Change> pending_;  // what makes the first of the second, oldest first
};

}  // namespace finchkv::cache_store::testing
