#include "model/tokenizer.h"

#include <new>

#include "base/digest.h"
#include "model/bpe_tokenizer.h"
#include "model/spm_tokenizer.h"
#include "model/utf8.h"

namespace finchkv::model {
namespace {

/// Of a file without a vocabulary: it goes by token ids alone.
class NoTokenizer final : public Tokenizer {
 public:
  NoTokenizer(std::string file_name, std::int64_t size) : file_name_(std::move(file_name)), size_(size) {}

  [[nodiscard]] Result<std::vector<TokenId>> encode(std::string_view, bool) const override { return refuse(); }
  [[nodiscard]] Result<std::vector<TokenId>> encode(std::span<const Segment>) const override { return refuse(); }
  [[nodiscard]] std::string token_bytes(TokenId, bool) const override { return {}; }
  [[nodiscard]] std::int64_t vocab_size() const override { return size_; }
  [[nodiscard]] std::optional<TokenId> bos() const override { return std::nullopt; }
  [[nodiscard]] bool add_bos() const override { return false; }
  [[nodiscard]] bool is_end(TokenId) const override { return false; }
  [[nodiscard]] std::string_view kind() const override { return "none"; }
  [[nodiscard]] std::string fingerprint() const override {
    return to_hex(sha256(as_byte_span("finchkv-tokenizer-1 none " + std::to_string(size_))));
  }

 private:
  [[nodiscard]] Status refuse() const {
    return Status::unsupported(file_name_ +
                               ": the file holds no vocabulary, so text cannot be tokenized; give token ids instead "
                               "(--doc-tokens, --prompt-tokens)");
  }

  std::string file_name_;
  std::int64_t size_;
};

std::int64_t size_without_vocabulary(const GgufFile& file) {
  const std::string architecture(file.get_string("general.architecture").value_or(""));
  const auto size = file.get_u64(architecture + ".vocab_size").value_or(0);
  return size <= static_cast<std::uint64_t>(INT32_MAX) ? static_cast<std::int64_t>(size) : 0;
}

Result<std::shared_ptr<const Tokenizer>> load(const GgufFile& file) {
  const std::string_view kind = file.get_string("tokenizer.ggml.model").value_or("none");
  const bool has_tokens = file.get_strings("tokenizer.ggml.tokens").has_value();
  if (kind == "none" || kind == "no_vocab" || (!has_tokens && (kind == "gpt2" || kind == "llama")))
    return std::shared_ptr<const Tokenizer>(std::make_shared<NoTokenizer>(file.path(), size_without_vocabulary(file)));
  if (kind == "gpt2") return BpeTokenizer::load(file);
  if (kind == "llama") return SpmTokenizer::load(file);
  return Status::unsupported(file.path() + ": vocabularies of kind \"" + std::string(kind) +
                             "\" (tokenizer.ggml.model) are not supported; supported are gpt2 and llama");
}

}  // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::from_gguf(const GgufFile& file) {
  try {
    return load(file);
  } catch (const std::bad_alloc&) {
    return Status::resource_exhausted(file.path() + ": not enough memory for the vocabulary");
  }
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool special) const {
  std::string bytes;
  for (const TokenId id : ids) bytes += token_bytes(id, special);
  return bytes;
}

std::size_t complete_utf8_prefix(std::string_view bytes) {
  // Only the last three bytes can belong to a character whose rest has not come yet.
  const std::size_t first = bytes.size() > 3 ? bytes.size() - 3 : 0;
  for (std::size_t pos = first; pos < bytes.size(); ++pos) {
    const auto lead = static_cast<std::uint8_t>(bytes[pos]);
    if (lead < 0xC2 || lead > 0xF4) continue;
    const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    const std::string_view have = bytes.substr(pos);
    if (have.size() >= length) continue;
    // Whether more bytes can complete it: the lowest and the highest continuation are both tried.
    for (const char filler : {'\x80', '\xBF'}) {
      std::string candidate(have);
      candidate.append(length - have.size(), filler);
      if (decode_utf8(candidate, 0).valid) return pos;
    }
  }
  return bytes.size();
}

}  // namespace finchkv::model
