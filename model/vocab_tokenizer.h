// VocabTokenizer: what byte-level BPE and SentencePiece-style tokenizers have in common.
//
// It joins segments, finds special tokens, and hands the text between them to the kind's own encode_text().
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/special_tokens.h"
#include "model/tokenizer.h"
#include "model/vocabulary.h"

namespace finchkv::model {

class VocabTokenizer : public Tokenizer {
 public:
  [[nodiscard]] Result<std::vector<TokenId>> encode(std::string_view text, bool parse_special) const override;
  [[nodiscard]] Result<std::vector<TokenId>> encode(std::span<const Segment> segments) const override;
  [[nodiscard]] std::string token_bytes(TokenId id, bool special) const override;
  [[nodiscard]] std::int64_t vocab_size() const override { return vocab_.size(); }
  [[nodiscard]] std::optional<TokenId> bos() const override { return vocab_.bos(); }
  [[nodiscard]] bool add_bos() const override { return vocab_.add_bos(); }
  [[nodiscard]] bool is_end(TokenId id) const override { return vocab_.is_end(id); }
  [[nodiscard]] std::string fingerprint() const override { return vocab_.fingerprint(); }

 protected:
  explicit VocabTokenizer(Vocabulary vocab);

  [[nodiscard]] const Vocabulary& vocab() const { return vocab_; }
  /// Fails when the file lacks what encoding needs.
  [[nodiscard]] virtual Status can_encode() const = 0;
  /// Appends the ids of `text`, which holds no special tokens and is not empty. `first`: nothing, or a special token,
  /// comes before it.
  virtual void encode_text(std::string_view text, bool first, std::vector<TokenId>& ids) const = 0;
  /// The bytes of a token that is neither special nor user-defined.
  [[nodiscard]] virtual std::string plain_bytes(TokenId id) const = 0;

 private:
  [[nodiscard]] Result<std::vector<TokenId>> encode_ranges(std::string_view text,
                                                           std::span<const SpecialTokens::Range> parsed) const;

  Vocabulary vocab_;
  SpecialTokens specials_;
};

}  // namespace finchkv::model
