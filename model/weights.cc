#include "model/weights.h"

#include <algorithm>
#include <cassert>
#include <set>
#include <string>

#include <fmt/format.h>

namespace finchkv::model {
namespace {

using kernels::ElementType;
using kernels::Tensor;

// Steps of the grid that a group of 32 weights of this type lies on (kernels::LinearSource::grid_steps).
int grid_steps(GgmlType type) {
  switch (type) {
    case GgmlType::kQ4_0:
    case GgmlType::kQ4_1:
    case GgmlType::kQ4_K: return 15;
    case GgmlType::kQ5_0:
    case GgmlType::kQ5_1:
    case GgmlType::kQ5_K: return 31;
    default: return 0;
  }
}

class Loader {
 public:
  Loader(const GgufFile& file, kernels::Device& device) : file_(file), device_(device) {}

  Result<const GgufTensor*> matrix(const std::string& name, std::int64_t in, std::int64_t out) {
    used_.insert(name);
    const GgufTensor* t = file_.find_tensor(name);
    if (t == nullptr) return Status::corrupt(fmt::format("{}: the tensor {} is missing", file_.path(), name));
    if (!dequantize_rows(*t, 0, 0, {}).is_ok()) {
      return Status::unsupported(fmt::format("{}: the tensor {} has type {}, which is not supported", file_.path(),
                                             name, ggml_type_name(static_cast<std::uint32_t>(t->type))));
    }
    const bool fits = t->row_length() == static_cast<std::uint64_t>(in) && t->rows() == static_cast<std::uint64_t>(out);
    if (!fits) {
      return Status::corrupt(fmt::format("{}: the tensor {} is {} x {} where the model needs {} x {}", file_.path(),
                                         name, t->rows(), t->row_length(), out, in));
    }
    return t;
  }

  // Several matrices of the same width stacked into one, in order.
  Result<kernels::LinearSource> stacked(const std::vector<std::pair<std::string, std::int64_t>>& parts,
                                        std::int64_t in) {
    kernels::LinearSource source;
    source.in = in;
    std::vector<const GgufTensor*> tensors;
    for (const auto& [name, out] : parts) {
      FINCHKV_ASSIGN_OR_RETURN(const GgufTensor* t, matrix(name, in, out));
      const int steps = grid_steps(t->type);
      source.grid_steps = tensors.empty() ? steps : (steps == 0 ? 0 : std::max(source.grid_steps, steps));
      source.out += out;
      tensors.push_back(t);
    }
    source.rows = [tensors, in](std::int64_t first, std::int64_t count, float* dst) {
      for (const GgufTensor* t : tensors) {
        const auto rows = static_cast<std::int64_t>(t->rows());
        if (first < rows && count > 0) {
          const std::int64_t n = std::min(count, rows - first);
          const Status read = dequantize_rows(*t, static_cast<std::uint64_t>(first), static_cast<std::uint64_t>(n),
                                              {dst, static_cast<std::size_t>(n * in)});
          assert(read.is_ok());  // type and shape were checked in matrix()
          static_cast<void>(read);
          dst += n * in;
          first += n;
          count -= n;
        }
        first -= rows;
      }
    };
    return source;
  }

  Result<std::unique_ptr<kernels::Linear>> linear(const std::vector<std::pair<std::string, std::int64_t>>& parts,
                                                  std::int64_t in,
                                                  kernels::LinearUse use = kernels::LinearUse::kEveryRow) {
    FINCHKV_ASSIGN_OR_RETURN(const kernels::LinearSource source, stacked(parts, in));
    return device_.pack_linear(source, use);
  }

  Result<Tensor> vector(const std::vector<std::pair<std::string, std::int64_t>>& parts) {
    std::vector<float> values;
    for (const auto& [name, size] : parts) {
      FINCHKV_ASSIGN_OR_RETURN(const GgufTensor* t, matrix(name, size, 1));
      const std::size_t at = values.size();
      values.resize(at + static_cast<std::size_t>(size));
      FINCHKV_RETURN_IF_ERROR(dequantize_rows(*t, 0, 1, std::span(values).subspan(at)));
    }
    FINCHKV_ASSIGN_OR_RETURN(Tensor out, device_.empty(ElementType::kF32, {static_cast<std::int64_t>(values.size())}));
    device_.upload(values.data(), out);
    return out;
  }

  Result<LayerWeights> layer(const ModelConfig& c, std::int64_t index) {
    const std::string p = fmt::format("blk.{}.", index);
    const std::int64_t q = c.n_heads * c.head_dim;
    const std::int64_t kv = c.n_kv_heads * c.head_dim;
    LayerWeights w;
    FINCHKV_ASSIGN_OR_RETURN(w.attention_norm, vector({{p + "attn_norm.weight", c.hidden}}));
    FINCHKV_ASSIGN_OR_RETURN(w.ffn_norm, vector({{p + "ffn_norm.weight", c.hidden}}));
    if (c.qkv_bias) {
      FINCHKV_ASSIGN_OR_RETURN(w.qkv_bias,
                               vector({{p + "attn_q.bias", q}, {p + "attn_k.bias", kv}, {p + "attn_v.bias", kv}}));
    }
    if (c.qk_norm) {
      FINCHKV_ASSIGN_OR_RETURN(w.q_norm, vector({{p + "attn_q_norm.weight", c.head_dim}}));
      FINCHKV_ASSIGN_OR_RETURN(w.k_norm, vector({{p + "attn_k_norm.weight", c.head_dim}}));
    }
    FINCHKV_ASSIGN_OR_RETURN(
        w.qkv, linear({{p + "attn_q.weight", q}, {p + "attn_k.weight", kv}, {p + "attn_v.weight", kv}}, c.hidden));
    FINCHKV_ASSIGN_OR_RETURN(w.output, linear({{p + "attn_output.weight", c.hidden}}, q));
    FINCHKV_ASSIGN_OR_RETURN(const auto gate, stacked({{p + "ffn_gate.weight", c.ffn}}, c.hidden));
    FINCHKV_ASSIGN_OR_RETURN(const auto up, stacked({{p + "ffn_up.weight", c.ffn}}, c.hidden));
    FINCHKV_ASSIGN_OR_RETURN(w.gate_up, device_.pack_gated(gate, up));
    FINCHKV_ASSIGN_OR_RETURN(w.down, linear({{p + "ffn_down.weight", c.hidden}}, c.ffn));
    return w;
  }

  // A tensor that the forward pass does not know (a bias, a scale, another norm) would change every result if it were
  // used.
  [[nodiscard]] Status nothing_left() const {
    for (const GgufTensor& t : file_.tensors()) {
      const bool counts = t.name.starts_with("blk.") || t.name.starts_with("output");
      const bool derived = t.name.ends_with("attn_rot_embd.weight") || t.name.ends_with("rope_freqs.weight");
      if (counts && !derived && !used_.contains(t.name)) {
        return Status::unsupported(
            fmt::format("{}: the tensor {} is not part of the supported model shapes", file_.path(), t.name));
      }
    }
    return Status::ok();
  }

 private:
  const GgufFile& file_;
  kernels::Device& device_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace

std::size_t Weights::bytes() const {
  std::size_t total = head ? head->bytes() : 0;
  for (const LayerWeights& l : layers)
    total += l.qkv->bytes() + l.output->bytes() + l.gate_up->bytes() + l.down->bytes();
  return total;
}

Result<Weights> load_weights(const GgufFile& file, const ModelConfig& config, kernels::Device& device) {
  Loader loader(file, device);
  Weights w;
  for (std::int64_t l = 0; l < config.n_layers; ++l) {
    FINCHKV_ASSIGN_OR_RETURN(LayerWeights layer, loader.layer(config, l));
    w.layers.push_back(std::move(layer));
  }
  FINCHKV_ASSIGN_OR_RETURN(w.output_norm, loader.vector({{"output_norm.weight", config.hidden}}));
  const std::string head = config.tied_output ? "token_embd.weight" : "output.weight";
  FINCHKV_ASSIGN_OR_RETURN(w.head, loader.linear({{head, config.vocab}}, config.hidden, kernels::LinearUse::kFewRows));
  // Where the host looks embeddings up, it reads them row by row while running: what could fail is checked here.
  FINCHKV_ASSIGN_OR_RETURN(const auto embedding, loader.stacked({{"token_embd.weight", config.vocab}}, config.hidden));
  FINCHKV_ASSIGN_OR_RETURN(w.embedding, device.pack_embedding(embedding));
  FINCHKV_RETURN_IF_ERROR(loader.nothing_left());
  return w;
}

}  // namespace finchkv::model
