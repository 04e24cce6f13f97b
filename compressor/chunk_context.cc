#include "compressor/chunk_context.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

namespace finchkv::compressor {

using kernels::ElementType;
using kernels::Tensor;

namespace {

// The first `rows` x `columns` of a dense scratch tensor [R, capacity] as a dense [rows, columns].
Tensor dense_prefix(const Tensor& t, std::int64_t rows, std::int64_t columns) {
  return t.reshape({t.elements()}).slice(0, 0, rows * columns).reshape({rows, columns});
}

// Origins [R, n] in the form that Device::copy takes: [R, 1, n].
Tensor as_rows(const Tensor& t) { return t.split_last(t.dim(1), 1).transpose(1, 2); }

}  // namespace

Result<ChunkContext> ChunkContext::create(const Plan& plan, const model::Transformer& model) {
  ChunkContext c(plan, model);
  const model::ModelConfig& config = model.config();
  kernels::Device& dev = model.device();
  const ElementType a = dev.kv_type();
  const auto n = static_cast<std::int64_t>(plan.document.size());
  const auto prompt = static_cast<std::int64_t>(plan.prompt.size());
  const std::int64_t candidates = std::min(plan.budget + plan.chunk, n);
  const std::int64_t total = candidates + prompt;
  const std::int64_t kv = config.n_kv_heads, d = config.head_dim;
  c.rows_ = plan.policy->per_head() ? kv : 1;
  c.layers_.resize(static_cast<std::size_t>(config.n_layers));
  for (Layer& layer : c.layers_) {
    FINCHKV_ASSIGN_OR_RETURN(layer.keys, dev.empty(a, {kv, plan.budget, d}));
    FINCHKV_ASSIGN_OR_RETURN(layer.values, dev.empty(a, {kv, plan.budget, d}));
    FINCHKV_ASSIGN_OR_RETURN(layer.origins, dev.empty(ElementType::kI32, {c.rows_, plan.budget}));
  }
  FINCHKV_ASSIGN_OR_RETURN(c.plain_keys_, dev.empty(a, {kv, total, d}));
  FINCHKV_ASSIGN_OR_RETURN(c.rotated_keys_, dev.empty(a, {kv, total, d}));
  FINCHKV_ASSIGN_OR_RETURN(c.values_, dev.empty(a, {kv, total, d}));
  FINCHKV_ASSIGN_OR_RETURN(c.origins_, dev.empty(ElementType::kI32, {c.rows_, candidates}));
  FINCHKV_ASSIGN_OR_RETURN(c.indices_, dev.empty(ElementType::kI32, {c.rows_, plan.budget}));
  FINCHKV_ASSIGN_OR_RETURN(c.queries_, dev.empty(a, {plan.chunk + prompt, config.n_heads, d}));
  FINCHKV_ASSIGN_OR_RETURN(c.lse_, dev.empty(ElementType::kF32, {plan.chunk + prompt, config.n_heads}));
  return c;
}

Status ChunkContext::begin_chunk(std::int64_t start, std::int64_t size) {
  start_ = start;
  size_ = size;
  // The chunk's own origins are the same in every layer; attend() puts the layer's kept ones before them.
  std::vector<std::int32_t> fresh(static_cast<std::size_t>(size));
  std::iota(fresh.begin(), fresh.end(), static_cast<std::int32_t>(start));
  const Tensor all = dense_prefix(origins_, rows_, kept_ + size);
  for (std::int64_t r = 0; r < rows_; ++r) {
    model_->device().upload(fresh.data(), all.slice(0, r, 1).slice(1, kept_, size));
  }
  return Status::ok();
}

Status ChunkContext::attend(std::int64_t index, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) {
  Layer& layer = layers_[static_cast<std::size_t>(index)];
  kernels::Device& dev = model_->device();
  const RopeRecord& rope = model_->config().rope;
  const std::int64_t rows = q.dim(0);
  const std::int64_t total = kept_ + rows;
  const auto prompt = static_cast<std::int64_t>(plan_.prompt.size());
  const Tensor keys = plain_keys_.slice(1, 0, total);
  const Tensor rotated = rotated_keys_.slice(1, 0, total);
  const Tensor values = values_.slice(1, 0, total);
  const Tensor queries = queries_.slice(0, 0, rows);
  const Tensor origins = dense_prefix(origins_, rows_, kept_ + size_);
  dev.place_chunk(rope, {q, k, v, layer.keys.slice(1, 0, kept_), layer.values.slice(1, 0, kept_),
                         layer.origins.slice(1, 0, kept_), queries, keys, rotated, values, origins});
  const Tensor lse = lse_.slice(0, 0, rows);
  dev.attention(queries, rotated, values, model_->attention_scale(), out, prompt > 0 ? lse : Tensor());
  return select(layer, index, queries, lse);
}

Status ChunkContext::select(Layer& layer, std::int64_t index, const Tensor& queries, const Tensor& lse) {
  kernels::Device& dev = model_->device();
  const auto prompt = static_cast<std::int64_t>(plan_.prompt.size());
  const std::int64_t candidates = kept_ + size_;
  const std::int64_t keep = std::min(candidates, plan_.keep_after(start_ + size_));
  const Tensor origins = dense_prefix(origins_, rows_, candidates);
  const Tensor kept_keys = layer.keys.slice(1, 0, keep);
  const Tensor kept_values = layer.values.slice(1, 0, keep);
  const Tensor kept_origins = layer.origins.slice(1, 0, keep);
  if (keep == candidates) {  // nothing falls out: only the new ones are appended
    dev.copy(plain_keys_.slice(1, kept_, size_), layer.keys.slice(1, kept_, size_));
    dev.copy(values_.slice(1, kept_, size_), layer.values.slice(1, kept_, size_));
    dev.copy(as_rows(origins.slice(1, kept_, size_)), as_rows(layer.origins.slice(1, kept_, size_)));
    return Status::ok();
  }
  const Tensor indices = dense_prefix(indices_, rows_, keep);
  SelectionStep step(dev);
  step.layer = index;
  step.chunk_index = chunk_index_;
  step.kept = kept_;
  step.candidates = candidates;
  step.keep = keep;
  step.budget = plan_.budget;
  step.seed = plan_.seed;
  step.n_kv_heads = model_->config().n_kv_heads;
  step.scale = model_->attention_scale();
  step.keys = rotated_keys_.slice(1, 0, candidates + prompt);
  step.origins = origins;
  if (prompt > 0) {
    step.prompt_queries = queries.slice(0, size_, prompt);
    step.lse = lse.slice(0, size_, prompt);
  }
  FINCHKV_RETURN_IF_ERROR(plan_.policy->choose(step, indices));
  dev.gather({plain_keys_, values_, origins}, indices, {kept_keys, kept_values, kept_origins});
  return Status::ok();
}

void ChunkContext::end_chunk() {
  kept_ = std::min(kept_ + size_, plan_.keep_after(start_ + size_));
  ++chunk_index_;
}

Result<KvSet> ChunkContext::take_set() {
  const model::ModelConfig& config = model_->config();
  kernels::Device& dev = model_->device();
  KvSet set;
  set.shape = {static_cast<std::uint32_t>(config.n_layers), static_cast<std::uint32_t>(config.n_kv_heads),
               static_cast<std::uint32_t>(config.head_dim), static_cast<std::uint32_t>(rows_)};
  set.dtype = dev.kv_type() == ElementType::kBF16 ? DType::kBF16 : DType::kF32;
  set.key_form = KeyForm::kPreRope;
  set.doc_tokens = plan_.document.size();
  set.next_position = static_cast<std::uint64_t>(kept_);
  set.rope = config.rope;
  const std::size_t bytes = set.layer_bytes(static_cast<std::uint32_t>(kept_));
  const auto origin_count = static_cast<std::size_t>(rows_ * kept_);
  for (Layer& layer : layers_) {
    auto memory = allocate_shared_bytes(2 * bytes + origin_count * sizeof(std::uint32_t));
    if (!memory) return Status::resource_exhausted(fmt::format("no memory for a layer of {} kept entries", kept_));
    std::byte* keys = memory.get();
    std::byte* values = keys + bytes;
    auto* origins = reinterpret_cast<std::uint32_t*>(values + bytes);
    dev.download(layer.keys, keys);
    dev.download(layer.values, values);
    dev.download(layer.origins, origins);
    layer = {};
    KvLayer view;
    view.n_kept = static_cast<std::uint32_t>(kept_);
    view.keys = {keys, bytes};
    view.values = {values, bytes};
    view.origins = {origins, origin_count};
    set.layers.push_back(view);
    set.memory.push_back(std::move(memory));
  }
  FINCHKV_RETURN_IF_ERROR(dev.synchronize());
  return set;
}

}  // namespace finchkv::compressor
