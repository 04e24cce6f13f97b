// Device::turn(), held against KeyTurner on the host: for every device the same bits. And entries as they decode, lent.
#pragma once

#include <gtest/gtest.h>

#include "base/key_turner.h"
#include "tests/kernels/load_cases.h"

namespace finchkv::testing {

struct TurnCase {
  DType from, to;
  bool interleaved, rotate;
  PairOrder order;
  std::int64_t heads, tokens, dim, rotary;
};

inline std::string describe(const TurnCase& c) {
  return std::string(dtype_name(c.from)) + " to " + std::string(dtype_name(c.to)) + (c.rotate ? ", turned" : "") +
         (c.interleaved ? ", pairs beside" : ", pairs apart") + ", order " + std::to_string(static_cast<int>(c.order)) +
         " [" + std::to_string(c.heads) + ", " + std::to_string(c.tokens) + ", " + std::to_string(c.dim) + "], " +
         std::to_string(c.rotary) + " of them";
}

/// Every dtype, order and place of pairs; rows of whole pieces and others, rotated in part and not at all.
inline std::vector<TurnCase> turn_cases() {
  struct Shape {
    std::int64_t heads, tokens, dim, rotary;
  };
  const Shape shapes[] = {{2, 1, 16, 16}, {3, 70, 64, 64}, {8, 300, 128, 128}, {2, 67, 80, 32},
                          {1, 5, 6, 6},   {2, 9, 31, 30},  {3, 7, 12, 0},      {2, 11, 7, 0}};
  const DType types[] = {DType::kF32, DType::kF16, DType::kBF16};
  std::vector<TurnCase> cases;
  for (const DType from : types) {
    for (const DType to : types) {
      for (int choice = 0; choice < 12; ++choice) {
        const auto order = static_cast<PairOrder>(choice / 4);
        for (const Shape& s : shapes) {
          cases.push_back({from, to, choice % 2 == 1, choice / 2 % 2 == 1, order, s.heads, s.tokens, s.dim, s.rotary});
        }
      }
    }
  }
  return cases;
}

inline void expect_turns(Device& device) {
  for (const TurnCase& c : turn_cases()) {
    SCOPED_TRACE(describe(c));
    const auto count = static_cast<std::size_t>(c.heads * c.tokens * c.dim);
    const std::vector<float> numbers = random_floats(count, 5, -3, 3);
    std::vector<std::byte> in(count * element_bytes(c.from)), expected(count * element_bytes(c.to));
    convert_elements(DType::kF32, numbers.data(), c.from, in.data(), count);
    const auto turner = KeyTurner::create(half_rope(c.rotary, c.interleaved), static_cast<std::uint32_t>(c.dim),
                                          c.order, c.rotate, 1000, static_cast<std::uint32_t>(c.tokens + 3));
    ASSERT_TRUE(turner.is_ok()) << turner.status().to_string();
    const auto how = std::make_shared<const KeyTurner>(*turner);
    how->turn(in, c.from, static_cast<std::uint32_t>(c.heads), static_cast<std::uint32_t>(c.tokens), expected, c.to);
    const Tensor x = empty_tensor(device, kernels::element_type(c.from), {c.heads, c.tokens, c.dim});
    const Tensor y = empty_tensor(device, kernels::element_type(c.to), {c.heads, c.tokens, c.dim});
    device.upload(in.data(), x);
    device.turn(how, x, y);
    const auto lent = device.lend(y, 0);
    ASSERT_TRUE(lent.is_ok()) << lent.status().to_string();
    ASSERT_EQ(bytes_of(device, y), expected);
  }
}

/// load() without rotation into the type that the entries decode to, f16 too: the bytes of decoding on the host.
inline void expect_loads_as_decoded(Device& device) {
  std::vector<LoadCase> cases = load_cases();
  for (const DType layout : {DType::kQ8, DType::kQ4}) {
    for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
      cases.push_back({layout, DType::kF16, axis, 3, 70, 64});
      cases.push_back({layout, DType::kF16, axis, 2, 67, 31});
    }
  }
  for (const LoadCase& c : cases) {
    SCOPED_TRACE(describe(c));
    const StoredNumbers numbers = stored_numbers(c, 11);
    std::vector<std::byte> expected(numbers.decoded.size() * element_bytes(c.decoded));
    convert_elements(DType::kF32, numbers.decoded.data(), c.decoded, expected.data(), numbers.decoded.size());
    const Tensor y = empty_tensor(device, kernels::element_type(c.decoded), {c.heads, c.tokens, c.dim});
    device.load({c.layout, c.axis, c.decoded, numbers.bytes, nullptr}, nullptr, 0, y);
    ASSERT_TRUE(device.synchronize().is_ok());
    ASSERT_EQ(bytes_of(device, y), expected);
  }
}

}  // namespace finchkv::testing
