// Attention and the prompt rows' score pass on the CPU. Shapes and maths: Device::attention, Device::attention_mass.
#pragma once

#include "kernels/cpu/workspace.h"
#include "kernels/tensor.h"

namespace finchkv::kernels::cpu {

void attention(Workspace& ws, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
               const Tensor& lse);
void attention_mass(Workspace& ws, const Tensor& q, const Tensor& k, const Tensor& lse, float scale,
                    const Tensor& mass);

/// Up to this many rows attention reads keys and values where they are; above, it packs them for tile products.
inline constexpr std::int64_t kDirectRows = 4;

void attention_direct(Workspace& ws, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                      const Tensor& lse);

}  // namespace finchkv::kernels::cpu
