// SpmTokenizer: SentencePiece-style BPE, tokenizer.ggml.model = llama.
//
// Blanks become U+2581; every character is a symbol, and the adjacent pair whose joined text is the token of highest
// score, the leftmost of equals, is merged until none is left. A character that is no token becomes its bytes' tokens
// <0xXX>. With add_space_prefix a blank goes before the text and before what follows a special token, as in llama.cpp.
// Immutable, thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/vocab_tokenizer.h"

namespace finchkv::model {

class SpmTokenizer final : public VocabTokenizer {
 public:
  static Result<std::shared_ptr<const Tokenizer>> load(const GgufFile& file);

  [[nodiscard]] std::string_view kind() const override { return "llama"; }

 protected:
  [[nodiscard]] Status can_encode() const override;
  void encode_text(std::string_view text, bool first, std::vector<TokenId>& ids) const override;
  [[nodiscard]] std::string plain_bytes(TokenId id) const override;

 private:
  class Merger;

  explicit SpmTokenizer(Vocabulary vocab);
  /// The token of exactly this text; -1 when there is none.
  [[nodiscard]] TokenId find(std::string_view text) const;
  void append_piece(std::string_view piece, std::vector<TokenId>& ids) const;

  std::unordered_map<std::string_view, TokenId> tokens_;  // views into the vocabulary
  std::size_t longest_ = 0;                               // bytes of the longest of them
  std::array<TokenId, 256> byte_tokens_{};                // -1: the vocabulary has none
};

}  // namespace finchkv::model
