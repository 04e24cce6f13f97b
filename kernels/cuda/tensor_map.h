// Descriptions of tensors that Hopper's copy engine (TMA) reads tiles of.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace finchkv::kernels::cuda {

inline constexpr std::int64_t kBoxColumns = 64;  // bf16 in a row of a box: the 128 bytes of the hardware's swizzle

/// Whether the driver at hand makes such descriptions.
[[nodiscard]] bool tensor_maps_work();

/// A matrix of bf16 per plane. Rows and planes lie multiples of 8 elements apart, the first on 16 bytes.
struct Planes {
  const void* data = nullptr;
  std::int64_t columns = 0, rows = 0, planes = 0;
  std::int64_t row_stride = 0, plane_stride = 0;
};

/// Describes boxes of 64 columns and `box_rows` rows, zeros where they reach over an edge. False when the driver
/// refuses.
[[nodiscard]] bool make_tensor_map(const Planes& x, std::uint32_t box_rows, CUtensorMap& map);

}  // namespace finchkv::kernels::cuda
