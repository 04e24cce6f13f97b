#include "kernels/cpu/linear.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "kernels/cpu/q8.h"
#include "kernels/cpu/simd.h"
#include "kernels/e4m3.h"

namespace finchkv::kernels::cpu {
namespace {

// 256 x 576 in bf16 is 288 KiB: a tile stays in a core's L2 while rows pass by.
constexpr std::int64_t kTileColumns = 256;
constexpr std::int64_t kBigRowTile = 64;

// Rows of a tile. The reference class has one size for all: a row's result then never depends on its neighbours.
std::int64_t row_tile(const Workspace& ws) { return ws.numeric == NumericClass::kReference ? kRowTile : kBigRowTile; }

const std::byte* element(const Tensor& t, std::int64_t row) {
  return t.data<std::byte>() + static_cast<std::size_t>(row * t.stride(0)) * element_size(t.type());
}

void put_in_scales(float row_scale, const float* column_scales, std::int64_t n, float* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] *= row_scale * column_scales[i];
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

Gemm::Shape CpuLinear::tile_shape(const Workspace& ws, std::int64_t m, std::int64_t width) const {
  return {m, width, in_, in_, width, ws.activation, false};
}

std::size_t CpuLinear::bytes() const {
  std::size_t total = narrow_.size + scales_.size() * sizeof(float);
  for (const Tile& t : tiles_) total += t.packed.size;
  return total;
}

Result<std::unique_ptr<CpuLinear>> CpuLinear::pack(Workspace& ws, const LinearSource& w, LinearUse use) {
  std::unique_ptr<CpuLinear> linear(new CpuLinear(w.in, w.out, false));
  if (ws.numeric == NumericClass::kFp8 && use == LinearUse::kEveryRow && takes_e4m3(w.in, w.out)) {
    linear->scales_.resize(static_cast<std::size_t>(w.out));
  } else if (ws.numeric != NumericClass::kReference) {
    FINCHKV_RETURN_IF_ERROR(linear->pack_narrow(ws, w));
  }
  // The output head sees one row at a time: the narrow copy serves alone.
  if (linear->gemv_ == nullptr || use == LinearUse::kEveryRow) FINCHKV_RETURN_IF_ERROR(linear->pack_tiles(ws, w));
  return linear;
}

Result<std::unique_ptr<CpuLinear>> CpuLinear::pack_gated(Workspace& ws, const LinearSource& gate,
                                                         const LinearSource& up) {
  assert(gate.in == up.in && gate.out == up.out);
  std::unique_ptr<CpuLinear> linear(new CpuLinear(gate.in, gate.out * 2, true));
  const LinearSource both = interleave(gate, up);
  if (ws.numeric == NumericClass::kFp8 && takes_e4m3(both.in, both.out)) {
    linear->scales_.resize(static_cast<std::size_t>(both.out));
  } else if (ws.numeric != NumericClass::kReference) {
    FINCHKV_RETURN_IF_ERROR(linear->pack_narrow(ws, both));
  }
  FINCHKV_RETURN_IF_ERROR(linear->pack_tiles(ws, both));
  return linear;
}

Status CpuLinear::pack_tiles(Workspace& ws, const LinearSource& rows) {
  try {
    for (std::int64_t column = 0; column < out_; column += kTileColumns) {
      Tile tile;
      tile.column = gated_ ? column / 2 : column;
      tile.width = std::min(kTileColumns, out_ - column);
      tile.layout = ws.gemm(tile_shape(ws, row_tile(ws), tile.width));
      if (tile.layout == nullptr) return ws.failure;
      // The tile of a short prompt as well: compiling it belongs to loading, not to the first answer.
      if (row_tile(ws) != kRowTile && ws.gemm(tile_shape(ws, kRowTile, tile.width), tile.layout) == nullptr) {
        return ws.failure;
      }
      tile.packed = ws.weights.take(tile.layout->packed_bytes());
      tiles_.push_back(std::move(tile));
    }
    ws.pool.run(static_cast<std::int64_t>(tiles_.size()), [&](std::int64_t i, int worker) {
      const Tile& tile = tiles_[static_cast<std::size_t>(i)];
      const auto count = static_cast<std::size_t>(tile.width * in_);
      AlignedBuffer& scratch = ws.scratch[static_cast<std::size_t>(worker)];
      scratch.ensure(count * 6);
      auto* plain = scratch.as<float>();
      rows.rows(i * kTileColumns, tile.width, plain);
      for (std::int64_t c = 0; rounded() && c < tile.width; ++c)
        scales_[static_cast<std::size_t>(i * kTileColumns + c)] = round_row_to_e4m3(plain + c * in_, in_);
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

Status CpuLinear::pack_narrow(Workspace& ws, const LinearSource& rows) {
  if (in_ % Q8Block16::kGroup != 0) return Status::ok();
  const std::int64_t blocks = (out_ + Q8Block16::kRows - 1) / Q8Block16::kRows;
  const std::int64_t groups = in_ / Q8Block16::kGroup;
  // Returns whether every block could be encoded.
  const auto encode = [&](std::int64_t block_bytes, const auto& encode_block) {
    narrow_ = ws.weights.take(static_cast<std::size_t>(blocks * block_bytes));
    std::atomic<bool> fits{true};
    ws.pool.run(blocks, [&](std::int64_t b, int worker) {
      if (!fits.load(std::memory_order_relaxed)) return;
      AlignedBuffer& scratch = ws.scratch[static_cast<std::size_t>(worker)];
      const std::size_t bytes = static_cast<std::size_t>(Q8Block16::kRows * in_) * sizeof(float);
      scratch.ensure(bytes);
      auto* plain = scratch.as<float>();
      const std::int64_t first = b * Q8Block16::kRows;
      const std::int64_t count = std::min(Q8Block16::kRows, out_ - first);
      std::fill(plain + count * in_, plain + Q8Block16::kRows * in_, 0.0F);
      rows.rows(first, count, plain);
      if (!encode_block(plain, narrow_.as<std::byte>() + b * block_bytes)) fits = false;
    });
    return fits.load();
  };
  try {
    if (rows.grid_steps > 0 && rows.grid_steps <= 15) {
      narrow_group_bytes_ = Q4Block16::kGroupBytes;
      gemv_ = simd().q4_gemv;
      if (encode(groups * narrow_group_bytes_,
                 [&](const float* w, std::byte* out) { return encode_q4_block(w, in_, out); }))
        return Status::ok();
      narrow_ = {};
    }
    narrow_group_bytes_ = Q8Block16::kGroupBytes;
    gemv_ = simd().q8_gemv;
    if (!encode(groups * narrow_group_bytes_,
                [&](const float* w, std::byte* out) { return encode_q8_block(w, in_, rows.grid_steps, out); })) {
      narrow_ = {};
      gemv_ = nullptr;
    }
  } catch (const std::bad_alloc&) {
    return Status::resource_exhausted(fmt::format("no memory for a weight matrix of {} x {}", out_, in_));
  }
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
  const std::int64_t block_bytes = groups * narrow_group_bytes_;
  // About 64 KiB a task: small enough to share out, large enough that taking the next one costs nothing.
  const std::int64_t per_task = std::max<std::int64_t>(1, 65536 / std::max<std::int64_t>(1, block_bytes));
  ws.rows(blocks, per_task, [&](std::int64_t first, std::int64_t n, int) {
    float tail[Q8Block16::kRows];
    const std::int64_t whole = std::min(n, out_ / Q8Block16::kRows - first);
    const std::byte* at = narrow_.as<std::byte>() + first * block_bytes;
    if (whole > 0) gemv_(at, whole, in_, input.data(), sums, y + first * Q8Block16::kRows);
    if (whole < n) {
      gemv_(at + whole * block_bytes, 1, in_, input.data(), sums, tail);
      const std::int64_t start = (first + whole) * Q8Block16::kRows;
      std::copy_n(tail, out_ - start, y + start);
    }
  });
}

void CpuLinear::multiply(Workspace& ws, const Tensor& x, const Tensor& y, bool accumulate) const {
  const std::int64_t n = x.dim(0);
  assert(!gated_ && x.dim(1) == in_ && y.dim(1) == out_ && x.stride(0) == in_);
  if (tiles_.empty() || (gemv_ != nullptr && n == 1)) {
    std::vector<float> sum(accumulate ? static_cast<std::size_t>(out_) : 0);
    for (std::int64_t i = 0; i < n; ++i) {
      float* row = y.data<float>() + i * y.stride(0);
      few_rows(ws, x, i, accumulate ? sum.data() : row);
      if (accumulate) simd().add(sum.data(), out_, row);
    }
    return;
  }
  tile_rows(ws, x, [&](const Tile& tile, const float* c, std::int64_t row, std::int64_t rows) {
    for (std::int64_t r = 0; r < rows; ++r) {
      float* out = y.data<float>() + (row + r) * y.stride(0) + tile.column;
      if (accumulate)
        simd().add(c + r * tile.width, tile.width, out);
      else
        std::copy_n(c + r * tile.width, tile.width, out);
    }
  });
}

void CpuLinear::multiply_swiglu(Workspace& ws, const Tensor& x, const Tensor& y) const {
  const std::int64_t n = x.dim(0);
  assert(gated_ && x.dim(1) == in_ && y.dim(1) == out_ / 2 && x.stride(0) == in_);
  const auto activate = [&](const Tile& tile, const float* both, std::int64_t row) {
    const std::int64_t half = tile.width / 2;
    const std::size_t at = static_cast<std::size_t>(row * y.stride(0) + tile.column);
    if (y.type() == ElementType::kBF16)
      simd().swiglu_bf16(both, both + half, half, y.data<std::uint16_t>() + at);
    else
      simd().swiglu_f32(both, both + half, half, y.data<float>() + at);
  };
  if (gemv_ != nullptr && n == 1) {
    std::vector<float> both(static_cast<std::size_t>(out_));
    few_rows(ws, x, 0, both.data());
    for (const Tile& tile : tiles_) activate(tile, both.data() + tile.column * 2, 0);
    return;
  }
  tile_rows(ws, x, [&](const Tile& tile, const float* c, std::int64_t row, std::int64_t rows) {
    for (std::int64_t r = 0; r < rows; ++r) activate(tile, c + r * tile.width, row + r);
  });
}

Tensor CpuLinear::round_rows(Workspace& ws, const Tensor& x, std::vector<float>& scales) const {
  const std::int64_t n = x.dim(0);
  scales.resize(static_cast<std::size_t>(n));
  ws.shared.ensure(static_cast<std::size_t>(n * in_) * element_size(ws.activation));
  const Tensor rounded(std::shared_ptr<void>(ws.shared.data), ws.activation, {n, in_});
  ws.rows(n, 1, [&](std::int64_t row, std::int64_t, int worker) {
    AlignedBuffer& scratch = ws.scratch[static_cast<std::size_t>(worker)];
    scratch.ensure(static_cast<std::size_t>(in_) * sizeof(float));
    auto* values = scratch.as<float>();
    if (x.type() == ElementType::kBF16)
      simd().to_f32(reinterpret_cast<const std::uint16_t*>(element(x, row)), in_, values);
    else
      std::copy_n(reinterpret_cast<const float*>(element(x, row)), in_, values);
    scales[static_cast<std::size_t>(row)] = round_row_to_e4m3(values, in_);
    if (ws.activation == ElementType::kBF16)
      simd().to_bf16(values, in_, rounded.data<std::uint16_t>() + row * in_);
    else
      std::copy_n(values, in_, rounded.data<float>() + row * in_);
  });
  return rounded;
}

// Products go to scratch and from there to their place while they are in cache: oneDNN's tile kernels want a dense C,
// and a last tile of rows may then run past the end.
void CpuLinear::tile_rows(Workspace& ws, const Tensor& given,
                          const std::function<void(const Tile&, const float*, std::int64_t, std::int64_t)>& use) const {
  const std::int64_t n = given.dim(0);
  std::vector<float> row_scales;
  const Tensor x = rounded() && n > kUnroundedE4m3Rows ? round_rows(ws, given, row_scales) : given;
  const std::int64_t big = row_tile(ws);
  const std::int64_t row_blocks = (n + big - 1) / big;
  const std::int64_t rest = n % big;
  const std::int64_t rest_tile = (rest + kRowTile - 1) / kRowTile * kRowTile;
  std::vector<const Gemm*> partial(tiles_.size());
  for (std::size_t t = 0; t < tiles_.size() && rest != 0; ++t) {
    partial[t] =
        rest_tile == big ? tiles_[t].layout : ws.gemm(tile_shape(ws, rest_tile, tiles_[t].width), tiles_[t].layout);
    if (partial[t] == nullptr) return;
  }
  ws.pool.run(static_cast<std::int64_t>(tiles_.size()) * row_blocks, [&](std::int64_t i, int worker) {
    const auto t = static_cast<std::size_t>(i / row_blocks);
    const Tile& tile = tiles_[t];
    const std::int64_t row = i % row_blocks * big;
    const std::int64_t rows = std::min(big, n - row);
    const bool direct = rows == big && x.type() == ws.activation;
    const std::size_t width = element_size(ws.activation);
    const std::int64_t tile_rows = rows == big ? big : rest_tile;
    const std::size_t in_bytes = direct ? 0 : static_cast<std::size_t>(tile_rows * in_) * width;
    AlignedBuffer& scratch = ws.scratch[static_cast<std::size_t>(worker)];
    scratch.ensure(in_bytes + static_cast<std::size_t>(big * tile.width) * sizeof(float));
    auto* c = reinterpret_cast<float*>(scratch.as<std::byte>() + in_bytes);
    if (direct) {
      tile.layout->run(worker, element(x, row), tile.packed.as<void>(), c);
    } else {
      auto* in = scratch.as<std::byte>();
      const auto count = rows * in_;
      if (x.type() == ws.activation) {
        std::memcpy(in, element(x, row), static_cast<std::size_t>(count) * width);
      } else {  // a single row may come in f32 where many come in bf16
        simd().to_bf16(reinterpret_cast<const float*>(element(x, row)), count, reinterpret_cast<std::uint16_t*>(in));
      }
      std::memset(in + static_cast<std::size_t>(count) * width, 0, in_bytes - static_cast<std::size_t>(count) * width);
      (rows == big ? tile.layout : partial[t])->run(worker, in, tile.packed.as<void>(), c);
    }
    for (std::int64_t r = 0; rounded() && r < rows; ++r) {
      const float scale = row_scales.empty() ? 1.0F : row_scales[static_cast<std::size_t>(row + r)];
      put_in_scales(scale, scales_.data() + t * static_cast<std::size_t>(kTileColumns), tile.width, c + r * tile.width);
    }
    use(tile, c, row, rows);
  });
}

}  // namespace finchkv::kernels::cpu
