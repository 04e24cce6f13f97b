#include "cli/units.h"

#include <array>
#include <limits>
#include <optional>

#include <fmt/format.h>

namespace finchkv::cli {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};
constexpr std::array<Unit, 5> kSizes = {{{"T", std::uint64_t{1} << 40},
                                         {"G", std::uint64_t{1} << 30},
                                         {"M", std::uint64_t{1} << 20},
                                         {"K", std::uint64_t{1} << 10},
                                         {"", 1}}};
constexpr std::array<Unit, 5> kTimes = {{{"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1000}, {"ms", 1}}};

struct Written {
  std::uint64_t whole = 0;
  std::uint64_t fraction = 0;  // over `parts`
  std::uint64_t parts = 1;     // a power of ten
  std::string_view unit;       // what stands behind the number
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::optional<Written> split_number(std::string_view text) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max() / 10 - 1;
  constexpr std::uint64_t kFinest = 1'000'000'000;
  Written out;
  std::size_t at = 0;
  for (; at < text.size() && is_digit(text[at]); ++at) {
    if (out.whole > kMost) return std::nullopt;
    out.whole = out.whole * 10 + static_cast<std::uint64_t>(text[at] - '0');
  }
  if (at == 0) return std::nullopt;
  if (at < text.size() && text[at] == '.') {
    const std::size_t first = ++at;
    for (; at < text.size() && is_digit(text[at]); ++at) {
      if (out.parts == kFinest) return std::nullopt;
      out.fraction = out.fraction * 10 + static_cast<std::uint64_t>(text[at] - '0');
      out.parts *= 10;
    }
    if (at == first) return std::nullopt;
  }
  out.unit = text.substr(at);
  return out;
}

std::optional<std::uint64_t> scaled(const Written& number, std::uint64_t factor) {
  std::uint64_t whole = 0;
  std::uint64_t total = 0;
  // The finest fraction times the largest factor is below 2^71, so the fraction goes through long double: exact enough
  // for what has nine digits.
  const auto part =
      static_cast<std::uint64_t>(static_cast<long double>(number.fraction) * static_cast<long double>(factor) /
                                 static_cast<long double>(number.parts));
  if (__builtin_mul_overflow(number.whole, factor, &whole) || __builtin_add_overflow(whole, part, &total)) {
    return std::nullopt;
  }
  return total;
}

template <std::size_t N>
std::optional<std::uint64_t> in_units(const Written& number, std::string_view unit, const std::array<Unit, N>& units) {
  for (const Unit& known : units) {
    if (known.name != unit) continue;
    if (known.factor == 1 && number.fraction != 0) return std::nullopt;
    return scaled(number, known.factor);
  }
  return std::nullopt;
}

template <std::size_t N>
std::string in_largest(std::uint64_t value, const std::array<Unit, N>& units) {
  for (const Unit& unit : units) {
    if (value != 0 && value % unit.factor == 0) return fmt::format("{}{}", value / unit.factor, unit.name);
  }
  return std::to_string(value);
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text, std::string_view option) {
  if (text == "none") return std::uint64_t{0};
  if (const auto number = split_number(text)) {
    std::string_view unit = number->unit;
    if (unit.size() == 3 && unit.substr(1) == "iB") unit = unit.substr(0, 1);
    if (const auto bytes = in_units(*number, unit, kSizes)) return *bytes;
  }
  return Status::invalid_argument(
      fmt::format("{} {}: not a size; write 500M, 50G or 1.5T (in 1024s), or 0 for none", option, text));
}

Result<std::uint64_t> parse_duration_ms(std::string_view text, std::string_view option) {
  if (text == "never" || text == "0") return std::uint64_t{0};
  if (const auto number = split_number(text)) {
    if (const auto ms = in_units(*number, number->unit, kTimes)) return *ms;
  }
  return Status::invalid_argument(
      fmt::format("{} {}: not a time; write 100ms, 30s, 15m, 12h or 30d, or 0 for none", option, text));
}

std::string size_text(std::uint64_t bytes) { return in_largest(bytes, kSizes); }

std::string duration_text(std::uint64_t ms) { return in_largest(ms, kTimes); }

}  // namespace finchkv::cli
