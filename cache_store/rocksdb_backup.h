// Backups of a RocksDB store, with RocksDB's backup engine: incremental, synced, verified after they are made.
//
// A backup directory belongs to one database (its RocksDB identity) and holds its backups under ascending ids. Tables
// and blob files are immutable and are kept once for all backups; logs, manifest and options are copied for each. What
// is copied are the store's bytes as they are: where entries are sealed, so are backups, and no key is in them.
// Every byte is under a digest: the files under a CRC32C each, in the backup's list of files, and the list under
// XXH3-128. A restored store has its database's identity and goes on backing up into the same directory; do not let it
// and the one it was made from do so side by side.
//
// Functions may be called from any thread; one backup directory serves one backup, restore or verification at a time
// (unavailable for the second). Left out: schedules, and backups of a store that another process writes (whoever backs
// up has the database open for writing).
// Cost: verifying reads all of the backup's files, and blob files are read once more to find their name, so an
// incremental backup writes little but reads everything.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cache_store/store.h"

namespace rocksdb {
class DB;
class Env;
}  // namespace rocksdb

namespace finchkv::cache_store {

struct BackupOptions {
  std::uint32_t keep = 0;       ///< the newest so many stay, older ones are removed; 0: all stay
  rocksdb::Env* env = nullptr;  ///< for the backup directory; null: the database's
  /// Calls what it is given while no head of an entry is being written, and writes to heads wait meanwhile (some
  /// milliseconds; nothing is copied then). The engine first takes down which tables there are and then how long the
  /// log is: a head logged in between, of an entry whose blocks went past the log, would be in the backup without
  /// them. Null: nobody writes.
  std::function<void(const std::function<void()>&)> while_heads_rest = nullptr;
};

/// Makes and verifies one backup. The backup directory is made where it is missing, and must otherwise be empty or hold
/// backups of the same database, and lie outside the store (else invalid_argument, and nothing is written).
/// resource_exhausted for a full disk; corrupt when what was written does not read back, or when an older backup's list
/// is damaged. A backup that failed leaves nothing that counts, and the store as it was.
[[nodiscard]] Result<BackupReport> back_up(rocksdb::DB& db, const std::string& store_directory,
                                           const std::string& backup_directory, const BackupOptions& options = {});

/// By ascending id. not_found when there is no such directory, invalid_argument when it holds something else.
[[nodiscard]] Result<std::vector<BackupRecord>> list_backups(const std::string& backup_directory,
                                                             rocksdb::Env* env = nullptr);

/// Reads every file of a backup (of all of them without an id) and checks its digest. not_found, corrupt.
[[nodiscard]] Status verify_backup(const std::string& backup_directory, std::optional<std::uint32_t> id = {},
                                   rocksdb::Env* env = nullptr);

struct RestoreOptions {
  std::optional<std::uint32_t> id = std::nullopt;  ///< nullopt: the newest, which must not be damaged
  rocksdb::Env* env = nullptr;                     ///< for both directories; null: RocksDB's own
};

/// Makes a store of a backup, in a directory that is missing or empty (else invalid_argument). Files are copied and
/// checked in a directory inside it, the database is opened once for reading, then they are moved to their place, and
/// the store's marker is written last: what an interrupted restore leaves is never taken for a store, and the next
/// restore into the same directory clears it away. corrupt when the backup is damaged, not_found for an id that is not
/// there, resource_exhausted for a full disk; then the directory is empty again.
[[nodiscard]] Result<BackupRecord> restore(const std::string& backup_directory, const std::string& store_directory,
                                           const RestoreOptions& options = {});

}  // namespace finchkv::cache_store
