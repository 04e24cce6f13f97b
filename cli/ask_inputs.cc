#include "cli/ask_inputs.h"

#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "cli/files.h"
#include "model/chat_template.h"

namespace finchkv::cli {

Result<RawInputs> read_inputs(const AskOptions& o) {
  RawInputs raw;
  if (o.text_mode()) {
    FINCHKV_ASSIGN_OR_RETURN(raw.document, read_input(*o.doc, "--doc"));
    if (raw.document.empty()) {
      return Status::invalid_argument(fmt::format("--doc {}: the document is empty; there is nothing to read", *o.doc));
    }
  } else {
    FINCHKV_ASSIGN_OR_RETURN(raw.document_ids, read_token_ids(*o.doc_tokens, "--doc-tokens"));
    FINCHKV_ASSIGN_OR_RETURN(raw.prompt_ids, read_token_ids(*o.prompt_tokens, "--prompt-tokens"));
    if (raw.document_ids.empty()) {
      return Status::invalid_argument(
          fmt::format("--doc-tokens {}: the document is empty; there is nothing to read", *o.doc_tokens));
    }
    if (raw.prompt_ids.empty()) {
      return Status::invalid_argument(
          fmt::format("--prompt-tokens {}: the prompt is empty; there is nothing to answer", *o.prompt_tokens));
    }
  }
  if (o.score_tokens) {
    FINCHKV_ASSIGN_OR_RETURN(raw.score_ids, read_token_ids(*o.score_tokens, "--score-tokens"));
    if (raw.score_ids.empty()) {
      return Status::invalid_argument(fmt::format("--score-tokens {}: there are no tokens to score", *o.score_tokens));
    }
  }
  return raw;
}

Result<Inputs> tokenize_inputs(const AskOptions& o, RawInputs raw, const model::Model& model) {
  if (!o.text_mode()) return Inputs{std::move(raw.document_ids), std::move(raw.prompt_ids)};
  model::ChatTemplate chat = model.chat_template();
  if (!o.chat_template.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(chat, model::chat_template_from_name(o.chat_template));
  }
  model::PromptTexts texts;
  texts.document = raw.document;
  texts.prompt = *o.prompt;
  texts.instruction = o.instruction;
  if (o.system) texts.system = *o.system;
  FINCHKV_ASSIGN_OR_RETURN(model::PromptTokens tokens, model::tokenize_prompt(model.tokenizer(), chat, texts));
  return Inputs{std::move(tokens.document), std::move(tokens.prompt)};
}

std::string make_label(const AskOptions& o) {
  if (o.label) return *o.label;
  constexpr std::size_t kLongest = 256;  // the store's limit
  const std::string& source = o.text_mode() ? *o.doc : *o.doc_tokens;
  std::string label = source == "-" ? "standard input" : std::filesystem::path(source).filename().string();
  if (o.prompt) label += ": " + *o.prompt;
  if (label.size() > kLongest) label.resize(model::complete_utf8_prefix(std::string_view(label).substr(0, kLongest)));
  return label;
}

}  // namespace finchkv::cli
