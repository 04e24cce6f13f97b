// GgufValue: one checked metadata value of a GGUF file, and its conversions. Internal to the GGUF reader.
//
// A view into the file's bytes; the file must outlive it. Pure functions on immutable data, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace finchkv::model {

/// Metadata value types by their number in the file.
enum class GgufValueType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

/// Bytes of a number or bool; 0 for strings, arrays and numbers that are no type.
[[nodiscard]] std::size_t gguf_value_bytes(GgufValueType type);
[[nodiscard]] std::string_view gguf_value_type_name(GgufValueType type);

struct GgufValue {
  std::string_view key;
  bool is_array = false;
  GgufValueType type = GgufValueType::kU8;  ///< of the elements when is_array; never kArray
  std::uint64_t count = 1;
  /// Numbers: packed, unaligned. A scalar string: its text. A string array: 64-bit length and text, one after another.
  std::span<const std::byte> bytes;

  // Of scalars; nullopt for arrays and other types. The rules are gguf.h's.
  [[nodiscard]] std::optional<std::uint64_t> as_u64() const;
  [[nodiscard]] std::optional<double> as_f64() const;
  [[nodiscard]] std::optional<bool> as_bool() const;
  [[nodiscard]] std::optional<std::string_view> as_string() const;
  // Of arrays.
  [[nodiscard]] std::optional<std::vector<std::string_view>> as_strings() const;
  [[nodiscard]] std::optional<std::vector<float>> as_floats() const;
  [[nodiscard]] std::optional<std::vector<std::int64_t>> as_ints() const;

  [[nodiscard]] std::string describe() const;
};

/// Text from a file, for people: valid UTF-8 stays, everything else that could upset a terminal or a JSON writer is
/// escaped, and what is longer than max_bytes is cut.
[[nodiscard]] std::string printable(std::string_view text, std::size_t max_bytes = 80);
/// The same in quotes.
[[nodiscard]] std::string quoted(std::string_view text, std::size_t max_bytes = 80);

}  // namespace finchkv::model
