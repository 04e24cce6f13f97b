// An NVIDIA GPU as a Device: cuBLASLt for products, our own kernels for the rest; cuDNN for attention of many rows
// where attention_hopper.cu does not serve.
#include "kernels/cuda/cuda_device.h"

#include <cuda_profiler_api.h>

#include <algorithm>
#include <cassert>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/thread_pool.h"
#include "kernels/cuda/arrivals.h"
#include "kernels/cuda/attention_cudnn.h"
#include "kernels/cuda/decode_table.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/lend.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/recording.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/turns.h"
#include "kernels/device.h"
#include "kernels/place_chunk.h"
#include "kernels/rope.h"

namespace finchkv::kernels {
namespace cuda {
namespace {

constexpr std::int64_t kManyRows = 256;  // that keep a GPU busy without splitting the keys

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(const CudaOptions& options)
      : numeric_(options.numeric_class),
        eight_bits_(options.numeric_class == NumericClass::kFp8),
        use_cudnn_(options.cudnn),
        pool_(options.threads) {}

  Status init(int ordinal, std::size_t memory_limit) {
    FINCHKV_ASSIGN_OR_RETURN(runtime_, Runtime::create(ordinal, pool_, memory_limit));
    FINCHKV_ASSIGN_OR_RETURN(arrivals_, Arrivals::create(*runtime_, ordinal));
    if (numeric_ == NumericClass::kReference) return Status::ok();
    FINCHKV_ASSIGN_OR_RETURN(gemm_, Gemm::create(*runtime_));
    if (!use_cudnn_) return Status::ok();
    auto attention = CudnnAttention::create(*runtime_);
    if (attention.is_ok())
      cudnn_ = *std::move(attention);  // without it our own kernels do all, on GPUs before Hopper slower
    return Status::ok();
  }

  std::string_view kind() const override { return "cuda"; }
  std::string description() const override {
    // Nobody sees it otherwise: everything works, and reloads are slower.
    const std::string_view refused =
        arrivals_->host_memory()->was_refused() ? "; the system refuses to lock pages, so reloads take longer" : "";
    if (numeric_ == NumericClass::kReference) {
      return fmt::format("cuda, {}, f32, own kernels{}", runtime_->name(), refused);
    }
    return fmt::format("cuda, {}, {}, cuBLASLt, {}{}", runtime_->name(), eight_bits_ ? "fp8 weights" : "bf16",
                       cudnn_ ? "cuDNN " + cudnn_->version() : std::string("no cuDNN: attention by our own kernel"),
                       refused);
  }
  NumericClass numeric_class() const override { return numeric_; }
  ElementType kv_type() const override {
    return numeric_ == NumericClass::kReference ? ElementType::kF32 : ElementType::kBF16;
  }
  ElementType activation_type(std::int64_t) const override { return kv_type(); }

  std::int64_t head_rows() const override { return 64; }

  Result<Tensor> empty(ElementType type, std::initializer_list<std::int64_t> shape) override {
    std::size_t bytes = element_size(type);
    for (const std::int64_t d : shape) {
      if (d < 0 || __builtin_mul_overflow(bytes, static_cast<std::size_t>(d), &bytes)) {
        return Status::resource_exhausted("no GPU memory for a tensor of more bytes than there are addresses");
      }
    }
    FINCHKV_ASSIGN_OR_RETURN(auto memory, runtime_->allocate(bytes));
    return Tensor(std::move(memory), type, shape);
  }
  void upload(const void* host, const Tensor& to) override {
    assert(to.is_dense());
    run().upload(host, to.data(), static_cast<std::size_t>(to.elements()) * element_size(to.type()));
  }
  void download(const Tensor& from, void* host) override {
    assert(from.is_dense());
    run().download(from.data(), host, static_cast<std::size_t>(from.elements()) * element_size(from.type()));
  }
  Status synchronize() override {
    arrivals_->settle();
    return runtime_->synchronize();
  }
  std::shared_ptr<HostMemory> host_memory() override { return arrivals_->host_memory(); }
  std::size_t free_memory() override { return run().free_bytes(); }

  Result<std::unique_ptr<Linear>> pack_linear(const LinearSource& w, LinearUse use) override {
    FINCHKV_ASSIGN_OR_RETURN(Tensor rows, upload_rows(run(), pool_, {&w}, kv_type()));
    return pack(std::move(rows), false, use);
  }
  Result<std::unique_ptr<Linear>> pack_gated(const LinearSource& gate, const LinearSource& up) override {
    FINCHKV_ASSIGN_OR_RETURN(Tensor rows, upload_rows(run(), pool_, {&gate, &up}, kv_type()));
    return pack(std::move(rows), true, LinearUse::kEveryRow);
  }
  /// The output head keeps its 16 bits: it decides between tokens.
  Result<std::unique_ptr<Linear>> pack(Tensor rows, bool gated, LinearUse use) {
    auto linear = std::make_unique<CudaLinear>(std::move(rows), gated);
    if (eight_bits_ && use == LinearUse::kEveryRow) {
      FINCHKV_ASSIGN_OR_RETURN([[maybe_unused]] const bool rounded, linear->round_to_8_bits(run()));
    }
    return std::unique_ptr<Linear>(std::move(linear));
  }
  Result<Tensor> pack_embedding(const LinearSource& table) override {
    return upload_rows(run(), pool_, {&table}, kv_type());
  }
  void embed(const Tensor& table, const Tensor& ids, const Tensor& y) override { cuda::embed(run(), table, ids, y); }

  void rms_norm(const Tensor& x, const Tensor& w, float eps, const Tensor& y) override {
    cuda::rms_norm(run(), x, w, eps, y);
  }
  void linear(const Linear& w, const Tensor& x, const Tensor& y, bool accumulate) override {
    static_cast<const CudaLinear&>(w).multiply(run(), gemm_.get(), x, y, accumulate);
  }
  void linear_swiglu(const Linear& gated, const Tensor& x, const Tensor& y) override {
    static_cast<const CudaLinear&>(gated).multiply_swiglu(run(), gemm_.get(), x, y);
  }
  void add_bias(const Tensor& x, const Tensor& b) override { cuda::add_bias(run(), x, b); }

  void copy(const Tensor& x, const Tensor& y) override { cuda::copy(run(), x, y); }
  void rotate(const RopeRecord& rope, const Tensor& x, std::int64_t first_position, const Tensor& y) override {
    const RopeTableView table = rope_table(rope, first_position + x.dim(0));
    if (table.cos != nullptr) cuda::rotate(run(), table, x, first_position, y);
  }
  void load(const StoredTensor& from, const RopeRecord* rope, std::int64_t first_position, const Tensor& y) override {
    RopeTableView table;
    if (rope != nullptr) {
      table = rope_table(*rope, first_position + y.dim(1));
      if (table.cos == nullptr) return;
    }
    run();
    arrivals_->load(from, table, first_position, y);
  }
  void turn(const std::shared_ptr<const KeyTurner>& how, const Tensor& x, const Tensor& y) override {
    assert(x.is_dense() && y.is_dense());
    turns_.turn(run(), how, x, y);
  }
  Result<std::shared_ptr<const void>> lend(const Tensor& t, std::uint64_t stream) override {
    return cuda::lend(run(), t, stream);
  }
  void place_chunk(const RopeRecord& rope, const ChunkRows& c) override {
    const RopeTableView table = rope_table(rope, c.values.dim(1));
    if (table.cos == nullptr) return;
    if (!place_chunk_takes(table, c)) return place_chunk_in_steps(*this, rope, c);
    cuda::place_chunk(run(), table, c);
  }
  void attention(const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                 const Tensor& lse) override {
    Runtime& rt = run();
    assert(q.dim(1) % k.dim(0) == 0 && v.dim(1) == k.dim(1) && q.dim(0) <= k.dim(1));
    if (q.dim(0) > kManyRows) {
      if (attention_hopper_takes(rt, q, k, v, out)) return attention_hopper(rt, q, k, v, scale, out, lse);
      // A plan of cuDNN's costs some 50 ms: worth it for chunks, which repeat, not for prompts, whose lengths vary.
      if (cudnn_ && cudnn_->takes(q, k, v, out)) {
        const Status done = cudnn_->run(rt, q, k, v, scale, out, lse);
        if (done.is_ok()) return;
        if (done.code() == StatusCode::kResourceExhausted) return rt.keep(done);
      }
    }
    if (attention_mma_takes(q, k, v, out)) return attention_mma(rt, q, k, v, scale, out, lse);
    attention_tiled(rt, q, k, v, scale, out, lse);
  }

  Result<std::unique_ptr<DecodeTable>> make_decode_table(const DecodeShape& shape) override {
    FINCHKV_ASSIGN_OR_RETURN(auto table, CudaDecodeTable::create(run(), shape, kv_type()));
    return std::unique_ptr<DecodeTable>(std::move(table));
  }
  void fill(DecodeTable& table, std::span<const DecodeSlot> slots) override {
    std::int64_t furthest = 0;
    for (const DecodeSlot& slot : slots) furthest = std::max(furthest, slot.position);
    const RopeTableView rope = rope_table(table.shape().rope, furthest + 1);
    if (rope.cos != nullptr) static_cast<CudaDecodeTable&>(table).write(run(), rope, slots);
  }
  void decode_attention(const DecodeTable& table, std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v,
                        float scale, const Tensor& out) override {
    cuda::decode_attention(run(), static_cast<const CudaDecodeTable&>(table), layer, q, k, v, scale, out);
  }
  std::unique_ptr<Recording> record(std::function<void()> work) override {
    return record_graph(run(), std::move(work));
  }

  void attention_mass(const Tensor& q, const Tensor& k, const Tensor& lse, float scale, const Tensor& mass) override {
    cuda::attention_mass(run(), q, k, lse, scale, mass);
  }
  void sum_rows(const Tensor& x, const Tensor& sum) override { cuda::sum_rows(run(), x, sum); }
  void span_mean(const Tensor& x, const Tensor& origins, std::int32_t radius, float own_share,
                 const Tensor& y) override {
    cuda::span_mean(run(), x, origins, radius, own_share, y);
  }
  void top_k(const Tensor& x, const Tensor& indices) override { cuda::top_k(run(), x, indices); }
  void gather(const EntryLists& from, const Tensor& indices, const EntryLists& to) override {
    cuda::gather(run(), from, indices, to);
  }
  void argmax(const Tensor& x, const Tensor& indices) override { cuda::argmax(run(), x, indices); }

  Runtime& run() {
    runtime_->enter();
    return *runtime_;
  }
  [[nodiscard]] const Runtime& runtime() const { return *runtime_; }

 private:
  struct DeviceTable {
    RopeRecord rope;
    std::int64_t positions = 0;
    Tensor cos, sin;  // f32 [positions, dims]
  };

  // The host's tables, sent once per record and again when positions grow.
  RopeTableView rope_table(const RopeRecord& rope, std::int64_t positions) {
    const auto dims = static_cast<std::int64_t>(rope.inv_freq.size()) * 2;
    DeviceTable* table = nullptr;
    for (DeviceTable& t : tables_) {
      if (t.rope == rope) table = &t;
    }
    if (table == nullptr) table = &tables_.emplace_back(DeviceTable{rope, 0, {}, {}});
    if (table->positions < positions) {
      const auto host = ropes_.get(rope, positions);
      auto cos = empty(ElementType::kF32, {host->positions, dims});
      auto sin = empty(ElementType::kF32, {host->positions, dims});
      if (!cos.is_ok() || !sin.is_ok()) {
        runtime_->keep(cos.is_ok() ? sin.status() : cos.status());
        return {};
      }
      upload(host->cos.data(), *cos);
      upload(host->sin.data(), *sin);
      table->cos = *std::move(cos);
      table->sin = *std::move(sin);
      table->positions = host->positions;
    }
    return {table->cos.data<float>(), table->sin.data<float>(), dims, rope.interleaved};
  }

  NumericClass numeric_;
  bool eight_bits_;
  bool use_cudnn_;
  ThreadPool pool_;  // for making weights ready, and copies on the host
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<Arrivals> arrivals_;
  std::unique_ptr<Gemm> gemm_;
  std::unique_ptr<CudnnAttention> cudnn_;
  RopeTables ropes_;
  std::vector<DeviceTable> tables_;
  Turns turns_;
};

}  // namespace

Result<Tensor> random_tensor(Device& device, ElementType type, std::int64_t rows, std::int64_t width,
                             std::uint64_t seed, float deviation) {
  auto* cuda = dynamic_cast<CudaDevice*>(&device);
  if (cuda == nullptr) return Status::invalid_argument("random weights are made on CUDA devices only");
  FINCHKV_ASSIGN_OR_RETURN(Tensor made, cuda->empty(type, {rows, width}));
  fill_random(cuda->run(), made, seed, deviation);
  return made;
}

Result<std::unique_ptr<Linear>> random_linear(Device& device, std::int64_t in, std::int64_t out, bool gated,
                                              LinearUse use, std::uint64_t seed, float deviation) {
  FINCHKV_ASSIGN_OR_RETURN(Tensor made,
                           random_tensor(device, device.kv_type(), gated ? 2 * out : out, in, seed, deviation));
  return dynamic_cast<CudaDevice&>(device).pack(std::move(made), gated, use);
}

std::size_t peak_bytes(const Device& device) {
  const auto* cuda = dynamic_cast<const CudaDevice*>(&device);
  return cuda == nullptr ? 0 : cuda->runtime().peak_bytes();
}

void reset_peak(Device& device) {
  if (auto* cuda = dynamic_cast<CudaDevice*>(&device)) cuda->run().reset_peak();
}

void mark_for_profiler(bool begin) { static_cast<void>(succeeded(begin ? cudaProfilerStart() : cudaProfilerStop())); }

}  // namespace cuda

Result<std::unique_ptr<Device>> make_cuda_device(const CudaOptions& options) {
  if (options.threads < 0) {
    return Status::invalid_argument(
        fmt::format("threads is {}; it must be 0 (all processors) or more", options.threads));
  }
  auto device = std::make_unique<cuda::CudaDevice>(options);
  FINCHKV_RETURN_IF_ERROR(device->init(options.ordinal, options.memory_limit));
  return std::unique_ptr<Device>(std::move(device));
}

}  // namespace finchkv::kernels
