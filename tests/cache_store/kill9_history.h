// What killed children said, as what each name may have now and may have in a backup: one version when all is
// acknowledged, more while something was under way. A test helper of kill9_test. Belongs to one thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "tests/cache_store/kill9_child.h"

namespace finchkv::cache_store::testing {

using Possible = std::map<std::uint32_t, std::set<std::uint32_t>>;  ///< name -> versions, kAbsent among them

struct KnownBackup {
  std::uint32_t id = 0;
  Possible contents;
};

class Kill9History {
 public:
  Kill9History();

  /// All lines of one child, from its start to its end.
  void follow(const std::string& said);

  /// To be narrowed to what an opening shows: what is there then stays.
  [[nodiscard]] Possible& now() { return now_; }
  [[nodiscard]] const std::optional<KnownBackup>& last_backup() const { return last_backup_; }
  void note_backup(KnownBackup backup) { last_backup_ = std::move(backup); }

  [[nodiscard]] bool store_was_opened() const { return opened_; }             ///< by any child
  [[nodiscard]] bool backup_was_begun() const { return begun_; }              ///< by the last child
  [[nodiscard]] bool backup_was_interrupted() const { return !!in_backup_; }  ///< with the last child
  [[nodiscard]] std::uint64_t acknowledged() const { return acknowledged_; }
  [[nodiscard]] std::uint64_t evictions() const { return evictions_; }
  [[nodiscard]] std::uint64_t backups() const { return backups_; }

 private:
  void begin_put(std::uint32_t name, std::uint32_t version);
  void end_put(std::uint32_t name, std::uint32_t version);
  void may_be(std::uint32_t name, std::uint32_t version);
  void is_one_of(std::uint32_t name, const std::set<std::uint32_t>& versions);

  Possible now_;
  std::set<std::uint32_t> being_put_;
  std::set<std::uint32_t> beside_others_;  // of those: another put was under way at some moment of theirs
  std::optional<Possible> in_backup_;      // of the one being made: what was there at its start or came since
  std::optional<KnownBackup> last_backup_;
  bool opened_ = false;
  bool begun_ = false;
  std::uint64_t acknowledged_ = 0;
  std::uint64_t evictions_ = 0;
  std::uint64_t backups_ = 0;
};

}  // namespace finchkv::cache_store::testing
