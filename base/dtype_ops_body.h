// The loops behind DTypeOps: the conversions, and the table of everything. Included by one .cc per instruction set,
// which defines FINCHKV_DTYPE_OPS and FINCHKV_DTYPE_OPS_NAME.
//
// Quantised layouts read or write 2 bytes of bf16 an element, and 1 (q8) or 1/2 (q4) of quants. On one core of a
// Sapphire Rapids server, GB/s of bf16, head_dim 128, 512 tokens (bench/bench_codec.cc, loops/...):
//             encode q8 keys, values   q4 keys, values   decode q8 keys, values   q4 keys, values
//   avx512              15.0    12.0      12.7     7.8              20.5    17.7     17.4    12.7
//   avx2                 9.2     8.4       8.1     6.9              13.7    11.5     10.3     8.4
//   generic, SSE2        7.2     6.5       5.6     4.7               7.4     6.6      6.4     5.7
//   generic, plain       2.9     2.9       3.2     2.8               3.5     3.4      3.2     2.4
// One element after the other (tests/base/quantised_reference.h), from and to f32: 0.3 to 0.5 encoding, decoding 2 to
// 3, 13 for q8 values.
#include "base/dtype_ops_keys.h"
#include "base/dtype_ops_values.h"

namespace finchkv {
namespace {

// Finite means: not all exponent bits set. As integers without the sign, what is not finite is largest.
template <typename Word, Word kMagnitude, Word kInfinity>
bool all_finite(const std::byte* in, size_t count) {
  constexpr size_t kRun = 4096;
  for (size_t first = 0; first < count; first += kRun) {
    const size_t n = count - first < kRun ? count - first : kRun;
    Word most = 0;
    for (size_t i = 0; i < n; ++i) {
      const auto magnitude = static_cast<Word>(load_as<Word>(in + (first + i) * sizeof(Word)) & kMagnitude);
      most = magnitude > most ? magnitude : most;
    }
    if (most >= kInfinity) return false;
  }
  return true;
}

struct WidenF16 {
  static constexpr size_t kIn = 2, kOut = 4;
  static void lanes(const std::byte* in, std::byte* out) { store_as(widen_f16(load_words(in)), out); }
};
struct WidenBF16 {
  static constexpr size_t kIn = 2, kOut = 4;
  static void lanes(const std::byte* in, std::byte* out) { store_as(widen_bf16(load_words(in)), out); }
};
struct NarrowF16 {
  static constexpr size_t kIn = 4, kOut = 2;
  static void lanes(const std::byte* in, std::byte* out) { store_words(narrow_f16(load_as<Vec>(in)), out); }
};
struct NarrowBF16 {
  static constexpr size_t kIn = 4, kOut = 2;
  static void lanes(const std::byte* in, std::byte* out) { store_words(narrow_bf16(load_as<Vec>(in)), out); }
};

template <typename Op>
void convert(const std::byte* in, size_t count, std::byte* out) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Op::lanes(in + i * Op::kIn, out + i * Op::kOut);
  if (i == count) return;
  std::byte from[kLanes * Op::kIn] = {};
  std::byte to[kLanes * Op::kOut];
  __builtin_memcpy(from, in + i * Op::kIn, (count - i) * Op::kIn);
  Op::lanes(from, to);
  __builtin_memcpy(out + i * Op::kOut, to, (count - i) * Op::kOut);
}

}  // namespace

#define FINCHKV_TRANSCODE(direction, element)                                         \
  {                                                                                   \
    {direction##_keys<element, kLayoutQ8>, direction##_values<element, kLayoutQ8>}, { \
      direction##_keys<element, kLayoutQ4>, direction##_values<element, kLayoutQ4>    \
    }                                                                                 \
  }

extern const DTypeOps FINCHKV_DTYPE_OPS;
// NOLINTNEXTLINE(misc-definitions-in-headers): its name differs in every includer
const DTypeOps FINCHKV_DTYPE_OPS = {
    .name = FINCHKV_DTYPE_OPS_NAME,
    .encode = {FINCHKV_TRANSCODE(encode, kElementF32), FINCHKV_TRANSCODE(encode, kElementF16),
               FINCHKV_TRANSCODE(encode, kElementBF16)},
    .decode = {FINCHKV_TRANSCODE(decode, kElementF32), FINCHKV_TRANSCODE(decode, kElementF16),
               FINCHKV_TRANSCODE(decode, kElementBF16)},
    // Signed words: the plainest x86-64 has no unsigned maximum of 16-bit lanes.
    .all_finite = {all_finite<int32_t, 0x7fffffff, 0x7f800000>, all_finite<int16_t, 0x7fff, 0x7c00>,
                   all_finite<int16_t, 0x7fff, 0x7f80>},
    .f16_to_f32 = convert<WidenF16>,
    .bf16_to_f32 = convert<WidenBF16>,
    .f32_to_f16 = convert<NarrowF16>,
    .f32_to_bf16 = convert<NarrowBF16>,
};

#undef FINCHKV_TRANSCODE

}  // namespace finchkv
