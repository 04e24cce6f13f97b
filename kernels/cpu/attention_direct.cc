// Attention for a few rows, as in decoding: keys and values are read once, where they are, in splits of 512 keys.
//
// A task is (row, query head, split); splits are combined in order afterwards, so the result does not depend on
// threads. Bound by reading K and V: 2 * T * KV * D elements a row.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/simd.h"

namespace finchkv::kernels::cpu {
namespace {

constexpr std::int64_t kSplit = 512;

}  // namespace

void attention_direct(Workspace& ws, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                      const Tensor& lse) {
  const std::int64_t n = q.dim(0), heads = q.dim(1), d = q.dim(2), kv_heads = k.dim(0), total = k.dim(1);
  const std::int64_t group = heads / kv_heads;
  const std::int64_t splits = (total + kSplit - 1) / kSplit;
  const bool narrow = k.type() == ElementType::kBF16;
  assert(k.stride(1) == d && v.stride(1) == d);
  const std::int64_t part = d + 2;  // sum [D], m, l
  const std::int64_t pairs = n * heads;
  ws.shared.ensure(static_cast<std::size_t>(pairs * splits * part) * sizeof(float));
  auto* parts = ws.shared.as<float>();  // [n, heads, splits, D + 2]
  ws.pool.run(pairs * splits, [&](std::int64_t i, int worker) {
    const std::int64_t split = i % splits;
    const std::int64_t head = i / splits % heads;
    const std::int64_t row = i / splits / heads;
    float* sum = parts + i * part;
    std::fill_n(sum, d, 0.0F);
    float& m = sum[d];
    float& l = sum[d + 1];
    m = -std::numeric_limits<float>::infinity();
    l = 0;
    const std::int64_t first = split * kSplit;
    const std::int64_t count = std::min(kSplit, total - n + row + 1 - first);
    if (count <= 0) return;
    AlignedBuffer& scratch = ws.scratch[static_cast<std::size_t>(worker)];
    scratch.ensure(static_cast<std::size_t>(d + kSplit) * sizeof(float));
    auto* query = scratch.as<float>();
    float* logits = query + d;
    const std::int64_t q_at = row * q.stride(0) + head * q.stride(1);
    const std::int64_t k_at = head / group * k.stride(0) + first * d;
    const std::int64_t v_at = head / group * v.stride(0) + first * d;
    float alpha = 0;
    if (q.type() == ElementType::kBF16)
      simd().to_f32(q.data<std::uint16_t>() + q_at, d, query);
    else
      std::copy_n(q.data<float>() + q_at, d, query);
    if (narrow)
      simd().keys_dot_bf16(query, k.data<std::uint16_t>() + k_at, count, d, scale, logits);
    else
      simd().keys_dot_f32(query, k.data<float>() + k_at, count, d, scale, logits);
    l = simd().softmax_f32(logits, count, 1.0F, &m, &alpha, logits);
    if (narrow)
      simd().values_sum_bf16(logits, v.data<std::uint16_t>() + v_at, count, d, sum);
    else
      simd().values_sum_f32(logits, v.data<float>() + v_at, count, d, sum);
  });
  std::vector<float> row_sum(static_cast<std::size_t>(d));
  for (std::int64_t i = 0; i < pairs; ++i) {
    const float* first = parts + i * splits * part;
    float m = -std::numeric_limits<float>::infinity();
    for (std::int64_t s = 0; s < splits; ++s) m = std::max(m, first[s * part + d]);
    float l = 0;
    std::fill(row_sum.begin(), row_sum.end(), 0.0F);
    for (std::int64_t s = 0; s < splits; ++s) {
      const float* p = first + s * part;
      if (p[d + 1] == 0) continue;
      const float shrink = std::exp(p[d] - m);
      l += p[d + 1] * shrink;
      simd().axpy(shrink, p, d, row_sum.data());
    }
    simd().scale(1.0F / l, d, row_sum.data());
    const std::int64_t row = i / heads;
    const std::int64_t head = i % heads;
    const std::int64_t out_at = row * out.stride(0) + head * out.stride(1);
    if (out.type() == ElementType::kBF16)
      simd().to_bf16(row_sum.data(), d, out.data<std::uint16_t>() + out_at);
    else
      std::copy_n(row_sum.data(), d, out.data<float>() + out_at);
    if (!lse.empty()) lse.data<float>()[row * lse.stride(0) + head * lse.stride(1)] = m + std::log(l);
  }
}

}  // namespace finchkv::kernels::cpu
