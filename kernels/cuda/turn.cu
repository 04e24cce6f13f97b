// Keys and values on their way out to another engine (base/key_turner.h): a row is d numbers, of which `pairs` pairs at
// (2i, 2i + 1) or (i, i + pairs) are turned, or only put into the other order:
//   (a, b) -> (a cos - b sin, a sin + b cos)
// and the rest is copied; everything in f32, each product and sum rounded as on the host, rounded once to the dtype.
//
// Bytes: x once, y once; the tables stay in L2 over the heads. A thread makes four pairs, else one number.
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr int kThreads = kItemThreads;

// The host computes without fused multiply-add, and so does this.
__device__ __forceinline__ float first_turned(float a, float b, float cos, float sin) {
  return __fsub_rn(__fmul_rn(a, cos), __fmul_rn(b, sin));
}
__device__ __forceinline__ float second_turned(float a, float b, float cos, float sin) {
  return __fadd_rn(__fmul_rn(a, sin), __fmul_rn(b, cos));
}

template <typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    turn_any(const From* __restrict__ x, To* __restrict__ y, TurnView how, std::int64_t items, std::int64_t n, int d) {
  const std::int64_t i = item_index();
  if (i >= items) return;
  const std::int64_t row = quotient(i, d);
  const int at = static_cast<int>(i - row * d);
  const From* from = x + row * d;
  if (at >= 2 * how.pairs) {
    y[i] = from_f32<To>(to_f32(from[at]));
    return;
  }
  const int pair = how.to_interleaved ? at / 2 : at % how.pairs;
  const bool second = how.to_interleaved ? at % 2 != 0 : at >= how.pairs;
  const float a = to_f32(from[how.from_interleaved ? 2 * pair : pair]);
  const float b = to_f32(from[how.from_interleaved ? 2 * pair + 1 : pair + how.pairs]);
  float value = second ? b : a;
  if (how.cos != nullptr) {
    const std::int64_t entry = (row - quotient(row, n) * n) * how.pairs + pair;
    value = second ? second_turned(a, b, how.cos[entry], how.sin[entry])
                   : first_turned(a, b, how.cos[entry], how.sin[entry]);
  }
  y[i] = from_f32<To>(value);
}

// Four pairs a thread, all of a row's dimensions in pairs, rows on 16 bytes.
template <typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    turn_fours(const From* __restrict__ x, To* __restrict__ y, TurnView how, std::int64_t items, std::int64_t n) {
  const std::int64_t i = item_index();
  if (i >= items) return;
  const int fours = how.pairs / 4, d = 2 * how.pairs;
  const std::int64_t row = quotient(i, fours);
  const int pair = static_cast<int>(i - row * fours) * 4;
  const From* from = x + row * d;
  float a[4], b[4];
  if (how.from_interleaved) {
    float low[4], high[4];
    load_f32(from + 2 * pair, low);
    load_f32(from + 2 * pair + 4, high);
    a[0] = low[0], b[0] = low[1], a[1] = low[2], b[1] = low[3];
    a[2] = high[0], b[2] = high[1], a[3] = high[2], b[3] = high[3];
  } else {
    load_f32(from + pair, a);
    load_f32(from + how.pairs + pair, b);
  }
  if (how.cos != nullptr) {
    const std::int64_t entry = (row - quotient(row, n) * n) * how.pairs + pair;
    float cos[4], sin[4];
    load_f32(how.cos + entry, cos);
    load_f32(how.sin + entry, sin);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float first = first_turned(a[k], b[k], cos[k], sin[k]);
      b[k] = second_turned(a[k], b[k], cos[k], sin[k]);
      a[k] = first;
    }
  }
  To* to = y + row * d;
  if (how.to_interleaved) {
    const float low[4] = {a[0], b[0], a[1], b[1]}, high[4] = {a[2], b[2], a[3], b[3]};
    store_f32(low, to + 2 * pair);
    store_f32(high, to + 2 * pair + 4);
  } else {
    store_f32(a, to + pair);
    store_f32(b, to + how.pairs + pair);
  }
}

// Where the dtype alone changes, rows make no difference.
template <typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    convert_fours(const From* __restrict__ x, To* __restrict__ y, std::int64_t items) {
  const std::int64_t i = item_index();
  if (i >= items) return;
  float values[4];
  load_f32(x + i * 4, values);
  store_f32(values, y + i * 4);
}

bool on_16_bytes(const Tensor& t) { return reinterpret_cast<std::uintptr_t>(t.data()) % 16 == 0; }

template <typename From, typename To>
void launch(Runtime& rt, const TurnView& how, const Tensor& x, const Tensor& y) {
  const std::int64_t elements = x.elements(), n = x.dim(1);
  const int d = static_cast<int>(x.dim(2));
  const From* from = x.data<const From>();
  To* to = y.data<To>();
  const bool aligned = on_16_bytes(x) && on_16_bytes(y);
  if (aligned && how.pairs == 0 && elements % 4 == 0) {
    convert_fours<From, To><<<item_blocks(elements / 4), kThreads, 0, rt.stream()>>>(from, to, elements / 4);
  } else if (aligned && 2 * how.pairs == d && how.pairs % 4 == 0) {
    turn_fours<From, To><<<item_blocks(elements / 8), kThreads, 0, rt.stream()>>>(from, to, how, elements / 8, n);
  } else {
    turn_any<From, To><<<item_blocks(elements), kThreads, 0, rt.stream()>>>(from, to, how, elements, n, d);
  }
  rt.launched("keys and values for another engine");
}

template <typename From>
void turn_from(Runtime& rt, const TurnView& how, const Tensor& x, const Tensor& y) {
  if (y.type() == ElementType::kF16) return launch<From, __half>(rt, how, x, y);
  if (y.type() == ElementType::kBF16) return launch<From, Bf16>(rt, how, x, y);
  launch<From, float>(rt, how, x, y);
}

}  // namespace

void turn(Runtime& rt, const TurnView& how, const Tensor& x, const Tensor& y) {
  if (x.elements() == 0) return;
  if (x.type() == ElementType::kF16) return turn_from<__half>(rt, how, x, y);
  if (x.type() == ElementType::kBF16) return turn_from<Bf16>(rt, how, x, y);
  turn_from<float>(rt, how, x, y);
}

}  // namespace finchkv::kernels::cuda
