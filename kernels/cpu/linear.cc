#include "kernels/cpu/linear.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "kernels/cpu/q8.h"
#include "kernels/cpu/simd.h"

namespace finchkv::kernels::cpu {
namespace {

constexpr std::int64_t kTileColumns =
    256;  // 256 x 576 in bf16 is 288 KiB: a tile stays in a core's L2 while rows pass by
constexpr std::int64_t kBigRowTile = 64;

const std::byte* element(const Tensor& t, std::int64_t row) {
  return t.data<std::byte>() + static_cast<std::size_t>(row * t.stride(0)) * element_size(t.type());
}

// Gate and up as one matrix whose tiles hold the same columns of both: tile t is [gate columns | up columns].
LinearSource interleave(const LinearSource& gate, const LinearSource& up) {
  LinearSource both;
  both.in = gate.in;
  both.out = gate.out * 2;
  both.grid_steps = std::max(gate.grid_steps, up.grid_steps);
  if (gate.grid_steps == 0 || up.grid_steps == 0) both.grid_steps = 0;
  const std::int64_t half = kTileColumns / 2;
  both.rows = [gate, up, half](std::int64_t first, std::int64_t count, float* dst) {
    while (count > 0) {
      const std::int64_t tile_first = first / kTileColumns * half;       // in gate's rows
      const std::int64_t width = std::min(half, gate.out - tile_first);  // the last tile may be narrow
      const std::int64_t in_tile = first - tile_first * 2;
      const bool is_up = in_tile >= width;
      const std::int64_t at = is_up ? in_tile - width : in_tile;
      const std::int64_t n = std::min(count, width - at);
      (is_up ? up : gate).rows(tile_first + at, n, dst);
      dst += n * gate.in;
      first += n;
      count -= n;
    }
  };
  return both;
}

}  // namespace

Gemm::Shape CpuLinear::tile_shape(const Workspace& ws, std::int64_t m, std::int64_t width, std::int64_t ldc,
                                  bool accumulate) const {
  return {m, width, in_, in_, ldc, ws.activation, accumulate};
}

std::size_t CpuLinear::bytes() const {
  std::size_t total = q8_.size;
  for (const Tile& t : tiles_) total += t.packed.size;
  return total;
}

Result<std::unique_ptr<CpuLinear>> CpuLinear::pack(Workspace& ws, const LinearSource& w, LinearUse use) {
  std::unique_ptr<CpuLinear> linear(new CpuLinear(w.in, w.out, false));
  const bool q8 = ws.numeric == NumericClass::kFast && w.in % Q8Block16::kGroup == 0;
  if (q8) FINCHKV_RETURN_IF_ERROR(linear->pack_q8(ws, w));
  // The output head sees one row at a time: the 8-bit copy serves alone.
  if (!q8 || use == LinearUse::kEveryRow) FINCHKV_RETURN_IF_ERROR(linear->pack_tiles(ws, w));
  return linear;
}

Result<std::unique_ptr<CpuLinear>> CpuLinear::pack_gated(Workspace& ws, const LinearSource& gate,
                                                         const LinearSource& up) {
  assert(gate.in == up.in && gate.out == up.out);
  std::unique_ptr<CpuLinear> linear(new CpuLinear(gate.in, gate.out * 2, true));
  const LinearSource both = interleave(gate, up);
  if (ws.numeric == NumericClass::kFast && gate.in % Q8Block16::kGroup == 0)
    FINCHKV_RETURN_IF_ERROR(linear->pack_q8(ws, both));
  FINCHKV_RETURN_IF_ERROR(linear->pack_tiles(ws, both));
  return linear;
}

Status CpuLinear::pack_tiles(Workspace& ws, const LinearSource& rows) {
  const std::int64_t m = ws.numeric == NumericClass::kReference ? kRowTile : kBigRowTile;
  try {
    for (std::int64_t column = 0; column < out_; column += kTileColumns) {
      Tile tile;
      tile.column = gated_ ? column / 2 : column;
      tile.width = std::min(kTileColumns, out_ - column);
      tile.layout = ws.gemm(tile_shape(ws, m, tile.width, gated_ ? tile.width : out_, false));
      if (tile.layout == nullptr) return ws.failure;
      tile.packed.ensure(tile.layout->packed_bytes());
      tiles_.push_back(std::move(tile));
    }
    ws.pool.run(static_cast<std::int64_t>(tiles_.size()), [&](std::int64_t i, int worker) {
      const Tile& tile = tiles_[static_cast<std::size_t>(i)];
      const auto count = static_cast<std::size_t>(tile.width * in_);
      AlignedBuffer& scratch = ws.scratch[static_cast<std::size_t>(worker)];
      scratch.ensure(count * 6);
      auto* plain = scratch.as<float>();
      rows.rows(i * kTileColumns, tile.width, plain);
      if (ws.activation == ElementType::kBF16) {
        auto* narrow = reinterpret_cast<std::uint16_t*>(plain + count);
        simd().to_bf16(plain, tile.width * in_, narrow);
        tile.layout->pack(narrow, 1, in_, tile.packed.as<void>());
      } else {
        tile.layout->pack(plain, 1, in_, tile.packed.as<void>());
      }
    });
  } catch (const std::bad_alloc&) {
    return Status::resource_exhausted(fmt::format("no memory for a weight matrix of {} x {}", out_, in_));
  }
  return Status::ok();
}

Status CpuLinear::pack_q8(Workspace& ws, const LinearSource& rows) {
  const std::int64_t blocks = (out_ + Q8Block16::kRows - 1) / Q8Block16::kRows;
  const std::int64_t block_bytes = in_ / Q8Block16::kGroup * Q8Block16::kGroupBytes;
  try {
    q8_.ensure(static_cast<std::size_t>(blocks * block_bytes));
  } catch (const std::bad_alloc&) {
    return Status::resource_exhausted(fmt::format("no memory for a weight matrix of {} x {}", out_, in_));
  }
  ws.pool.run(blocks, [&](std::int64_t b, int) {
    std::vector<float> plain(static_cast<std::size_t>(Q8Block16::kRows * in_), 0.0F);
    const std::int64_t first = b * Q8Block16::kRows;
    rows.rows(first, std::min(Q8Block16::kRows, out_ - first), plain.data());
    encode_q8_block(plain.data(), in_, rows.grid_steps, q8_.as<std::byte>() + b * block_bytes);
  });
  use_q8_ = true;
  return Status::ok();
}

void CpuLinear::few_rows(Workspace& ws, const Tensor& x, std::int64_t row, float* y) const {
  const auto in = static_cast<std::size_t>(in_);
  const std::int64_t groups = in_ / Q8Block16::kGroup;
  std::vector<float> input(in + static_cast<std::size_t>(groups));
  if (x.type() == ElementType::kBF16) {
    simd().to_f32(reinterpret_cast<const std::uint16_t*>(element(x, row)), in_, input.data());
  } else {
    std::copy_n(reinterpret_cast<const float*>(element(x, row)), in, input.data());
  }
  float* sums = input.data() + in;
  for (std::int64_t g = 0; g < groups; ++g) {
    sums[g] = 0;
    for (std::int64_t i = 0; i < Q8Block16::kGroup; ++i)
      sums[g] += input[static_cast<std::size_t>(g * Q8Block16::kGroup + i)];
  }
  const std::int64_t blocks = (out_ + Q8Block16::kRows - 1) / Q8Block16::kRows;
  const std::int64_t block_bytes = groups * Q8Block16::kGroupBytes;
  // About 64 KiB a task: small enough to share out, large enough that taking the next one costs nothing.
  const std::int64_t per_task = std::max<std::int64_t>(1, 65536 / block_bytes);
  ws.rows(blocks, per_task, [&](std::int64_t first, std::int64_t n, int) {
    float tail[Q8Block16::kRows];
    const std::int64_t whole = std::min(n, out_ / Q8Block16::kRows - first);
    const std::byte* at = q8_.as<std::byte>() + first * block_bytes;
    if (whole > 0) simd().q8_gemv(at, whole, in_, input.data(), sums, y + first * Q8Block16::kRows);
    if (whole < n) {
      simd().q8_gemv(at + whole * block_bytes, 1, in_, input.data(), sums, tail);
      const std::int64_t start = (first + whole) * Q8Block16::kRows;
      std::copy_n(tail, out_ - start, y + start);
    }
  });
}

void CpuLinear::multiply(Workspace& ws, const Tensor& x, const Tensor& y, bool accumulate) const {
  const std::int64_t n = x.dim(0);
  assert(!gated_ && x.dim(1) == in_ && y.dim(1) == out_ && x.stride(0) == in_ && x.type() == ws.activation);
  if (tiles_.empty() || (use_q8_ && n == 1)) {
    std::vector<float> sum(accumulate ? static_cast<std::size_t>(out_) : 0);
    for (std::int64_t i = 0; i < n; ++i) {
      float* row = y.data<float>() + i * y.stride(0);
      few_rows(ws, x, i, accumulate ? sum.data() : row);
      if (accumulate) simd().add(sum.data(), out_, row);
    }
    return;
  }
  // Whole tiles write straight to y; the rows of a last partial tile go through scratch, where the tile may run over.
  const std::int64_t big = ws.numeric == NumericClass::kReference ? kRowTile : kBigRowTile;
  const std::int64_t row_blocks = (n + big - 1) / big;
  const auto n_tiles = static_cast<std::int64_t>(tiles_.size());
  std::vector<const Gemm*> whole(tiles_.size()), part(tiles_.size());
  const std::int64_t rest = n % big;
  const std::int64_t rest_tile = (rest + kRowTile - 1) / kRowTile * kRowTile;
  for (std::size_t t = 0; t < tiles_.size(); ++t) {
    if (n >= big) whole[t] = ws.gemm(tile_shape(ws, big, tiles_[t].width, y.stride(0), accumulate), tiles_[t].layout);
    if (rest != 0)
      part[t] = ws.gemm(tile_shape(ws, rest_tile, tiles_[t].width, tiles_[t].width, false), tiles_[t].layout);
    if ((n >= big && whole[t] == nullptr) || (rest != 0 && part[t] == nullptr)) return;
  }
  ws.pool.run(n_tiles * row_blocks, [&](std::int64_t i, int worker) {
    const auto t = static_cast<std::size_t>(i / row_blocks);
    const std::int64_t row = i % row_blocks * big;
    const Tile& tile = tiles_[t];
    float* out = y.data<float>() + row * y.stride(0) + tile.column;
    if (n - row >= big) {
      whole[t]->run(worker, element(x, row), tile.packed.as<void>(), out);
      return;
    }
    const std::size_t in_bytes = static_cast<std::size_t>(rest_tile * in_) * element_size(x.type());
    AlignedBuffer& scratch = ws.scratch[static_cast<std::size_t>(worker)];
    scratch.ensure(in_bytes + static_cast<std::size_t>(rest_tile * tile.width) * sizeof(float));
    auto* c = reinterpret_cast<float*>(scratch.as<std::byte>() + in_bytes);
    std::memset(scratch.as<std::byte>(), 0, in_bytes);
    std::memcpy(scratch.as<std::byte>(), element(x, row),
                static_cast<std::size_t>(rest * in_) * element_size(x.type()));
    part[t]->run(worker, scratch.as<std::byte>(), tile.packed.as<void>(), c);
    for (std::int64_t r = 0; r < rest; ++r) {
      if (accumulate)
        simd().add(c + r * tile.width, tile.width, out + r * y.stride(0));
      else
        std::copy_n(c + r * tile.width, tile.width, out + r * y.stride(0));
    }
  });
}

void CpuLinear::multiply_swiglu(Workspace& ws, const Tensor& x, const Tensor& y) const {
  const std::int64_t n = x.dim(0);
  assert(gated_ && x.dim(1) == in_ && y.dim(1) == out_ / 2 && x.stride(0) == in_ && y.type() == ws.activation);
  const auto activate = [&](const Tile& tile, const float* both, std::int64_t row) {
    const std::int64_t half = tile.width / 2;
    const std::size_t at = static_cast<std::size_t>(row * y.stride(0) + tile.column);
    if (y.type() == ElementType::kBF16)
      simd().swiglu_bf16(both, both + half, half, y.data<std::uint16_t>() + at);
    else
      simd().swiglu_f32(both, both + half, half, y.data<float>() + at);
  };
  if (use_q8_ && n == 1) {
    std::vector<float> both(static_cast<std::size_t>(out_));
    few_rows(ws, x, 0, both.data());
    for (const Tile& tile : tiles_) activate(tile, both.data() + tile.column * 2, 0);
    return;
  }
  const std::int64_t big = ws.numeric == NumericClass::kReference ? kRowTile : kBigRowTile;
  const std::int64_t row_blocks = (n + big - 1) / big;
  const std::int64_t rest = n % big;
  const std::int64_t rest_tile = (rest + kRowTile - 1) / kRowTile * kRowTile;
  std::vector<const Gemm*> part(tiles_.size());
  for (std::size_t t = 0; t < tiles_.size() && rest != 0; ++t) {
    part[t] = ws.gemm(tile_shape(ws, rest_tile, tiles_[t].width, tiles_[t].width, false), tiles_[t].layout);
    if (part[t] == nullptr) return;
  }
  ws.pool.run(static_cast<std::int64_t>(tiles_.size()) * row_blocks, [&](std::int64_t i, int worker) {
    const auto t = static_cast<std::size_t>(i / row_blocks);
    const Tile& tile = tiles_[t];
    const std::int64_t row = i % row_blocks * big;
    const std::int64_t rows = std::min(big, n - row);
    const bool partial = rows < big;
    const std::size_t in_bytes = partial ? static_cast<std::size_t>(rest_tile * in_) * element_size(x.type()) : 0;
    AlignedBuffer& scratch = ws.scratch[static_cast<std::size_t>(worker)];
    scratch.ensure(in_bytes + static_cast<std::size_t>(big * tile.width) * sizeof(float));
    auto* c = reinterpret_cast<float*>(scratch.as<std::byte>() + in_bytes);
    if (partial) {
      std::memset(scratch.as<std::byte>(), 0, in_bytes);
      std::memcpy(scratch.as<std::byte>(), element(x, row),
                  static_cast<std::size_t>(rows * in_) * element_size(x.type()));
      part[t]->run(worker, scratch.as<std::byte>(), tile.packed.as<void>(), c);
    } else {
      tile.layout->run(worker, element(x, row), tile.packed.as<void>(), c);
    }
    for (std::int64_t r = 0; r < rows; ++r) activate(tile, c + r * tile.width, row + r);
  });
}

}  // namespace finchkv::kernels::cpu
