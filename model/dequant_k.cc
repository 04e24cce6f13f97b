// The types with blocks of 256 elements (K-quants and IQ4_XS): groups of 16 or 32 elements with small integer scales
// under one or two f16 scales for the whole block.
#include <array>

#include "model/dequant_blocks.h"

namespace finchkv::model::blocks {
namespace {

constexpr int kBlock = 256;

float f(int v) { return static_cast<float>(v); }

struct ScaleMin {
  int scale;
  int min;
};

/// Group `j` of eight: the twelve bytes hold eight 6-bit scales and eight 6-bit minima; those of the last four groups
/// have their upper two bits in the upper bits of the first eight bytes.
ScaleMin scale_min(const std::uint8_t* packed, int j) {
  if (j < 4) return {packed[j] & 63, packed[j + 4] & 63};
  return {(packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4), (packed[j + 4] >> 4) | (packed[j] >> 6 << 4)};
}

}  // namespace

// 16 bytes of (4-bit scale, 4-bit min), 64 bytes of 2-bit values, f16 d, f16 dmin
void q2_k(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 84, out += kBlock) {
    const std::uint8_t* scales = in;
    const float d = load_f16(in + 80);
    const float dmin = load_f16(in + 82);
    for (int group = 0; group < 16; ++group) {
      // Eight groups share 32 bytes: two bits of each byte per pair of groups.
      const std::uint8_t* q = in + 16 + group / 8 * 32 + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      const float scale = d * f(scales[group] & 15);
      const float min = dmin * f(scales[group] >> 4);
      for (int j = 0; j < 16; ++j) out[group * 16 + j] = scale * f(q[j] >> shift & 3) - min;
    }
  }
}

// 32 bytes of third bits, 64 bytes of 2-bit values, 12 bytes of 6-bit scales, f16 d
void q3_k(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 110, out += kBlock) {
    const std::uint8_t* packed = in + 96;
    const float d = load_f16(in + 108);
    for (int group = 0; group < 16; ++group) {
      const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
      const int high = packed[8 + group % 4] >> (group / 4 * 2) & 3;
      const float scale = d * f((low | high << 4) - 32);
      const std::uint8_t* third = in + group % 2 * 16;
      const std::uint8_t* q = in + 32 + group / 8 * 32 + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      for (int j = 0; j < 16; ++j) {
        const int value = (q[j] >> shift & 3) | (third[j] >> (group / 2) & 1) << 2;
        out[group * 16 + j] = scale * f(value - 4);
      }
    }
  }
}

// f16 d, f16 dmin, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles
void q4_k(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 144, out += kBlock) {
    const float d = load_f16(in);
    const float dmin = load_f16(in + 2);
    for (int pair = 0; pair < 4; ++pair) {
      const ScaleMin low = scale_min(in + 4, 2 * pair);
      const ScaleMin high = scale_min(in + 4, 2 * pair + 1);
      const float low_scale = d * f(low.scale);
      const float low_min = dmin * f(low.min);
      const float high_scale = d * f(high.scale);
      const float high_min = dmin * f(high.min);
      const std::uint8_t* q = in + 16 + pair * 32;
      float* y = out + pair * 64;
      for (int j = 0; j < 32; ++j) y[j] = low_scale * f(q[j] & 15) - low_min;
      for (int j = 0; j < 32; ++j) y[j + 32] = high_scale * f(q[j] >> 4) - high_min;
    }
  }
}

// f16 d, f16 dmin, 12 bytes of 6-bit scales and minima, 32 bytes of fifth bits, 128 bytes of nibbles
void q5_k(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 176, out += kBlock) {
    const float d = load_f16(in);
    const float dmin = load_f16(in + 2);
    const std::uint8_t* fifth = in + 16;
    for (int pair = 0; pair < 4; ++pair) {
      const ScaleMin low = scale_min(in + 4, 2 * pair);
      const ScaleMin high = scale_min(in + 4, 2 * pair + 1);
      const float low_scale = d * f(low.scale);
      const float low_min = dmin * f(low.min);
      const float high_scale = d * f(high.scale);
      const float high_min = dmin * f(high.min);
      const std::uint8_t* q = in + 48 + pair * 32;
      float* y = out + pair * 64;
      for (int j = 0; j < 32; ++j) {
        y[j] = low_scale * f((q[j] & 15) | (fifth[j] >> (2 * pair) & 1) << 4) - low_min;
      }
      for (int j = 0; j < 32; ++j) {
        y[j + 32] = high_scale * f((q[j] >> 4) | (fifth[j] >> (2 * pair + 1) & 1) << 4) - high_min;
      }
    }
  }
}

// 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed 8-bit scales, f16 d
void q6_k(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 210, out += kBlock) {
    const float d = load_f16(in + 208);
    for (int group = 0; group < 16; ++group) {
      // Each half of the block: 64 bytes whose low nibbles are groups 0..3 and high ones 4..7; 32 bytes of bit pairs.
      const int half = group / 8;
      const int g = group % 8;
      const std::uint8_t* low = in + half * 64 + g % 4 * 16;
      const std::uint8_t* high = in + 128 + half * 32 + g % 2 * 16;
      const int low_shift = g / 4 * 4;
      const int high_shift = g / 2 * 2;
      const float scale = d * f(static_cast<std::int8_t>(in[192 + group]));
      for (int j = 0; j < 16; ++j) {
        const int value = (low[j] >> low_shift & 15) | (high[j] >> high_shift & 3) << 4;
        out[group * 16 + j] = scale * f(value - 32);
      }
    }
  }
}

// f16 d, 16 bits and 4 bytes of 6-bit scales (upper two bits, lower four), 128 bytes of nibbles that number levels
void iq4_xs(const std::uint8_t* in, std::uint64_t n, float* out) {
  for (; n > 0; --n, in += 136, out += kBlock) {
    const float d = load_f16(in);
    const int high = load_u16(in + 2);
    for (int group = 0; group < 8; ++group) {
      const int low = in[4 + group / 2] >> (group % 2 * 4) & 15;
      const float scale = d * f((low | (high >> (2 * group) & 3) << 4) - 32);
      const std::uint8_t* q = in + 8 + group * 16;
      float* y = out + group * 32;
      for (int j = 0; j < 16; ++j) {
        y[j] = scale * f(kIq4Levels[q[j] & 15U]);
        y[j + 16] = scale * f(kIq4Levels[static_cast<std::size_t>(q[j] >> 4)]);
      }
    }
  }
}

}  // namespace finchkv::model::blocks
