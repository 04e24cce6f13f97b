// Keys as another engine wants them, in one pass: turned to their positions, their pairs in its order, in its dtype.
//
// A KeyTurner holds the cosines and sines of a run of positions, which all layers and heads of a set share. Immutable,
// thread-safe. Angles as in RopeRecord (kvset.h); the arithmetic is f32, rounded once at the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "base/kvset.h"
#include "base/status.h"
#include "base/thread_pool.h"

namespace finchkv {

/// Which dimensions of a key belong together.
enum class PairOrder : std::uint8_t {
  kAsStored,
  kHalfSplit,    ///< (i, i + rotary_dims / 2)
  kInterleaved,  ///< (2i, 2i + 1)
};

class KeyTurner {
 public:
  /// Entry i goes to first_position + i, for up to `longest` entries; without `rotate` only pairs and dtype change.
  /// invalid_argument: a record that does not hold together, or a position past 2^24, where f32 stops counting.
  [[nodiscard]] static Result<KeyTurner> create(const RopeRecord& rope, std::uint32_t head_dim, PairOrder order,
                                                bool rotate, std::uint64_t first_position, std::uint32_t longest);

  /// keys: [heads, n, head_dim] of dtype `from`; out: the same of dtype `to`, elsewhere. Both f32, f16 or bf16.
  /// With a pool, large ones are split over its threads; the bytes are the same.
  void turn(std::span<const std::byte> keys, DType from, std::uint32_t heads, std::uint32_t n, std::span<std::byte> out,
            DType to, ThreadPool* pool = nullptr) const;

  // What it does, for a GPU that does the same.
  [[nodiscard]] std::size_t pairs() const { return half_; }  ///< of a row; dimensions behind them are copied
  [[nodiscard]] bool rotates() const { return rotate_; }
  [[nodiscard]] bool from_interleaved() const { return from_interleaved_; }
  [[nodiscard]] bool to_interleaved() const { return to_interleaved_; }
  [[nodiscard]] std::span<const float> cosines() const { return cos_; }  ///< [longest, pairs]; empty unless it rotates
  [[nodiscard]] std::span<const float> sines() const { return sin_; }

 private:
  // One row: `half_` pairs of `in` to `out` by these cosines and sines.
  using TurnPairs = void (*)(const float* in, const float* cosines, const float* sines, std::size_t half, float* out);

  KeyTurner() = default;
  [[nodiscard]] TurnPairs pick() const;
  void turn_rows(const float* in, std::size_t first_row, std::size_t rows, std::uint32_t n, float* out) const;

  std::size_t head_dim_ = 0;
  std::size_t half_ = 0;  // pairs
  bool rotate_ = false;
  bool from_interleaved_ = false, to_interleaved_ = false;
  std::vector<float> cos_, sin_;  // [longest, half]
};

}  // namespace finchkv
