#include "compressor/chunk_context.h"

#include <algorithm>
#include <cassert>
#include <numeric>

#include <fmt/format.h>

#include "base/memory_pool.h"

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

std::size_t ChunkContext::state_bytes(const Plan& plan, const model::Transformer& model) {
  const model::ModelConfig& config = model.config();
  const std::int64_t rows = plan.policy->per_head() ? config.n_kv_heads : 1;
  const std::int64_t candidates = std::min(plan.budget + plan.chunk, static_cast<std::int64_t>(plan.document.size()));
  const std::int64_t entries = config.n_layers * 2 * config.n_kv_heads * plan.budget * config.head_dim;
  return static_cast<std::size_t>(entries) * kernels::element_size(model.device().kv_type()) +
         static_cast<std::size_t>(rows * (config.n_layers * plan.budget + candidates)) * sizeof(std::int32_t);
}

ReadScratch::Needs ChunkContext::scratch_needs(const Plan& plan, const model::Transformer& model) {
  const auto n = static_cast<std::int64_t>(plan.document.size());
  const auto prompt = static_cast<std::int64_t>(plan.prompt.size());
  const std::int64_t rows = plan.policy->per_head() ? model.config().n_kv_heads : 1;
  return {plan.chunk + prompt, std::min(plan.budget + plan.chunk, n) + prompt, rows * plan.budget};
}

Result<ChunkContext> ChunkContext::create(const Plan& plan, const model::Transformer& model) {
  ChunkContext c(plan, model);
  const model::ModelConfig& config = model.config();
  kernels::Device& dev = model.device();
  const auto n = static_cast<std::int64_t>(plan.document.size());
  const std::int64_t candidates = std::min(plan.budget + plan.chunk, n);
  const std::int64_t kv = config.n_kv_heads, d = config.head_dim, keep = plan.budget;
  c.rows_ = plan.policy->per_head() ? kv : 1;
  const std::int64_t entries = kv * keep * d, origins = c.rows_ * keep;
  // One piece for all layers: it is read out at once.
  FINCHKV_ASSIGN_OR_RETURN(c.kept_entries_, dev.empty(dev.kv_type(), {config.n_layers * 2 * entries}));
  FINCHKV_ASSIGN_OR_RETURN(c.kept_origins_, dev.empty(ElementType::kI32, {config.n_layers * origins}));
  FINCHKV_ASSIGN_OR_RETURN(c.origins_, dev.empty(ElementType::kI32, {c.rows_, candidates}));
  for (std::int64_t l = 0; l < config.n_layers; ++l) {
    c.layers_.push_back({c.kept_entries_.slice(0, 2 * l * entries, entries).reshape({kv, keep, d}),
                         c.kept_entries_.slice(0, (2 * l + 1) * entries, entries).reshape({kv, keep, d}),
                         c.kept_origins_.slice(0, l * origins, origins).reshape({c.rows_, keep})});
  }
  return c;
}

Status ChunkContext::begin_chunk(std::int64_t start, std::int64_t size, const ReadScratch& scratch) {
  start_ = start;
  size_ = size;
  plain_keys_ = scratch.plain_keys;
  rotated_keys_ = scratch.rotated_keys;
  values_ = scratch.values;
  queries_ = scratch.queries;
  lse_ = scratch.lse;
  indices_ = scratch.indices;
  // The chunk's own origins are the same in every layer; attend() puts the layer's kept ones before them, where zeros
  // are until then.
  const std::int64_t columns = kept_ + size;
  fresh_.assign(static_cast<std::size_t>(rows_ * columns), 0);
  for (std::int64_t r = 0; r < rows_; ++r) {
    const auto first = fresh_.begin() + r * columns + kept_;
    std::iota(first, first + size, static_cast<std::int32_t>(start));
  }
  model_->device().upload(fresh_.data(), dense_prefix(origins_, rows_, columns));
  return Status::ok();
}

void ChunkContext::leave_scratch() { plain_keys_ = rotated_keys_ = values_ = queries_ = lse_ = indices_ = {}; }

void ChunkContext::restart() {
  leave_scratch();
  kept_ = 0;
  chunk_index_ = 0;
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
  leave_scratch();
  kept_ = std::min(kept_ + size_, plan_.keep_after(start_ + size_));
  ++chunk_index_;
}

Result<KvSet> ChunkContext::take_set() {
  assert(kept_ == plan_.budget);
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
  const std::size_t entry_bytes = layers_.size() * 2 * bytes;
  auto memory = MemoryPool::shared().take(entry_bytes + layers_.size() * origin_count * sizeof(std::uint32_t));
  if (!memory) return Status::resource_exhausted(fmt::format("no memory for {} kept entries of every layer", kept_));
  dev.download(kept_entries_, memory.get());
  auto* origins = reinterpret_cast<std::uint32_t*>(memory.get() + entry_bytes);
  dev.download(kept_origins_, origins);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const std::byte* keys = memory.get() + 2 * l * bytes;
    set.layers.push_back({static_cast<std::uint32_t>(kept_),
                          {keys, bytes},
                          {keys + bytes, bytes},
                          {origins + l * origin_count, origin_count}});
  }
  set.memory.push_back(std::move(memory));
  layers_.clear();
  kept_entries_ = kept_origins_ = origins_ = {};
  FINCHKV_RETURN_IF_ERROR(dev.synchronize());
  return set;
}

}  // namespace finchkv::compressor
