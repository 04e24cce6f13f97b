// Tokenizer: text to token ids and back, with the vocabulary and rules of a GGUF file.
//
// Byte-level BPE (tokenizer.ggml.model = gpt2; pre-tokenizers smollm, gpt2, llama-bpe, qwen2 by tokenizer.ggml.pre) and
// SentencePiece-style vocabularies (tokenizer.ggml.model = llama; merges by score, byte fallback). Ids equal
// llama.cpp's. Any bytes are valid input: invalid UTF-8 is tokenised byte by byte and never an error. Immutable,
// thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/gguf.h"

namespace finchkv::model {

using TokenId = std::int32_t;

class Tokenizer {
 public:
  /// unsupported (vocabulary kind or pre-tokenizer, by name), corrupt (lists of different lengths, ids out of range).
  /// A vocabulary without merges, or none at all, loads: such a model takes token ids only (encode fails then).
  static Result<std::shared_ptr<const Tokenizer>> from_gguf(const GgufFile& file);
  virtual ~Tokenizer() = default;

  /// Token ids of `text`, without BOS or EOS. With parse_special the vocabulary's control tokens in the text become
  /// their ids; without, they are plain text. SentencePiece's leading space is added when the file asks for it
  /// (add_space_prefix).
  [[nodiscard]] virtual Result<std::vector<TokenId>> encode(std::string_view text, bool parse_special) const = 0;

  /// A piece of text to encode and whether the vocabulary's special tokens in it count: a template's own literals do, a
  /// user's text does not.
  struct Segment {
    std::string text;
    bool parse_special = false;
  };
  /// Encodes the concatenation as one text: merges may cross from one segment into the next; special tokens are
  /// recognised only where they lie wholly inside one segment that parses them.
  [[nodiscard]] virtual Result<std::vector<TokenId>> encode(std::span<const Segment> segments) const = 0;

  /// The bytes of one token as they appear in text (control tokens: empty unless `special`).
  [[nodiscard]] virtual std::string token_bytes(TokenId id, bool special = false) const = 0;
  [[nodiscard]] std::string decode(std::span<const TokenId> ids, bool special = false) const;

  [[nodiscard]] virtual std::int64_t vocab_size() const = 0;
  [[nodiscard]] virtual std::optional<TokenId> bos() const = 0;
  [[nodiscard]] virtual bool add_bos() const = 0;  ///< file's add_bos_token; absent: false for gpt2, true for llama
  [[nodiscard]] virtual bool is_end(TokenId id) const = 0;  ///< eos, eot, and vocabulary tokens known to end a turn
  [[nodiscard]] virtual std::string_view kind() const = 0;  ///< "gpt2", "llama", "none"
  /// SHA-256 (hex) over everything that can change an encoding: part of the model fingerprint.
  [[nodiscard]] virtual std::string fingerprint() const = 0;
};

/// The longest prefix of `bytes` that ends on a whole UTF-8 character: what may be shown while more tokens follow.
[[nodiscard]] std::size_t complete_utf8_prefix(std::string_view bytes);

}  // namespace finchkv::model
