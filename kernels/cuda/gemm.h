// Products of bf16 or 8-bit (e4m3) matrices through cuBLASLt: y = x W^T (+ y), accumulated in f32.
//
// A plan (descriptors and the algorithm that cuBLASLt's heuristic ranks first) is made once per shape and kept, so the
// same shape always runs the same algorithm. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cuda/runtime.h"
#include "kernels/tensor.h"

namespace finchkv::kernels::cuda {

class Gemm {
 public:
  /// unavailable when cuBLASLt is not on this machine.
  static Result<std::unique_ptr<Gemm>> create(Runtime& rt);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  /// x bf16 [n, in], w bf16 [out, in], y f32 or bf16 [n, out]; rows may have gaps.
  void multiply(Runtime& rt, const Tensor& x, const Tensor& w, const Tensor& y, bool accumulate);
  /// The same of e4m3 matrices, dense, a scale per row of each: x [n, in], w [out, in].
  struct Rounded {
    const void* data;
    const float* scales;
    std::int64_t rows, width;
  };
  void multiply(Runtime& rt, const Rounded& x, const Rounded& w, const Tensor& y, bool accumulate);

 private:
  struct Impl;
  explicit Gemm(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace finchkv::kernels::cuda
