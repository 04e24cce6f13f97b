// What kernel tests share: seeded numbers, tensors made from and read into plain vectors, both numeric classes.
//
// Tensors are read through their strides, so only CPU devices are for here.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/device.h"

namespace finchkv::testing {

using kernels::Device;
using kernels::ElementType;
using kernels::NumericClass;
using kernels::Tensor;

inline std::unique_ptr<Device> make_device(NumericClass numeric, int threads = 2, bool allow_bf16 = true) {
  kernels::CpuOptions options;
  options.numeric_class = numeric;
  options.threads = threads;
  options.allow_bf16 = allow_bf16;
  auto device = kernels::make_cpu_device(options);
  return device.is_ok() ? *std::move(device) : nullptr;
}

inline std::string class_name(NumericClass numeric) {
  if (numeric == NumericClass::kFp8) return "fp8";
  return numeric == NumericClass::kReference ? "reference" : "fast";
}

/// Uniform in [low, high), the same on every machine.
inline std::vector<float> random_floats(std::size_t count, std::uint32_t seed, float low = -1.0F, float high = 1.0F) {
  std::mt19937 engine(seed);
  std::vector<float> out(count);
  for (float& x : out) x = low + (high - low) * static_cast<float>(engine() >> 8) * 0x1p-24F;
  return out;
}

inline float round_to(ElementType type, float x) {
  return type == ElementType::kBF16 ? bf16_to_f32(f32_to_bf16(x)) : x;
}
inline std::vector<float> rounded_to(ElementType type, std::vector<float> values) {
  for (float& x : values) x = round_to(type, x);
  return values;
}

inline Tensor empty_tensor(Device& device, ElementType type, std::initializer_list<std::int64_t> shape) {
  auto made = device.empty(type, shape);
  return made.is_ok() ? *std::move(made) : Tensor();
}

/// A dense tensor with these values, rounded to its type.
inline Tensor tensor_of(Device& device, ElementType type, std::initializer_list<std::int64_t> shape,
                        const std::vector<float>& values) {
  const Tensor out = empty_tensor(device, type, shape);
  if (type == ElementType::kBF16) {
    std::vector<BF16> narrow(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) narrow[i] = f32_to_bf16(values[i]);
    device.upload(narrow.data(), out);
  } else {
    device.upload(values.data(), out);
  }
  return out;
}

inline Tensor ints_of(Device& device, std::initializer_list<std::int64_t> shape, const std::vector<std::int32_t>& v) {
  const Tensor out = empty_tensor(device, ElementType::kI32, shape);
  device.upload(v.data(), out);
  return out;
}

/// All elements as f32 in row-major order, whatever the strides.
inline std::vector<float> floats_of(const Tensor& t) {
  std::vector<float> out;
  const auto read = [&](std::int64_t at) {
    return t.type() == ElementType::kBF16 ? bf16_to_f32(t.data<BF16>()[at]) : t.data<float>()[at];
  };
  std::vector<std::int64_t> index(static_cast<std::size_t>(t.rank()), 0);
  for (std::int64_t i = 0; i < t.elements(); ++i) {
    std::int64_t rest = i, at = 0;
    for (int axis = t.rank() - 1; axis >= 0; --axis) {
      at += rest % t.dim(axis) * t.stride(axis);
      rest /= t.dim(axis);
    }
    out.push_back(read(at));
  }
  return out;
}

inline std::vector<std::int32_t> ints_in(Device& device, const Tensor& t) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(t.elements()));
  device.download(t, out.data());
  return out;
}

inline std::vector<std::int32_t> argmax_of(Device& device, const Tensor& x) {
  const Tensor indices = empty_tensor(device, ElementType::kI32, {x.dim(0)});
  device.argmax(x, indices);
  return ints_in(device, indices);
}

}  // namespace finchkv::testing
