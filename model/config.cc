#include "model/config.h"

#include <bit>
#include <cmath>

#include <fmt/format.h>

#include "model/rope_scaling.h"

namespace finchkv::model {
namespace {

// Counts above these are lies of a file, not models; they keep products far from overflow.
constexpr std::uint64_t kMostLayers = 4096;
constexpr std::uint64_t kMostWidth = 1U << 20;
constexpr std::uint64_t kMostVocab = 1U << 24;
constexpr std::uint64_t kMostContext = 1ULL << 31;
// A device's attention works on the query heads of one KV head side by side.
constexpr std::int64_t kMostQueryHeadsPerKvHead = 128;

Result<std::int64_t> count(const GgufFile& file, const std::string& key, std::uint64_t most) {
  const auto value = file.get_u64(key);
  if (!value) return Status::corrupt(fmt::format("{}: the key {} is missing or no whole number", file.path(), key));
  if (*value == 0 || *value > most)
    return Status::corrupt(fmt::format("{}: {} is {}; it must be between 1 and {}", file.path(), key, *value, most));
  return static_cast<std::int64_t>(*value);
}

Result<std::int64_t> count_or(const GgufFile& file, const std::string& key, std::uint64_t most,
                              std::int64_t otherwise) {
  if (!file.get_u64(key)) return otherwise;
  return count(file, key, most);
}

}  // namespace

Result<ModelConfig> ModelConfig::from_gguf(const GgufFile& file) {
  ModelConfig c;
  const auto architecture = file.get_string("general.architecture");
  if (!architecture) return Status::corrupt(fmt::format("{}: the key general.architecture is missing", file.path()));
  c.architecture = *architecture;
  if (c.architecture != "llama" && c.architecture != "qwen2" && c.architecture != "qwen3") {
    return Status::unsupported(fmt::format("{}: architecture '{}' is not supported (llama, qwen2 and qwen3 are)",
                                           file.path(), c.architecture));
  }
  c.name = file.get_string("general.name").value_or("");
  const std::string p = c.architecture;
  FINCHKV_ASSIGN_OR_RETURN(c.n_layers, count(file, p + ".block_count", kMostLayers));
  FINCHKV_ASSIGN_OR_RETURN(c.hidden, count(file, p + ".embedding_length", kMostWidth));
  FINCHKV_ASSIGN_OR_RETURN(c.ffn, count(file, p + ".feed_forward_length", kMostWidth));
  FINCHKV_ASSIGN_OR_RETURN(c.n_heads, count(file, p + ".attention.head_count", kMostWidth));
  FINCHKV_ASSIGN_OR_RETURN(c.n_kv_heads, count_or(file, p + ".attention.head_count_kv", kMostWidth, c.n_heads));
  FINCHKV_ASSIGN_OR_RETURN(c.context_length, count(file, p + ".context_length", kMostContext));
  if (c.n_heads % c.n_kv_heads != 0) {
    return Status::corrupt(
        fmt::format("{}: {} query heads cannot share {} KV heads evenly", file.path(), c.n_heads, c.n_kv_heads));
  }
  if (c.n_heads / c.n_kv_heads > kMostQueryHeadsPerKvHead) {
    return Status::unsupported(fmt::format("{}: {} query heads share one KV head; at most {} are supported",
                                           file.path(), c.n_heads / c.n_kv_heads, kMostQueryHeadsPerKvHead));
  }
  FINCHKV_ASSIGN_OR_RETURN(c.head_dim, count_or(file, p + ".attention.key_length", kMostWidth, c.hidden / c.n_heads));
  FINCHKV_ASSIGN_OR_RETURN(const std::int64_t value_dim,
                           count_or(file, p + ".attention.value_length", kMostWidth, c.head_dim));
  if (value_dim != c.head_dim || c.head_dim == 0) {
    return Status::unsupported(
        fmt::format("{}: keys of {} and values of {} dimensions: different widths are not supported", file.path(),
                    c.head_dim, value_dim));
  }
  if (file.get_u64(p + ".expert_count").value_or(0) > 0) {
    return Status::unsupported(
        fmt::format("{}: mixture-of-experts models ({}.expert_count) are not supported", file.path(), p));
  }
  c.norm_eps = static_cast<float>(file.get_f64(p + ".attention.layer_norm_rms_epsilon").value_or(1e-5));
  if (!(c.norm_eps >= 0) || !std::isfinite(c.norm_eps))
    return Status::corrupt(fmt::format("{}: the RMSNorm epsilon is {}", file.path(), c.norm_eps));
  c.sliding_window = static_cast<std::int64_t>(
      std::min<std::uint64_t>(file.get_u64(p + ".attention.sliding_window").value_or(0), kMostContext));
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr || embedding->dims.size() != 2 || embedding->dims[1] > kMostVocab) {
    return Status::corrupt(fmt::format("{}: the tensor token_embd.weight is missing or no matrix", file.path()));
  }
  c.vocab = static_cast<std::int64_t>(embedding->dims[1]);
  c.tied_output = file.find_tensor("output.weight") == nullptr;
  c.qkv_bias = file.find_tensor("blk.0.attn_q.bias") != nullptr;
  c.qk_norm = file.find_tensor("blk.0.attn_q_norm.weight") != nullptr;
  FINCHKV_ASSIGN_OR_RETURN(c.rope, rope_from_gguf(file, p, c.head_dim, c.architecture == "llama"));
  return c;
}

Status ModelConfig::check_tokens(std::span<const std::int32_t> tokens, std::string_view what) const {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab) {
      return Status::invalid_argument(
          fmt::format("{} token id {} at place {} is outside the vocabulary of {}", what, tokens[i], i, vocab));
    }
  }
  return Status::ok();
}

std::string ModelConfig::canonical() const {
  const auto bits = [](float f) { return fmt::format("{:08x}", std::bit_cast<std::uint32_t>(f)); };
  std::string out = fmt::format(
      "finchkv-model-1\narchitecture={}\nlayers={}\nhidden={}\nheads={}\nkv_heads={}\nhead_dim={}\nffn={}\nvocab={}\n"
      "sliding_window={}\nnorm_eps={}\nqkv_bias={}\nqk_norm={}\ntied={}\nrope={},{},{},{},{},{},{}\ninv_freq=",
      architecture, n_layers, hidden, n_heads, n_kv_heads, head_dim, ffn, vocab, sliding_window, bits(norm_eps),
      qkv_bias, qk_norm, tied_output, rope.scaling, bits(rope.theta), bits(rope.factor), rope.original_context,
      rope.rotary_dims, rope.interleaved, bits(rope.attention_factor));
  for (const float f : rope.inv_freq) out += bits(f) + ",";
  return out + "\n";
}

}  // namespace finchkv::model
