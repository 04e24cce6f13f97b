#include "model/vocab_tokenizer.h"

#include <new>
#include <utility>

namespace finchkv::model {
namespace {

// Symbols are numbered with 32 bits, and SentencePiece's blanks make three bytes of one.
constexpr std::size_t kMaxTextBytes = std::size_t{512} << 20;

Status out_of_memory(std::size_t bytes) {
  return Status::resource_exhausted("not enough memory to tokenize " + std::to_string(bytes) + " bytes of text");
}

}  // namespace

VocabTokenizer::VocabTokenizer(Vocabulary vocab) : vocab_(std::move(vocab)), specials_(vocab_.special_tokens()) {}

Result<std::vector<TokenId>> VocabTokenizer::encode(std::string_view text, bool parse_special) const {
  const SpecialTokens::Range all{0, text.size()};
  return encode_ranges(text, {&all, parse_special ? std::size_t{1} : std::size_t{0}});
}

Result<std::vector<TokenId>> VocabTokenizer::encode(std::span<const Segment> segments) const {
  std::size_t bytes = 0;
  for (const Segment& segment : segments) bytes += segment.text.size();
  try {
    std::string text;
    text.reserve(bytes);
    std::vector<SpecialTokens::Range> parsed;
    for (const Segment& segment : segments) {
      if (segment.parse_special) parsed.push_back({text.size(), text.size() + segment.text.size()});
      text += segment.text;
    }
    return encode_ranges(text, parsed);
  } catch (const std::bad_alloc&) {
    return out_of_memory(bytes);
  }
}

Result<std::vector<TokenId>> VocabTokenizer::encode_ranges(std::string_view text,
                                                           std::span<const SpecialTokens::Range> parsed) const {
  FINCHKV_RETURN_IF_ERROR(can_encode());
  if (text.size() > kMaxTextBytes)
    return Status::invalid_argument("the text has " + std::to_string(text.size()) + " bytes; at most " +
                                    std::to_string(kMaxTextBytes) + " can be tokenized at once");
  try {
    std::vector<TokenId> ids;
    ids.reserve(text.size() / 3 + 1);
    bool first = true;
    for (const SpecialTokens::Piece& piece : specials_.split(text, parsed)) {
      if (piece.id >= 0) {
        ids.push_back(piece.id);
      } else {
        encode_text(piece.text, first, ids);
      }
      first = piece.id >= 0;
    }
    return ids;
  } catch (const std::bad_alloc&) {
    return out_of_memory(text.size());
  }
}

std::string VocabTokenizer::token_bytes(TokenId id, bool special) const {
  if (!vocab_.contains(id)) return {};
  if (vocab_.is_special(id)) return special ? std::string(vocab_.text(id)) : std::string();
  if (vocab_.type(id) == TokenType::kUserDefined) return std::string(vocab_.text(id));
  return plain_bytes(id);
}

}  // namespace finchkv::model
