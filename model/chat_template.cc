#include "model/chat_template.h"

#include <array>
#include <utility>

namespace finchkv::model {
namespace {

using Segments = std::vector<Tokenizer::Segment>;

constexpr std::array<std::pair<ChatTemplate, std::string_view>, 4> kNames = {{
    {ChatTemplate::kPlain, "plain"},
    {ChatTemplate::kChatml, "chatml"},
    {ChatTemplate::kLlama3, "llama3"},
    {ChatTemplate::kMistral, "mistral"},
}};

void literal(Segments& out, std::string_view text) { out.push_back({std::string(text), true}); }
void plain(Segments& out, std::string_view text) { out.push_back({std::string(text), false}); }

/// A system message's turn, or what stands for one.
void append_system(Segments& out, ChatTemplate t, std::string_view system) {
  switch (t) {
    case ChatTemplate::kChatml:
      literal(out, "<|im_start|>system\n");
      plain(out, system);
      literal(out, "<|im_end|>\n");
      return;
    case ChatTemplate::kLlama3:
      literal(out, "<|start_header_id|>system<|end_header_id|>\n\n");
      plain(out, system);
      literal(out, "<|eot_id|>");
      return;
    case ChatTemplate::kMistral:
    case ChatTemplate::kPlain:
      plain(out, system);
      literal(out, "\n\n");
      return;
  }
}

Segments head(ChatTemplate t, const PromptTexts& texts) {
  Segments out;
  const bool own_turn = t == ChatTemplate::kChatml || t == ChatTemplate::kLlama3;
  if (own_turn && texts.system) append_system(out, t, *texts.system);
  switch (t) {
    case ChatTemplate::kChatml: literal(out, "<|im_start|>user\n"); break;
    case ChatTemplate::kLlama3: literal(out, "<|start_header_id|>user<|end_header_id|>\n\n"); break;
    case ChatTemplate::kMistral: literal(out, "[INST] "); break;
    case ChatTemplate::kPlain: break;
  }
  if (!own_turn && texts.system) append_system(out, t, *texts.system);
  plain(out, texts.instruction);
  literal(out, "\n\n");
  return out;
}

Segments tail(ChatTemplate t, std::string_view prompt) {
  Segments out;
  literal(out, "\n\nQuestion: ");
  plain(out, prompt);
  switch (t) {
    case ChatTemplate::kChatml: literal(out, "<|im_end|>\n<|im_start|>assistant\n"); break;
    case ChatTemplate::kLlama3: literal(out, "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"); break;
    case ChatTemplate::kMistral: literal(out, " [/INST]"); break;
    case ChatTemplate::kPlain: literal(out, "\nAnswer:"); break;
  }
  return out;
}

}  // namespace

std::string_view chat_template_name(ChatTemplate t) {
  for (const auto& [value, name] : kNames)
    if (value == t) return name;
  return "";
}

Result<ChatTemplate> chat_template_from_name(std::string_view name) {
  std::string known;
  for (const auto& [value, text] : kNames) {
    if (text == name) return value;
    known += (known.empty() ? "" : ", ") + std::string(text);
  }
  return Status::invalid_argument("there is no chat template \"" + std::string(name) + "\"; there are " + known);
}

ChatTemplate recognise_chat_template(const GgufFile& file) {
  const std::string_view text = file.get_string("tokenizer.chat_template").value_or("");
  const auto uses = [&](std::string_view mark) { return text.find(mark) != std::string_view::npos; };
  if (uses("<|im_start|>")) return ChatTemplate::kChatml;
  if (uses("<|start_header_id|>")) return ChatTemplate::kLlama3;
  if (uses("[INST]")) return ChatTemplate::kMistral;
  return ChatTemplate::kPlain;
}

Result<PromptTokens> tokenize_prompt(const Tokenizer& tokenizer, ChatTemplate t, const PromptTexts& texts) {
  Segments document = head(t, texts);
  plain(document, texts.document);
  PromptTokens tokens;
  FINCHKV_ASSIGN_OR_RETURN(tokens.document, tokenizer.encode(document));
  if (const auto bos = tokenizer.bos(); bos && tokenizer.add_bos())
    tokens.document.insert(tokens.document.begin(), *bos);
  FINCHKV_ASSIGN_OR_RETURN(tokens.prompt, tokenizer.encode(tail(t, texts.prompt)));
  return tokens;
}

}  // namespace finchkv::model
