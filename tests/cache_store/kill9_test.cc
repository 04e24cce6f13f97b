// Kill -9 in the middle of puts, replacing puts and removals: afterwards every acknowledged entry is whole, no partial
// entry is visible, and gc leaves no block without a head.
//
// The test runs itself as a child that works on a store and says through a pipe what it is about to do and what is
// done; the parent kills it, opens the store and compares.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "cache_store/codec.h"
#include "cache_store/rocksdb_store.h"
#include "tests/cache_store/raw_store.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::make_put;
using testing::make_set;
using testing::RawStore;
using testing::same_bytes;
using testing::ScratchDirectory;
using testing::SetSpec;

constexpr std::uint32_t kNames = 24;
constexpr std::uint64_t kLarge = 32 << 10;  // puts from here on go past the log
constexpr std::uint32_t kAbsent = 0;        // as a version

// Name i always has the same identity; its version says which bytes are stored under it. Every fourth name is large.
SetSpec spec_of(std::uint32_t name) {
  if (name % 4 == 0) return {.layers = 3, .heads = 2, .dim = 64, .kept = 40, .doc_tokens = 100};
  return {};
}

PutRequest request_of(std::uint32_t name, std::uint32_t version) {
  PutRequest request = make_put(spec_of(name), name);
  request.set = make_set(spec_of(name), version * 1000 + name);
  request.if_exists = IfExists::kReplace;
  return request;
}

RocksDbOptions store_options() {
  RocksDbOptions options;
  options.large_put_bytes = kLarge;
  return options;
}

void say(char what, std::uint32_t name, std::uint32_t version) {
  char line[64];
  const int n = std::snprintf(line, sizeof(line), "%c %u %u\n", what, name, version);
  if (write(STDOUT_FILENO, line, static_cast<std::size_t>(n)) != n) _exit(3);
}

int work(const std::string& directory, std::uint32_t seed, std::uint32_t version) {
  auto host = open_rocksdb_store(directory, store_options());
  if (!host.is_ok()) return 4;
  auto store = (*host)->view({});
  if (!store.is_ok()) return 4;
  say('o', 0, 0);
  std::mt19937 random(seed);
  for (;; ++version) {
    const std::uint32_t name = random() % kNames;
    if (random() % 4 == 0) {
      say('r', name, kAbsent);
      const Status removed = (*store)->remove(cache_id(make_put(spec_of(name), name).identity, {}));
      if (!removed.is_ok() && removed.code() != StatusCode::kNotFound) return 5;
      say('R', name, kAbsent);
    } else {
      const PutRequest request = request_of(name, version);
      say('p', name, version);
      if (!(*store)->put(request).is_ok()) return 5;
      say('P', name, version);
    }
    if (random() % 16 == 0 && !(*host)->gc().is_ok()) return 6;
  }
}

int put_and_die(const std::string& directory, PutStep step, std::uint32_t name, std::uint32_t version) {
  RocksDbOptions options = store_options();
  options.on_put_step = [step](PutStep at) {
    if (at == step) kill(getpid(), SIGKILL);
  };
  auto host = open_rocksdb_store(directory, options);
  if (!host.is_ok()) return 4;
  auto store = (*host)->view({});
  return store.is_ok() && (*store)->put(request_of(name, version)).is_ok() ? 0 : 5;
}

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
    _exit(9);
  }
  close(ends[1]);
  return {pid, ends[0]};
}

void read_lines(int fd, std::uint32_t lines, std::string& text) {
  char c = 0;
  while (lines > 0 && read(fd, &c, 1) == 1) {
    text += c;
    if (c == '\n') --lines;
  }
}

void read_rest(int fd, std::string& text) {
  char buffer[4096];
  for (ssize_t n = 0; (n = read(fd, buffer, sizeof(buffer))) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  close(fd);
}

// The versions that each name may have now: one when all is acknowledged, more while something was under way.
using Possible = std::map<std::uint32_t, std::set<std::uint32_t>>;

std::uint32_t follow(const std::string& text, Possible& possible) {
  std::uint32_t acknowledged = 0;
  std::size_t at = 0;
  for (std::size_t end = 0; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    char what = 0;
    unsigned name = 0;
    unsigned version = 0;
    EXPECT_EQ(std::sscanf(text.c_str() + at, "%c %u %u", &what, &name, &version), 3);
    std::set<std::uint32_t>& versions = possible[name];
    if (versions.empty()) versions = {kAbsent};  // never written before
    if (what == 'p' || what == 'r') versions.insert(version);
    if (what == 'P' || what == 'R') {
      versions = {version};
      ++acknowledged;
    }
  }
  return acknowledged;
}

bool holds(const KvSet& set, std::uint32_t name, std::uint32_t version) {
  const KvSet expected = make_set(spec_of(name), version * 1000 + name);
  for (std::size_t l = 0; l < expected.layers.size(); ++l) {
    if (!same_bytes(set.layers[l].keys, expected.layers[l].keys) ||
        !same_bytes(set.layers[l].values, expected.layers[l].values)) {
      return false;
    }
  }
  return true;
}

// Opens the store and settles what every name holds, and what blocks there are in all.
void check_store(const std::string& directory, Possible& possible, bool count_blocks) {
  std::uint64_t blocks = 0;
  {
    auto host = open_rocksdb_store(directory, store_options());
    ASSERT_TRUE(host.is_ok()) << host.status().message();
    auto store = (*host)->view({});
    ASSERT_TRUE(store.is_ok());
    for (std::uint32_t name = 0; name < kNames; ++name) {
      std::set<std::uint32_t>& versions = possible[name];
      if (versions.empty()) versions = {kAbsent};
      const CacheId id = cache_id(make_put(spec_of(name), name).identity, {});
      auto set = (*store)->get(id);
      if (!set.is_ok()) {
        ASSERT_EQ(set.status().code(), StatusCode::kNotFound) << set.status().message();
        ASSERT_TRUE(versions.contains(kAbsent)) << "acknowledged entry " << name << " is gone";
        versions = {kAbsent};
        continue;
      }
      const auto found =
          std::find_if(versions.begin(), versions.end(), [&](auto v) { return v != kAbsent && holds(*set, name, v); });
      ASSERT_NE(found, versions.end()) << "entry " << name << " holds bytes that it cannot have";
      versions = {*found};
      ASSERT_TRUE((*store)->verify(id).is_ok());
      blocks += 1 + 3 * set->layers.size() + 1;
    }
    auto page = (*store)->list({}, 1000);
    ASSERT_TRUE(page.is_ok());
    EXPECT_TRUE(page->unreadable.empty());
    ASSERT_TRUE((*host)->gc().is_ok());
  }
  if (!count_blocks) return;
  RawStore raw(directory);
  EXPECT_EQ(raw.all_blocks().size(), blocks) << "blocks without a head, or a head without blocks";
}

TEST(Kill9, AtRandomMoments) {
  ScratchDirectory scratch;
  Possible possible;
  std::mt19937 random(77);
  std::uint32_t acknowledged = 0;
  std::uint32_t version = 1;
  constexpr int kKills = 200;
  for (int i = 0; i < kKills; ++i) {
    const Child child = start({"--work", scratch.store(), std::to_string(random()), std::to_string(version)});
    // Mostly in the middle of work, counted in what the child said so that a slow machine tests as much as a fast one;
    // sometimes while the store is being opened.
    std::string text;
    if (i % 8 != 0) read_lines(child.out, 1 + random() % 24, text);
    usleep(static_cast<useconds_t>(random() % (i % 8 == 0 ? 30000 : 3000)));
    ASSERT_EQ(kill(child.pid, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child.pid, &status, 0), child.pid);
    read_rest(child.out, text);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child gave up by itself with " << WEXITSTATUS(status) << " after "
                                     << text.size() << " bytes";
    acknowledged += follow(text, possible);
    version += 100000;  // every child's versions are its own
    check_store(scratch.store(), possible, i % 8 == 7);
    if (HasFatalFailure()) return;
  }
  std::printf("%d kills, %u acknowledged operations\n", kKills, acknowledged);
  EXPECT_GT(acknowledged, 500U);
}

TEST(Kill9, BetweenAnyTwoStepsOfAPut) {
  for (const std::uint32_t name : {0U, 1U}) {  // past the log, and through it
    for (const bool replacing : {false, true}) {
      for (const PutStep step :
           {PutStep::kClaimed, PutStep::kBlocksWritten, PutStep::kHeadWritten, PutStep::kOldBlocksRemoved}) {
        SCOPED_TRACE(::testing::Message()
                     << "name " << name << " step " << static_cast<int>(step) << (replacing ? " replacing" : ""));
        ScratchDirectory scratch;
        Possible possible;
        if (replacing) {
          auto host = open_rocksdb_store(scratch.store(), store_options());
          ASSERT_TRUE(host.is_ok());
          ASSERT_TRUE((*(*host)->view({}))->put(request_of(name, 1)).is_ok());
        }
        const Child child =
            start({"--put", scratch.store(), std::to_string(static_cast<int>(step)), std::to_string(name), "2"});
        int status = 0;
        ASSERT_EQ(waitpid(child.pid, &status, 0), child.pid);
        close(child.out);
        ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
        if (step >= PutStep::kHeadWritten) {
          possible[name] = {2};
        } else {
          possible[name] = {replacing ? 1 : kAbsent};
        }
        check_store(scratch.store(), possible, true);
      }
    }
  }
}

}  // namespace
}  // namespace finchkv::cache_store

int main(int argc, char** argv) {
  using namespace finchkv::cache_store;
  const auto number = [&](int i) { return static_cast<std::uint32_t>(std::stoul(argv[i])); };
  if (argc == 5 && std::string(argv[1]) == "--work") return work(argv[2], number(3), number(4));
  if (argc == 6 && std::string(argv[1]) == "--put") {
    return put_and_die(argv[2], static_cast<PutStep>(number(3)), number(4), number(5));
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
