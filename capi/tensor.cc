// Tensors of a set as DLPack: views where the bytes are right as they lie, one pass over them where not, in the memory
// that the set is in.
#include <array>
#include <memory>
#include <utility>

#include <dlpack/dlpack.h>

#include "base/key_turner.h"
#include "base/memory_pool.h"
#include "capi/guard.h"
#include "capi/handles.h"

namespace finchkv::capi {
namespace {

// What a DLManagedTensor of ours holds; freed by its deleter.
struct Exported {
  DLManagedTensor managed{};
  std::array<std::int64_t, 3> shape{}, strides{};
  std::vector<std::shared_ptr<const void>> memory;
};

DLDataType data_type(DType dtype) {
  switch (dtype) {
    case DType::kF16: return {kDLFloat, 16, 1};
    case DType::kBF16: return {kDLBfloat, 16, 1};
    default: return {kDLFloat, 32, 1};
  }
}

struct Wanted {
  const KvLayer* layer = nullptr;
  bool keys = false;
  bool all_heads = true;
  std::uint32_t head = 0;
  DType dtype = DType::kF32;
  bool rotate = false;
  PairOrder order = PairOrder::kAsStored;
  std::uint64_t base = 0;
};

Result<Wanted> check(const KvSet& set, const fkv_tensor_options& o) {
  Wanted w;
  if (o.layer >= set.layers.size()) {
    return Status::invalid_argument(fmt::format("there is no layer {} in a set of {}", o.layer, set.layers.size()));
  }
  w.layer = &set.layers[o.layer];
  if (o.which > FKV_VALUES) return Status::invalid_argument("which is neither FKV_KEYS nor FKV_VALUES");
  w.keys = o.which == FKV_KEYS;
  w.all_heads = o.head == FKV_ALL_HEADS;
  if (!w.all_heads && o.head >= set.shape.n_kv_heads) {
    return Status::invalid_argument(fmt::format("there is no KV head {} in a set of {}", o.head, set.shape.n_kv_heads));
  }
  w.head = w.all_heads ? 0 : o.head;
  if (o.dtype != FKV_DTYPE_AS_STORED && o.dtype > FKV_BF16) {
    return Status::invalid_argument("dtype is none of FKV_F32, FKV_F16, FKV_BF16 and FKV_DTYPE_AS_STORED");
  }
  w.dtype = o.dtype == FKV_DTYPE_AS_STORED ? set.dtype : static_cast<DType>(o.dtype);
  if (o.order > FKV_INTERLEAVED) {
    return Status::invalid_argument("order is none of FKV_ORDER_AS_STORED, FKV_HALF_SPLIT and FKV_INTERLEAVED");
  }
  if (!w.keys) return w;  // rotation and order are of keys
  if (o.rotate != 0 && set.key_form != KeyForm::kPreRope) {
    return Status::invalid_argument(fmt::format("the keys of this set are {}: only keys from before RoPE can be turned",
                                                key_form_name(set.key_form)));
  }
  w.rotate = o.rotate != 0;
  w.base = o.base_position;
  w.order = static_cast<PairOrder>(o.order);
  if (w.order == (set.rope.interleaved ? PairOrder::kInterleaved : PairOrder::kHalfSplit)) {
    w.order = PairOrder::kAsStored;
  }
  return w;
}

// Threads for large tensors, started by the first one. Never stopped: a process that ends must not wait for them.
ThreadPool& turning_threads() {
  static auto* const pool = new ThreadPool();
  return *pool;
}

bool as_it_lies(const KvSet& set, const Wanted& w) {
  return w.dtype == set.dtype && !w.rotate && w.order == PairOrder::kAsStored;
}

Result<std::shared_ptr<const KeyTurner>> turner_for(const fkv_kvset& from_set, const Wanted& w) {
  const KvSet& set = from_set.set;
  if (w.rotate || w.order != PairOrder::kAsStored) {
    return from_set.turners->get(set.rope, set.shape.head_dim, w.order, w.rotate, w.base, w.layer->n_kept);
  }
  RopeRecord none;  // values, and keys that stay in their places, only change their dtype
  none.rotary_dims = 0;
  FINCHKV_ASSIGN_OR_RETURN(KeyTurner turner, KeyTurner::create(none, set.shape.head_dim, w.order, false, 0, 0));
  return std::make_shared<const KeyTurner>(std::move(turner));
}

Status convert(const fkv_kvset& from_set, const Wanted& w, std::uint32_t heads, std::span<const std::byte> from,
               std::span<std::byte> to) {
  const KvSet& set = from_set.set;
  constexpr std::size_t kLarge = std::size_t{256} << 10U;  // bytes; below, one thread is done before others are awake
  ThreadPool* const pool = from.size() >= kLarge ? &turning_threads() : nullptr;
  FINCHKV_ASSIGN_OR_RETURN(const auto turner, turner_for(from_set, w));
  turner->turn(from, set.dtype, heads, w.layer->n_kept, to, w.dtype, pool);
  return Status::ok();
}

// Data and owners of a tensor in host memory.
Result<void*> on_host(const fkv_kvset& from_set, const Wanted& w, std::uint32_t heads, Exported& out) {
  const KvSet& set = from_set.set;
  const std::size_t rows = std::size_t{heads} * w.layer->n_kept;
  const std::size_t head_bytes = std::size_t{w.layer->n_kept} * set.shape.head_dim * element_bytes(set.dtype);
  const auto all = w.keys ? w.layer->keys : w.layer->values;
  const auto from = all.subspan(w.head * head_bytes, heads * head_bytes);

  if (as_it_lies(set, w)) {
    out.memory = set.memory;
    return static_cast<void*>(
        const_cast<std::byte*>(from.data()));  // DLPack 0.x has no read-only flag; finchkv.h says so
  }
  const std::size_t bytes = rows * set.shape.head_dim * element_bytes(w.dtype);
  const std::shared_ptr<std::byte> made = MemoryPool::shared().take(bytes);
  if (made == nullptr && bytes != 0) {
    return Status::resource_exhausted(fmt::format("there is no memory for a tensor of {} bytes", bytes));
  }
  FINCHKV_RETURN_IF_ERROR(convert(from_set, w, heads, from, {made.get(), bytes}));
  out.memory.push_back(made);
  return static_cast<void*>(made.get());
}

// The same on a GPU, for who reads it on `stream`.
Result<void*> on_gpu(const fkv_kvset& from_set, const Wanted& w, std::uint32_t layer, std::uint32_t heads,
                     std::uint64_t stream, Exported& out) {
  const DeviceLayer& there = from_set.there->layers[layer];
  kernels::Tensor tensor = (w.keys ? there.keys : there.values).slice(0, w.head, heads);
  OpenDevice& open = *from_set.there->device;
  const std::lock_guard lock(open.mutex);
  if (!as_it_lies(from_set.set, w)) {
    FINCHKV_ASSIGN_OR_RETURN(const auto turner, turner_for(from_set, w));
    FINCHKV_ASSIGN_OR_RETURN(kernels::Tensor made,
                             open.device->empty(kernels::element_type(w.dtype), {heads, tensor.dim(1), tensor.dim(2)}));
    open.device->turn(turner, tensor, made);
    tensor = std::move(made);
  }
  FINCHKV_ASSIGN_OR_RETURN(auto loan, open.device->lend(tensor, stream));
  out.memory.push_back(std::move(loan));
  return tensor.data();
}

Result<std::unique_ptr<Exported>> export_tensor(const fkv_kvset& from_set, const fkv_tensor_options& options) {
  const KvSet& set = from_set.set;
  FINCHKV_ASSIGN_OR_RETURN(const Wanted w, check(set, options));
  const std::uint32_t heads = w.all_heads ? set.shape.n_kv_heads : 1;
  const bool gpu = from_set.there != nullptr;
  auto out = std::make_unique<Exported>();
  FINCHKV_ASSIGN_OR_RETURN(void* const data, gpu ? on_gpu(from_set, w, options.layer, heads, options.stream, *out)
                                                 : on_host(from_set, w, heads, *out));
  const std::int64_t n = w.layer->n_kept, d = set.shape.head_dim;
  const int dims = w.all_heads ? 3 : 2;
  out->shape = w.all_heads ? std::array<std::int64_t, 3>{heads, n, d} : std::array<std::int64_t, 3>{n, d, 0};
  out->strides = w.all_heads ? std::array<std::int64_t, 3>{n * d, d, 1} : std::array<std::int64_t, 3>{d, 1, 0};
  DLTensor& tensor = out->managed.dl_tensor;
  tensor.data = data;
  tensor.device =
      gpu ? DLDevice{kDLCUDA, static_cast<std::int32_t>(from_set.there->device->ordinal)} : DLDevice{kDLCPU, 0};
  tensor.ndim = dims;
  tensor.dtype = data_type(w.dtype);
  tensor.shape = out->shape.data();
  tensor.strides = out->strides.data();
  out->managed.manager_ctx = out.get();
  out->managed.deleter = [](DLManagedTensor* self) { delete static_cast<Exported*>(self->manager_ctx); };
  return out;
}

}  // namespace

Result<std::shared_ptr<const KeyTurner>> Turners::get(const RopeRecord& rope, std::uint32_t head_dim, PairOrder order,
                                                      bool rotate, std::uint64_t base, std::uint32_t longest) {
  const std::lock_guard lock(mutex_);
  if (last_ == nullptr || order != order_ || rotate != rotate_ || (rotate && (base != base_ || longest > longest_))) {
    FINCHKV_ASSIGN_OR_RETURN(KeyTurner made, KeyTurner::create(rope, head_dim, order, rotate, base, longest));
    last_ = std::make_shared<const KeyTurner>(std::move(made));
    order_ = order;
    rotate_ = rotate;
    base_ = base;
    longest_ = longest;
  }
  return last_;
}

}  // namespace finchkv::capi

extern "C" fkv_code fkv_kvset_tensor(const fkv_kvset* set, const fkv_tensor_options* options, DLManagedTensor** tensor,
                                     fkv_error** error) {
  using finchkv::Status;
  return finchkv::capi::guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(finchkv::capi::must_be_given(set, "set"));
    FINCHKV_RETURN_IF_ERROR(finchkv::capi::must_be_given(tensor, "tensor"));
    *tensor = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(const fkv_tensor_options o, finchkv::capi::read_struct(options, "fkv_tensor_options"));
    FINCHKV_ASSIGN_OR_RETURN(auto exported, finchkv::capi::export_tensor(*set, o));
    *tensor = &exported.release()->managed;
    return Status::ok();
  });
}
