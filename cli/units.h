// Sizes and times as people write them in options: 50G, 30d.
//
// Sizes count in 1024s (50G and 50GiB are the same; 50GB, which may mean either, is refused), since limits are set
// beside disks and memory. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace finchkv::cli {

/// A whole number or a decimal fraction with K, M, G or T behind it, or nothing for bytes; "0" and "none" are 0.
/// invalid_argument begins with `option`.
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text, std::string_view option);

/// In milliseconds: a number with ms, s, m, h or d behind it; "0" and "never" are 0.
[[nodiscard]] Result<std::uint64_t> parse_duration_ms(std::string_view text, std::string_view option);

/// What parse_size reads back as the same number, in the largest unit that is exact: "50G", "1000".
[[nodiscard]] std::string size_text(std::uint64_t bytes);
[[nodiscard]] std::string duration_text(std::uint64_t ms);

}  // namespace finchkv::cli
