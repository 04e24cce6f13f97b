// compress with several documents: read together, one line or JSON object for each.
#pragma once

#include <vector>

#include "base/status.h"
#include "cli/ask_options.h"

namespace finchkv::cli {

/// `each` as one_by_one(options). Documents that fail are told as they do; the status then counts them, with the code
/// of the first.
[[nodiscard]] Status run_compress_many(const AskOptions& options, const std::vector<AskOptions>& each);

}  // namespace finchkv::cli
