// Small files the command reads and writes: texts, token lists, pages, and where the user's own files lie.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/tokenizer.h"

namespace finchkv::cli {

/// What a failed system call means: "`what` cannot be `doing`: No such file or directory".
[[nodiscard]] Status file_error(int error, std::string_view what, std::string_view doing);

/// All of a file, or of standard input for "-". `option` is what sentences call it.
/// not_found, permission_denied, invalid_argument (a folder), unavailable.
[[nodiscard]] Result<std::string> read_input(const std::string& path, std::string_view option);

/// A JSON array of token ids.
[[nodiscard]] Result<std::vector<model::TokenId>> read_token_ids(const std::string& path, std::string_view option);

/// Writes beside `path` and renames: `path` is whole or as it was.
[[nodiscard]] Status write_whole_file(const std::string& path, std::string_view bytes);

/// The file of remembered weight digests, $XDG_CACHE_HOME/finchkv/fingerprints or ~/.cache/finchkv/fingerprints, its
/// folder made; empty when there is no home.
[[nodiscard]] std::string fingerprint_memory_path();

}  // namespace finchkv::cli
