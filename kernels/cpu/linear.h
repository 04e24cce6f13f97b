// Weight matrices on the CPU: oneDNN tiles for many rows, an 8- or 4-bit copy for one row.
//
// Prefill is bound by arithmetic: W^T is cut into column tiles, each packed once in oneDNN's layout and multiplied with
// blocks of 32 or 64 rows. Decoding is bound by reading weights: in the fast class a copy in 8 bits (a scale and a
// minimum per group of 32, exact where the source is a 4- or 5-bit grid) halves the bytes of bf16. The reference class
// always uses the f32 tiles of 32 rows, so a row's result never depends on how many others go with it. The class fp8
// multiplies e4m3 values, which bf16 and f32 hold exactly, and puts the scales of channels and rows in afterwards.
#pragma once

#include <memory>
#include <vector>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/workspace.h"
#include "kernels/device.h"

namespace finchkv::kernels::cpu {

class CpuLinear : public Linear {
 public:
  static Result<std::unique_ptr<CpuLinear>> pack(Workspace& ws, const LinearSource& w, LinearUse use);
  static Result<std::unique_ptr<CpuLinear>> pack_gated(Workspace& ws, const LinearSource& gate, const LinearSource& up);

  [[nodiscard]] std::int64_t in() const override { return in_; }
  [[nodiscard]] std::int64_t out() const override { return gated_ ? out_ / 2 : out_; }
  [[nodiscard]] std::size_t bytes() const override;

  void multiply(Workspace& ws, const Tensor& x, const Tensor& y, bool accumulate) const;
  void multiply_swiglu(Workspace& ws, const Tensor& x, const Tensor& y) const;

 private:
  struct Tile {
    std::int64_t column = 0;  // first output (of gate, when gated)
    std::int64_t width = 0;   // outputs in the tile (gate and up together, when gated)
    AlignedBuffer packed;
    const Gemm* layout = nullptr;  // the product that fixed the packed layout
  };

  CpuLinear(std::int64_t in, std::int64_t out, bool gated) : in_(in), out_(out), gated_(gated) {}
  Status pack_tiles(Workspace& ws, const LinearSource& rows);
  Status pack_narrow(Workspace& ws, const LinearSource& rows);  // leaves gemv_ null where there can be no such copy
  [[nodiscard]] Gemm::Shape tile_shape(const Workspace& ws, std::int64_t m, std::int64_t width) const;
  [[nodiscard]] bool rounded() const { return !scales_.empty(); }
  /// x in e4m3 values, in the type that tiles multiply; scales [n].
  [[nodiscard]] Tensor round_rows(Workspace& ws, const Tensor& x, std::vector<float>& scales) const;
  /// Calls use(tile, product [rows, tile.width], first row, rows) for every tile of x W^T, from several threads.
  void tile_rows(Workspace& ws, const Tensor& x,
                 const std::function<void(const Tile&, const float*, std::int64_t, std::int64_t)>& use) const;
  void few_rows(Workspace& ws, const Tensor& x, std::int64_t row, float* y) const;  // y [out_], from the narrow copy

  std::int64_t in_;
  std::int64_t out_;  // all outputs, gate and up together
  bool gated_;
  std::vector<Tile> tiles_;
  std::vector<float> scales_;  // of each output, in the order of the tiles, where weights are in e4m3
  AlignedBuffer narrow_;       // the 8- or 4-bit copy, blocks of 16 rows
  std::int64_t narrow_group_bytes_ = 0;
  SimdOps::Gemv gemv_ = nullptr;  // set when there is a narrow copy
};

/// Rows of activations are padded so that tiles may run past the last one.
inline constexpr std::int64_t kRowTile = 32;

}  // namespace finchkv::kernels::cpu
