// Vocabulary: the token lists of a GGUF file (tokenizer.ggml.*), checked and owned, without any rule for merging.
//
// What both kinds of tokenizer share: texts, types, special ids, which tokens end a turn, the fingerprint. Immutable
// after load(), thread-safe, independent of the GgufFile it came from. Views point into it and move with it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "model/gguf.h"
#include "model/special_tokens.h"
#include "model/tokenizer.h"

namespace finchkv::model {

/// tokenizer.ggml.token_type, by its numbers in the file.
enum class TokenType : std::uint8_t {
  kUndefined = 0,
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

class Vocabulary {
 public:
  /// corrupt: lists of different lengths, types or scores that are none, special ids out of range.
  static Result<Vocabulary> load(const GgufFile& file, std::string_view kind, std::string_view pre);

  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }
  [[nodiscard]] bool contains(TokenId id) const { return id >= 0 && id < size(); }
  [[nodiscard]] std::string_view text(TokenId id) const { return tokens_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] TokenType type(TokenId id) const { return types_[static_cast<std::size_t>(id)]; }
  /// Written in text only where special tokens are parsed, and shown only on request.
  [[nodiscard]] bool is_special(TokenId id) const {
    return type(id) == TokenType::kControl || type(id) == TokenType::kUnknown;
  }
  /// The scores of SentencePiece vocabularies; empty when the file has none.
  [[nodiscard]] const std::vector<float>& scores() const { return scores_; }

  [[nodiscard]] std::optional<TokenId> bos() const { return bos_; }
  [[nodiscard]] std::optional<TokenId> unknown() const { return unknown_; }
  [[nodiscard]] bool add_bos() const { return add_bos_; }
  [[nodiscard]] bool add_space_prefix() const { return add_space_prefix_; }
  [[nodiscard]] bool is_end(TokenId id) const { return contains(id) && ends_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }
  [[nodiscard]] const std::string& file_name() const { return file_name_; }

  /// Texts that plain text may become: every token that is not special. Of equal texts the lower id.
  [[nodiscard]] std::unordered_map<std::string_view, TokenId> plain_tokens() const;
  [[nodiscard]] SpecialTokens special_tokens() const;

 private:
  Status load_lists(const GgufFile& file);
  Status load_special_ids(const GgufFile& file, std::string_view kind);
  void correct_types();
  void mark_ends();
  void make_fingerprint(const GgufFile& file, std::string_view kind, std::string_view pre);

  std::string file_name_;
  std::vector<std::string> tokens_;
  std::vector<TokenType> types_;
  std::vector<float> scores_;
  std::vector<bool> ends_;
  std::optional<TokenId> bos_, eos_, eot_, eom_, unknown_;
  bool add_bos_ = false;
  bool add_space_prefix_ = false;
  std::string fingerprint_;
};

}  // namespace finchkv::model
