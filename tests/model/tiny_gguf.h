// TinyGguf: a whole small model file in memory, valid until a test changes a key or a tensor of it.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <variant>
#include <vector>

#include "tests/model/gguf_writer.h"

namespace finchkv::testing {

struct TinyGguf {
  using Value = std::variant<std::uint64_t, double, std::string>;
  struct Tensor {
    std::vector<std::uint64_t> dims;  // fastest first
    model::GgmlType type = model::GgmlType::kF32;
    std::vector<std::byte> data;
  };

  std::map<std::string, Value> keys;
  std::map<std::string, Tensor> tensors;
  std::vector<std::string> vocabulary;

  /// One layer of 4 query and 2 KV heads of 8 dimensions.
  explicit TinyGguf(const std::string& architecture = "llama", std::uint64_t hidden = 32) {
    const std::string p = architecture + ".";
    const std::uint64_t ffn = hidden + 16, vocab = 40;
    keys["general.architecture"] = architecture;
    keys["general.name"] = std::string("tiny");
    keys[p + "block_count"] = std::uint64_t{1};
    keys[p + "context_length"] = std::uint64_t{256};
    keys[p + "embedding_length"] = hidden;
    keys[p + "feed_forward_length"] = ffn;
    keys[p + "attention.head_count"] = std::uint64_t{4};
    keys[p + "attention.head_count_kv"] = std::uint64_t{2};
    keys[p + "attention.key_length"] = std::uint64_t{8};
    keys[p + "attention.value_length"] = std::uint64_t{8};
    keys[p + "attention.layer_norm_rms_epsilon"] = 1e-5;
    keys[p + "rope.freq_base"] = 10000.0;
    keys["tokenizer.ggml.model"] = std::string("gpt2");
    for (std::uint64_t i = 0; i < vocab; ++i) vocabulary.push_back(std::to_string(i).append("t"));
    matrix("token_embd.weight", hidden, vocab);
    matrix("blk.0.attn_q.weight", hidden, 32);
    matrix("blk.0.attn_k.weight", hidden, 16);
    matrix("blk.0.attn_v.weight", hidden, 16);
    matrix("blk.0.attn_output.weight", 32, hidden);
    matrix("blk.0.ffn_gate.weight", hidden, ffn);
    matrix("blk.0.ffn_up.weight", hidden, ffn);
    matrix("blk.0.ffn_down.weight", ffn, hidden);
    for (const char* name : {"blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"})
      floats(name, {hidden}, std::vector<float>(hidden, 1.0F));
  }

  void floats(const std::string& name, std::vector<std::uint64_t> dims, const std::vector<float>& values) {
    const auto bytes = std::as_bytes(std::span<const float>(values));
    tensors[name] = {std::move(dims), model::GgmlType::kF32, {bytes.begin(), bytes.end()}};
  }
  /// Small seeded weights, the same for the same name.
  void matrix(const std::string& name, std::uint64_t in, std::uint64_t out) {
    std::mt19937 engine(
        static_cast<std::uint32_t>(name.size() * 31 + static_cast<unsigned char>(name[name.size() / 2])));
    std::vector<float> values(in * out);
    for (float& x : values) x = (static_cast<float>(engine() % 2001) - 1000.0F) * 2e-4F;
    floats(name, {in, out}, values);
  }

  [[nodiscard]] std::vector<std::byte> bytes() const {
    GgufWriter w;
    for (const auto& [key, value] : keys) {
      if (const auto* whole = std::get_if<std::uint64_t>(&value)) w.set_u64(key, *whole);
      if (const auto* real = std::get_if<double>(&value)) w.set_scalar(key, kGgufF64, *real);
      if (const auto* text = std::get_if<std::string>(&value)) w.set_string(key, *text);
    }
    if (!vocabulary.empty()) {
      w.set_strings("tokenizer.ggml.tokens", vocabulary);
      w.set_ints("tokenizer.ggml.token_type", std::vector<std::int32_t>(vocabulary.size(), 1));
    }
    for (const auto& [name, t] : tensors) w.add_tensor(name, t.dims, t.type, t.data);
    return w.finish();
  }
};

/// A file that owns its bytes.
struct ParsedGguf {
  std::vector<std::byte> bytes;
  std::shared_ptr<const model::GgufFile> file;  ///< null when it did not parse
  Status status;

  explicit ParsedGguf(const TinyGguf& tiny) : bytes(tiny.bytes()) {
    auto parsed = model::GgufFile::parse(bytes, "tiny.gguf");
    status = parsed.status();
    if (parsed.is_ok()) file = *std::move(parsed);
  }
};

}  // namespace finchkv::testing
