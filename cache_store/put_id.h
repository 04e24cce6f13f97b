// PutId: names the blocks of one put. Random, so that a put never meets another's blocks.
//
// A value; thread-safe like one.
#pragma once

#include <array>
#include <compare>
#include <cstdint>

namespace finchkv::cache_store {

struct PutId {
  std::array<std::uint8_t, 16> bytes{};

  [[nodiscard]] static PutId random();
  auto operator<=>(const PutId&) const = default;
};

}  // namespace finchkv::cache_store
