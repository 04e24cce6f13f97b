// Printing: results to standard output, everything else to standard error, and numbers in the form people read.
//
// Text from documents, models and labels may hold anything: printable() takes the control characters out of what goes
// to a terminal. Used from one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/status.h"

namespace finchkv::cli {

using Json = nlohmann::ordered_json;

inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitCorrupt = 4;

[[nodiscard]] int exit_status(const Status& status);
/// Prints the sentence of a failed status, flushes standard output, and gives the exit status.
[[nodiscard]] int finish(const Status& status);

void print(std::string_view text);        ///< to standard output, as it is
void print_json(const Json& value);       ///< one object and a newline; bytes that are not UTF-8 are replaced
void print_note(std::string_view text);   ///< a line on standard error
void print_error(std::string_view text);  ///< `finchkv: text` on standard error

/// C0, C1, DEL, and the marks that turn the direction of writing.
[[nodiscard]] bool is_control(char32_t c);
/// Control characters (but newline and tab, unless one_line) and invalid UTF-8 become U+FFFD.
[[nodiscard]] std::string printable(std::string_view text, bool one_line = false);

[[nodiscard]] bool is_terminal(int fd);
[[nodiscard]] int terminal_width();   ///< of standard output; 80 when it is not a terminal
[[nodiscard]] bool locale_is_utf8();  ///< by LC_ALL, LC_CTYPE, LANG

[[nodiscard]] std::string format_bytes(std::uint64_t bytes);  ///< "5.9 MB"
[[nodiscard]] std::string format_count(std::uint64_t count);  ///< "12,345"
/// "1 entry", "1,234 entries".
[[nodiscard]] std::string plural(std::uint64_t count, std::string_view one, std::string_view many);
[[nodiscard]] std::string format_ms(double ms);                  ///< "23 ms", "1.2 s", "3 min 20 s"
[[nodiscard]] std::string format_ratio(double ratio);            ///< "16x", "7.5x"
[[nodiscard]] std::string format_age(std::uint64_t unix_ms);     ///< "3 min", "2 days"
[[nodiscard]] std::string format_until(std::uint64_t unix_ms);   ///< "in 3 min", "now": the same for what is to come
[[nodiscard]] std::string format_time(std::uint64_t unix_ms);    ///< "2025-01-31 14:05:09 UTC"
[[nodiscard]] std::string short_id(std::string_view hex);        ///< the first 12 digits
[[nodiscard]] std::size_t display_width(std::string_view text);  ///< characters, not bytes
[[nodiscard]] std::string pad(std::string text, std::size_t width, bool right = false);

}  // namespace finchkv::cli
