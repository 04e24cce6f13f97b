// Weight matrices on a GPU: row-major [out, in], bf16 or 8 bits in the fast class, f32 in the reference class.
//
// Many rows go to cuBLASLt, a few to our own kernels that read W once; the reference class has one kernel for all.
#pragma once

#include <memory>

#include "base/thread_pool.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/runtime.h"
#include "kernels/device.h"

namespace finchkv::kernels::cuda {

class CudaLinear final : public Linear {
 public:
  /// `weights` [out, in], or [2 out, in] when gated: gate's rows, then up's.
  CudaLinear(Tensor weights, bool gated)
      : weights_(std::move(weights)), out_(weights_.dim(0)), in_(weights_.dim(1)), gated_(gated) {}
  /// Rounds the weights to e4m3 with a scale per row, and lets the wider ones go. False, and nothing changes, for
  /// widths that 8-bit products do not take.
  Result<bool> round_to_8_bits(Runtime& rt);

  [[nodiscard]] std::int64_t in() const override { return in_; }
  [[nodiscard]] std::int64_t out() const override { return gated_ ? out_ / 2 : out_; }
  [[nodiscard]] std::size_t bytes() const override;

  /// `gemm` may be null for f32.
  void multiply(Runtime& rt, Gemm* gemm, const Tensor& x, const Tensor& y, bool accumulate) const;
  void multiply_swiglu(Runtime& rt, Gemm* gemm, const Tensor& x, const Tensor& y) const;

 private:
  [[nodiscard]] WeightView view() const;

  Tensor weights_;                 // empty when rounded
  std::shared_ptr<void> rounded_;  // e4m3 [out, in]
  std::shared_ptr<void> scales_;   // f32 [out]
  std::int64_t out_, in_;
  bool gated_;
};

/// The rows of `sources`, one after the other, as a dense matrix of `type` on the GPU: produced by the pool's threads,
/// sent in f32 and narrowed there.
[[nodiscard]] Result<Tensor> upload_rows(Runtime& rt, ThreadPool& pool,
                                         std::initializer_list<const LinearSource*> sources, ElementType type);

}  // namespace finchkv::kernels::cuda
