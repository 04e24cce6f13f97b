// Chat templates: a document and a prompt as one user's turn, split where the kept cache ends (docs: head and tail).
//
// chatml, llama3, mistral, plain: recognised from the file's tokenizer.chat_template by the literals it uses, or named.
// The template's own literals give special tokens; document, prompt, instruction and system message never do.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/tokenizer.h"

namespace finchkv::model {

enum class ChatTemplate { kPlain, kChatml, kLlama3, kMistral };

inline constexpr std::string_view kDefaultInstruction = "Read the text and answer the question.";

[[nodiscard]] std::string_view chat_template_name(ChatTemplate t);  // "plain", "chatml", "llama3", "mistral"
[[nodiscard]] Result<ChatTemplate> chat_template_from_name(std::string_view name);  // invalid_argument lists the names
/// Looks at tokenizer.chat_template (and falls back to plain).
[[nodiscard]] ChatTemplate recognise_chat_template(const GgufFile& file);

struct PromptTexts {
  std::string_view document;
  std::string_view prompt;
  std::string_view instruction = kDefaultInstruction;
  std::optional<std::string_view> system = std::nullopt;
};

struct PromptTokens {
  std::vector<TokenId> document;  ///< [BOS] head + document, one tokenization
  std::vector<TokenId> prompt;    ///< tail(prompt), another
};

/// Token ids of a document and a prompt in the template's form. The system message, where there is one, goes where the
/// model's own template puts it: an own turn before the user's (chatml, llama3), inside the instruction block
/// (mistral), or as a paragraph of its own (plain).
[[nodiscard]] Result<PromptTokens> tokenize_prompt(const Tokenizer& tokenizer, ChatTemplate t,
                                                   const PromptTexts& texts);

}  // namespace finchkv::model
