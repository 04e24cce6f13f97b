// BpeTokenizer: byte-level BPE (GPT-2's), tokenizer.ggml.model = gpt2.
//
// Text is cut into words (pretokenize.h); in a word every byte is a symbol, and the adjacent pair of lowest rank in
// tokenizer.ggml.merges, the leftmost of equals, is merged until none is left. llama-bpe vocabularies take a word that
// is a token as it is. A symbol that is no token falls back to its bytes; a byte for which the vocabulary has no token
// is dropped, as in llama.cpp. Immutable, thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/bpe_merges.h"
#include "model/pretokenize.h"
#include "model/vocab_tokenizer.h"

namespace finchkv::model {

class BpeTokenizer final : public VocabTokenizer {
 public:
  static Result<std::shared_ptr<const Tokenizer>> load(const GgufFile& file);

  [[nodiscard]] std::string_view kind() const override { return "gpt2"; }

 protected:
  [[nodiscard]] Status can_encode() const override;
  void encode_text(std::string_view text, bool first, std::vector<TokenId>& ids) const override;
  [[nodiscard]] std::string plain_bytes(TokenId id) const override;

 private:
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  BpeTokenizer(Vocabulary vocab, Pretokenizer pre) : VocabTokenizer(std::move(vocab)), pre_(pre) {}
  Status load_merges(const std::vector<std::string_view>& lines);
  void load_whole_words();
  void encode_word(std::string_view word, WordMerger& merger, std::vector<TokenId>& ids) const;

  Pretokenizer pre_;
  std::array<BpeSymbol, 256> byte_symbols_{};
  MergeTable merges_;
  std::vector<std::vector<TokenId>> extras_;  ///< of symbols past the vocabulary: the tokens of their bytes
  /// Words, as bytes, that are tokens; filled only where the merges are passed over for them.
  std::unordered_map<std::string, TokenId, TextHash, std::equal_to<>> whole_words_;
};

}  // namespace finchkv::model
