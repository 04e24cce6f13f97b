// Tensors that another library reads on a stream of its own: its work after ours, and the memory back after its work.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cuda/runtime.h"
#include "kernels/tensor.h"

namespace finchkv::kernels::cuda {

/// As Device::lend().
[[nodiscard]] Result<std::shared_ptr<const void>> lend(Runtime& rt, const Tensor& t, std::uint64_t stream);

}  // namespace finchkv::kernels::cuda
