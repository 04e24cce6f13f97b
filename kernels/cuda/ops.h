// Launchers of our own kernels: each checks its launch and leaves a failure with the Runtime.
//
// Shapes and meanings are Device's (kernels/device.h). Every launcher goes to the Runtime's stream. Every kernel sums
// in one fixed order, so results are the same from run to run, and a row's never depend on how many others go with it.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cuda/runtime.h"
#include "kernels/device.h"
#include "kernels/e4m3.h"
#include "kernels/tensor.h"

namespace finchkv::kernels::cuda {

/// Whether kernels were compiled so that they can start early and wait for their inputs (launch.cuh).
[[nodiscard]] bool kernels_can_wait();

// --- norm.cu, elementwise.cu
void rms_norm(Runtime& rt, const Tensor& x, const Tensor& w, float eps, const Tensor& y);
void copy(Runtime& rt, const Tensor& x, const Tensor& y);
void add_bias(Runtime& rt, const Tensor& x, const Tensor& b);
/// y[i, j] = silu(x[i, j]) * x[i, ffn + j].  x [n, 2 ffn], y [n, ffn], same type.
void swiglu(Runtime& rt, const Tensor& x, const Tensor& y);
/// y[i] = table[ids[i]] as f32.  table [rows, width], ids i32 [n] on the device, y f32 [n, width].
void embed(Runtime& rt, const Tensor& table, const Tensor& ids, const Tensor& y);
/// y = x over `count` elements, f32 to bf16.
void narrow(Runtime& rt, const float* x, void* y, std::int64_t count);
/// Pseudorandom values of this standard deviation, roughly normal, from the seed and the place alone.
void fill_random(Runtime& rt, const Tensor& y, std::uint64_t seed, float deviation);

// --- rope.cu
/// Tables f32 [positions, dims] on the device, as RopeTable has them.
struct RopeTableView {
  const float* cos = nullptr;
  const float* sin = nullptr;
  std::int64_t dims = 0;
  bool interleaved = false;
};
void rotate(Runtime& rt, const RopeTableView& table, const Tensor& x, std::int64_t first_position, const Tensor& y);

// --- expand.cu
/// Stored entries of some heads, on the device: where each head begins, and how they lie.
struct StoredView {
  const std::uint8_t* data = nullptr;
  std::int64_t head_bytes = 0;
  DType layout = DType::kF32;
  GroupAxis axis = GroupAxis::kTokens;
  bool to_bf16 = false;  ///< numbers of q8 and q4 are rounded to bf16 first
};
/// y [heads, n, D] = the entries, rotated where the table is not empty.
void expand(Runtime& rt, const StoredView& from, const RopeTableView& table, std::int64_t first_position,
            const Tensor& y);

// --- turn.cu
/// How a KeyTurner turns, with its tables on the device: f32 [longest, pairs], null where only pairs and dtype change.
struct TurnView {
  const float* cos = nullptr;
  const float* sin = nullptr;
  int pairs = 0;
  bool from_interleaved = false, to_interleaved = false;
};
/// As Device::turn().
void turn(Runtime& rt, const TurnView& how, const Tensor& x, const Tensor& y);

// --- place_chunk.cu: Device::place_chunk in one launch, for rows on 16 bytes whose dimensions all rotate.
[[nodiscard]] bool place_chunk_takes(const RopeTableView& table, const ChunkRows& c);
void place_chunk(Runtime& rt, const RopeTableView& table, const ChunkRows& c);

// --- gemm_f32.cu: x f32 [n, in], w f32 [out, in], y f32 [n, out].
void gemm_f32(Runtime& rt, const Tensor& x, const Tensor& w, const Tensor& y, bool accumulate);

/// A weight matrix [out, in] as kernels read it: bf16, or e4m3 with a scale per row.
struct WeightView {
  const void* data = nullptr;
  const float* scales = nullptr;  ///< null: bf16
  std::int64_t out = 0, in = 0;
};

// --- fp8.cu
/// Whether rows of x can be rounded: 16 bytes of bf16 at a time.
[[nodiscard]] bool quantise_rows_takes(const Tensor& x);
/// q e4m3 [rows, width], dense; scales f32 [rows].  x bf16 or f32 [rows, width].
void quantise_rows(Runtime& rt, const Tensor& x, std::uint8_t* q, float* scales);

// --- few_rows.cu: a few rows of bf16 x against W: bound by reading W once.
inline constexpr std::int64_t kFewRows = kUnroundedE4m3Rows;
[[nodiscard]] bool few_rows_takes(const Tensor& x, const WeightView& w);
void few_rows(Runtime& rt, const Tensor& x, const WeightView& w, const Tensor& y, bool accumulate);
/// y[i, j] = silu(x w[j]) * (x w[ffn + j]).  w [2 ffn, in], y bf16 [n, ffn].
void few_rows_swiglu(Runtime& rt, const Tensor& x, const WeightView& w, const Tensor& y);

// --- attention_tiled.cu: any type, any number of rows, head dimensions up to 256; arithmetic in f32.
inline constexpr std::int64_t kMaxHeadDim = 256;
void attention_tiled(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                     const Tensor& lse);
// --- attention_mma.cu: bf16 on the tensor cores, head dimensions 64 and 128, any number of rows.
[[nodiscard]] bool attention_mma_takes(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out);
void attention_mma(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                   const Tensor& lse);
// --- attention_hopper.cu: the same for many rows, on GPUs of compute capability 9.0.
[[nodiscard]] bool attention_hopper_takes(const Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v,
                                          const Tensor& out);
void attention_hopper(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                      const Tensor& lse);

// --- decode_attention.cu: head dimensions up to kMaxHeadDim, f32 and bf16.
class CudaDecodeTable;
void decode_attention(Runtime& rt, const CudaDecodeTable& table, std::int64_t layer, const Tensor& q, const Tensor& k,
                      const Tensor& v, float scale, const Tensor& out);

// --- mass.cu
void attention_mass(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& lse, float scale, const Tensor& mass);

// --- selection.cu
void sum_rows(Runtime& rt, const Tensor& x, const Tensor& sum);
void span_mean(Runtime& rt, const Tensor& x, const Tensor& origins, std::int32_t radius, float own_share,
               const Tensor& y);
void top_k(Runtime& rt, const Tensor& x, const Tensor& indices);
void gather(Runtime& rt, const EntryLists& from, const Tensor& indices, const EntryLists& to);
void argmax(Runtime& rt, const Tensor& x, const Tensor& indices);

}  // namespace finchkv::kernels::cuda
