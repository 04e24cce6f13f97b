// What the ops of one CPU device share: the pool, the compiled tile products, scratch memory per worker.
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/weight_arena.h"
#include "kernels/device.h"

namespace finchkv::kernels::cpu {

class Workspace {
 public:
  Workspace(int threads, ElementType activation_type, NumericClass numeric_class)
      : pool(threads),
        activation(activation_type),
        numeric(numeric_class),
        scratch(static_cast<std::size_t>(pool.n_threads())) {}

  /// The compiled product of this shape, made at first use. Failing is a bug or no memory; the status is kept in
  /// `failure`.
  const Gemm* gemm(const Gemm::Shape& shape, const Gemm* like = nullptr);

  /// Runs fn(row0, n_rows, worker) over blocks of rows.
  template <typename F>
  void rows(std::int64_t n, std::int64_t block, const F& fn) {
    pool.run((n + block - 1) / block, [&](std::int64_t i, int worker) {
      const std::int64_t first = i * block;
      fn(first, std::min(block, n - first), worker);
    });
  }

  /// Keeps a failure for synchronize(): the first one.
  void keep(Status failed) {
    if (failure.is_ok()) failure = std::move(failed);
  }

  ThreadPool pool;
  const ElementType activation;
  const NumericClass numeric;
  std::vector<AlignedBuffer> scratch;  // [worker]
  WeightArena weights;
  AlignedBuffer shared;  // one op at a time
  Status failure;

 private:
  std::map<std::pair<Gemm::Shape, const Gemm*>, std::unique_ptr<Gemm>> gemms_;
};

}  // namespace finchkv::kernels::cpu
