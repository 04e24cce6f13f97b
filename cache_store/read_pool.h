// ReadPool: a few threads that help to read entries.
//
// Threads start with the first task and end with the pool; tasks run in the order they came. Thread-safe. A task must
// not throw, and must not be needed for anything: whoever posts it can do the work alone.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace finchkv::cache_store {

class ReadPool {
 public:
  explicit ReadPool(std::size_t threads) : most_(threads) {}
  ~ReadPool();
  ReadPool(const ReadPool&) = delete;
  ReadPool& operator=(const ReadPool&) = delete;

  /// One per processor that this process may use but one, which is left to whoever asked; from 2 to 15.
  [[nodiscard]] static std::size_t usual_threads();
  [[nodiscard]] std::size_t threads() const { return most_; }
  void post(std::function<void()> task);

 private:
  void run();

  const std::size_t most_;
  std::mutex mutex_;
  std::condition_variable posted_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;
  bool ending_ = false;
};

}  // namespace finchkv::cache_store
