// Gemm: C [M, N] = A [M, K] * B [K, N] (or C +=), one fixed shape, run by one thread, on oneDNN.
//
// The device cuts every product into tiles of fixed shapes that do not depend on the number of threads, and its own
// pool runs them; oneDNN itself never starts a thread. B is packed once into the layout that oneDNN prefers for the
// shape. run() is thread-safe as long as each thread uses its own worker number.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "kernels/tensor.h"

namespace finchkv::kernels::cpu {

class Gemm {
 public:
  struct Shape {
    std::int64_t m = 0, n = 0, k = 0;
    std::int64_t lda = 0, ldc = 0;         ///< row strides in elements
    ElementType type = ElementType::kF32;  ///< of A and B; C is f32
    bool accumulate = false;
    auto operator<=>(const Shape&) const = default;
  };

  /// `like`, where given, fixes the packed layout of B: the same n, k and type.
  static Result<std::unique_ptr<Gemm>> create(const Shape& shape, int n_workers, const Gemm* like = nullptr);
  ~Gemm();

  [[nodiscard]] const Shape& shape() const;
  [[nodiscard]] std::size_t packed_bytes() const;
  /// Packs B given row-major with element (i, j) at plain[i * row_stride + j * column_stride], one stride being 1.
  void pack(const void* plain, std::int64_t row_stride, std::int64_t column_stride, void* packed) const;
  void run(int worker, const void* a, const void* packed_b, float* c) const;

 private:
  struct Impl;
  explicit Gemm(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// 64-byte aligned host memory.
struct AlignedBuffer {
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t bytes);
  void ensure(std::size_t bytes);  ///< grows, losing the contents
  template <typename T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(data.get());
  }
  std::shared_ptr<std::byte> data;
  std::size_t size = 0;
};

}  // namespace finchkv::kernels::cpu
