// ScrubPace: keeps a scrub to its rate.
//
// Internal to cache_store. Belongs to one thread.
#pragma once

#include <chrono>
#include <cstdint>

#include "cache_store/store.h"

namespace finchkv::cache_store {

class ScrubPace {
 public:
  /// `options` outlives it.
  explicit ScrubPace(const ScrubOptions& options) : options_(options) {}

  /// Waits until so many bytes since the start are within the rate. False when the scrub is to stop.
  [[nodiscard]] bool keep(std::uint64_t bytes) const;

 private:
  [[nodiscard]] bool stopping() const { return options_.stop && options_.stop(); }

  const ScrubOptions& options_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace finchkv::cache_store
