// Device::load() of every layout, held against decoding on the host and the device's own copy() and rotate(): for every
// device the same bits.
#pragma once

#include <gtest/gtest.h>

#include <cstring>

#include "base/quantised.h"
#include "tests/kernels/device_data.h"

namespace finchkv::testing {

struct LoadCase {
  DType layout;
  DType decoded;
  GroupAxis axis;
  std::int64_t heads, tokens, dim;
};

inline std::string describe(const LoadCase& c) {
  return std::string(dtype_name(c.layout)) + " to " + std::string(dtype_name(c.decoded)) +
         (c.axis == GroupAxis::kTokens ? ", keys [" : ", values [") + std::to_string(c.heads) + ", " +
         std::to_string(c.tokens) + ", " + std::to_string(c.dim) + "]";
}

/// Every layout in shapes that fill groups and tiles, leave the last one short, and go in one piece or several.
inline std::vector<LoadCase> load_cases() {
  struct Shape {
    std::int64_t heads, tokens, dim;
  };
  const Shape shapes[] = {{2, 1, 16}, {3, 70, 64}, {2, 128, 128}, {1, 65, 80}, {2, 67, 31}, {2, 3, 66}, {9, 2100, 128}};
  const std::pair<DType, DType> types[] = {
      {DType::kF32, DType::kF32}, {DType::kF16, DType::kF16}, {DType::kBF16, DType::kBF16}, {DType::kQ8, DType::kF32},
      {DType::kQ8, DType::kBF16}, {DType::kQ4, DType::kF32},  {DType::kQ4, DType::kBF16}};
  std::vector<LoadCase> cases;
  for (const auto& [layout, decoded] : types) {
    for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
      for (const Shape& s : shapes) cases.push_back({layout, decoded, axis, s.heads, s.tokens, s.dim});
    }
  }
  return cases;
}

/// Stored bytes of random numbers, and the numbers that decoding them on the host gives.
struct StoredNumbers {
  std::vector<std::byte> bytes;
  std::vector<float> decoded;
};

inline StoredNumbers stored_numbers(const LoadCase& c, std::uint32_t seed) {
  const auto count = static_cast<std::size_t>(c.heads * c.tokens * c.dim);
  const std::vector<float> numbers = random_floats(count, seed, -3, 3);
  const auto in = std::as_bytes(std::span(numbers));
  const QuantisedShape shape{static_cast<std::uint64_t>(c.heads), static_cast<std::uint64_t>(c.tokens),
                             static_cast<std::uint64_t>(c.dim)};
  StoredNumbers out;
  std::vector<std::byte> wide(count * element_bytes(c.decoded));
  if (is_quantised(c.layout)) {
    out.bytes.resize(*quantised_bytes(c.layout, c.axis, shape));
    EXPECT_TRUE(quantise(c.layout, c.axis, shape, DType::kF32, in, out.bytes).is_ok());
    EXPECT_TRUE(dequantise(c.layout, c.axis, shape, out.bytes, c.decoded, wide).is_ok());
  } else {
    convert_elements(DType::kF32, in.data(), c.layout, wide.data(), count);
    out.bytes = wide;
  }
  out.decoded.resize(count);
  convert_to_f32(c.decoded, wide.data(), out.decoded.data(), count);
  return out;
}

/// All bytes of a dense tensor.
inline std::vector<std::byte> bytes_of(Device& device, const Tensor& t) {
  std::vector<std::byte> out(static_cast<std::size_t>(t.elements()) * kernels::element_size(t.type()));
  device.download(t, out.data());
  return out;
}

inline RopeRecord half_rope(std::int64_t dims, bool interleaved) {
  RopeRecord rope;
  rope.rotary_dims = static_cast<std::uint32_t>(dims);
  rope.interleaved = interleaved;
  for (std::int64_t i = 0; i < dims / 2; ++i) {
    rope.inv_freq.push_back(
        static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dims))));
  }
  return rope;
}

/// What load() leaves in a cache with an entry of room on either side, bit for bit. `in`: the same bytes as the device
/// is to read them.
inline void expect_loaded(Device& device, const LoadCase& c, const StoredNumbers& numbers,
                          std::span<const std::byte> in, const std::shared_ptr<const void>& owner,
                          const RopeRecord* rope, std::int64_t first_position) {
  const auto room = static_cast<std::size_t>(c.heads * (c.tokens + 2) * c.dim);
  const std::vector<float> before(room, 7);
  const Tensor got = tensor_of(device, device.kv_type(), {c.heads, c.tokens + 2, c.dim}, before);
  const Tensor want = tensor_of(device, device.kv_type(), {c.heads, c.tokens + 2, c.dim}, before);
  const ElementType wide = c.decoded == DType::kBF16 ? ElementType::kBF16 : ElementType::kF32;
  const Tensor decoded = tensor_of(device, wide, {c.heads, c.tokens, c.dim}, numbers.decoded);
  const Tensor place = want.slice(1, 1, c.tokens);
  if (rope != nullptr) {
    device.rotate(*rope, decoded.transpose(0, 1), first_position, place.transpose(0, 1));
  } else {
    device.copy(decoded, place);
  }
  device.load({c.layout, c.axis, c.decoded, in, owner}, rope, first_position, got.slice(1, 1, c.tokens));
  EXPECT_EQ(bytes_of(device, got), bytes_of(device, want));
}

/// All cases, unrotated, rotated in full by either pairing, and in part.
inline void expect_loads(Device& device) {
  std::uint32_t seed = 1;
  for (const LoadCase& c : load_cases()) {
    SCOPED_TRACE(describe(c));
    const StoredNumbers numbers = stored_numbers(c, seed++);
    expect_loaded(device, c, numbers, numbers.bytes, nullptr, nullptr, 0);
    const std::int64_t even = c.dim / 2 * 2;
    for (const std::int64_t dims : {even, std::int64_t{8}}) {
      for (const bool interleaved : {false, true}) {
        const RopeRecord rope = half_rope(dims, interleaved);
        expect_loaded(device, c, numbers, numbers.bytes, nullptr, &rope, 5);
      }
    }
  }
  const Status status = device.synchronize();
  EXPECT_TRUE(status.is_ok()) << status.to_string();
}

/// The same from memory that the device chose, whose owner is let go.
inline void expect_loads_from_own_memory(Device& device) {
  std::uint32_t seed = 100;
  std::vector<std::weak_ptr<std::byte>> pieces;
  for (const LoadCase& c : load_cases()) {
    SCOPED_TRACE(describe(c));
    const StoredNumbers numbers = stored_numbers(c, seed++);
    const std::size_t size = numbers.bytes.size();
    std::shared_ptr<std::byte> piece = device.host_memory()->take(size + 64);
    ASSERT_NE(piece, nullptr);
    pieces.push_back(piece);
    std::memcpy(piece.get() + 64, numbers.bytes.data(), size);
    const std::span<const std::byte> in(piece.get() + 64, size);
    const std::shared_ptr<const void> owner = std::move(piece);
    expect_loaded(device, c, numbers, in, owner, nullptr, 0);
  }
  const Status status = device.synchronize();
  EXPECT_TRUE(status.is_ok()) << status.to_string();
  for (const auto& piece : pieces) EXPECT_TRUE(piece.expired()) << "memory that nobody reads is still held";
}

}  // namespace finchkv::testing
