// Small vocabularies for tests: a GGUF file made in memory, and the tokenizer that is read from it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/gguf.h"
#include "model/tokenizer.h"
#include "model/utf8.h"
#include "tests/model/gguf_writer.h"

namespace finchkv::testing {

struct VocabFixture {
  std::string kind = "gpt2";
  std::optional<std::string> pre;
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  std::vector<float> scores;
  std::vector<std::string> merges;
  std::optional<std::uint32_t> bos, eos, eot, unknown;
  std::optional<bool> add_bos, add_space_prefix;
  std::optional<std::string> chat_template;

  /// Adds a token and returns its id. Types: 1 text, 2 unknown, 3 control, 4 user-defined, 6 byte.
  model::TokenId add(const std::string& text, std::int32_t type = 1, float score = 0) {
    tokens.push_back(text);
    types.push_back(type);
    scores.push_back(score);
    return static_cast<model::TokenId>(tokens.size()) - 1;
  }

  [[nodiscard]] std::vector<std::byte> gguf() const {
    GgufWriter w;
    w.set_string("general.architecture", "llama");
    w.set_string("tokenizer.ggml.model", kind);
    if (pre) w.set_string("tokenizer.ggml.pre", *pre);
    w.set_strings("tokenizer.ggml.tokens", tokens);
    w.set_ints("tokenizer.ggml.token_type", types);
    if (kind == "llama") w.set_floats("tokenizer.ggml.scores", scores);
    if (!merges.empty()) w.set_strings("tokenizer.ggml.merges", merges);
    if (bos) w.set_u32("tokenizer.ggml.bos_token_id", *bos);
    if (eos) w.set_u32("tokenizer.ggml.eos_token_id", *eos);
    if (eot) w.set_u32("tokenizer.ggml.eot_token_id", *eot);
    if (unknown) w.set_u32("tokenizer.ggml.unknown_token_id", *unknown);
    if (add_bos) w.set_bool("tokenizer.ggml.add_bos_token", *add_bos);
    if (add_space_prefix) w.set_bool("tokenizer.ggml.add_space_prefix", *add_space_prefix);
    if (chat_template) w.set_string("tokenizer.chat_template", *chat_template);
    return w.finish();
  }

  [[nodiscard]] Result<std::shared_ptr<const model::Tokenizer>> load() const { return load_tokenizer(gguf()); }

  static Result<std::shared_ptr<const model::Tokenizer>> load_tokenizer(const std::vector<std::byte>& bytes) {
    auto file = model::GgufFile::parse(bytes, "test.gguf");
    if (!file.is_ok()) return file.status();
    return model::Tokenizer::from_gguf(**file);
  }
};

/// A gpt2 vocabulary whose ids 0 to 255 are the bytes.
inline VocabFixture byte_vocabulary(const std::string& pre = "gpt2") {
  VocabFixture v;
  v.pre = pre;
  char32_t next = 0x100;
  for (char32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    std::string text;
    model::append_utf8(text, printable ? b : next++);
    v.add(text);
  }
  return v;
}

inline std::vector<model::TokenId> bytes_of(const std::string& text) {
  std::vector<model::TokenId> ids;
  for (const char c : text) ids.push_back(static_cast<std::uint8_t>(c));
  return ids;
}

}  // namespace finchkv::testing
