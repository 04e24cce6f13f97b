#include "model/gguf_value.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include <fmt/format.h>

namespace finchkv::model {
namespace {

template <typename T>
T load(std::span<const std::byte> bytes, std::uint64_t index) {
  T v;
  std::memcpy(&v, bytes.data() + index * sizeof(T), sizeof(T));
  return v;
}

/// Calls f with element `index` as its own C++ type; false when it is no number.
template <typename F>
bool visit_number(const GgufValue& value, std::uint64_t index, F&& f) {
  switch (value.type) {
    case GgufValueType::kU8:
    case GgufValueType::kBool: f(load<std::uint8_t>(value.bytes, index)); return true;
    case GgufValueType::kI8: f(load<std::int8_t>(value.bytes, index)); return true;
    case GgufValueType::kU16: f(load<std::uint16_t>(value.bytes, index)); return true;
    case GgufValueType::kI16: f(load<std::int16_t>(value.bytes, index)); return true;
    case GgufValueType::kU32: f(load<std::uint32_t>(value.bytes, index)); return true;
    case GgufValueType::kI32: f(load<std::int32_t>(value.bytes, index)); return true;
    case GgufValueType::kU64: f(load<std::uint64_t>(value.bytes, index)); return true;
    case GgufValueType::kI64: f(load<std::int64_t>(value.bytes, index)); return true;
    case GgufValueType::kF32: f(load<float>(value.bytes, index)); return true;
    case GgufValueType::kF64: f(load<double>(value.bytes, index)); return true;
    case GgufValueType::kString:
    case GgufValueType::kArray: return false;
  }
  return false;
}

bool is_float(GgufValueType type) { return type == GgufValueType::kF32 || type == GgufValueType::kF64; }

/// Takes the next length-prefixed string of an array that was checked when the file was opened.
std::string_view next_string(std::span<const std::byte>& rest) {
  const auto length = static_cast<std::size_t>(load<std::uint64_t>(rest, 0));
  const std::string_view text(reinterpret_cast<const char*>(rest.data()) + 8, length);
  rest = rest.subspan(8 + length);
  return text;
}

/// Bytes of the UTF-8 sequence that text starts with; 0 when it is none.
std::size_t utf8_sequence(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (lead == 0xe0 && at(1) < 0xa0) || (lead == 0xf0 && at(1) < 0x90);
  const bool no_character = (lead == 0xed && at(1) >= 0xa0) || (lead == 0xf4 && at(1) >= 0x90);
  return overlong || no_character ? 0 : length;
}

std::string element_text(const GgufValue& value, std::uint64_t index) {
  if (value.type == GgufValueType::kBool) return load<std::uint8_t>(value.bytes, index) != 0 ? "true" : "false";
  std::string out;
  visit_number(value, index, [&](auto v) { out = fmt::format("{}", v); });
  return out;
}

}  // namespace

std::size_t gguf_value_bytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::kU8:
    case GgufValueType::kI8:
    case GgufValueType::kBool: return 1;
    case GgufValueType::kU16:
    case GgufValueType::kI16: return 2;
    case GgufValueType::kU32:
    case GgufValueType::kI32:
    case GgufValueType::kF32: return 4;
    case GgufValueType::kU64:
    case GgufValueType::kI64:
    case GgufValueType::kF64: return 8;
    case GgufValueType::kString:
    case GgufValueType::kArray: return 0;
  }
  return 0;
}

std::string_view gguf_value_type_name(GgufValueType type) {
  switch (type) {
    case GgufValueType::kU8: return "u8";
    case GgufValueType::kI8: return "i8";
    case GgufValueType::kU16: return "u16";
    case GgufValueType::kI16: return "i16";
    case GgufValueType::kU32: return "u32";
    case GgufValueType::kI32: return "i32";
    case GgufValueType::kF32: return "f32";
    case GgufValueType::kBool: return "bool";
    case GgufValueType::kString: return "string";
    case GgufValueType::kArray: return "array";
    case GgufValueType::kU64: return "u64";
    case GgufValueType::kI64: return "i64";
    case GgufValueType::kF64: return "f64";
  }
  return "unknown";
}

std::optional<std::uint64_t> GgufValue::as_u64() const {
  if (is_array || is_float(type)) return std::nullopt;
  std::optional<std::uint64_t> out;
  visit_number(*this, 0, [&](auto v) {
    if (v >= 0) out = static_cast<std::uint64_t>(v);
  });
  return out;
}

std::optional<double> GgufValue::as_f64() const {
  if (is_array || type == GgufValueType::kBool) return std::nullopt;
  std::optional<double> out;
  visit_number(*this, 0, [&](auto v) { out = static_cast<double>(v); });
  return out;
}

std::optional<bool> GgufValue::as_bool() const {
  if (is_array || type != GgufValueType::kBool) return std::nullopt;
  return load<std::uint8_t>(bytes, 0) != 0;
}

std::optional<std::string_view> GgufValue::as_string() const {
  if (is_array || type != GgufValueType::kString) return std::nullopt;
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::optional<std::vector<std::string_view>> GgufValue::as_strings() const {
  if (!is_array || type != GgufValueType::kString) return std::nullopt;
  std::vector<std::string_view> out;
  out.reserve(count);
  auto rest = bytes;
  for (std::uint64_t i = 0; i < count; ++i) out.push_back(next_string(rest));
  return out;
}

std::optional<std::vector<float>> GgufValue::as_floats() const {
  if (!is_array || !is_float(type)) return std::nullopt;
  std::vector<float> out(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    visit_number(*this, i, [&](auto v) { out[i] = static_cast<float>(v); });
  }
  return out;
}

std::optional<std::vector<std::int64_t>> GgufValue::as_ints() const {
  if (!is_array || is_float(type) || type == GgufValueType::kString) return std::nullopt;
  std::vector<std::int64_t> out(count);
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  for (std::uint64_t i = 0; i < count; ++i) {
    if (type == GgufValueType::kU64 && load<std::uint64_t>(bytes, i) > kMost) return std::nullopt;
    visit_number(*this, i, [&](auto v) { out[i] = static_cast<std::int64_t>(v); });
  }
  return out;
}

std::string GgufValue::describe() const {
  constexpr std::uint64_t kShown = 6;
  constexpr std::size_t kShownBytes = 32;
  if (!is_array) {
    return type == GgufValueType::kString ? fmt::format("{} = {}", printable(key), quoted(*as_string()))
                                          : fmt::format("{} = {}", printable(key), element_text(*this, 0));
  }
  std::string out = fmt::format("{} = {} x {} [", printable(key), count, gguf_value_type_name(type));
  auto rest = bytes;
  for (std::uint64_t i = 0; i < std::min(count, kShown); ++i) {
    if (i > 0) out += ", ";
    out += type == GgufValueType::kString ? quoted(next_string(rest), kShownBytes) : element_text(*this, i);
  }
  return out + (count > kShown ? ", ...]" : "]");
}

std::string printable(std::string_view text, std::size_t max_bytes) {
  std::string out;
  std::size_t at = 0;
  while (at < text.size() && at < max_bytes) {
    const std::size_t length = utf8_sequence(text.substr(at));
    const auto c = static_cast<unsigned char>(text[at]);
    // U+0080..U+009F (c2 80 to c2 9f) are control characters too.
    const bool control =
        c < 0x20 || c == 0x7f || (c == 0xc2 && length == 2 && static_cast<unsigned char>(text[at + 1]) < 0xa0);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '"' || c == '\\') {
      out += {'\\', text[at]};
    } else if (length == 0 || control) {
      for (std::size_t i = 0; i < std::max<std::size_t>(length, 1); ++i) {
        out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[at + i]));
      }
    } else {
      out += text.substr(at, length);
    }
    at += std::max<std::size_t>(length, 1);
  }
  if (at < text.size()) out += "...";
  return out;
}

std::string quoted(std::string_view text, std::size_t max_bytes) {
  std::string out = '"' + printable(text, max_bytes) + '"';
  if (text.size() > max_bytes) out += fmt::format(" ({} bytes)", text.size());
  return out;
}

}  // namespace finchkv::model
