// The limit of open files: a store keeps its tables open, as many as it is allowed.
#pragma once

#include <cstdint>

namespace finchkv::cli {

struct OpenFileLimit {
  std::uint64_t now = 0;   ///< 0: unknown
  std::uint64_t most = 0;  ///< what this user may raise it to
};
[[nodiscard]] OpenFileLimit open_file_limit();

/// Raises the process's limit to what its user may have. Best effort: with fewer, a store opens files again and again.
void raise_open_file_limit();

}  // namespace finchkv::cli
