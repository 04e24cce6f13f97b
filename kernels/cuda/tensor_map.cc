#include "kernels/cuda/tensor_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "kernels/cuda/owners.h"

namespace finchkv::kernels::cuda {
namespace {

using Encode = PFN_cuTensorMapEncodeTiled_v12000;

// The driver's function, found at run time as all of the driver is; null where it has none.
Encode encoder() {
  static const Encode found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult answer{};
    const bool asked = succeeded(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &answer));
    return asked && answer == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(function) : nullptr;
  }();
  return found;
}

}  // namespace

bool tensor_maps_work() { return encoder() != nullptr; }

bool make_tensor_map(const Planes& x, std::uint32_t box_rows, CUtensorMap& map) {
  constexpr std::uint64_t kBytes = 2;  // of a bf16
  const auto size = [](std::int64_t value) { return static_cast<cuuint64_t>(value); };
  const cuuint64_t sizes[3] = {size(x.columns), size(x.rows), size(x.planes)};
  const cuuint64_t strides[2] = {size(x.row_stride) * kBytes, size(x.plane_stride) * kBytes};
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(kBoxColumns), box_rows, 1}, steps[3] = {1, 1, 1};
  return encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(x.data), sizes, strides, box, steps,
                   CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace finchkv::kernels::cuda
