// The vector loops of the CPU device, as a table of functions for the instruction set at hand.
//
// simd_body.h holds the loops once, on vectors of 16 floats; simd_*.cc compile it per instruction
// set. All pure; buffers need no alignment. Sums run in one fixed order per call, whatever the thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace finchkv::kernels::cpu {

/// An 8-bit weight matrix for single rows: w[n][k] ~ scale * q + min per group of 32 along k. Rows are taken in blocks
/// of 16.
struct Q8Block16 {
  static constexpr std::int64_t kRows = 16;
  static constexpr std::int64_t kGroup = 32;
  /// Bytes of one block of 16 rows and in/32 groups: per group 16 f16 scales, 16 f16 minima, then int8 [32][16].
  static constexpr std::int64_t kGroupBytes = kRows * 2 * 2 + kGroup * kRows;
};

/// The same in 4 bits, for matrices whose every group of 32 lies on a grid of up to 15 steps: byte [k][row] holds the
/// code of k in its low and of k + 16 in its high half; codes count up from the minimum.
struct Q4Block16 {
  static constexpr std::int64_t kGroupBytes = Q8Block16::kRows * 2 * 2 + Q8Block16::kGroup * Q8Block16::kRows / 2;
};

struct SimdOps {
  const char* name;
  // y = x * inverse_rms * w
  void (*rms_norm_f32)(const float* x, const float* w, float eps, std::int64_t d, float* y);
  void (*rms_norm_bf16)(const float* x, const float* w, float eps, std::int64_t d, std::uint16_t* y);
  void (*swiglu_f32)(const float* gate, const float* up, std::int64_t d, float* y);
  void (*swiglu_bf16)(const float* gate, const float* up, std::int64_t d, std::uint16_t* y);
  // Nearest even; values below the smallest normal number may become zero (the instruction of avx512_bf16 does that).
  void (*to_bf16)(const float* x, std::int64_t d, std::uint16_t* y);
  void (*to_f32)(const std::uint16_t* x, std::int64_t d, float* y);
  // y = x turned: rows of d floats of cosines and signed sines (RopeTable); pairs (2i, 2i+1) or (i, i + d/2). d is
  // even.
  void (*rotate_f32)(const float* x, const float* cos, const float* sin, std::int64_t d, bool interleaved, float* y);
  void (*rotate_bf16)(const float* x, const float* cos, const float* sin, std::int64_t d, bool interleaved,
                      std::uint16_t* y);
  void (*add)(const float* x, std::int64_t d, float* y);            // y += x
  void (*scale)(float a, std::int64_t d, float* y);                 // y *= a
  void (*axpy)(float a, const float* x, std::int64_t d, float* y);  // y += a x
  float (*dot)(const float* x, const float* y, std::int64_t d);
  // One row of an online softmax over a block of logits s (scaled by `scale`): writes exp(s * scale - m_new), raises
  // *m, returns the sum; *alpha is what earlier sums shrink by.
  float (*softmax_f32)(const float* s, std::int64_t n, float scale, float* m, float* alpha, float* p);
  float (*softmax_bf16)(const float* s, std::int64_t n, float scale, float* m, float* alpha, std::uint16_t* p);
  // mass[j] += w * exp(s[j] * scale - lse)
  void (*add_exp)(const float* s, std::int64_t n, float scale, float lse, float w, float* mass);
  // Decoding: logits[t] = scale * (q . k[t]) for n keys of d dims, and out += p[t] * v[t].
  void (*keys_dot_f32)(const float* q, const float* k, std::int64_t n, std::int64_t d, float scale, float* logits);
  void (*keys_dot_bf16)(const float* q, const std::uint16_t* k, std::int64_t n, std::int64_t d, float scale,
                        float* logits);
  void (*values_sum_f32)(const float* p, const float* v, std::int64_t n, std::int64_t d, float* out);
  void (*values_sum_bf16)(const float* p, const std::uint16_t* v, std::int64_t n, std::int64_t d, float* out);
  // y[16 * n_blocks] = W x for blocks of 16 rows; group_sums[in / 32] are the sums of x over each group.
  using Gemv = void (*)(const std::byte* blocks, std::int64_t n_blocks, std::int64_t in, const float* x,
                        const float* group_sums, float* y);
  Gemv q8_gemv;
  Gemv q4_gemv;
};

/// The best table for this processor.
[[nodiscard]] const SimdOps& simd();
/// All tables that this processor can run, for tests: they must agree.
[[nodiscard]] const SimdOps* const* simd_tables(int* count);

}  // namespace finchkv::kernels::cpu
