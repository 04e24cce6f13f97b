// Blockwise attention: rows of one KV head's query group against blocks of 256 keys, online softmax (Milakov &
// Gimelshein 2018; Dao et al. 2022), products on oneDNN tiles.
//
// A task is (KV head, block of rows); its 128 tile rows are the group's query heads side by side, so K and V are read
// once per group. Keys and values are packed once per call in oneDNN's layout. Working memory is O(T) for the packed
// keys and values and one tile of logits per worker: heads x rows x keys is never there. Work: 4 * n * T * H * D FLOPs
// less the causal half.
#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/simd.h"

namespace finchkv::kernels::cpu {
namespace {

constexpr std::int64_t kKeyBlock = 256;
constexpr std::int64_t kTileRows = 128;

template <typename T>
const T* at(const Tensor& t, std::int64_t i, std::int64_t j) {
  return t.data<T>() + i * t.stride(0) + j * t.stride(1);
}

// K^T or V of all heads as packed B operands, block by block; keys past T are zeros.
struct PackedKeys {
  const Gemm* gemm = nullptr;
  std::byte* data = nullptr;
  std::int64_t blocks = 0;
  std::size_t block_bytes = 0;
  [[nodiscard]] const std::byte* block(std::int64_t head, std::int64_t b) const {
    return data + static_cast<std::size_t>(head * blocks + b) * block_bytes;
  }
};

std::size_t align64(std::size_t n) { return (n + 63) / 64 * 64; }

void pack_block(const PackedKeys& to, const Tensor& x, std::int64_t head, std::int64_t b, bool transposed,
                AlignedBuffer& scratch) {
  const std::int64_t first = b * kKeyBlock;
  const std::int64_t count = std::min(kKeyBlock, x.dim(1) - first);
  const std::int64_t d = x.dim(2);
  const std::size_t width = element_size(x.type());
  const auto* src = x.data<std::byte>() + static_cast<std::size_t>(head * x.stride(0) + first * x.stride(1)) * width;
  std::int64_t row = x.stride(1);
  if (count < kKeyBlock) {
    const std::size_t row_bytes = static_cast<std::size_t>(d) * width;
    scratch.ensure(static_cast<std::size_t>(kKeyBlock) * row_bytes);
    std::memset(scratch.as<std::byte>(), 0, static_cast<std::size_t>(kKeyBlock) * row_bytes);
    for (std::int64_t i = 0; i < count; ++i) {
      std::memcpy(scratch.as<std::byte>() + static_cast<std::size_t>(i) * row_bytes,
                  src + static_cast<std::size_t>(i * row) * width, row_bytes);
    }
    src = scratch.as<std::byte>();
    row = d;
  }
  auto* dst = to.data + static_cast<std::size_t>(head * to.blocks + b) * to.block_bytes;
  if (transposed)
    to.gemm->pack(src, 1, row, dst);
  else
    to.gemm->pack(src, row, 1, dst);
}

// Copies the group's query rows [r0, r0 + rows) to a tile [heads_in_group * rows, D]; the rest of the tile is zero.
void load_queries(const Tensor& q, std::int64_t group_first, std::int64_t group, std::int64_t r0, std::int64_t rows,
                  std::byte* tile) {
  const std::size_t row_bytes = static_cast<std::size_t>(q.dim(2)) * element_size(q.type());
  for (std::int64_t h = 0; h < group; ++h) {
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto* src =
          q.data<std::byte>() +
          static_cast<std::size_t>((r0 + r) * q.stride(0) + (group_first + h) * q.stride(1)) * element_size(q.type());
      std::memcpy(tile + static_cast<std::size_t>(h * rows + r) * row_bytes, src, row_bytes);
    }
  }
  const auto used = static_cast<std::size_t>(group * rows);
  std::memset(tile + used * row_bytes, 0, (static_cast<std::size_t>(kTileRows) - used) * row_bytes);
}

struct Scratch {
  std::byte* q;   // [kTileRows, D] activations
  float* logits;  // [kTileRows, kKeyBlock]
  std::byte* p;   // [kTileRows, kKeyBlock] activations
  float* sum;     // [kTileRows, D]
  float* m;       // [kTileRows]
  float* l;       // [kTileRows]
};

Scratch carve(AlignedBuffer& buffer, std::int64_t d, std::size_t width) {
  const auto rows = static_cast<std::size_t>(kTileRows);
  const std::size_t sizes[] = {rows * static_cast<std::size_t>(d) * width,
                               rows * static_cast<std::size_t>(kKeyBlock) * 4,
                               rows * static_cast<std::size_t>(kKeyBlock) * width,
                               rows * static_cast<std::size_t>(d) * 4,
                               rows * 4,
                               rows * 4};
  std::size_t total = 0;
  for (const std::size_t s : sizes) total += align64(s);
  buffer.ensure(total);
  std::byte* parts[6];
  std::byte* next = buffer.as<std::byte>();
  for (std::size_t i = 0; i < 6; ++i) {
    parts[i] = next;
    next += align64(sizes[i]);
  }
  return {parts[0],
          reinterpret_cast<float*>(parts[1]),
          parts[2],
          reinterpret_cast<float*>(parts[3]),
          reinterpret_cast<float*>(parts[4]),
          reinterpret_cast<float*>(parts[5])};
}

PackedKeys plan(const Gemm* gemm, std::byte* data, std::int64_t blocks) {
  return {gemm, data, blocks, align64(gemm->packed_bytes())};
}

}  // namespace

void attention(Workspace& ws, const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
               const Tensor& lse) {
  const std::int64_t n = q.dim(0), heads = q.dim(1), d = q.dim(2), kv_heads = k.dim(0), total = k.dim(1);
  const std::int64_t group = heads / kv_heads;
  assert(heads % kv_heads == 0 && v.dim(1) == total && n <= total);
  if (n <= kDirectRows || group > kTileRows) return attention_direct(ws, q, k, v, scale, out, lse);
  const std::size_t width = element_size(q.type());
  const Gemm* qk = ws.gemm({kTileRows, kKeyBlock, d, d, kKeyBlock, q.type(), false});
  const Gemm* pv = ws.gemm({kTileRows, d, kKeyBlock, kKeyBlock, d, q.type(), true});
  if (qk == nullptr || pv == nullptr) return;

  const std::int64_t key_blocks = (total + kKeyBlock - 1) / kKeyBlock;
  PackedKeys keys = plan(qk, nullptr, key_blocks);
  PackedKeys values = plan(pv, nullptr, key_blocks);
  const auto count = static_cast<std::size_t>(kv_heads * key_blocks);
  ws.shared.ensure(count * (keys.block_bytes + values.block_bytes));
  keys.data = ws.shared.as<std::byte>();
  values.data = keys.data + count * keys.block_bytes;
  ws.pool.run(kv_heads * key_blocks * 2, [&](std::int64_t i, int worker) {
    AlignedBuffer& scratch = ws.scratch[static_cast<std::size_t>(worker)];
    const std::int64_t head = i / 2 / key_blocks;
    if (i % 2 == 0)
      pack_block(keys, k, head, i / 2 % key_blocks, true, scratch);
    else
      pack_block(values, v, head, i / 2 % key_blocks, false, scratch);
  });

  const std::int64_t block_rows = std::max<std::int64_t>(1, kTileRows / group);
  const std::int64_t row_blocks = (n + block_rows - 1) / block_rows;
  ws.pool.run(kv_heads * row_blocks, [&](std::int64_t i, int worker) {
    // The last rows see the most keys: they go first, so that no worker is left with a long task at the end.
    const std::int64_t r0 = (row_blocks - 1 - i / kv_heads) * block_rows;
    const std::int64_t g = i % kv_heads;
    const std::int64_t rows = std::min(block_rows, n - r0);
    const std::int64_t used = rows * group;
    const Scratch s = carve(ws.scratch[static_cast<std::size_t>(worker)], d, width);
    load_queries(q, g * group, group, r0, rows, s.q);
    std::memset(s.sum, 0, static_cast<std::size_t>(kTileRows * d) * sizeof(float));
    std::fill_n(s.m, used, -std::numeric_limits<float>::infinity());
    std::fill_n(s.l, used, 0.0F);
    const std::int64_t most = total - n + r0 + rows;  // keys that the block's last row sees
    std::memset(s.p, 0, static_cast<std::size_t>(kTileRows * kKeyBlock) * width);
    for (std::int64_t b = 0; b * kKeyBlock < most; ++b) {
      qk->run(worker, s.q, keys.block(g, b), s.logits);
      for (std::int64_t t = 0; t < used; ++t) {
        const std::int64_t visible = total - n + r0 + t % rows + 1 - b * kKeyBlock;
        const std::int64_t cut = std::clamp<std::int64_t>(visible, 0, kKeyBlock);
        std::byte* p = s.p + static_cast<std::size_t>(t * kKeyBlock) * width;
        std::memset(p + static_cast<std::size_t>(cut) * width, 0, static_cast<std::size_t>(kKeyBlock - cut) * width);
        if (cut == 0) continue;
        float alpha = 0;
        const float* logits = s.logits + t * kKeyBlock;
        const float added =
            q.type() == ElementType::kBF16
                ? simd().softmax_bf16(logits, cut, scale, s.m + t, &alpha, reinterpret_cast<std::uint16_t*>(p))
                : simd().softmax_f32(logits, cut, scale, s.m + t, &alpha, reinterpret_cast<float*>(p));
        s.l[t] = s.l[t] * alpha + added;
        if (alpha != 1.0F) simd().scale(alpha, d, s.sum + t * d);
      }
      pv->run(worker, s.p, values.block(g, b), s.sum);
    }
    for (std::int64_t t = 0; t < used; ++t) {
      const std::int64_t row = r0 + t % rows;
      const std::int64_t head = g * group + t / rows;
      float* sum = s.sum + t * d;
      simd().scale(1.0F / s.l[t], d, sum);
      if (out.type() == ElementType::kBF16)
        simd().to_bf16(sum, d, const_cast<std::uint16_t*>(at<std::uint16_t>(out, row, head)));
      else
        std::copy_n(sum, d, const_cast<float*>(at<float>(out, row, head)));
      if (!lse.empty()) *const_cast<float*>(at<float>(lse, row, head)) = s.m[t] + std::log(s.l[t]);
    }
  });
}

void attention_mass(Workspace& ws, const Tensor& q, const Tensor& k, const Tensor& lse, float scale,
                    const Tensor& mass) {
  const std::int64_t prompt = q.dim(0), heads = q.dim(1), d = q.dim(2), kv_heads = k.dim(0), total = k.dim(1);
  const std::int64_t group = heads / kv_heads;
  const std::int64_t candidates = total - prompt;
  assert(mass.dim(0) == kv_heads && mass.dim(1) == candidates && group <= kTileRows);
  const std::size_t width = element_size(q.type());
  const Gemm* qk = ws.gemm({kTileRows, kKeyBlock, d, d, kKeyBlock, q.type(), false});
  if (qk == nullptr) return;
  const std::int64_t key_blocks = (candidates + kKeyBlock - 1) / kKeyBlock;
  const std::int64_t block_rows = std::max<std::int64_t>(1, kTileRows / group);
  const Tensor seen = k.slice(1, 0, candidates);
  // A task owns (KV head, block of keys) and walks through all prompt rows in order: one fixed order of summation per
  // candidate.
  ws.pool.run(kv_heads * key_blocks, [&](std::int64_t i, int worker) {
    const std::int64_t g = i / key_blocks;
    const std::int64_t b = i % key_blocks;
    const std::int64_t count = std::min(kKeyBlock, candidates - b * kKeyBlock);
    AlignedBuffer& scratch = ws.scratch[static_cast<std::size_t>(worker)];
    const std::size_t packed_bytes = align64(qk->packed_bytes());
    const std::size_t q_bytes = align64(static_cast<std::size_t>(kTileRows * d) * width);
    const std::size_t logit_bytes = static_cast<std::size_t>(kTileRows * kKeyBlock) * sizeof(float);
    scratch.ensure(packed_bytes + q_bytes + logit_bytes);
    std::byte* packed = scratch.as<std::byte>();
    std::byte* tile = packed + packed_bytes;
    auto* logits = reinterpret_cast<float*>(tile + q_bytes);
    AlignedBuffer padded;
    const PackedKeys to{qk, packed - static_cast<std::size_t>(g * key_blocks + b) * packed_bytes, key_blocks,
                        packed_bytes};
    pack_block(to, seen, g, b, true, padded);
    float* sum = mass.data<float>() + g * mass.stride(0) + b * kKeyBlock;
    std::fill_n(sum, count, 0.0F);
    for (std::int64_t r0 = 0; r0 < prompt; r0 += block_rows) {
      const std::int64_t rows = std::min(block_rows, prompt - r0);
      load_queries(q, g * group, group, r0, rows, tile);
      qk->run(worker, tile, packed, logits);
      for (std::int64_t t = 0; t < rows * group; ++t) {
        const std::int64_t r = r0 + t % rows;
        const float weight =
            static_cast<float>(static_cast<double>(total - prompt + r + 1) / static_cast<double>(total));
        simd().add_exp(logits + t * kKeyBlock, count, scale, *at<float>(lse, r, g * group + t / rows), weight, sum);
      }
    }
  });
}

}  // namespace finchkv::kernels::cpu
