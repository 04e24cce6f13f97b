// Attention of many bf16 rows through cuDNN's fused kernel: bottom-right causal, log-sum-exp out. For GPUs and head
// sizes that attention_hopper.cu does not take.
//
// A plan is built once per shape and kept. Head dimensions: multiples of 8 up to 128. Not thread-safe.
//
// On one H200, cuDNN 9.19, 32/8 heads of 128: 4160 rows on 6208 keys 581 TFLOP/s, on 4160 keys 522. A plan costs 43 to
// 70 ms (1 s the first time in a process), 12 us of host time a run. Tried: one padded plan for all lengths with the
// lengths on the device (8 % slower with tight bounds, three times with loose ones), and dynamic shapes with a kernel
// cache (crashes inside this cuDNN).
#pragma once

#include <memory>
#include <string>

#include "kernels/cuda/runtime.h"
#include "kernels/tensor.h"

namespace finchkv::kernels::cuda {

class CudnnAttention {
 public:
  /// unavailable when cuDNN is not on this machine, or this build has no cudnn-frontend: attention_tiled does it then.
  static Result<std::unique_ptr<CudnnAttention>> create(Runtime& rt);
  ~CudnnAttention();
  CudnnAttention(const CudnnAttention&) = delete;
  CudnnAttention& operator=(const CudnnAttention&) = delete;

  [[nodiscard]] const std::string& version() const;
  [[nodiscard]] bool takes(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) const;
  /// unsupported, unavailable: nothing was launched, and another kernel may do it.
  Status run(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
             const Tensor& lse);

 private:
  struct Impl;
  explicit CudnnAttention(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace finchkv::kernels::cuda
