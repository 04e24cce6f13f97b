#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <new>

#include <fmt/format.h>

#include "model/weights.h"

namespace finchkv::model {

using kernels::ElementType;
using kernels::Tensor;

namespace {

// Activations of one pass, kept for the next one: fresh memory would be zeroed page by page every time.
struct Activations {
  std::int64_t rows = 0;
  Tensor residual;  // f32 [rows, hidden]
  Tensor normed;    // [rows, hidden]
  Tensor qkv;       // f32 [rows, (H + 2 KV) * D]
  Tensor attended;  // [rows, H * D]
  Tensor inner;     // [rows, ffn]
  Tensor logits;    // f32 [up to head_rows(), vocab]
};

}  // namespace

struct Transformer::Impl {
  std::shared_ptr<const GgufFile> file;
  ModelConfig config;
  std::shared_ptr<kernels::Device> device;
  Weights weights;
  Activations many;
  Activations single;  // one row may have another type
  std::vector<float> embedded;

  Result<Activations*> reserve(std::int64_t rows);
  Status embed(std::span<const TokenId> tokens, const Tensor& residual);
};

Transformer::Transformer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Transformer::~Transformer() = default;
const ModelConfig& Transformer::config() const { return impl_->config; }
kernels::Device& Transformer::device() const { return *impl_->device; }
const Weights& Transformer::weights() const { return impl_->weights; }
std::size_t Transformer::weight_bytes() const { return impl_->weights.bytes(); }
float Transformer::attention_scale() const { return 1.0F / std::sqrt(static_cast<float>(impl_->config.head_dim)); }

std::size_t Transformer::missing_bytes(std::int64_t rows) const {
  const ModelConfig& c = impl_->config;
  const auto more = static_cast<std::size_t>(std::max<std::int64_t>(0, rows - impl_->many.rows));
  const std::size_t width = kernels::element_size(impl_->device->activation_type(rows));
  const auto narrow = static_cast<std::size_t>(c.hidden + c.n_heads * c.head_dim + c.ffn);
  const auto wide = static_cast<std::size_t>(c.hidden + (c.n_heads + 2 * c.n_kv_heads) * c.head_dim);
  // A gated product is there as a pair while it is made.
  const std::size_t pair = static_cast<std::size_t>(rows * 2 * c.ffn) * width;
  return more * (narrow * width + wide * sizeof(float)) + pair;
}

void Transformer::release_activations() { impl_->many = {}; }

Result<std::unique_ptr<Transformer>> Transformer::load(std::shared_ptr<const GgufFile> file, const ModelConfig& config,
                                                       std::shared_ptr<kernels::Device> device) {
  auto impl = std::make_unique<Impl>();
  FINCHKV_ASSIGN_OR_RETURN(impl->weights, load_weights(*file, config, *device));
  impl->file = std::move(file);
  impl->config = config;
  impl->device = std::move(device);
  return std::unique_ptr<Transformer>(new Transformer(std::move(impl)));
}

Result<std::unique_ptr<Transformer>> Transformer::create(const ModelConfig& config, Weights weights,
                                                         std::shared_ptr<kernels::Device> device) {
  if (weights.embedding.empty() || static_cast<std::int64_t>(weights.layers.size()) != config.n_layers) {
    return Status::invalid_argument("weights without a file need an embedding table, and as many layers as the config");
  }
  auto impl = std::make_unique<Impl>();
  impl->weights = std::move(weights);
  impl->config = config;
  impl->device = std::move(device);
  return std::unique_ptr<Transformer>(new Transformer(std::move(impl)));
}

Result<Activations*> Transformer::Impl::reserve(std::int64_t rows) {
  Activations& act = rows == 1 ? single : many;
  if (rows <= act.rows) return &act;
  const ElementType a = device->activation_type(rows);
  const ModelConfig& c = config;
  act = {};
  FINCHKV_ASSIGN_OR_RETURN(act.residual, device->empty(ElementType::kF32, {rows, c.hidden}));
  FINCHKV_ASSIGN_OR_RETURN(act.normed, device->empty(a, {rows, c.hidden}));
  FINCHKV_ASSIGN_OR_RETURN(act.qkv,
                           device->empty(ElementType::kF32, {rows, (c.n_heads + 2 * c.n_kv_heads) * c.head_dim}));
  FINCHKV_ASSIGN_OR_RETURN(act.attended, device->empty(a, {rows, c.n_heads * c.head_dim}));
  FINCHKV_ASSIGN_OR_RETURN(act.inner, device->empty(a, {rows, c.ffn}));
  FINCHKV_ASSIGN_OR_RETURN(act.logits,
                           device->empty(ElementType::kF32, {std::min(rows, device->head_rows()), c.vocab}));
  act.rows = rows;
  return &act;
}

// Where the device has no table, rows are read from the file as they are needed.
Status Transformer::Impl::embed(std::span<const TokenId> tokens, const Tensor& residual) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= config.vocab) {
      return Status::invalid_argument(
          fmt::format("token id {} at place {} is outside the vocabulary of {}", tokens[i], i, config.vocab));
    }
  }
  if (!weights.embedding.empty()) return device->embed(weights.embedding, tokens, residual);
  const GgufTensor& table = *file->find_tensor("token_embd.weight");
  const auto width = static_cast<std::size_t>(config.hidden);
  embedded.resize(tokens.size() * width);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    FINCHKV_RETURN_IF_ERROR(dequantize_rows(table, static_cast<std::uint64_t>(tokens[i]), 1,
                                            std::span(embedded).subspan(i * width, width)));
  }
  device->upload(embedded.data(), residual);
  return Status::ok();
}

Result<std::vector<float>> Transformer::forward(std::span<const TokenId> tokens, AttentionContext& context,
                                                LogitRows rows) {
  try {
    return run(tokens, context, rows);
  } catch (const std::bad_alloc&) {  // a device's scratch memory
    return Status::resource_exhausted(fmt::format("no memory to run the model on {} tokens at once", tokens.size()));
  }
}

Result<std::vector<float>> Transformer::run(std::span<const TokenId> tokens, AttentionContext& context,
                                            LogitRows rows) {
  if (tokens.empty()) return Status::invalid_argument("there are no tokens to run the model on");
  Impl& m = *impl_;
  const ModelConfig& c = m.config;
  kernels::Device& dev = *m.device;
  const auto n = static_cast<std::int64_t>(tokens.size());
  FINCHKV_ASSIGN_OR_RETURN(Activations* const act, m.reserve(n));
  Tensor residual = act->residual.slice(0, 0, n);
  FINCHKV_RETURN_IF_ERROR(m.embed(tokens, residual));
  const std::int64_t q_width = c.n_heads * c.head_dim;
  const std::int64_t kv_width = c.n_kv_heads * c.head_dim;
  for (std::int64_t l = 0; l < c.n_layers; ++l) {
    const LayerWeights& w = m.weights.layers[static_cast<std::size_t>(l)];
    const Tensor normed = act->normed.slice(0, 0, n);
    const Tensor qkv = act->qkv.slice(0, 0, n);
    dev.rms_norm(residual, w.attention_norm, c.norm_eps, normed);
    dev.linear(*w.qkv, normed, qkv, false);
    if (c.qkv_bias) dev.add_bias(qkv, w.qkv_bias);
    const Tensor q = qkv.slice(1, 0, q_width).split_last(c.n_heads, c.head_dim);
    const Tensor k = qkv.slice(1, q_width, kv_width).split_last(c.n_kv_heads, c.head_dim);
    const Tensor v = qkv.slice(1, q_width + kv_width, kv_width).split_last(c.n_kv_heads, c.head_dim);
    if (c.qk_norm) {
      dev.rms_norm(q, w.q_norm, c.norm_eps, q);
      dev.rms_norm(k, w.k_norm, c.norm_eps, k);
    }
    Tensor attended = act->attended.slice(0, 0, n);
    FINCHKV_RETURN_IF_ERROR(context.attend(l, q, k, v, attended.split_last(c.n_heads, c.head_dim)));
    if (l + 1 == c.n_layers) {  // past the last attention only rows whose logits are wanted matter
      if (rows == LogitRows::kNone) break;
      if (rows == LogitRows::kLast) {
        attended = attended.slice(0, n - 1, 1);
        residual = residual.slice(0, n - 1, 1);
      }
    }
    const std::int64_t left = residual.dim(0);
    const Tensor ffn_in = act->normed.slice(0, 0, left);
    const Tensor inner = act->inner.slice(0, 0, left);
    dev.linear(*w.output, attended, residual, true);
    dev.rms_norm(residual, w.ffn_norm, c.norm_eps, ffn_in);
    dev.linear_swiglu(*w.gate_up, ffn_in, inner);
    dev.linear(*w.down, inner, residual, true);
  }
  std::vector<float> logits;
  if (rows != LogitRows::kNone) {
    const std::int64_t wanted = residual.dim(0);
    const Tensor normed = act->normed.slice(0, 0, wanted);
    dev.rms_norm(residual, m.weights.output_norm, c.norm_eps, normed);
    const auto vocab = static_cast<std::size_t>(c.vocab);
    logits.resize(static_cast<std::size_t>(wanted) * vocab);
    for (std::int64_t i = 0; i < wanted; i += dev.head_rows()) {
      const std::int64_t count = std::min(dev.head_rows(), wanted - i);
      const Tensor block = act->logits.slice(0, 0, count);
      dev.linear(*m.weights.head, normed.slice(0, i, count), block, false);
      dev.download(block, logits.data() + static_cast<std::size_t>(i) * vocab);
    }
  }
  FINCHKV_RETURN_IF_ERROR(dev.synchronize());
  if (!std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) {
    return Status::corrupt("the model's logits are not finite numbers; its file is damaged, or its weights overflow");
  }
  return logits;
}

}  // namespace finchkv::model
