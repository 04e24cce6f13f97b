// One trial of bit_flip_test: a store in whose files something may be flipped is opened and read from end to end in a
// process of its own, and the answers are compared with what was put.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "tests/cache_store/flip_store.h"

namespace finchkv::cache_store::testing {

// From harmless to bad.
enum class Outcome : std::uint8_t { kRight, kDetected, kOtherError, kLost, kWrong, kAborted, kCrashed, kHung };
constexpr std::size_t kOutcomes = 8;

std::string_view outcome_name(Outcome outcome);

struct Verdict {
  Outcome outcome = Outcome::kRight;
  char why[400] = {};

  void note(Outcome seen, const std::string& text);
  void note_error(const Status& status, const std::string& doing);
  void expect(bool right, const std::string& what);
};

// What the process says on its standard error goes to the file `errors`.
Verdict judge(const std::string& directory, const FlipPlan& plan, RocksDbOptions::Mode mode, const std::string& errors);

}  // namespace finchkv::cache_store::testing
