#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <system_error>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace finchkv {
namespace {

// Whose task this thread is running, and under which worker number. Nested regions of the same pool run inline under
// it.
thread_local const ThreadPool* current_pool = nullptr;
thread_local int current_worker = 0;

class Inside {
 public:
  Inside(const ThreadPool* pool, int worker) : pool_(current_pool), worker_(current_worker) {
    current_pool = pool;
    current_worker = worker;
  }
  ~Inside() {
    current_pool = pool_;
    current_worker = worker_;
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  const ThreadPool* pool_;
  int worker_;
};

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Long enough to bridge the gap between two ops of a decode step, short enough not to burn a core between requests.
constexpr auto kSpin = std::chrono::microseconds(200);

}  // namespace

int usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Workers enter a region through its gate while it is open and leave it again; the caller closes the gate when no task
// is left and waits only for those inside. A worker that the system did not schedule in time is not waited for.
struct ThreadPool::Region {
  static constexpr std::uint64_t kClosed = 1ULL << 63;
  std::int64_t n_tasks = 0;
  const std::function<void(std::int64_t, int)>* task = nullptr;
  alignas(64) std::atomic<std::int64_t> next{0};
  alignas(64) std::atomic<std::uint64_t> gate{kClosed};  // workers inside, and the closed bit
  std::mutex failure_mutex;
  std::exception_ptr failure;  // the first that a task threw
};

ThreadPool::ThreadPool(int n_threads) : region_(std::make_unique<Region>()) {
  if (n_threads <= 0) n_threads = usable_processors();
  workers_.reserve(static_cast<std::size_t>(n_threads - 1));
  try {
    for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error&) {  // the system gives no more threads: go on with those there are
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_.store(true);
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::drain(Region& region, int worker) {
  for (;;) {
    const std::int64_t i = region.next.fetch_add(1, std::memory_order_relaxed);
    if (i >= region.n_tasks) return;
    try {
      (*region.task)(i, worker);
    } catch (...) {
      const std::lock_guard lock(region.failure_mutex);
      if (!region.failure) region.failure = std::current_exception();
      region.next.store(region.n_tasks, std::memory_order_relaxed);  // nobody starts another task
    }
  }
}

void ThreadPool::run(std::int64_t n_tasks, const std::function<void(std::int64_t, int)>& task) {
  if (n_tasks <= 0) return;
  if (current_pool == this) {
    for (std::int64_t i = 0; i < n_tasks; ++i) task(i, current_worker);
    return;
  }
  const std::lock_guard caller(
      caller_mutex_);  // worker numbers name scratch memory: one region at a time, inline or not
  const Inside inside_this(this, 0);
  if (workers_.empty() || n_tasks == 1) {
    for (std::int64_t i = 0; i < n_tasks; ++i) task(i, 0);
    return;
  }
  region_->n_tasks = n_tasks;
  region_->task = &task;
  region_->next.store(0, std::memory_order_relaxed);
  region_->gate.fetch_and(~Region::kClosed, std::memory_order_release);
  generation_.fetch_add(1);  // seq_cst: ordered against the sleeper's own check
  if (sleepers_.load() > 0) {
    { const std::lock_guard lock(mutex_); }
    wake_.notify_all();
  }
  drain(*region_, 0);
  std::uint64_t inside = region_->gate.fetch_or(Region::kClosed, std::memory_order_acq_rel);
  for (int spins = 0; (inside & ~Region::kClosed) != 0; inside = region_->gate.load(std::memory_order_acquire)) {
    relax();
    if (++spins > 20000) std::this_thread::yield();  // more threads than processors: let them finish
  }
  if (region_->failure) std::rethrow_exception(std::exchange(region_->failure, nullptr));
}

void ThreadPool::work(int worker) {
  const Inside inside_this(this, worker);
  std::uint64_t seen = 0;
  for (;;) {
    const auto until = std::chrono::steady_clock::now() + kSpin;
    int polls = 0;
    while (generation_.load() == seen) {
      relax();
      if (++polls % 64 != 0 || std::chrono::steady_clock::now() < until) continue;
      std::unique_lock lock(mutex_);
      sleepers_.fetch_add(1);
      wake_.wait(lock, [&] { return generation_.load() != seen; });
      sleepers_.fetch_sub(1);
    }
    seen = generation_.load();
    if (stop_.load()) return;
    if ((region_->gate.fetch_add(1, std::memory_order_acq_rel) & Region::kClosed) == 0) drain(*region_, worker);
    region_->gate.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace finchkv
