// Runs a command for the secret that it prints, within limits.
//
// Internal to cache_store (key_source.h). Thread-safe; nothing of the output or of the command stands in an error.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>

#include "base/status.h"

namespace finchkv::cache_store {

/// How many bytes of `out` the command has filled. Errors as load_key_command's; invalid_argument when it prints
/// `out.size()` bytes or more.
[[nodiscard]] Result<std::size_t> run_key_command(const std::string& command, std::chrono::milliseconds limit,
                                                  std::span<std::byte> out);

}  // namespace finchkv::cache_store
