#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <new>
#include <numeric>

#include <fmt/format.h>

#include "model/decode_batch.h"
#include "model/weights.h"

namespace finchkv::model {

using kernels::ElementType;
using kernels::Tensor;

namespace {

constexpr std::size_t kMostSteps = 64;  // numbers of sequences whose steps are kept ready

// Activations of one pass, kept for the next one: fresh memory would be zeroed page by page every time.
struct Activations {
  std::int64_t rows = 0;
  Tensor ids;        // i32 [rows]: this pass's tokens
  Tensor likeliest;  // i32 [rows]: what follows them
  Tensor residual;   // f32 [rows, hidden]
  Tensor normed;     // [rows, hidden]
  Tensor qkv;        // f32 [rows, (H + 2 KV) * D]
  Tensor attended;   // [rows, H * D]
  Tensor inner;      // [rows, ffn]
  Tensor logits;     // f32 [up to head_rows(), vocab]
};

// A decoding step's attention: the caches are those that the table holds when it runs.
class StepAttention final : public AttentionContext {
 public:
  StepAttention(kernels::Device& device, const kernels::DecodeTable& table, float scale)
      : device_(device), table_(table), scale_(scale) {}
  Status attend(std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) override {
    device_.decode_attention(table_, layer, q, k, v, scale_, out);
    return Status::ok();
  }

 private:
  kernels::Device& device_;
  const kernels::DecodeTable& table_;
  float scale_;
};

}  // namespace

struct Transformer::Impl {
  // Decoding steps of one number of sequences.
  struct Steps {
    std::unique_ptr<kernels::DecodeTable> table;
    std::unique_ptr<kernels::Recording> recording;  // from the second step on: the first makes plans
    bool ran = false;
  };

  std::shared_ptr<const GgufFile> file;
  ModelConfig config;
  std::shared_ptr<kernels::Device> device;
  Weights weights;
  Activations many;
  Activations single;    // one row may have another type
  Activations together;  // several sequences' steps: apart, because recordings hold on to where it lies
  std::map<std::int64_t, Steps> steps;
  std::vector<float> embedded;

  [[nodiscard]] float attention_scale() const { return 1.0F / std::sqrt(static_cast<float>(config.head_dim)); }
  Status reserve(Activations& act, std::int64_t rows);
  Result<Activations*> reserve_for_pass(std::int64_t rows);
  Result<Activations*> reserve_for_step(std::int64_t rows);
  Status embed(std::span<const TokenId> tokens, const Activations& act);
  /// From the embedded rows in act.residual to the rows that `rows` wants, past the last norm, in act.normed: how many.
  Result<std::int64_t> layers(const Activations& act, std::int64_t n, AttentionContext& context, LogitRows rows);
  /// Logits of rows [first, first + count) of act.normed.
  Tensor head(const Activations& act, std::int64_t first, std::int64_t count);
  Result<std::vector<float>> pass(std::span<const TokenId> tokens, AttentionContext& context, LogitRows rows);
  Result<Steps*> steps_of(std::int64_t n);
  Status step(std::span<const TokenId> tokens, DecodeBatch& batch,
              const std::function<void(const Activations& act, const Tensor& logits, std::int64_t first)>& use);
};

Transformer::Transformer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Transformer::~Transformer() = default;
const ModelConfig& Transformer::config() const { return impl_->config; }
kernels::Device& Transformer::device() const { return *impl_->device; }
const Weights& Transformer::weights() const { return impl_->weights; }
std::size_t Transformer::weight_bytes() const { return impl_->weights.bytes(); }
float Transformer::attention_scale() const { return impl_->attention_scale(); }

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

Status Transformer::Impl::reserve(Activations& act, std::int64_t rows) {
  if (rows <= act.rows) return Status::ok();
  const ElementType a = device->activation_type(rows);
  const ModelConfig& c = config;
  act = {};
  FINCHKV_ASSIGN_OR_RETURN(act.ids, device->empty(ElementType::kI32, {rows}));
  FINCHKV_ASSIGN_OR_RETURN(act.likeliest, device->empty(ElementType::kI32, {rows}));
  FINCHKV_ASSIGN_OR_RETURN(act.residual, device->empty(ElementType::kF32, {rows, c.hidden}));
  FINCHKV_ASSIGN_OR_RETURN(act.normed, device->empty(a, {rows, c.hidden}));
  FINCHKV_ASSIGN_OR_RETURN(act.qkv,
                           device->empty(ElementType::kF32, {rows, (c.n_heads + 2 * c.n_kv_heads) * c.head_dim}));
  FINCHKV_ASSIGN_OR_RETURN(act.attended, device->empty(a, {rows, c.n_heads * c.head_dim}));
  FINCHKV_ASSIGN_OR_RETURN(act.inner, device->empty(a, {rows, c.ffn}));
  FINCHKV_ASSIGN_OR_RETURN(act.logits,
                           device->empty(ElementType::kF32, {std::min(rows, device->head_rows()), c.vocab}));
  act.rows = rows;
  return Status::ok();
}

Result<Activations*> Transformer::Impl::reserve_for_pass(std::int64_t rows) {
  Activations& act = rows == 1 ? single : many;
  FINCHKV_RETURN_IF_ERROR(reserve(act, rows));
  return &act;
}

Result<Activations*> Transformer::Impl::reserve_for_step(std::int64_t rows) {
  if (rows == 1) return reserve_for_pass(1);
  if (rows > together.rows) {
    for (auto& [n, of_n] : steps) {
      if (n > 1) of_n.recording = nullptr;  // they work where the activations were
    }
    std::int64_t room = 2;
    while (room < rows) room *= 2;
    FINCHKV_RETURN_IF_ERROR(reserve(together, room));
  }
  return &together;
}

// Where the device has no table, rows are read from the file as they are needed.
Status Transformer::Impl::embed(std::span<const TokenId> tokens, const Activations& act) {
  const auto n = static_cast<std::int64_t>(tokens.size());
  const Tensor residual = act.residual.slice(0, 0, n);
  FINCHKV_RETURN_IF_ERROR(config.check_tokens(tokens, "input"));
  if (!weights.embedding.empty()) {
    const Tensor ids = act.ids.slice(0, 0, n);
    device->upload(tokens.data(), ids);
    device->embed(weights.embedding, ids, residual);
    return Status::ok();
  }
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

Result<std::int64_t> Transformer::Impl::layers(const Activations& act, std::int64_t n, AttentionContext& context,
                                               LogitRows rows) {
  const ModelConfig& c = config;
  kernels::Device& dev = *device;
  Tensor residual = act.residual.slice(0, 0, n);
  const std::int64_t q_width = c.n_heads * c.head_dim;
  const std::int64_t kv_width = c.n_kv_heads * c.head_dim;
  for (std::int64_t l = 0; l < c.n_layers; ++l) {
    const LayerWeights& w = weights.layers[static_cast<std::size_t>(l)];
    const Tensor normed = act.normed.slice(0, 0, n);
    const Tensor qkv = act.qkv.slice(0, 0, n);
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
    Tensor attended = act.attended.slice(0, 0, n);
    FINCHKV_RETURN_IF_ERROR(context.attend(l, q, k, v, attended.split_last(c.n_heads, c.head_dim)));
    if (l + 1 == c.n_layers) {  // past the last attention only rows whose logits are wanted matter
      if (rows == LogitRows::kNone) return 0;
      if (rows == LogitRows::kLast) {
        attended = attended.slice(0, n - 1, 1);
        residual = residual.slice(0, n - 1, 1);
      }
    }
    const std::int64_t left = residual.dim(0);
    const Tensor ffn_in = act.normed.slice(0, 0, left);
    const Tensor inner = act.inner.slice(0, 0, left);
    dev.linear(*w.output, attended, residual, true);
    dev.rms_norm(residual, w.ffn_norm, c.norm_eps, ffn_in);
    dev.linear_swiglu(*w.gate_up, ffn_in, inner);
    dev.linear(*w.down, inner, residual, true);
  }
  dev.rms_norm(residual, weights.output_norm, c.norm_eps, act.normed.slice(0, 0, residual.dim(0)));
  return residual.dim(0);
}

Tensor Transformer::Impl::head(const Activations& act, std::int64_t first, std::int64_t count) {
  const Tensor logits = act.logits.slice(0, 0, count);
  device->linear(*weights.head, act.normed.slice(0, first, count), logits, false);
  return logits;
}

Result<std::vector<float>> Transformer::Impl::pass(std::span<const TokenId> tokens, AttentionContext& context,
                                                   LogitRows rows) {
  if (tokens.empty()) return Status::invalid_argument("there are no tokens to run the model on");
  const auto n = static_cast<std::int64_t>(tokens.size());
  FINCHKV_ASSIGN_OR_RETURN(const Activations* const act, reserve_for_pass(n));
  FINCHKV_RETURN_IF_ERROR(embed(tokens, *act));
  FINCHKV_ASSIGN_OR_RETURN(const std::int64_t wanted, layers(*act, n, context, rows));
  const auto vocab = static_cast<std::size_t>(config.vocab);
  std::vector<float> logits(static_cast<std::size_t>(wanted) * vocab);
  for (std::int64_t i = 0; i < wanted; i += device->head_rows()) {
    const Tensor block = head(*act, i, std::min(device->head_rows(), wanted - i));
    device->download(block, logits.data() + static_cast<std::size_t>(i) * vocab);
  }
  FINCHKV_RETURN_IF_ERROR(device->synchronize());
  return logits;
}

Result<Transformer::Impl::Steps*> Transformer::Impl::steps_of(std::int64_t n) {
  if (steps.size() >= kMostSteps && !steps.contains(n)) steps.clear();
  Steps& of_n = steps[n];
  if (!of_n.table) {
    const ModelConfig& c = config;
    FINCHKV_ASSIGN_OR_RETURN(of_n.table,
                             device->make_decode_table({c.n_layers, n, c.n_heads, c.n_kv_heads, c.head_dim, c.rope}));
  }
  return &of_n;
}

// `use` gets the logits of sequences [first, first + its rows), on the device.
Status Transformer::Impl::step(
    std::span<const TokenId> tokens, DecodeBatch& batch,
    const std::function<void(const Activations& act, const Tensor& logits, std::int64_t first)>& use) {
  const auto n = static_cast<std::int64_t>(tokens.size());
  if (n == 0 || n != batch.size()) {
    return Status::invalid_argument(
        fmt::format("a step of {} tokens was given to a batch of {} sequences", n, batch.size()));
  }
  std::vector<kernels::DecodeSlot> slots;  // they share the caches' memory: not longer than the step
  FINCHKV_RETURN_IF_ERROR(batch.slots(slots));
  FINCHKV_ASSIGN_OR_RETURN(const Activations* const act, reserve_for_step(n));
  FINCHKV_ASSIGN_OR_RETURN(Steps* const of_n, steps_of(n));
  FINCHKV_RETURN_IF_ERROR(embed(tokens, *act));
  device->fill(*of_n->table, slots);
  const std::int64_t at_once = std::min(n, device->head_rows());
  // Takes no part of the batch: it is run again for others.
  const auto work = [this, act, n, at_once, table = of_n->table.get()] {
    StepAttention attention(*device, *table, attention_scale());
    static_cast<void>(layers(*act, n, attention, LogitRows::kAll));  // StepAttention does not fail
    static_cast<void>(head(*act, 0, at_once));
  };
  if (of_n->ran && !of_n->recording) of_n->recording = device->record(work);
  if (of_n->recording)
    of_n->recording->run();
  else
    work();
  of_n->ran = true;
  use(*act, act->logits.slice(0, 0, at_once), 0);
  for (std::int64_t i = at_once; i < n; i += device->head_rows())
    use(*act, head(*act, i, std::min(device->head_rows(), n - i)), i);
  FINCHKV_RETURN_IF_ERROR(device->synchronize());
  return Status::ok();
}

namespace {

Status no_memory(std::size_t tokens) {
  return Status::resource_exhausted(fmt::format("no memory to run the model on {} tokens at once", tokens));
}
Status not_finite() {
  return Status::corrupt("the model's logits are not finite numbers; its file is damaged, or its weights overflow");
}
bool all_finite(std::span<const float> x) {
  return std::all_of(x.begin(), x.end(), [](float value) { return std::isfinite(value); });
}

}  // namespace

Result<std::vector<float>> Transformer::forward(std::span<const TokenId> tokens, AttentionContext& context,
                                                LogitRows rows) {
  try {
    FINCHKV_ASSIGN_OR_RETURN(std::vector<float> logits, impl_->pass(tokens, context, rows));
    if (!all_finite(logits)) return not_finite();
    return logits;
  } catch (const std::bad_alloc&) {  // a device's scratch memory
    return no_memory(tokens.size());
  }
}

Result<StepResult> Transformer::step(std::span<const TokenId> tokens, DecodeBatch& batch,
                                     std::span<const std::size_t> logits_of) {
  Impl& m = *impl_;
  kernels::Device& dev = *m.device;
  const auto vocab = static_cast<std::size_t>(m.config.vocab);
  for (const std::size_t i : logits_of) {
    if (i >= tokens.size()) return Status::invalid_argument("logits are asked for a sequence that is not in the step");
  }
  try {
    StepResult result;
    result.likeliest.resize(tokens.size());
    result.logits.resize(logits_of.size() * vocab);
    FINCHKV_RETURN_IF_ERROR(
        m.step(tokens, batch, [&](const Activations& act, const Tensor& logits, std::int64_t first) {
          const Tensor likeliest = act.likeliest.slice(0, first, logits.dim(0));
          dev.argmax(logits, likeliest);
          dev.download(likeliest, result.likeliest.data() + first);
          for (std::size_t i = 0; i < logits_of.size(); ++i) {
            const std::int64_t row = static_cast<std::int64_t>(logits_of[i]) - first;
            if (row < 0 || row >= logits.dim(0)) continue;
            dev.download(logits.slice(0, row, 1), result.logits.data() + i * vocab);
          }
        }));
    if (std::any_of(result.likeliest.begin(), result.likeliest.end(), [](TokenId id) { return id < 0; }))
      return not_finite();
    batch.advance();
    return result;
  } catch (const std::bad_alloc&) {
    return no_memory(tokens.size());
  }
}

Result<std::vector<float>> Transformer::forward(std::span<const TokenId> tokens, DecodeBatch& batch, LogitRows rows) {
  std::vector<std::size_t> wanted;
  if (rows == LogitRows::kAll) {
    wanted.resize(tokens.size());
    std::iota(wanted.begin(), wanted.end(), std::size_t{0});
  } else if (rows == LogitRows::kLast && !tokens.empty()) {
    wanted.push_back(tokens.size() - 1);
  }
  FINCHKV_ASSIGN_OR_RETURN(StepResult result, step(tokens, batch, wanted));
  return std::move(result.logits);
}

}  // namespace finchkv::model
