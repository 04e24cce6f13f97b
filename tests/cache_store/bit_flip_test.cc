// One flipped bit anywhere in a store's files: every answer is right, or an error that says that something is damaged.
// Never wrong bytes, an entry that is silently gone, a crash or a hang.
//
// Some hundred flips by default; more with --flips 10000 --seed 7, and in one kind of place with --only "log lengths".
// Each trial is a process of its own on a copy in which all files but the flipped one are hard links. The lock files
// and the texts that RocksDB writes for people (OPTIONS, IDENTITY, LOG) are left alone: nothing of an answer stands in
// them.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <set>

#include <gtest/gtest.h>

#include "cache_store/codec.h"
#include "cache_store/rocksdb_store.h"
#include "tests/cache_store/rocksdb_open.h"
#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

namespace fs = std::filesystem;
using testing::make_put;
using testing::make_set;
using testing::read_file;
using testing::same_bytes;
using testing::ScratchDirectory;
using testing::SetSpec;
using testing::write_file;

constexpr std::uint64_t kLarge = 256U << 10;  // some large sets are above it in their storage dtype, some below
constexpr unsigned kLongestSeconds = 20;      // of one trial
const Tenant kAlice{"alice", std::vector<std::byte>(32, std::byte{7})};

std::uint64_t flips_wanted = 300;
std::uint64_t first_seed = 1;
std::string only_kind;

// ---- the store ------------------------------------------------------------------------------------------------------

struct Entry {
  PutRequest request;
  KvSet stored;  // what get() must return
  CacheId id;
};

// What must be found, and what must not, by tenant.
struct Contents {
  Tenant tenant;
  std::vector<Entry> there;
  std::vector<CacheId> gone;
};

Entry make_entry(std::uint32_t seed, const Tenant& tenant) {
  constexpr std::array kTypes = {DType::kF32, DType::kBF16, DType::kF16, DType::kQ8, DType::kQ4};
  const DType storage = kTypes[seed % kTypes.size()];
  const bool large = seed % 6 == 5;
  const SetSpec spec = large ? SetSpec{.layers = 3, .heads = 2, .dim = 64, .kept = 150, .doc_tokens = 400}
                             : SetSpec{.kept = 3 + seed, .doc_tokens = 80, .origins_per_head = seed % 2 == 0};
  Entry entry{.request = make_put(spec, seed, tenant, storage), .stored = {}, .id = {}};
  entry.request.if_exists = IfExists::kReplace;
  entry.id = cache_id(entry.request.identity, tenant);
  return entry;
}

struct Plan {
  std::vector<Contents> contents;
  // In the order of their putting, with the tenant's place in `contents`.
  using Puts = std::vector<std::pair<std::size_t, Entry>>;
  Puts early;  // all end up in tables
  Puts late;   // the small ones stay in the log

  // Closing a database that has taken large puts flushes it: the small ones get an opening of their own.
  Puts late_ones(bool large) const {
    Puts some;
    for (const auto& put : late) {
      if ((put.second.request.set.tensor_bytes() >= kLarge) == large) some.push_back(put);
    }
    return some;
  }
};

Plan make_plan() {
  Plan plan;
  plan.contents = {{{}, {}, {}}, {kAlice, {}, {}}};
  for (std::uint32_t seed = 0; seed < 36; ++seed) {
    const std::size_t tenant = seed % 4 == 3 ? 1 : 0;
    Entry entry = make_entry(seed, plan.contents[tenant].tenant);
    if (seed % 9 == 4) {
      (seed < 18 ? plan.early : plan.late).emplace_back(tenant, entry);
      plan.contents[tenant].gone.push_back(entry.id);
      continue;
    }
    (seed < 18 ? plan.early : plan.late).emplace_back(tenant, entry);
    if (seed % 7 == 3) {  // replaced, later
      entry.request.set =
          make_set({.kept = 2, .doc_tokens = static_cast<std::uint32_t>(entry.request.set.doc_tokens)}, seed + 1000);
      entry.request.label = "replaced";
      plan.late.emplace_back(tenant, entry);
    }
    auto stored = as_stored(entry.request.set, entry.request.identity.storage);
    EXPECT_TRUE(stored.is_ok()) << stored.status().message();
    entry.stored = *std::move(stored);
    plan.contents[tenant].there.push_back(std::move(entry));
  }
  return plan;
}

RocksDbOptions store_options(RocksDbOptions::Mode mode) {
  RocksDbOptions options;
  options.mode = mode;
  options.large_put_bytes = kLarge;
  return options;
}

std::uint64_t log_bytes(const std::string& directory) {
  std::uint64_t total = 0;
  for (const auto& file : fs::directory_iterator(directory)) {
    if (file.path().extension() == ".log") total += file.file_size();
  }
  return total;
}

void put_all(const std::string& directory, const Plan::Puts& entries, const Plan& plan, bool killed) {
  auto host = open_rocksdb_store(directory, store_options(RocksDbOptions::Mode::kWrite));
  if (!host.is_ok()) _exit(2);
  for (const auto& [tenant, entry] : entries) {
    auto store = (*host)->view(plan.contents[tenant].tenant);
    if (!store.is_ok() || !(*store)->put(entry.request).is_ok()) _exit(3);
  }
  for (const Contents& contents : plan.contents) {
    auto store = (*host)->view(contents.tenant);
    for (const CacheId& id : contents.gone) {
      const Status removed = (*store)->remove(id);
      if (!removed.is_ok() && removed.code() != StatusCode::kNotFound) _exit(4);
    }
  }
  if (killed) _exit(0);
}

enum class Ending : std::uint8_t {
  kClosed,   // the last small entries are in the log
  kKilled,   // after a flush, which is the manifest's last word
  kFlushed,  // everything is in tables, and the manifest's last word is where
};

// Openings flush the logs when there are many.
void flush(const std::string& directory) {
  for (int i = 0; i < 64 && log_bytes(directory) > 0; ++i) {
    (void)open_rocksdb_store(directory, store_options(RocksDbOptions::Mode::kWrite)).is_ok();
  }
}

// In a process of its own, so that this one has no RocksDB threads when it forks the trials.
void build(const std::string& directory, const Plan& plan, Ending ending) {
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    put_all(directory, plan.early, plan, false);
    flush(directory);
    if (ending == Ending::kKilled) {
      Plan::Puts late = plan.late_ones(false);
      for (auto& put : plan.late_ones(true)) late.push_back(std::move(put));
      put_all(directory, late, plan, true);
    }
    put_all(directory, plan.late_ones(true), plan, false);
    put_all(directory, plan.late_ones(false), plan, false);
    if (ending == Ending::kFlushed) flush(directory);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "building the store failed with " << status;
}

// ---- one trial ------------------------------------------------------------------------------------------------------

// From harmless to bad.
enum class Outcome : std::uint8_t { kRight, kDetected, kOtherError, kLost, kWrong, kAborted, kCrashed, kHung };
constexpr std::size_t kOutcomes = 8;

std::string_view outcome_name(Outcome outcome) {
  constexpr std::array<std::string_view, kOutcomes> kNames = {"right", "detected", "other error", "lost",
                                                              "wrong", "aborted",  "crashed",     "hung"};
  return kNames[static_cast<std::size_t>(outcome)];
}

struct Verdict {
  Outcome outcome = Outcome::kRight;
  char why[400] = {};

  void note(Outcome seen, const std::string& text) {
    if (seen <= outcome) return;
    outcome = seen;
    std::snprintf(why, sizeof(why), "%s", text.c_str());
  }
  void note_error(const Status& status, const std::string& doing) {
    const StatusCode code = status.code();
    const bool damage =
        code == StatusCode::kCorrupt || code == StatusCode::kUnavailable || code == StatusCode::kUnsupported;
    note(damage                          ? Outcome::kDetected
         : code == StatusCode::kNotFound ? Outcome::kLost
                                         : Outcome::kOtherError,
         doing + ": " + status.to_string());
  }
  void expect(bool right, const std::string& what) {
    if (!right) note(Outcome::kWrong, what);
  }
};

bool same_set(const KvSet& a, const KvSet& b) {
  if (a.shape != b.shape || a.dtype != b.dtype || a.key_form != b.key_form || a.doc_tokens != b.doc_tokens ||
      a.next_position != b.next_position || a.rope != b.rope || a.layers.size() != b.layers.size()) {
    return false;
  }
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    if (a.layers[l].n_kept != b.layers[l].n_kept || !same_bytes(a.layers[l].keys, b.layers[l].keys) ||
        !same_bytes(a.layers[l].values, b.layers[l].values) ||
        !std::ranges::equal(a.layers[l].origins, b.layers[l].origins)) {
      return false;
    }
  }
  return true;
}

void check_entry(Store& store, const Entry& entry, Verdict& verdict) {
  if (const auto info = store.find(entry.id); info.is_ok()) {
    verdict.expect(info->identity == entry.request.identity && info->label == entry.request.label &&
                       info->shape == entry.request.set.shape,
                   "find returned something else for label " + entry.request.label + ": " + info->label);
  } else {
    verdict.note_error(info.status(), "find");
  }
  if (const auto set = store.get(entry.id); set.is_ok()) {
    verdict.expect(same_set(*set, entry.stored), "get returned other bytes");
  } else {
    verdict.note_error(set.status(), "get");
  }
  if (const auto tokens = store.read_document_tokens(entry.id); tokens.is_ok()) {
    verdict.expect(*tokens == *entry.request.document_tokens, "other document tokens");
  } else {
    verdict.note_error(tokens.status(), "read_document_tokens");
  }
}

void check_list(Store& store, const Contents& contents, Verdict& verdict) {
  std::set<CacheId> listed;
  std::optional<CacheId> after;
  do {
    const auto page = store.list(after, 7);
    if (!page.is_ok()) return verdict.note_error(page.status(), "list");
    for (const EntryInfo& entry : page->entries) listed.insert(entry.id);
    listed.insert(page->unreadable.begin(), page->unreadable.end());
    if (!page->unreadable.empty()) verdict.note(Outcome::kDetected, "unreadable entries listed");
    after = page->next;
  } while (after);
  for (const Entry& entry : contents.there) {
    if (listed.erase(entry.id) == 0) verdict.note(Outcome::kLost, "list leaves out an entry");
  }
  verdict.expect(listed.empty(), "list has an entry that is not there");
}

void check_contents(StoreHost& host, const Contents& contents, Verdict& verdict) {
  const auto store = host.view(contents.tenant);
  if (!store.is_ok()) return verdict.note_error(store.status(), "view");
  for (const Entry& entry : contents.there) check_entry(**store, entry, verdict);
  for (const CacheId& id : contents.gone) {
    const Status found = (*store)->find(id).status();
    verdict.expect(!found.is_ok(), "a removed entry is back");
    if (!found.is_ok() && found.code() != StatusCode::kNotFound) verdict.note_error(found, "find of a removed entry");
  }
  check_list(**store, contents, verdict);
}

void look(const std::string& directory, const Plan& plan, RocksDbOptions::Mode mode, Verdict& verdict) {
  const auto host = open_rocksdb_store(directory, store_options(mode));
  if (!host.is_ok()) return verdict.note_error(host.status(), "opening");
  for (const Contents& contents : plan.contents) check_contents(**host, contents, verdict);
}

// Shared with the child that fills it.
class SharedVerdict {
 public:
  SharedVerdict() : memory_(mmap(nullptr, sizeof(Verdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) std::abort();
  }
  ~SharedVerdict() { munmap(memory_, sizeof(Verdict)); }
  SharedVerdict(const SharedVerdict&) = delete;
  SharedVerdict& operator=(const SharedVerdict&) = delete;
  Verdict& fresh() { return *new (memory_) Verdict; }

 private:
  void* memory_;
};

Verdict judge(const std::string& directory, const Plan& plan, RocksDbOptions::Mode mode, const std::string& errors) {
  static SharedVerdict shared;
  Verdict& verdict = shared.fresh();
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    const int fd = open(errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDERR_FILENO);
    alarm(kLongestSeconds);
    look(directory, plan, mode, verdict);
    _exit(0);
  }
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) std::abort();
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    std::string said = read_file(errors);
    if (!said.empty() && said.back() == '\n') said.pop_back();
    verdict.note(signal == SIGALRM   ? Outcome::kHung
                 : signal == SIGABRT ? Outcome::kAborted
                                     : Outcome::kCrashed,
                 said.empty() ? strsignal(signal) : said.substr(said.rfind('\n') + 1));
  } else if (WEXITSTATUS(status) != 0) {
    verdict.note(Outcome::kCrashed, "exit status " + std::to_string(WEXITSTATUS(status)));
  }
  return verdict;
}

// ---- many of them ---------------------------------------------------------------------------------------------------

std::string kind_of(const fs::path& file) {
  const std::string name = file.filename().string();
  for (const char* skipped : {"LOCK", "finchkv.lock", "IDENTITY", "OPTIONS", "LOG"}) {
    if (name.compare(0, std::strlen(skipped), skipped) == 0) return "";
  }
  if (name.compare(0, 9, "MANIFEST-") == 0) return "manifest";
  for (const char* end : {".log", ".sst", ".blob"}) {
    if (file.extension() == end) return end + 1;
  }
  return name;
}

struct Flip {
  std::string file;
  std::uint64_t byte = 0;
  int bit = 0;
};

struct Range {
  std::string file;
  std::uint64_t from;
  std::uint64_t bytes;
};

// The lengths of a log's or manifest's records (header: checksum 4, length 2, type 1, in blocks of 32 KiB that no
// header straddles): few bytes, and those where damage can look like an end.
std::vector<Range> record_lengths(const fs::path& path) {
  constexpr std::size_t kBlock = 32768;
  constexpr std::size_t kHeader = 7;
  const std::string bytes = read_file(path);
  std::vector<Range> lengths;
  for (std::size_t at = 0; at + kHeader <= bytes.size();) {
    if (const std::size_t left = kBlock - at % kBlock; left < kHeader) {
      at += left;
      continue;
    }
    lengths.push_back({path.filename().string(), at + 4, 2});
    const auto low = static_cast<unsigned char>(bytes[at + 4]);
    const auto high = static_cast<unsigned char>(bytes[at + 5]);
    at += kHeader + low + 256U * high;
  }
  return lengths;
}

// Every kind of place as often as any other, every bit of a kind as often as any other.
class Flipper {
 public:
  // With a kind of `only`, nothing else is flipped.
  Flipper(const std::string& directory, const std::string& only) {
    for (const auto& file : fs::directory_iterator(directory)) {
      if (!file.is_regular_file()) continue;
      const std::string kind = kind_of(file.path());
      if (kind.empty() || file.file_size() == 0) continue;
      ranges_[kind].push_back({file.path().filename().string(), 0, file.file_size()});
      if (kind == "log" || kind == "manifest") {
        auto& lengths = ranges_[kind + " lengths"];
        for (Range& length : record_lengths(file.path())) lengths.push_back(std::move(length));
      }
    }
    if (!only.empty()) std::erase_if(ranges_, [&](const auto& kind) { return kind.first != only; });
  }
  [[nodiscard]] std::pair<std::string, Flip> next(std::mt19937_64& random) const {
    const auto kind = std::next(ranges_.begin(), static_cast<std::ptrdiff_t>(random() % ranges_.size()));
    std::uint64_t place = random() % bytes_of(kind->first);
    auto range = kind->second.begin();
    for (; place >= range->bytes; ++range) place -= range->bytes;
    return {kind->first, {range->file, range->from + place, static_cast<int>(random() % 8)}};
  }
  [[nodiscard]] bool has(const std::string& kind) const { return ranges_.contains(kind); }
  [[nodiscard]] std::uint64_t bytes_of(const std::string& kind) const {
    std::uint64_t total = 0;
    for (const Range& range : ranges_.at(kind)) total += range.bytes;
    return total;
  }

 private:
  std::map<std::string, std::vector<Range>> ranges_;
};

// A writer cuts the end of its log off and must not share it.
void copy_with(const std::string& from, const std::string& to, const Flip& flip, RocksDbOptions::Mode mode) {
  fs::remove_all(to);
  fs::create_directory(to);
  for (const auto& file : fs::directory_iterator(from)) {
    if (!file.is_regular_file()) continue;
    const std::string name = file.path().filename().string();
    const fs::path target = fs::path(to) / name;
    if (name == flip.file || mode == RocksDbOptions::Mode::kWrite) {
      fs::copy_file(file.path(), target);
    } else {
      fs::create_hard_link(file.path(), target);
    }
  }
  if (flip.file.empty()) return;
  const fs::path target = fs::path(to) / flip.file;
  std::string bytes = read_file(target);
  bytes[flip.byte] ^= static_cast<char>(1U << flip.bit);
  write_file(target, bytes);
}

constexpr const char* kMemory = "/dev/shm";

void flip_many(Ending ending, std::uint64_t flips, std::uint64_t seed) {
  if (access(kMemory, W_OK) == 0) setenv("TMPDIR", kMemory, 0);
  ScratchDirectory scratch;
  const std::string original = scratch.store();
  const std::string copy = (scratch.path() / "copy").string();
  const std::string errors = (scratch.path() / "errors").string();
  const Plan plan = make_plan();
  ASSERT_NO_FATAL_FAILURE(build(original, plan, ending));
  for (const auto mode : {RocksDbOptions::Mode::kRead, RocksDbOptions::Mode::kWrite}) {
    copy_with(original, copy, {}, mode);
    const Verdict untouched = judge(copy, plan, mode, errors);
    ASSERT_EQ(untouched.outcome, Outcome::kRight) << untouched.why;
  }
  const Flipper flipper(original, only_kind);
  for (const char* kind : {"manifest", "manifest lengths", "sst", "blob", "CURRENT", "finchkv.store", "log"}) {
    const bool wanted = ending != Ending::kFlushed || std::strcmp(kind, "log") != 0;
    ASSERT_TRUE(flipper.has(kind) == wanted || !only_kind.empty()) << kind;
  }
  std::map<std::string, std::array<std::uint64_t, kOutcomes>> table;
  std::string failures;
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < flips; ++i) {
    const auto [kind, flip] = flipper.next(random);
    const auto mode = random() % 4 == 0 ? RocksDbOptions::Mode::kWrite : RocksDbOptions::Mode::kRead;
    copy_with(original, copy, flip, mode);
    const Verdict verdict = judge(copy, plan, mode, errors);
    ++table[kind][static_cast<std::size_t>(verdict.outcome)];
    if (verdict.outcome <= Outcome::kDetected) continue;
    failures += std::string(outcome_name(verdict.outcome)) + ": bit " + std::to_string(flip.bit) + " of byte " +
                std::to_string(flip.byte) + " of " + flip.file + " (" +
                std::to_string(fs::file_size(fs::path(original) / flip.file)) + " bytes), opened for " +
                (mode == RocksDbOptions::Mode::kRead ? "reading" : "writing") + ": " + verdict.why + "\n";
  }
  for (const auto& [kind, counts] : table) {
    std::printf("%-16s %8llu bytes:", kind.c_str(), static_cast<unsigned long long>(flipper.bytes_of(kind)));
    for (std::size_t o = 0; o < kOutcomes; ++o) {
      if (counts[o] == 0) continue;
      std::printf("  %s %llu", outcome_name(static_cast<Outcome>(o)).data(),
                  static_cast<unsigned long long>(counts[o]));
    }
    std::printf("\n");
  }
  if (!failures.empty()) ADD_FAILURE() << failures;
}

TEST(RocksDbBitFlip, OfAStoreThatWasClosed) { flip_many(Ending::kClosed, (flips_wanted + 2) / 3, first_seed); }

TEST(RocksDbBitFlip, OfAStoreWhoseProcessWasKilled) {
  flip_many(Ending::kKilled, (flips_wanted + 1) / 3, first_seed + 1);
}

TEST(RocksDbBitFlip, OfAStoreThatWasFlushed) { flip_many(Ending::kFlushed, flips_wanted / 3, first_seed + 2); }

}  // namespace
}  // namespace finchkv::cache_store

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--flips") finchkv::cache_store::flips_wanted = std::strtoull(argv[i + 1], nullptr, 10);
    if (flag == "--seed") finchkv::cache_store::first_seed = std::strtoull(argv[i + 1], nullptr, 10);
    if (flag == "--only") finchkv::cache_store::only_kind = argv[i + 1];
  }
  return RUN_ALL_TESTS();
}
