// The vector loops behind base/dtype.h and base/quantised.h, as a table of functions for the instruction set at hand.
//
// Internal to base/ and its tests. dtype_ops_body.h holds the loops once, on the vectors of dtype_vec.h;
// dtype_ops_*.cc compile it per instruction set. Every table gives the same bits: each rounding is either done by the
// same IEEE operation or provably equal to it. Pure functions; buffers need no alignment and do not overlap.
#pragma once

#include <cstddef>
#include <cstdint>

namespace finchkv {

/// Indices of the tables below; the floating ones are DType's values.
enum ElementIndex : int { kElementF32 = 0, kElementF16 = 1, kElementBF16 = 2, kElementCount = 3 };
enum LayoutIndex : int { kLayoutQ8 = 0, kLayoutQ4 = 1, kLayoutCount = 2 };
enum AxisIndex : int { kAxisTokens = 0, kAxisChannels = 1, kAxisCount = 2 };

struct DTypeOps {
  const char* name;

  /// One KV head, [tokens, channels] with channels > 0, to or from its stored tiles. Returns `tokens`, or the first
  /// token of the first tile that cannot be encoded (a scale or minimum is no finite f16) or is corrupt.
  using Transcode = std::uint64_t (*)(const std::byte* in, std::uint64_t tokens, std::uint64_t channels,
                                      std::byte* out);
  Transcode encode[kElementCount][kLayoutCount][kAxisCount];
  Transcode decode[kElementCount][kLayoutCount][kAxisCount];

  bool (*all_finite[kElementCount])(const std::byte* in, std::size_t count);
  void (*f16_to_f32)(const std::byte* in, std::size_t count, std::byte* out);
  void (*bf16_to_f32)(const std::byte* in, std::size_t count, std::byte* out);
  void (*f32_to_f16)(const std::byte* in, std::size_t count, std::byte* out);
  void (*f32_to_bf16)(const std::byte* in, std::size_t count, std::byte* out);
};

/// The best table for this processor.
[[nodiscard]] const DTypeOps& dtype_ops();
/// All tables that this processor can run, the plainest first.
[[nodiscard]] const DTypeOps* const* dtype_ops_tables(int* count);

}  // namespace finchkv
