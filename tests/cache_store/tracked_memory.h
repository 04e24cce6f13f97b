// Memory for a stream to read into that knows what became of it: how many pieces are out, and whether bytes lie in one.
#pragma once

#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

#include "base/host_memory.h"
#include "base/kvset.h"

namespace finchkv::cache_store::testing {

class TrackedMemory final : public HostMemory {
 public:
  /// Hands out `most` pieces, then none.
  explicit TrackedMemory(std::size_t most = ~std::size_t{0}) : most_(most) {}

  std::shared_ptr<std::byte> take(std::size_t bytes) override {
    if (!state_->claim(most_)) return nullptr;
    const std::shared_ptr<std::byte> memory = allocate_shared_bytes(bytes);
    std::memset(memory.get(), 0xa5, bytes);
    state_->add(memory.get(), bytes);
    return {memory.get(), [state = state_, memory](std::byte* at) { state->remove(at); }};
  }
  [[nodiscard]] std::size_t out() const { return state_->count(); }
  /// A pool's thread may still be in the middle of a block when its stream ends.
  [[nodiscard]] std::size_t out_in_the_end() const {
    for (int i = 0; i < 1000 && out() != 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return out();
  }
  [[nodiscard]] bool holds(std::span<const std::byte> bytes) const { return state_->holds(bytes); }

 private:
  struct State {  // pieces may outlive the memory that they came from
    bool claim(std::size_t most) {
      const std::lock_guard lock(mutex);
      return taken++ < most;
    }
    void add(const std::byte* at, std::size_t bytes) {
      const std::lock_guard lock(mutex);
      pieces[at] = bytes;
    }
    void remove(const std::byte* at) {
      const std::lock_guard lock(mutex);
      pieces.erase(at);
    }
    std::size_t count() {
      const std::lock_guard lock(mutex);
      return pieces.size();
    }
    bool holds(std::span<const std::byte> bytes) {
      const std::lock_guard lock(mutex);
      const auto behind = pieces.upper_bound(bytes.data());
      if (behind == pieces.begin()) return false;
      const auto& [at, size] = *std::prev(behind);
      return bytes.data() + bytes.size() <= at + size;
    }
    std::mutex mutex;
    std::map<const std::byte*, std::size_t> pieces;
    std::size_t taken = 0;
  };
  const std::size_t most_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace finchkv::cache_store::testing
