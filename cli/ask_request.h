// From the options of ask and compress to a request of the engine's, and the store that it is looked up in.
#pragma once

#include <cstdint>
#include <memory>

#include "cli/ask_inputs.h"
#include "cli/ask_options.h"
#include "cli/ask_store.h"
#include "engine/ask.h"

namespace finchkv::cli {

[[nodiscard]] engine::Request make_request(const AskOptions& options, Inputs inputs, std::uint64_t ttl_ms);

/// Waiting for another writer is told on standard error.
[[nodiscard]] Result<std::unique_ptr<AskStore>> open_store(const AskOptions& options, const Access& access);

/// Options that a found entry does not follow.
[[nodiscard]] bool asks_for_keeping(const AskOptions& options);

}  // namespace finchkv::cli
