// ThreadPool: the one source of threads for compute.
//
// run() splits work into numbered tasks; workers take the next number until none is left, and the calling thread takes
// part. Which worker runs a task is not fixed, so a task's result must depend on its number alone: that is what makes
// f32 results the same for any number of threads. Workers spin for some microseconds before they sleep, because a
// decode step is some hundred short regions in a row. One region at a time: a second caller waits. run() inside a task
// runs inline.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace finchkv {

/// How many processors the calling thread may run on (its affinity, a container's set of processors), at least 1.
[[nodiscard]] int usable_processors();

class ThreadPool {
 public:
  /// n_threads counts the caller; 0 means one per processor that this process may use.
  explicit ThreadPool(int n_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int n_threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls task(i, worker) for every i in [0, n_tasks), worker in [0, n_threads()), and returns when all are done.
  /// When a task throws, the tasks that have not started are left out and run() throws it again.
  void run(std::int64_t n_tasks, const std::function<void(std::int64_t, int)>& task);

 private:
  struct Region;
  void work(int worker);
  static void drain(Region& region, int worker);

  std::vector<std::thread> workers_;
  std::mutex caller_mutex_;  // one region at a time
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  std::unique_ptr<Region> region_;
};

}  // namespace finchkv
