#include "cache_store/read_pool.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/thread_pool.h"

namespace finchkv::cache_store {

std::size_t ReadPool::usual_threads() {
  constexpr std::size_t kLeast = 2, kMost = 15;
  return std::clamp(static_cast<std::size_t>(usable_processors()), kLeast + 1, kMost + 1) - 1;
}

ReadPool::~ReadPool() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    tasks_.clear();
  }
  posted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ReadPool::post(std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  if (ending_ || most_ == 0) return;
  tasks_.push_back(std::move(task));
  if (tasks_.size() > idle_ && threads_.size() < most_) {
    try {
      threads_.emplace_back([this] { run(); });
    } catch (const std::system_error&) {
      // No thread to be had: the others, or whoever posted it, do the work.
      if (threads_.empty()) tasks_.clear();
    }
  }
  posted_.notify_one();
}

void ReadPool::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    posted_.wait(lock, [this] { return ending_ || !tasks_.empty(); });
    --idle_;
    if (ending_) return;
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    lock.lock();
  }
}

}  // namespace finchkv::cache_store
