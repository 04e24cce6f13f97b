#include "tests/cache_store/flip_trial.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <set>

#include "tests/cache_store/rocksdb_open.h"

namespace finchkv::cache_store::testing {
namespace {

constexpr unsigned kLongestSeconds = 200;  // of one trial

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

void check_entry(Store& store, const FlipEntry& entry, Verdict& verdict) {
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

void check_list(Store& store, const FlipContents& contents, Verdict& verdict) {
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
  for (const FlipEntry& entry : contents.there) {
    if (listed.erase(entry.id) == 0) verdict.note(Outcome::kLost, "list leaves out an entry");
  }
  verdict.expect(listed.empty(), "list has an entry that is not there");
}

void check_contents(StoreHost& host, const FlipContents& contents, Verdict& verdict) {
  const auto store = host.view(contents.tenant);
  if (!store.is_ok()) return verdict.note_error(store.status(), "view");
  for (const FlipEntry& entry : contents.there) check_entry(**store, entry, verdict);
  for (const CacheId& id : contents.gone) {
    const Status found = (*store)->find(id).status();
    verdict.expect(!found.is_ok(), "a removed entry is back");
    if (!found.is_ok() && found.code() != StatusCode::kNotFound) verdict.note_error(found, "find of a removed entry");
  }
  check_list(**store, contents, verdict);
}

void look(const std::string& directory, const FlipPlan& plan, RocksDbOptions::Mode mode, Verdict& verdict) {
  const auto host = open_rocksdb_store(directory, flip_options(mode));
  if (!host.is_ok()) return verdict.note_error(host.status(), "opening");
  for (const FlipContents& contents : plan.contents) check_contents(**host, contents, verdict);
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

}  // namespace

std::string_view outcome_name(Outcome outcome) {
  constexpr std::array<std::string_view, kOutcomes> kNames = {"right", "detected", "other error", "lost",
                                                              "wrong", "aborted",  "crashed",     "hung"};
  return kNames[static_cast<std::size_t>(outcome)];
}

void Verdict::note(Outcome seen, const std::string& text) {
  if (seen <= outcome) return;
  outcome = seen;
  std::snprintf(why, sizeof(why), "%s", text.c_str());
}

void Verdict::note_error(const Status& status, const std::string& doing) {
  const StatusCode code = status.code();
  const bool damage =
      code == StatusCode::kCorrupt || code == StatusCode::kUnavailable || code == StatusCode::kUnsupported;
  note(damage                          ? Outcome::kDetected
       : code == StatusCode::kNotFound ? Outcome::kLost
                                       : Outcome::kOtherError,
       doing + ": " + status.to_string());
}

void Verdict::expect(bool right, const std::string& what) {
  if (!right) note(Outcome::kWrong, what);
}

Verdict judge(const std::string& directory, const FlipPlan& plan, RocksDbOptions::Mode mode,
              const std::string& errors) {
  static SharedVerdict shared;
  Verdict& verdict = shared.fresh();
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    const int fd = ::open(errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
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

}  // namespace finchkv::cache_store::testing
