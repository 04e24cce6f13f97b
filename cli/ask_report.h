// What ask and compress print when they are done: the JSON object of the interface, and the line for people.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/output.h"
#include "engine/ask.h"

namespace finchkv::cli {

struct AskReport {
  const engine::Prepared* prepared = nullptr;
  const engine::Obtained* entry = nullptr;
  const model::Answer* answer = nullptr;  ///< null for compress
  std::string answer_text;
  bool stored = true;  ///< there is a store
  double load_model_ms = 0;
  double tokenize_ms = 0;
  double open_store_ms = 0;   ///< counted as looking up
  double first_token_ms = 0;  ///< from argument parsing, less load_model; 0 for compress
  std::optional<double> mean_log_likelihood;
  std::uint64_t scored_tokens = 0;
};

[[nodiscard]] Json ask_json(const AskReport& report);
[[nodiscard]] std::string ask_summary(const AskReport& report);

}  // namespace finchkv::cli
