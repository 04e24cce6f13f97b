#include "model/spm_tokenizer.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <queue>
#include <utility>

#include "model/utf8.h"

namespace finchkv::model {
namespace {

constexpr std::string_view kBlank = "\xe2\x96\x81";  // U+2581

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

/// 0x0A of "<0x0A>".
std::optional<std::uint8_t> byte_of(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  const int high = hex_digit(text[3]);
  const int low = hex_digit(text[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<std::uint8_t>(high * 16 + low);
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t pos = 0;;) {
    const std::size_t hit = text.find(from, pos);
    out += text.substr(pos, hit - pos);
    if (hit == std::string_view::npos) return out;
    out += to;
    pos = hit + from.size();
  }
}

}  // namespace

/// Merges one text; a piece is a symbol that is still there.
class SpmTokenizer::Merger {
 public:
  Merger(const SpmTokenizer& tokenizer, std::string_view text) : tokenizer_(tokenizer), text_(text) {
    for (std::size_t pos = 0; pos < text.size();) {
      const std::uint32_t length = decode_utf8(text, pos).length;
      const auto i = static_cast<std::int32_t>(nodes_.size());
      nodes_.push_back({static_cast<std::uint32_t>(pos), length, i - 1, i + 1});
      pos += length;
    }
    if (!nodes_.empty()) nodes_.back().next = -1;
    for (std::int32_t i = 0; i + 1 < static_cast<std::int32_t>(nodes_.size()); ++i) propose(i);
  }

  template <typename Emit>
  void run(Emit emit) {
    while (!queue_.empty()) {
      const Candidate best = queue_.top();
      queue_.pop();
      Node& left = node(best.left);
      if (left.length == 0 || left.next < 0) continue;
      Node& right = node(left.next);
      if (left.length + right.length != best.length) continue;  // overtaken by another merge
      left.length = best.length;
      right.length = 0;
      left.next = right.next;
      if (right.next >= 0) node(right.next).prev = best.left;
      propose(left.prev);
      propose(best.left);
    }
    for (std::int32_t i = nodes_.empty() ? -1 : 0; i >= 0; i = node(i).next)
      emit(text_.substr(node(i).begin, node(i).length));
  }

 private:
  struct Node {
    std::uint32_t begin = 0;
    std::uint32_t length = 0;  // 0: merged into the one before
    std::int32_t prev = -1;
    std::int32_t next = -1;
  };
  struct Candidate {
    float score = 0;
    std::int32_t left = 0;
    std::uint32_t length = 0;
    bool operator<(const Candidate& other) const {
      return score != other.score ? score < other.score : left > other.left;
    }
  };

  Node& node(std::int32_t i) { return nodes_[static_cast<std::size_t>(i)]; }

  void propose(std::int32_t left) {
    if (left < 0 || node(left).next < 0) return;
    const std::uint32_t length = node(left).length + node(node(left).next).length;
    const TokenId token = tokenizer_.find(text_.substr(node(left).begin, length));
    if (token >= 0) queue_.push({tokenizer_.vocab().scores()[static_cast<std::size_t>(token)], left, length});
  }

  const SpmTokenizer& tokenizer_;
  std::string_view text_;
  std::vector<Node> nodes_;
  std::priority_queue<Candidate> queue_;
};

Result<std::shared_ptr<const Tokenizer>> SpmTokenizer::load(const GgufFile& file) {
  FINCHKV_ASSIGN_OR_RETURN(Vocabulary vocab, Vocabulary::load(file, "llama", ""));
  return std::shared_ptr<const Tokenizer>(new SpmTokenizer(std::move(vocab)));
}

SpmTokenizer::SpmTokenizer(Vocabulary vocabulary)
    : VocabTokenizer(std::move(vocabulary)), tokens_(vocab().plain_tokens()) {
  byte_tokens_.fill(-1);
  for (TokenId id = 0; id < vocab().size(); ++id) {
    const auto byte = byte_of(vocab().text(id));
    if (byte && !vocab().is_special(id) && byte_tokens_[*byte] < 0) byte_tokens_[*byte] = id;
  }
  // "<0x0A>" written out in a text is six characters, not a line end.
  std::erase_if(tokens_, [&](const auto& entry) { return vocab().type(entry.second) == TokenType::kByte; });
  for (const auto& [text, id] : tokens_) longest_ = std::max(longest_, text.size());
}

Status SpmTokenizer::can_encode() const {
  if (!vocab().scores().empty()) return Status::ok();
  return Status::unsupported(vocab().file_name() +
                             ": the vocabulary has no scores (tokenizer.ggml.scores), so text cannot be tokenized; "
                             "give token ids instead (--doc-tokens, --prompt-tokens)");
}

TokenId SpmTokenizer::find(std::string_view text) const {
  if (text.size() > longest_) return -1;
  const auto found = tokens_.find(text);
  return found == tokens_.end() ? -1 : found->second;
}

void SpmTokenizer::append_piece(std::string_view piece, std::vector<TokenId>& ids) const {
  if (const TokenId id = find(piece); id >= 0) {
    ids.push_back(id);
    return;
  }
  for (const char c : piece) {
    const TokenId byte = byte_tokens_[static_cast<std::uint8_t>(c)];
    if (byte >= 0) {
      ids.push_back(byte);
    } else if (const auto unknown = vocab().unknown()) {  // one for the whole character, as SentencePiece does
      ids.push_back(*unknown);
      return;
    }
  }
}

void SpmTokenizer::encode_text(std::string_view text, bool first, std::vector<TokenId>& ids) const {
  std::string escaped;
  if (first && vocab().add_space_prefix()) escaped = kBlank;
  escaped += replace_all(text, " ", kBlank);
  Merger(*this, escaped).run([&](std::string_view piece) { append_piece(piece, ids); });
}

std::string SpmTokenizer::plain_bytes(TokenId id) const {
  const std::string_view text = vocab().text(id);
  if (vocab().type(id) == TokenType::kByte) {
    if (const auto byte = byte_of(text)) return std::string(1, static_cast<char>(*byte));
  }
  return replace_all(text, kBlank, " ");
}

}  // namespace finchkv::model
