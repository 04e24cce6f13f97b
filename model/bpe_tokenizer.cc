#include "model/bpe_tokenizer.h"

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "model/utf8.h"

namespace finchkv::model {
namespace {

// Above this length words hardly repeat, so remembering them only costs.
constexpr std::size_t kCachedWordBytes = 48;

/// GPT-2 writes each byte as a printable character: itself where it is printable in Latin-1, else U+0100 and on.
struct ByteAlphabet {
  std::array<char32_t, 256> character{};
  std::array<std::int16_t, 512> byte{};  // -1: no byte is written so

  ByteAlphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      character[b] = printable ? b : next++;
      byte[character[b]] = static_cast<std::int16_t>(b);
    }
  }
};

const ByteAlphabet& alphabet() {
  static const ByteAlphabet instance;
  return instance;
}

std::string byte_text(std::size_t byte) {
  std::string text;
  append_utf8(text, alphabet().character[byte]);
  return text;
}

/// The byte that a character of a token's text stands for.
std::optional<std::uint8_t> byte_of(const Utf8Char& c) {
  if (!c.valid || c.code >= alphabet().byte.size() || alphabet().byte[c.code] < 0) return std::nullopt;
  return static_cast<std::uint8_t>(alphabet().byte[c.code]);
}

/// Strings that merges name: tokens where the vocabulary has them, else numbered from its size on.
class SymbolNames {
 public:
  SymbolNames(std::unordered_map<std::string_view, TokenId> tokens, BpeSymbol first_extra)
      : symbols_(std::move(tokens)), next_(first_extra) {}

  BpeSymbol get(std::string_view text) {
    if (const auto found = symbols_.find(text); found != symbols_.end()) return found->second;
    symbols_.emplace(extras_.emplace_back(text), next_);
    return next_++;
  }
  [[nodiscard]] const std::deque<std::string>& extras() const { return extras_; }

 private:
  std::unordered_map<std::string_view, BpeSymbol> symbols_;
  std::deque<std::string> extras_;
  BpeSymbol next_;
};

}  // namespace

Result<std::shared_ptr<const Tokenizer>> BpeTokenizer::load(const GgufFile& file) {
  const auto merges = file.get_strings("tokenizer.ggml.merges");
  const bool has_merges = merges && !merges->empty();
  const std::string_view name = file.get_string("tokenizer.ggml.pre").value_or("gpt2");
  const auto pre = pretokenizer_from_name(name == "default" ? "gpt2" : name);
  if (!pre && has_merges)
    return Status::unsupported(file.path() + ": the pre-tokenizer \"" + std::string(name) +
                               "\" (tokenizer.ggml.pre) is not supported; supported are " + supported_pretokenizers());
  const Pretokenizer rule = pre.value_or(Pretokenizer::kGpt2);
  FINCHKV_ASSIGN_OR_RETURN(Vocabulary vocab, Vocabulary::load(file, "gpt2", pre ? pretokenizer_name(rule) : name));
  std::shared_ptr<BpeTokenizer> tokenizer(new BpeTokenizer(std::move(vocab), rule));
  if (has_merges) FINCHKV_RETURN_IF_ERROR(tokenizer->load_merges(*merges));
  if (has_merges && rule == Pretokenizer::kLlamaBpe) tokenizer->load_whole_words();
  return std::shared_ptr<const Tokenizer>(std::move(tokenizer));
}

Status BpeTokenizer::load_merges(const std::vector<std::string_view>& lines) {
  if (lines.size() > static_cast<std::size_t>(INT32_MAX) / 4)
    return Status::corrupt(vocab().file_name() + ": tokenizer.ggml.merges holds an absurd number of merges");
  const auto n_tokens = static_cast<BpeSymbol>(vocab().size());
  if (n_tokens > INT32_MAX / 4)
    return Status::corrupt(vocab().file_name() + ": tokenizer.ggml.tokens holds an absurd number of tokens");
  SymbolNames names(vocab().plain_tokens(), n_tokens);
  for (std::size_t byte = 0; byte < 256; ++byte) byte_symbols_[byte] = names.get(byte_text(byte));

  merges_.reserve(lines.size());
  std::string joined;
  for (std::size_t rank = 0; rank < lines.size(); ++rank) {
    const std::string_view line = lines[rank];
    const std::size_t blank = line.find(' ', 1);
    if (blank == std::string_view::npos || blank + 1 == line.size())
      return Status::corrupt(vocab().file_name() + ": tokenizer.ggml.merges[" + std::to_string(rank) +
                             "] is not a pair with a blank between");
    const std::string_view left = line.substr(0, blank);
    const std::string_view right = line.substr(blank + 1);
    joined.assign(left).append(right);
    const BpeSymbol left_symbol = names.get(left);
    const BpeSymbol right_symbol = names.get(right);
    merges_.insert(left_symbol, right_symbol, {static_cast<std::int32_t>(rank), names.get(joined)});
  }

  for (const std::string& text : names.extras()) {
    std::vector<TokenId>& ids = extras_.emplace_back();
    for (std::size_t pos = 0; pos < text.size();) {
      const Utf8Char c = decode_utf8(text, pos);
      const auto byte = byte_of(c);
      if (byte && byte_symbols_[*byte] < n_tokens) ids.push_back(byte_symbols_[*byte]);
      pos += c.length;
    }
  }
  return Status::ok();
}

void BpeTokenizer::load_whole_words() {
  std::string bytes;
  for (const auto& [text, id] : vocab().plain_tokens()) {
    bytes.clear();
    bool whole = true;
    for (std::size_t pos = 0; pos < text.size() && whole;) {
      const Utf8Char c = decode_utf8(text, pos);
      const auto byte = byte_of(c);
      whole = byte.has_value();
      if (whole) bytes.push_back(static_cast<char>(*byte));
      pos += c.length;
    }
    if (whole) whole_words_.emplace(bytes, id);
  }
}

Status BpeTokenizer::can_encode() const {
  if (!merges_.empty()) return Status::ok();
  return Status::unsupported(vocab().file_name() +
                             ": the vocabulary has no merges (tokenizer.ggml.merges), so text cannot be tokenized; "
                             "give token ids instead (--doc-tokens, --prompt-tokens)");
}

void BpeTokenizer::encode_word(std::string_view word, WordMerger& merger, std::vector<TokenId>& ids) const {
  if (!whole_words_.empty()) {
    if (const auto found = whole_words_.find(word); found != whole_words_.end()) {
      ids.push_back(found->second);
      return;
    }
  }
  std::vector<BpeSymbol> symbols;
  symbols.reserve(word.size());
  for (const char c : word) symbols.push_back(byte_symbols_[static_cast<std::uint8_t>(c)]);
  merger.merge(symbols, [&](BpeSymbol symbol) {
    if (symbol < vocab().size()) {
      ids.push_back(symbol);
    } else {
      const auto& bytes = extras_[static_cast<std::size_t>(symbol - vocab().size())];
      ids.insert(ids.end(), bytes.begin(), bytes.end());
    }
  });
}

void BpeTokenizer::encode_text(std::string_view text, bool /*first*/, std::vector<TokenId>& ids) const {
  struct Span {
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  std::unordered_map<std::string_view, Span> seen;  // word -> where in `ids` its tokens stand
  WordMerger merger(merges_);
  for (const std::string_view word : pretokenize(pre_, text)) {
    if (word.size() > kCachedWordBytes) {
      encode_word(word, merger, ids);
      continue;
    }
    const auto [entry, fresh] = seen.try_emplace(word);
    if (fresh) {
      const std::size_t begin = ids.size();
      encode_word(word, merger, ids);
      entry->second = {begin, ids.size()};
    } else {
      const Span span = entry->second;
      for (std::size_t i = span.begin; i < span.end; ++i) {
        const TokenId id = ids[i];  // a copy: push_back may move the ids
        ids.push_back(id);
      }
    }
  }
}

std::string BpeTokenizer::plain_bytes(TokenId id) const {
  const std::string_view text = vocab().text(id);
  std::string bytes;
  for (std::size_t pos = 0; pos < text.size();) {
    const Utf8Char c = decode_utf8(text, pos);
    if (const auto byte = byte_of(c)) {
      bytes.push_back(static_cast<char>(*byte));
    } else {
      bytes += text.substr(pos, c.length);
    }
    pos += c.length;
  }
  return bytes;
}

}  // namespace finchkv::model
