// What only a CUDA device can do, for benchmarks and tests; everything else goes through kernels/device.h.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/device.h"

namespace finchkv::kernels::cuda {

/// `device` must be one that make_cuda_device() made; otherwise these are null, empty or 0.
/// A matrix of pseudorandom weights of this standard deviation, made on the GPU.
[[nodiscard]] Result<std::unique_ptr<Linear>> random_linear(Device& device, std::int64_t in, std::int64_t out,
                                                            bool gated, LinearUse use, std::uint64_t seed,
                                                            float deviation);
/// A dense tensor of pseudorandom values.
[[nodiscard]] Result<Tensor> random_tensor(Device& device, ElementType type, std::int64_t rows, std::int64_t width,
                                           std::uint64_t seed, float deviation);
/// The most GPU memory that was in use at once since the last reset.
[[nodiscard]] std::size_t peak_bytes(const Device& device);
void reset_peak(Device& device);
/// Tells a profiler that watches only marked stretches (ncu --profile-from-start off) when to begin and to end.
void mark_for_profiler(bool begin);

}  // namespace finchkv::kernels::cuda
