// RestGate: many pass at once, until somebody asks for a rest; then newcomers wait until it is over.
//
// Unlike a shared mutex it lets the one who asks in before the next passers, however many there are. Internal to
// cache_store. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>

namespace finchkv::cache_store {

class RestGate {
 public:
  /// One passage; as short as it can be.
  class Pass {
   public:
    explicit Pass(RestGate& gate) : gate_(gate) {
      std::unique_lock lock(gate_.mutex_);
      gate_.changed_.wait(lock, [this] { return !gate_.resting_; });
      ++gate_.inside_;
    }
    ~Pass() {
      const std::lock_guard lock(gate_.mutex_);
      if (--gate_.inside_ == 0) gate_.changed_.notify_all();
    }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

   private:
    RestGate& gate_;
  };

  /// Calls it while nobody is inside.
  void while_resting(const std::function<void()>& call) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !resting_; });
      resting_ = true;
      changed_.wait(lock, [this] { return inside_ == 0; });
    }
    const Over over{*this};
    call();
  }

 private:
  struct Over {  // also when the call throws
    RestGate& gate;
    ~Over() {
      const std::lock_guard lock(gate.mutex_);
      gate.resting_ = false;
      gate.changed_.notify_all();
    }
  };

  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t inside_ = 0;
  bool resting_ = false;
};

}  // namespace finchkv::cache_store
