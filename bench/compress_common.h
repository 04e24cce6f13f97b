// What the parts of bench_compress share: ends on errors, clocks, token ids.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "kernels/device.h"
#include "model/decode_context.h"
#include "model/transformer.h"

namespace finchkv::bench {

using kernels::Device;
using kernels::ElementType;
using kernels::NumericClass;
using kernels::Tensor;
using model::DecodeContext;
using model::LogitRows;
using model::ModelConfig;
using model::TokenId;
using model::Transformer;
using clock_type = std::chrono::steady_clock;

template <typename T>
inline T value_or_exit(Result<T> result) {
  if (!result.is_ok()) {
    std::fprintf(stderr, "bench_compress: %s\n", result.status().message().c_str());
    std::exit(1);
  }
  return *std::move(result);
}
inline void ok_or_exit(const Status& status) {
  if (status.is_ok()) return;
  std::fprintf(stderr, "bench_compress: %s\n", status.message().c_str());
  std::exit(1);
}

inline double seconds_since(clock_type::time_point start) {
  return std::chrono::duration<double>(clock_type::now() - start).count();
}

/// Median seconds of `work`, each time waited for, after one run that does not count.
inline double median_seconds(Device& device, std::int64_t repeat, const std::function<void()>& work) {
  work();
  ok_or_exit(device.synchronize());
  std::vector<double> seconds;
  for (std::int64_t i = 0; i < repeat; ++i) {
    const auto start = clock_type::now();
    work();
    ok_or_exit(device.synchronize());
    seconds.push_back(seconds_since(start));
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

inline std::vector<TokenId> ids(std::int64_t n, std::int64_t vocab) {
  std::vector<TokenId> out;
  for (std::int64_t i = 0; i < n; ++i) out.push_back(static_cast<TokenId>((i * 7919 + 13) % (vocab - 200) + 100));
  return out;
}

}  // namespace finchkv::bench
