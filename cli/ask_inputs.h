// From files and texts to the token ids of a document and a prompt.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "cli/ask_options.h"
#include "model/model.h"

namespace finchkv::cli {

/// What the options name, read but not yet tokenized: so that a missing file is told before a model is opened.
struct RawInputs {
  std::string document;  ///< text mode
  std::vector<model::TokenId> document_ids, prompt_ids;
  std::vector<model::TokenId> score_ids;
};

struct Inputs {
  std::vector<model::TokenId> document, prompt;
};

[[nodiscard]] Result<RawInputs> read_inputs(const AskOptions& options);
[[nodiscard]] Result<Inputs> tokenize_inputs(const AskOptions& options, RawInputs raw, const model::Model& model);

/// What `ls` shows of an entry: --label, or the document's file name and the prompt, 256 bytes at most.
[[nodiscard]] std::string make_label(const AskOptions& options);

}  // namespace finchkv::cli
