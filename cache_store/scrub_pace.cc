#include "cache_store/scrub_pace.h"

#include <algorithm>
#include <thread>

namespace finchkv::cache_store {

bool ScrubPace::keep(std::uint64_t bytes) const {
  using clock = std::chrono::steady_clock;
  if (options_.bytes_per_s != 0) {
    const std::chrono::duration<double> needed(static_cast<double>(bytes) / static_cast<double>(options_.bytes_per_s));
    const auto due = start_ + std::chrono::duration_cast<clock::duration>(needed);
    constexpr clock::duration kLongestNap = std::chrono::milliseconds(50);  // so that a stop is heard
    for (auto now = clock::now(); now < due && !stopping(); now = clock::now()) {
      std::this_thread::sleep_for(std::min(due - now, kLongestNap));
    }
  }
  return !stopping();
}

}  // namespace finchkv::cache_store
