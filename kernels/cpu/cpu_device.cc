// The CPU as a Device: oneDNN for products, our vector loops for the rest, one thread pool.
#include <dnnl.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "base/memory_pool.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/selection.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/tensor_memory.h"
#include "kernels/cpu/workspace.h"
#include "kernels/device.h"
#include "kernels/place_chunk.h"
#include "kernels/recording.h"
#include "kernels/rope.h"

namespace finchkv::kernels {
namespace cpu {

const Gemm* Workspace::gemm(const Gemm::Shape& shape, const Gemm* like) {
  auto& slot = gemms_[{shape, like}];
  if (!slot) {
    auto made = Gemm::create(shape, pool.n_threads(), like);
    if (!made.is_ok()) {
      keep(made.status());
      return nullptr;
    }
    slot = *std::move(made);
  }
  return slot.get();
}

namespace {

constexpr std::int64_t kRowBlock = 16;

const float* f32_row(const Tensor& t, std::int64_t i, std::int64_t j) {
  return t.data<float>() + i * t.stride(0) + j * t.stride(1);
}

// Row (i, j) of x [a, b, D] as f32: in place where it is f32, else converted to tmp.
const float* as_f32(const Tensor& x, std::int64_t i, std::int64_t j, float* tmp) {
  if (x.type() == ElementType::kF32) return f32_row(x, i, j);
  simd().to_f32(x.data<std::uint16_t>() + i * x.stride(0) + j * x.stride(1), x.dim(2), tmp);
  return tmp;
}

void store_row(const float* row, const Tensor& y, std::int64_t i, std::int64_t j) {
  const std::int64_t at = i * y.stride(0) + j * y.stride(1);
  if (y.type() == ElementType::kBF16)
    simd().to_bf16(row, y.dim(2), y.data<std::uint16_t>() + at);
  else
    std::copy_n(row, y.dim(2), y.data<float>() + at);
}

Tensor as_rank3(const Tensor& x) { return x.rank() == 3 ? x : x.split_last(1, x.dim(x.rank() - 1)); }

class CpuDecodeTable final : public DecodeTable {
 public:
  explicit CpuDecodeTable(const DecodeShape& shape) : shape_(shape) {}
  [[nodiscard]] const DecodeShape& shape() const override { return shape_; }

  std::span<const DecodeSlot> slots;  // [layers, rows]
  Tensor rotated;                     // [1, H, D] scratch

 private:
  DecodeShape shape_;
};

class CpuDevice final : public Device {
 public:
  CpuDevice(const CpuOptions& o, ElementType activation)
      : ws_(o.threads, activation, o.numeric_class), memory_(o.memory_limit) {}

  std::string_view kind() const override { return "cpu"; }
  std::string description() const override {
    return fmt::format("cpu, {} threads, {}{} activations, {} vector loops, oneDNN {}.{}", ws_.pool.n_threads(),
                       ws_.numeric == NumericClass::kFp8 ? "fp8 weights, " : "",
                       ws_.activation == ElementType::kBF16 ? "bf16" : "f32", simd().name, dnnl_version()->major,
                       dnnl_version()->minor);
  }
  NumericClass numeric_class() const override { return ws_.numeric; }
  ElementType kv_type() const override { return ws_.activation; }
  // One row goes through the 8-bit weights, which multiply in f32: rounding it to bf16 first would only lose.
  ElementType activation_type(std::int64_t rows) const override {
    return rows == 1 ? ElementType::kF32 : ws_.activation;
  }

  std::int64_t head_rows() const override { return 1; }  // each from the 8-bit weights

  Result<Tensor> empty(ElementType type, std::initializer_list<std::int64_t> shape) override {
    std::size_t bytes = element_size(type);
    for (const std::int64_t d : shape) {
      if (d < 0 || __builtin_mul_overflow(bytes, static_cast<std::size_t>(d), &bytes)) {
        return Status::resource_exhausted("no memory for a tensor of more bytes than there are addresses");
      }
    }
    FINCHKV_ASSIGN_OR_RETURN(auto data, memory_.take(bytes));
    return Tensor(std::move(data), type, shape);
  }
  void upload(const void* host, const Tensor& to) override {
    assert(to.is_dense());
    std::memcpy(to.data(), host, static_cast<std::size_t>(to.elements()) * element_size(to.type()));
  }
  void download(const Tensor& from, void* host) override {
    assert(from.is_dense());
    std::memcpy(host, from.data(), static_cast<std::size_t>(from.elements()) * element_size(from.type()));
  }
  Status synchronize() override { return std::exchange(ws_.failure, Status::ok()); }
  std::shared_ptr<HostMemory> host_memory() override {
    return {std::shared_ptr<void>(), &MemoryPool::shared()};  // the process's: nobody owns it
  }
  std::size_t free_memory() override { return memory_.free_bytes(); }

  Result<std::unique_ptr<Linear>> pack_linear(const LinearSource& w, LinearUse use) override {
    FINCHKV_ASSIGN_OR_RETURN(auto packed, CpuLinear::pack(ws_, w, use));
    return std::unique_ptr<Linear>(std::move(packed));
  }
  Result<std::unique_ptr<Linear>> pack_gated(const LinearSource& gate, const LinearSource& up) override {
    FINCHKV_ASSIGN_OR_RETURN(auto packed, CpuLinear::pack_gated(ws_, gate, up));
    return std::unique_ptr<Linear>(std::move(packed));
  }

  // A table in f32 would be the largest tensor of a small model: rows are read from the file as they are needed.
  Result<Tensor> pack_embedding(const LinearSource&) override { return Tensor(); }
  void embed(const Tensor&, const Tensor&, const Tensor&) override {
    ws_.keep(Status::internal("the CPU device keeps no embedding table"));
  }

  void rms_norm(const Tensor& x_in, const Tensor& w, float eps, const Tensor& y_in) override {
    const Tensor x = as_rank3(x_in), y = as_rank3(y_in);
    ws_.rows(x.dim(0), kRowBlock, [&](std::int64_t first, std::int64_t n, int) {
      for (std::int64_t i = first; i < first + n; ++i) {
        for (std::int64_t j = 0; j < x.dim(1); ++j) {
          const std::int64_t at = i * y.stride(0) + j * y.stride(1);
          if (y.type() == ElementType::kBF16)
            simd().rms_norm_bf16(f32_row(x, i, j), w.data<float>(), eps, x.dim(2), y.data<std::uint16_t>() + at);
          else
            simd().rms_norm_f32(f32_row(x, i, j), w.data<float>(), eps, x.dim(2), y.data<float>() + at);
        }
      }
    });
  }
  void linear(const Linear& w, const Tensor& x, const Tensor& y, bool accumulate) override {
    static_cast<const CpuLinear&>(w).multiply(ws_, x, y, accumulate);
  }
  void linear_swiglu(const Linear& gated, const Tensor& x, const Tensor& y) override {
    static_cast<const CpuLinear&>(gated).multiply_swiglu(ws_, x, y);
  }
  void add_bias(const Tensor& x, const Tensor& b) override {
    for (std::int64_t i = 0; i < x.dim(0); ++i)
      simd().add(b.data<float>(), x.dim(1), x.data<float>() + i * x.stride(0));
  }

  void copy(const Tensor& x, const Tensor& y) override {
    const std::size_t row_bytes = static_cast<std::size_t>(x.dim(2)) * element_size(x.type());
    ws_.rows(x.dim(0) * x.dim(1), 256, [&](std::int64_t first, std::int64_t n, int worker) {
      AlignedBuffer& scratch = ws_.scratch[static_cast<std::size_t>(worker)];
      scratch.ensure(static_cast<std::size_t>(x.dim(2)) * sizeof(float));
      for (std::int64_t r = first; r < first + n; ++r) {
        const std::int64_t i = r / x.dim(1), j = r % x.dim(1);
        if (x.type() == y.type()) {
          std::memcpy(y.data<std::byte>() +
                          static_cast<std::size_t>(i * y.stride(0) + j * y.stride(1)) * element_size(y.type()),
                      x.data<std::byte>() +
                          static_cast<std::size_t>(i * x.stride(0) + j * x.stride(1)) * element_size(x.type()),
                      row_bytes);
        } else {
          store_row(as_f32(x, i, j, scratch.as<float>()), y, i, j);
        }
      }
    });
  }
  void rotate(const RopeRecord& rope, const Tensor& x, std::int64_t first_position, const Tensor& y) override {
    const auto table = ropes_.get(rope, first_position + x.dim(0));
    const auto dims = static_cast<std::int64_t>(rope.inv_freq.size()) * 2;
    ws_.rows(x.dim(0), kRowBlock, [&](std::int64_t first, std::int64_t n, int worker) {
      AlignedBuffer& scratch = ws_.scratch[static_cast<std::size_t>(worker)];
      scratch.ensure(static_cast<std::size_t>(x.dim(2)) * sizeof(float));
      for (std::int64_t i = first; i < first + n; ++i) {
        const float* cos = table->cos.data() + (first_position + i) * dims;
        const float* sin = table->sin.data() + (first_position + i) * dims;
        for (std::int64_t j = 0; j < x.dim(1); ++j) {
          const float* row = as_f32(x, i, j, scratch.as<float>());
          const std::int64_t at = i * y.stride(0) + j * y.stride(1);
          if (y.type() == ElementType::kBF16) {
            auto* out = y.data<std::uint16_t>() + at;
            simd().rotate_bf16(row, cos, sin, dims, rope.interleaved, out);
            if (dims < x.dim(2)) simd().to_bf16(row + dims, x.dim(2) - dims, out + dims);
          } else {
            auto* out = y.data<float>() + at;
            simd().rotate_f32(row, cos, sin, dims, rope.interleaved, out);
            std::copy_n(row + dims, x.dim(2) - dims, out + dims);
          }
        }
      }
    });
  }
  void load(const StoredTensor& from, const RopeRecord* rope, std::int64_t first_position, const Tensor& y) override {
    const DType exact = from.decoded == DType::kBF16 ? DType::kBF16 : DType::kF32;
    const DType wide = y.type() == ElementType::kF16 ? DType::kF16 : exact;
    auto made = empty(element_type(wide), {y.dim(0), y.dim(1), y.dim(2)});
    if (!made.is_ok()) {
      ws_.keep(made.status());
      return;
    }
    widen(from, wide, *made);
    if (rope == nullptr) return copy(*made, y);
    rotate(*rope, made->transpose(0, 1), first_position, y.transpose(0, 1));
  }
  void turn(const std::shared_ptr<const KeyTurner>& how, const Tensor& x, const Tensor& y) override {
    const auto bytes = [](const Tensor& t) {
      return std::span(t.data<std::byte>(), static_cast<std::size_t>(t.elements()) * element_size(t.type()));
    };
    assert(x.is_dense() && y.is_dense());
    how->turn(bytes(x), dtype_of(x.type()), static_cast<std::uint32_t>(x.dim(0)), static_cast<std::uint32_t>(x.dim(1)),
              bytes(y), dtype_of(y.type()), &ws_.pool);
  }
  Result<std::shared_ptr<const void>> lend(const Tensor& t, std::uint64_t) override {
    FINCHKV_RETURN_IF_ERROR(synchronize());
    return std::shared_ptr<const void>(std::make_shared<const Tensor>(t));
  }
  void place_chunk(const RopeRecord& rope, const ChunkRows& c) override { place_chunk_in_steps(*this, rope, c); }
  void attention(const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                 const Tensor& lse) override {
    cpu::attention(ws_, q, k, v, scale, out, lse);
  }

  Result<std::unique_ptr<DecodeTable>> make_decode_table(const DecodeShape& shape) override {
    auto table = std::make_unique<CpuDecodeTable>(shape);
    FINCHKV_ASSIGN_OR_RETURN(table->rotated, empty(activation_type(shape.rows), {1, shape.heads, shape.head_dim}));
    return std::unique_ptr<DecodeTable>(std::move(table));
  }
  void fill(DecodeTable& table, std::span<const DecodeSlot> slots) override {
    static_cast<CpuDecodeTable&>(table).slots = slots;
  }
  void decode_attention(const DecodeTable& table, std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v,
                        float scale, const Tensor& out) override {
    const auto& steps = static_cast<const CpuDecodeTable&>(table);
    const RopeRecord& rope = steps.shape().rope;
    for (std::int64_t i = 0; i < q.dim(0); ++i) {
      const DecodeSlot& slot = steps.slots[static_cast<std::size_t>(layer * q.dim(0) + i)];
      rotate(rope, q.slice(0, i, 1), slot.position, steps.rotated);
      rotate(rope, k.slice(0, i, 1), slot.position, slot.keys.slice(1, slot.used, 1).transpose(0, 1));
      copy(v.slice(0, i, 1), slot.values.slice(1, slot.used, 1).transpose(0, 1));
      attention(steps.rotated, slot.keys.slice(1, 0, slot.used + 1), slot.values.slice(1, 0, slot.used + 1), scale,
                out.slice(0, i, 1), {});
    }
  }
  std::unique_ptr<Recording> record(std::function<void()> work) override {
    return std::make_unique<RepeatedCalls>(std::move(work));
  }

  void attention_mass(const Tensor& q, const Tensor& k, const Tensor& lse, float scale, const Tensor& mass) override {
    cpu::attention_mass(ws_, q, k, lse, scale, mass);
  }
  void sum_rows(const Tensor& x, const Tensor& sum) override { cpu::sum_rows(x, sum); }
  void span_mean(const Tensor& x, const Tensor& origins, std::int32_t radius, float own_share,
                 const Tensor& y) override {
    cpu::span_mean(ws_, x, origins, radius, own_share, y);
  }
  void top_k(const Tensor& x, const Tensor& indices) override { cpu::top_k(ws_, x, indices); }
  void gather(const EntryLists& from, const Tensor& indices, const EntryLists& to) override {
    cpu::gather(ws_, from.keys, indices, to.keys);
    cpu::gather(ws_, from.values, indices, to.values);
    cpu::gather_origins(from.origins, indices, to.origins);
  }
  void argmax(const Tensor& x, const Tensor& indices) override {
    for (std::int64_t i = 0; i < x.dim(0); ++i) {
      const std::span row(x.data<float>() + i * x.stride(0), static_cast<std::size_t>(x.dim(1)));
      const bool finite = std::all_of(row.begin(), row.end(), [](float value) { return std::isfinite(value); });
      indices.data<std::int32_t>()[i] =
          finite ? static_cast<std::int32_t>(std::max_element(row.begin(), row.end()) - row.begin()) : -1;
    }
  }

 private:
  // y dense [KV, n, D] of `to`: a head a task.
  void widen(const StoredTensor& from, DType to, const Tensor& y) {
    const auto heads = static_cast<std::size_t>(y.dim(0)), elements = static_cast<std::size_t>(y.dim(1) * y.dim(2));
    if (from.bytes.empty()) return;
    const QuantisedShape shape{1, static_cast<std::uint64_t>(y.dim(1)), static_cast<std::uint64_t>(y.dim(2))};
    const std::size_t narrow = from.bytes.size() / heads, wide = elements * element_bytes(to);
    std::vector<Status> results(heads, Status::ok());
    ws_.pool.run(y.dim(0), [&](std::int64_t task, int) {
      const auto h = static_cast<std::size_t>(task);
      const std::span<const std::byte> in = from.bytes.subspan(h * narrow, narrow);
      const std::span<std::byte> out(y.data<std::byte>() + h * wide, wide);
      if (is_quantised(from.layout)) {
        results[h] = dequantise(from.layout, from.axis, shape, in, to, out);
      } else {
        convert_elements(from.layout, in.data(), to, out.data(), elements);
      }
    });
    for (const Status& result : results) {
      if (!result.is_ok()) ws_.keep(result);
    }
  }

  Workspace ws_;
  TensorMemory memory_;
  RopeTables ropes_;
};

}  // namespace
}  // namespace cpu

Result<std::unique_ptr<Device>> make_cpu_device(const CpuOptions& options) {
  if (options.threads < 0)
    return Status::invalid_argument(
        fmt::format("threads is {}; it must be 0 (all processors) or more", options.threads));
  ElementType activation = ElementType::kF32;
  if (options.numeric_class != NumericClass::kReference && options.allow_bf16) {
    // oneDNN emulates bf16 on plain AVX-512; only native bf16 is faster than f32.
    const auto isa = dnnl::get_effective_cpu_isa();
    if (isa >= dnnl::cpu_isa::avx512_core_bf16) activation = ElementType::kBF16;
  }
  return std::unique_ptr<Device>(std::make_unique<cpu::CpuDevice>(options, activation));
}

}  // namespace finchkv::kernels
