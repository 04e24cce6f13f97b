// Pre-tokenizing: cutting text into the words that byte-level BPE merges within.
//
// A GGUF file names its rule in tokenizer.ggml.pre. The rules are those of llama.cpp, as patterns:
//   gpt2       's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   smollm     every \p{N} alone, gpt2's pattern on what lies between
//   llama-bpe  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|
//              \s*[\r\n]+|\s+(?!\S)|\s+
//   qwen2      llama-bpe's with \p{N} instead of \p{N}{1,3}
// They are matched by hand in one pass, because a backtracking engine is neither linear nor fast; ICU supplies the
// character categories. A byte that is not part of valid UTF-8 counts as one symbol ([^\s\p{L}\p{N}]). Thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finchkv::model {

enum class Pretokenizer { kGpt2, kSmollm, kLlamaBpe, kQwen2 };

/// "gpt2", "smollm", "llama-bpe", "qwen2".
[[nodiscard]] std::string_view pretokenizer_name(Pretokenizer p);
/// By the name in a file, other names of the same rule included; nullopt when it is not known here.
[[nodiscard]] std::optional<Pretokenizer> pretokenizer_from_name(std::string_view name);
/// All names that pretokenizer_from_name knows, for messages: "deepseek-r1-qwen, gpt-2, ...".
[[nodiscard]] std::string supported_pretokenizers();

/// The words of `text` in order: they are never empty and their concatenation is the text.
[[nodiscard]] std::vector<std::string_view> pretokenize(Pretokenizer p, std::string_view text);

}  // namespace finchkv::model
