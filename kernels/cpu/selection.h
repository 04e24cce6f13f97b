// Selection on the CPU: pooling of scores, top-k, gather. Shapes and maths: Device.
#pragma once

#include "kernels/cpu/workspace.h"
#include "kernels/tensor.h"

namespace finchkv::kernels::cpu {

void sum_rows(const Tensor& x, const Tensor& sum);
void span_mean(Workspace& ws, const Tensor& x, const Tensor& origins, std::int32_t radius, float own_share,
               const Tensor& y);
void top_k(Workspace& ws, const Tensor& x, const Tensor& indices);
void gather(Workspace& ws, const Tensor& x, const Tensor& indices, const Tensor& y);
void gather_origins(const Tensor& x, const Tensor& indices, const Tensor& y);

}  // namespace finchkv::kernels::cpu
