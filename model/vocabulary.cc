#include "model/vocabulary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include "base/digest.h"

namespace finchkv::model {
namespace {

/// Tokens that end a turn in the models that have them.
constexpr std::array<std::string_view, 13> kTurnEnds = {
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "</s>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<eos>",
    "<EOT>",
    "<|return|>",
    "<end_of_utterance>",
    "<\xef\xbd\x9c"
    "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",  // with U+FF5C bars and U+2581 blanks
};

/// Other literals of chat templates.
constexpr std::array<std::string_view, 8> kTurnMarks = {
    "<|im_start|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", "<s>", "<start_of_turn>", "[INST]",
    "[/INST]",
};

template <std::size_t N>
bool is_one_of(std::string_view text, const std::array<std::string_view, N>& list) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

void put_number(std::string& out, std::uint64_t v) {
  for (int shift = 0; shift < 64; shift += 8) out.push_back(static_cast<char>((v >> shift) & 0xFFU));
}

void put_text(std::string& out, std::string_view text) {
  put_number(out, text.size());
  out += text;
}

}  // namespace

Result<Vocabulary> Vocabulary::load(const GgufFile& file, std::string_view kind, std::string_view pre) {
  Vocabulary v;
  v.file_name_ = file.path();
  FINCHKV_RETURN_IF_ERROR(v.load_lists(file));
  FINCHKV_RETURN_IF_ERROR(v.load_special_ids(file, kind));
  const bool spm = kind == "llama";
  v.add_space_prefix_ = spm && file.get_bool("tokenizer.ggml.add_space_prefix").value_or(true);
  const std::optional<bool> add_bos = file.get_bool("tokenizer.ggml.add_bos_token");
  v.add_bos_ = add_bos.value_or(spm && v.bos_.has_value());
  if (v.add_bos_ && !v.bos_)
    return Status::corrupt(v.file_name_ +
                           ": tokenizer.ggml.add_bos_token asks for a BOS token, but tokenizer.ggml.bos_token_id is "
                           "missing; the file needs converting again");
  v.correct_types();
  v.mark_ends();
  v.make_fingerprint(file, kind, pre);
  return v;
}

Status Vocabulary::load_lists(const GgufFile& file) {
  const auto tokens = file.get_strings("tokenizer.ggml.tokens");
  if (!tokens) return Status::corrupt(file_name_ + ": tokenizer.ggml.tokens is not a list of strings");
  if (tokens->size() > static_cast<std::size_t>(INT32_MAX))
    return Status::corrupt(file_name_ + ": tokenizer.ggml.tokens holds more tokens than ids can number");
  tokens_.assign(tokens->begin(), tokens->end());
  const auto wrong_length = [&](const char* key, std::size_t length) {
    return Status::corrupt(file_name_ + ": " + key + " has " + std::to_string(length) + " entries for " +
                           std::to_string(tokens_.size()) + " tokens");
  };

  types_.assign(tokens_.size(), TokenType::kNormal);
  if (const auto types = file.get_ints("tokenizer.ggml.token_type")) {
    if (types->size() != tokens_.size()) return wrong_length("tokenizer.ggml.token_type", types->size());
    for (std::size_t i = 0; i < types_.size(); ++i) {
      const std::int64_t type = (*types)[i];
      if (type < 0 || type > 6)
        return Status::corrupt(file_name_ + ": tokenizer.ggml.token_type[" + std::to_string(i) + "] is " +
                               std::to_string(type) + ", which is no token type (0 to 6)");
      types_[i] = static_cast<TokenType>(type);
    }
  }
  if (const auto scores = file.get_floats("tokenizer.ggml.scores")) {
    if (scores->size() != tokens_.size()) return wrong_length("tokenizer.ggml.scores", scores->size());
    if (std::any_of(scores->begin(), scores->end(), [](float s) { return std::isnan(s); }))
      return Status::corrupt(file_name_ + ": tokenizer.ggml.scores holds a value that is not a number");
    scores_ = *scores;
  }
  return Status::ok();
}

Status Vocabulary::load_special_ids(const GgufFile& file, std::string_view kind) {
  if (kind == "llama") {  // SentencePiece's own places, where the file does not say
    if (size() > 2) {
      unknown_ = 0;
      bos_ = 1;
      eos_ = 2;
    }
  }
  const std::array<std::pair<const char*, std::optional<TokenId>*>, 5> ids = {{
      {"tokenizer.ggml.bos_token_id", &bos_},
      {"tokenizer.ggml.eos_token_id", &eos_},
      {"tokenizer.ggml.eot_token_id", &eot_},
      {"tokenizer.ggml.eom_token_id", &eom_},
      {"tokenizer.ggml.unknown_token_id", &unknown_},
  }};
  for (const auto& [key, id] : ids) {
    const auto value = file.get_u64(key);
    if (!value) continue;
    if (*value >= tokens_.size())
      return Status::corrupt(file_name_ + ": " + key + " is " + std::to_string(*value) + ", but there are only " +
                             std::to_string(tokens_.size()) + " tokens");
    *id = static_cast<TokenId>(*value);
  }
  return Status::ok();
}

// Some converters mark turn tokens as text. Left so, a document could end the user's turn by writing them.
void Vocabulary::correct_types() {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const bool mark = types_[i] == TokenType::kUserDefined && is_one_of(tokens_[i], kTurnMarks);
    if (mark || is_one_of(tokens_[i], kTurnEnds)) types_[i] = TokenType::kControl;
  }
}

void Vocabulary::mark_ends() {
  ends_.assign(tokens_.size(), false);
  for (std::size_t i = 0; i < tokens_.size(); ++i) ends_[i] = is_one_of(tokens_[i], kTurnEnds);
  for (const auto& id : {eos_, eot_, eom_})
    if (id) ends_[static_cast<std::size_t>(*id)] = true;
}

void Vocabulary::make_fingerprint(const GgufFile& file, std::string_view kind, std::string_view pre) {
  std::string bytes;
  put_text(bytes, "finchkv-tokenizer-1");
  put_text(bytes, kind);
  put_text(bytes, pre);
  put_number(bytes, tokens_.size());
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    put_text(bytes, tokens_[i]);
    bytes.push_back(static_cast<char>(types_[i]));
    bytes.push_back(ends_[i] ? '\1' : '\0');
  }
  put_number(bytes, scores_.size());
  for (const float score : scores_) put_number(bytes, std::bit_cast<std::uint32_t>(score));
  const auto merges = file.get_strings("tokenizer.ggml.merges");
  put_number(bytes, merges ? merges->size() : 0);
  if (merges)
    for (const std::string_view merge : *merges) put_text(bytes, merge);
  for (const auto& id : {bos_, eos_, eot_, eom_, unknown_})
    put_number(bytes, id ? static_cast<std::uint64_t>(*id) + 1 : 0);
  bytes.push_back(add_bos_ ? '\1' : '\0');
  bytes.push_back(add_space_prefix_ ? '\1' : '\0');
  fingerprint_ = to_hex(sha256(as_byte_span(bytes)));
}

std::unordered_map<std::string_view, TokenId> Vocabulary::plain_tokens() const {
  std::unordered_map<std::string_view, TokenId> plain;
  plain.reserve(tokens_.size());
  for (TokenId id = 0; id < size(); ++id)
    if (!text(id).empty() && !is_special(id)) plain.emplace(text(id), id);
  return plain;
}

SpecialTokens Vocabulary::special_tokens() const {
  std::vector<SpecialTokens::Entry> entries;
  for (TokenId id = 0; id < size(); ++id) {
    const bool user_defined = type(id) == TokenType::kUserDefined;
    if (user_defined || is_special(id)) entries.push_back({std::string(text(id)), id, user_defined});
  }
  return SpecialTokens(std::move(entries));
}

}  // namespace finchkv::model
