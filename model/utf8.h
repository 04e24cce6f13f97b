// Reading UTF-8 that may be damaged: one character at a time, a damaged byte counting as a character of its own.
//
// Pure functions, thread-safe. Strict: overlong forms, surrogates and values past U+10FFFF are damage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace finchkv::model {

struct Utf8Char {
  char32_t code = 0;  ///< U+FFFD when not valid
  std::uint8_t length = 1;
  bool valid = true;
};

/// The character at `pos`, which must lie inside `text`.
[[nodiscard]] inline Utf8Char decode_utf8(std::string_view text, std::size_t pos) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(pos);
  if (lead < 0x80) return {lead, 1, true};
  constexpr Utf8Char kDamaged{0xFFFD, 1, false};
  const int length = lead >= 0xC2 && lead <= 0xDF   ? 2
                     : (lead & 0xF0) == 0xE0        ? 3
                     : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                    : 0;
  if (length == 0 || text.size() - pos < static_cast<std::size_t>(length)) return kDamaged;
  char32_t code = lead & (0xFFU >> (length + 1));
  for (int i = 1; i < length; ++i) {
    const std::uint8_t next = byte(pos + static_cast<std::size_t>(i));
    if ((next & 0xC0) != 0x80) return kDamaged;
    code = (code << 6) | (next & 0x3FU);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  if (overlong || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return kDamaged;
  return {code, static_cast<std::uint8_t>(length), true};
}

/// Appends the UTF-8 form of a valid code point.
inline void append_utf8(std::string& out, char32_t code) {
  const auto put = [&](char32_t v) { out.push_back(static_cast<char>(static_cast<std::uint8_t>(v))); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

}  // namespace finchkv::model
