#include "model/pretokenize.h"

#include <unicode/uchar.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "model/utf8.h"

namespace finchkv::model {
namespace {

constexpr std::array<std::pair<std::string_view, Pretokenizer>, 10> kNames{{
    {"deepseek-r1-qwen", Pretokenizer::kQwen2},
    {"gpt-2", Pretokenizer::kGpt2},
    {"gpt2", Pretokenizer::kGpt2},
    {"llama-bpe", Pretokenizer::kLlamaBpe},
    {"llama-v3", Pretokenizer::kLlamaBpe},
    {"llama3", Pretokenizer::kLlamaBpe},
    {"megrez", Pretokenizer::kQwen2},
    {"phi-2", Pretokenizer::kGpt2},
    {"qwen2", Pretokenizer::kQwen2},
    {"smollm", Pretokenizer::kSmollm},
}};

/// What the patterns tell apart. kNone stands for "past the end of the piece", which no pattern takes.
enum class Kind : std::uint8_t { kNone, kLetter, kNumber, kSpace, kSymbol };

Kind classify(char32_t code) {
  const auto c = static_cast<UChar32>(code);
  const std::uint32_t category = U_GET_GC_MASK(c);
  if ((category & U_GC_L_MASK) != 0) return Kind::kLetter;
  if ((category & U_GC_N_MASK) != 0) return Kind::kNumber;
  return u_isUWhiteSpace(c) != 0 ? Kind::kSpace : Kind::kSymbol;
}

std::array<Kind, 128> classify_ascii() {
  std::array<Kind, 128> kinds{};
  for (char32_t c = 0; c < 128; ++c) kinds[c] = classify(c);
  return kinds;
}

struct Char {
  char32_t code = 0;
  std::size_t length = 0;  // bytes
  Kind kind = Kind::kNone;
};

bool is_line_end(const Char& c) { return c.code == '\r' || c.code == '\n'; }

/// Matches the patterns at one place of a piece of text; each take_* returns where its match ends, or `pos`.
class Scanner {
 public:
  explicit Scanner(std::string_view piece) : text_(piece) {}

  [[nodiscard]] Char at(std::size_t pos) const {
    static const std::array<Kind, 128> ascii = classify_ascii();
    if (pos >= text_.size()) return {};
    const auto byte = static_cast<std::uint8_t>(text_[pos]);
    if (byte < 128) return {byte, 1, ascii[byte]};
    const Utf8Char c = decode_utf8(text_, pos);
    return {c.code, c.length, c.valid ? classify(c.code) : Kind::kSymbol};
  }

  [[nodiscard]] std::size_t run_of(Kind kind, std::size_t pos) const {
    for (Char c = at(pos); c.kind == kind; c = at(pos)) pos += c.length;
    return pos;
  }

  /// 's|'t|'re|'ve|'m|'ll|'d
  [[nodiscard]] std::size_t take_contraction(std::size_t pos, bool any_case) const {
    if (pos + 1 >= text_.size() || text_[pos] != '\'') return pos;
    const auto letter = [&](std::size_t i) {
      const char c = i < text_.size() ? text_[i] : '\0';
      return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    };
    const char first = letter(pos + 1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return pos + 2;
    const char second = letter(pos + 2);
    const bool two =
        (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
    return two ? pos + 3 : pos;
  }

  /// \s+(?!\S)|\s+ at a white-space character: a run that something follows leaves its last character to that.
  [[nodiscard]] std::size_t take_space(std::size_t pos) const {
    std::size_t last = pos;
    std::size_t end = pos;
    for (Char c = at(end); c.kind == Kind::kSpace; c = at(end)) {
      last = end;
      end += c.length;
    }
    return end == text_.size() || last == pos ? end : last;
  }

  [[nodiscard]] std::size_t next_gpt2(std::size_t pos) const {
    if (const std::size_t end = take_contraction(pos, false); end != pos) return end;
    const Char first = at(pos);
    const Char body = first.code == ' ' ? at(pos + 1) : first;
    if (body.kind != Kind::kNone && body.kind != Kind::kSpace)
      return run_of(body.kind, first.code == ' ' ? pos + 1 : pos);
    return take_space(pos);
  }

  /// llama-bpe and qwen2 differ only in how many digits go together.
  [[nodiscard]] std::size_t next_llama(std::size_t pos, int max_digits) const {
    if (const std::size_t end = take_contraction(pos, true); end != pos) return end;
    const Char first = at(pos);
    if (first.kind == Kind::kLetter) return run_of(Kind::kLetter, pos);
    if (first.kind == Kind::kNumber) {
      for (int i = 0; i < max_digits; ++i) {
        const Char c = at(pos);
        if (c.kind != Kind::kNumber) break;
        pos += c.length;
      }
      return pos;
    }
    if (!is_line_end(first) && at(pos + first.length).kind == Kind::kLetter)
      return run_of(Kind::kLetter, pos + first.length);
    const Char body = first.code == ' ' ? at(pos + 1) : first;
    if (body.kind == Kind::kSymbol) {
      pos = run_of(Kind::kSymbol, first.code == ' ' ? pos + 1 : pos);
      while (is_line_end(at(pos))) ++pos;
      return pos;
    }
    const std::size_t lines = take_lines(pos);
    return lines != pos ? lines : take_space(pos);
  }

 private:
  /// \s*[\r\n]+: up to the last line end of a run of white space.
  [[nodiscard]] std::size_t take_lines(std::size_t pos) const {
    std::size_t end = pos;
    for (Char c = at(pos); c.kind == Kind::kSpace; c = at(pos)) {
      pos += c.length;
      if (is_line_end(c)) end = pos;
    }
    return end;
  }

  std::string_view text_;
};

template <typename Next>
void split(std::string_view piece, std::vector<std::string_view>& words, Next next) {
  const Scanner scanner(piece);
  for (std::size_t pos = 0; pos < piece.size();) {
    const std::size_t end = next(scanner, pos);
    words.push_back(piece.substr(pos, end - pos));
    pos = end;
  }
}

void split_gpt2(std::string_view piece, std::vector<std::string_view>& words) {
  split(piece, words, [](const Scanner& s, std::size_t pos) { return s.next_gpt2(pos); });
}

/// The pieces between numbers are texts of their own: white space before a number is at its piece's end.
void split_smollm(std::string_view text, std::vector<std::string_view>& words) {
  const Scanner scanner(text);
  std::size_t start = 0;
  for (std::size_t pos = 0; pos < text.size();) {
    const Char c = scanner.at(pos);
    if (c.kind == Kind::kNumber) {
      split_gpt2(text.substr(start, pos - start), words);
      words.push_back(text.substr(pos, c.length));
      start = pos + c.length;
    }
    pos += c.length;
  }
  split_gpt2(text.substr(start), words);
}

}  // namespace

std::string_view pretokenizer_name(Pretokenizer p) {
  switch (p) {
    case Pretokenizer::kGpt2: return "gpt2";
    case Pretokenizer::kSmollm: return "smollm";
    case Pretokenizer::kLlamaBpe: return "llama-bpe";
    case Pretokenizer::kQwen2: return "qwen2";
  }
  return "";
}

std::optional<Pretokenizer> pretokenizer_from_name(std::string_view name) {
  for (const auto& [known, pretokenizer] : kNames)
    if (known == name) return pretokenizer;
  return std::nullopt;
}

std::string supported_pretokenizers() {
  std::string list;
  for (const auto& [name, pretokenizer] : kNames) {
    if (!list.empty()) list += ", ";
    list += name;
  }
  return list;
}

std::vector<std::string_view> pretokenize(Pretokenizer p, std::string_view text) {
  std::vector<std::string_view> words;
  words.reserve(text.size() / 4 + 1);
  switch (p) {
    case Pretokenizer::kGpt2: split_gpt2(text, words); break;
    case Pretokenizer::kSmollm: split_smollm(text, words); break;
    case Pretokenizer::kLlamaBpe:
      split(text, words, [](const Scanner& s, std::size_t pos) { return s.next_llama(pos, 3); });
      break;
    case Pretokenizer::kQwen2:
      split(text, words, [](const Scanner& s, std::size_t pos) { return s.next_llama(pos, 1); });
      break;
  }
  return words;
}

}  // namespace finchkv::model
