// TensorMemory: host memory for tensors, up to a limit.
//
// Counts what its pieces take together; they may outlive it. Not thread-safe but for the pieces' end.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "base/status.h"

namespace finchkv::kernels::cpu {

class TensorMemory {
 public:
  explicit TensorMemory(std::size_t limit);  ///< in bytes; 0: none but the machine's

  /// Uninitialised. resource_exhausted with the numbers.
  [[nodiscard]] Result<std::shared_ptr<void>> take(std::size_t bytes);
  /// The least of what the limit leaves, what the system says that programs may still take, and what the process's
  /// control group leaves.
  [[nodiscard]] std::size_t free_bytes() const;

 private:
  std::size_t limit_;
  std::shared_ptr<std::atomic<std::size_t>> taken_ = std::make_shared<std::atomic<std::size_t>>(0);
};

}  // namespace finchkv::kernels::cpu
