// Kill -9 in the middle of puts, removals, evictions and backups: afterwards every acknowledged entry is whole (or, if
// a put may have evicted it, gone), no partial entry is visible, the limit holds, gc leaves no block without a head,
// the last acknowledged backup is what it was, and the next one can be made.
//
// Some hundred kills by default; more with --kills 1000 --seed 7. The test runs itself as a child (kill9_child.h) that
// says through a pipe what it is about to do and what is done; the parent kills it, opens the store and compares.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "cache_store/rocksdb_backup.h"
#include "tests/cache_store/kill9_child.h"
#include "tests/cache_store/kill9_history.h"
#include "tests/cache_store/raw_store.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;
using testing::GaveUp;
using testing::is_pinned;
using testing::kAbsent;
using testing::kill9_entries;
using testing::kill9_options;
using testing::Kill9History;
using testing::kKill9Backups;
using testing::kKill9Limit;
using testing::KnownBackup;
using testing::Possible;
using testing::RawStore;
using testing::Said;
using testing::ScratchDirectory;

std::uint64_t kills_wanted = 300;
std::uint32_t first_seed = 77;

// ---- the child ------------------------------------------------------------------------------------------------------

struct Child {
  pid_t pid = -1;
  int out = -1;
};

Child start(const std::vector<std::string>& arguments) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  std::vector<char*> argv;
  static char self[] = "/proc/self/exe";
  argv.push_back(self);
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    execv(self, argv.data());
    _exit(static_cast<int>(GaveUp::kExec));
  }
  close(ends[1]);
  return {pid, ends[0]};
}

// So many lines, or up to one that begins with `until`.
void read_lines(int fd, std::uint32_t lines, std::optional<Said> until, std::string& text) {
  std::size_t line = text.size();
  for (char c = 0; lines > 0 && read(fd, &c, 1) == 1;) {
    text += c;
    if (c != '\n') continue;
    --lines;
    if (until && text[line] == static_cast<char>(*until)) return;
    line = text.size();
  }
}

void read_rest(int fd, std::string& text) {
  char buffer[4096];
  for (ssize_t n = 0; (n = read(fd, buffer, sizeof(buffer))) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  close(fd);
}

// ---- what it left ---------------------------------------------------------------------------------------------------

std::uint64_t blocks_of(const EntryInfo& info) {
  return 1 + 3 * std::uint64_t{info.shape.n_layers} + (info.has_document_tokens ? 1 : 0);
}

// What a name shows is one of the versions that it may have, which it is from now on. Adds up the blocks.
void check_name(Store& store, std::uint32_t name, std::set<std::uint32_t>& versions, std::uint64_t& blocks) {
  const CacheId& id = kill9_entries().id(name);
  const auto info = store.find(id);
  if (!info.is_ok()) {
    ASSERT_EQ(info.status().code(), StatusCode::kNotFound) << info.status().message();
    ASSERT_TRUE(versions.contains(kAbsent)) << "acknowledged entry " << name << " is gone";
    versions = {kAbsent};
    return;
  }
  const auto version = static_cast<std::uint32_t>(std::stoul(info->label));
  ASSERT_TRUE(version != kAbsent && versions.contains(version)) << "entry " << name << " cannot have " << version;
  versions = {version};
  EXPECT_EQ(info->pinned, is_pinned(name)) << name;
  const auto set = store.get(id);
  ASSERT_TRUE(set.is_ok()) << "entry " << name << " is not whole: " << set.status().message();
  ASSERT_TRUE(kill9_entries().holds(*set, name, version)) << "entry " << name << " holds other bytes than were put";
  const Status sound = store.verify(id);
  ASSERT_TRUE(sound.is_ok()) << sound.message();
  blocks += blocks_of(*info);
}

// Before an opening for writing could have made room.
void check_limit_was_kept(const std::string& directory) {
  RocksDbOptions options = kill9_options();
  options.mode = RocksDbOptions::Mode::kRead;
  const auto host = open_rocksdb_store(directory, options);
  ASSERT_TRUE(host.is_ok()) << host.status().message();
  const auto report = (*host)->report();
  ASSERT_TRUE(report.is_ok()) << report.status().message();
  EXPECT_EQ(report->total.unreadable, 0U);
  EXPECT_LE(report->total.stored_bytes, kKill9Limit);
}

void check_gc(StoreHost& host) {
  const auto found = host.gc();
  ASSERT_TRUE(found.is_ok()) << found.status().message();
  const auto again = host.gc();
  ASSERT_TRUE(again.is_ok()) << again.status().message();
  EXPECT_EQ(again->puts, 0U);
  EXPECT_EQ(again->blocks, 0U);
  const auto report = host.report();
  ASSERT_TRUE(report.is_ok());
  EXPECT_LE(report->total.stored_bytes, kKill9Limit);
  EXPECT_EQ(report->reserved_bytes + report->held_bytes, 0U);
}

// Opens the store and settles what every name holds. With `raw`, counts blocks past all our code.
void check_store(const std::string& directory, Possible& possible, bool raw) {
  std::uint64_t blocks = 0;
  {
    const auto host = open_rocksdb_store(directory, kill9_options());
    ASSERT_TRUE(host.is_ok()) << host.status().message();
    EXPECT_TRUE(fs::is_empty(fs::path(directory) / "incoming"));
    const auto store = (*host)->view({});
    ASSERT_TRUE(store.is_ok());
    std::set<CacheId> there;
    for (auto& [name, versions] : possible) {
      ASSERT_NO_FATAL_FAILURE(check_name(**store, name, versions, blocks));
      if (!versions.contains(kAbsent)) there.insert(kill9_entries().id(name));
    }
    const auto page = (*store)->list({}, 1000);
    ASSERT_TRUE(page.is_ok());
    EXPECT_TRUE(page->unreadable.empty());
    for (const EntryInfo& entry : page->entries) EXPECT_EQ(there.erase(entry.id), 1U) << entry.label;
    EXPECT_TRUE(there.empty()) << "not listed";
    ASSERT_NO_FATAL_FAILURE(check_gc(**host));
  }
  if (!raw) return;
  RawStore database(directory);
  EXPECT_EQ(database.all_blocks().size(), blocks) << "blocks without a head, or a head without blocks";
}

// A backup is a store of what there was at some moment while it was made.
void check_backup(const std::string& backups, const fs::path& scratch, const KnownBackup& known, bool raw) {
  const Status sound = verify_backup(backups, known.id);
  ASSERT_TRUE(sound.is_ok()) << sound.message();
  const std::string restored = (scratch / "restored").string();
  const auto record = restore(backups, restored, {.id = known.id});
  ASSERT_TRUE(record.is_ok()) << record.status().message();
  Possible contents = known.contents;
  check_store(restored, contents, raw);
  fs::remove_all(restored);
}

// ---- many kills -----------------------------------------------------------------------------------------------------

class KillAgainAndAgain {
 public:
  explicit KillAgainAndAgain(std::uint32_t seed) : random_(seed) {}

  void kill_once(std::uint64_t which) {
    constexpr std::uint32_t kVersionsOfAChild = 10'000;
    const Child child =
        start({"--work", scratch_.store(), backups_, std::to_string(random_()), std::to_string(version_)});
    version_ += kVersionsOfAChild;
    std::string said;
    wait_for_a_moment(which, child.out, said);
    ASSERT_EQ(kill(child.pid, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child.pid, &status, 0), child.pid);
    read_rest(child.out, said);
    ASSERT_FALSE(WIFEXITED(status)) << "the child gave up by itself with " << WEXITSTATUS(status);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << strsignal(WTERMSIG(status));
    ASSERT_NO_FATAL_FAILURE(history_.follow(said));
    const bool raw = which % 8 == 7;
    if (history_.store_was_opened()) {
      ASSERT_NO_FATAL_FAILURE(check_limit_was_kept(scratch_.store()));
    }
    ASSERT_NO_FATAL_FAILURE(check_store(scratch_.store(), history_.now(), raw));
    if (!history_.backup_was_begun()) return;
    if (history_.last_backup()) {
      ASSERT_NO_FATAL_FAILURE(check_backup(backups_, scratch_.path(), *history_.last_backup(), raw));
    }
    if (history_.backup_was_interrupted()) back_up_over_leftovers(raw);
  }

  void print() const {
    std::printf("%llu acknowledged operations, %llu evictions, %llu backups, %llu interrupted\n",
                as_printed(history_.acknowledged()), as_printed(history_.evictions()), as_printed(history_.backups()),
                as_printed(interrupted_));
  }
  [[nodiscard]] const Kill9History& history() const { return history_; }
  [[nodiscard]] std::uint64_t interrupted() const { return interrupted_; }

 private:
  // Mostly in the middle of work, counted in what the child said so that a slow machine tests as much as a fast one;
  // sometimes while the store is being opened, and often at any moment of its first or second backup.
  void wait_for_a_moment(std::uint64_t which, int out, std::string& said) {
    constexpr std::uint32_t kMostLines = 48;
    constexpr std::uint32_t kAnyNumber = 100'000;
    std::uint32_t longest_us = 3'000;
    if (which % 8 == 0) {
      longest_us = 30'000;
    } else if (which % 4 == 1) {
      read_lines(out, kAnyNumber, Said::kBackingUp, said);
      longest_us = backup_us_ + backup_us_ / 4;
    } else if (which % 8 == 3) {
      read_lines(out, kAnyNumber, Said::kBackedUp, said);
      longest_us = backup_us_ + backup_us_ / 2;
    } else {
      read_lines(out, 1 + random_() % kMostLines, std::nullopt, said);
    }
    usleep(static_cast<useconds_t>(random_() % longest_us));
  }

  static unsigned long long as_printed(std::uint64_t n) { return n; }

  void back_up_over_leftovers(bool raw) {
    ++interrupted_;
    KnownBackup known{.id = 0, .contents = history_.now()};
    {
      const auto host = open_rocksdb_store(scratch_.store(), kill9_options());
      ASSERT_TRUE(host.is_ok()) << host.status().message();
      const auto before = std::chrono::steady_clock::now();
      const auto report = (*host)->back_up(backups_, kKill9Backups);
      ASSERT_TRUE(report.is_ok()) << report.status().message();
      const auto took = std::chrono::steady_clock::now() - before;
      backup_us_ =
          static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::microseconds>(took).count()) + 1000;
      known.id = report->backup.id;
    }
    ASSERT_NO_FATAL_FAILURE(check_backup(backups_, scratch_.path(), known, raw));
    history_.note_backup(std::move(known));
    const auto listed = list_backups(backups_);
    ASSERT_TRUE(listed.is_ok()) << listed.status().message();
    EXPECT_LE(listed->size(), kKill9Backups);
    for (const BackupRecord& one : *listed) EXPECT_FALSE(one.damaged) << one.id;
  }

  ScratchDirectory scratch_;
  const std::string backups_ = (scratch_.path() / "backups").string();
  std::mt19937 random_;
  std::uint32_t version_ = 1;
  std::uint32_t backup_us_ = 20'000;  // how long one takes
  Kill9History history_;
  std::uint64_t interrupted_ = 0;
};

// The page cache outlives a killed process: waiting for a disk would only cost kills.
void use_memory() {
  constexpr const char* kMemory = "/dev/shm";
  if (access(kMemory, W_OK) == 0) setenv("TMPDIR", kMemory, 0);
}

TEST(Kill9, AtRandomMoments) {
  use_memory();
  KillAgainAndAgain test(first_seed);
  for (std::uint64_t i = 0; i < kills_wanted && !HasFailure(); ++i) {
    SCOPED_TRACE(::testing::Message() << "seed " << first_seed << ", kill " << i);
    test.kill_once(i);
  }
  std::printf("%llu kills: ", static_cast<unsigned long long>(kills_wanted));
  test.print();
  EXPECT_GT(test.history().acknowledged(), kills_wanted * 3);
  EXPECT_GT(test.history().evictions(), kills_wanted / 2);
  EXPECT_GT(test.history().backups(), kills_wanted / 16);
  EXPECT_GT(test.interrupted(), kills_wanted / 8);
}

TEST(Kill9, BetweenAnyTwoStepsOfAPut) {
  use_memory();
  for (const std::uint32_t name : {8U, 9U}) {  // past the log, and through it
    for (const bool replacing : {false, true}) {
      for (const PutStep step :
           {PutStep::kClaimed, PutStep::kBlocksWritten, PutStep::kHeadWritten, PutStep::kOldBlocksRemoved}) {
        SCOPED_TRACE(::testing::Message()
                     << "name " << name << " step " << static_cast<int>(step) << (replacing ? " replacing" : ""));
        ScratchDirectory scratch;
        Possible possible = Kill9History().now();
        if (replacing) {
          auto host = open_rocksdb_store(scratch.store(), kill9_options());
          ASSERT_TRUE(host.is_ok());
          ASSERT_TRUE((*(*host)->view({}))->put(kill9_entries().request(name, 1)).is_ok());
        }
        const Child child =
            start({"--put", scratch.store(), std::to_string(static_cast<int>(step)), std::to_string(name), "2"});
        int status = 0;
        ASSERT_EQ(waitpid(child.pid, &status, 0), child.pid);
        close(child.out);
        ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
        possible[name] = {step >= PutStep::kHeadWritten ? 2 : replacing ? 1 : kAbsent};
        check_store(scratch.store(), possible, true);
      }
    }
  }
}

}  // namespace
}  // namespace finchkv::cache_store

int main(int argc, char** argv) {
  namespace store = finchkv::cache_store;
  const auto number = [&](int i) { return static_cast<std::uint32_t>(std::stoul(argv[i])); };
  if (argc == 6 && std::string(argv[1]) == "--work") {
    return store::testing::work_until_killed(argv[2], argv[3], number(4), number(5));
  }
  if (argc == 6 && std::string(argv[1]) == "--put") {
    return store::testing::put_and_die(argv[2], static_cast<store::PutStep>(number(3)), number(4), number(5));
  }
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--kills") store::kills_wanted = std::strtoull(argv[i + 1], nullptr, 10);
    if (flag == "--seed") store::first_seed = number(i + 1);
  }
  return RUN_ALL_TESTS();
}
