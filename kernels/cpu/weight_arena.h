// WeightArena: memory for packed weights, in large pieces that the system may back with huge pages.
//
// Weights are read from end to end for every token; with 4 KiB pages the address translations alone are a cost. Buffers
// share the piece they were cut from, which goes when the last of them does. One thread at a time.
#pragma once

#include <cstddef>
#include <memory>

#include "kernels/cpu/gemm.h"

namespace finchkv::kernels::cpu {

class WeightArena {
 public:
  /// 64-byte aligned; throws std::bad_alloc as AlignedBuffer does.
  [[nodiscard]] AlignedBuffer take(std::size_t bytes);

 private:
  std::shared_ptr<std::byte> piece_;
  std::size_t used_ = 0;
  std::size_t size_ = 0;
};

}  // namespace finchkv::kernels::cpu
