// Device: what a forward pass and a selection of KV entries need from a processor.
//
// Ops take Tensors of this device and run in the order of the calls. They return nothing: wrong shapes are bugs
// (asserts), and what can fail while running (a launch, a lost device) is kept and told by synchronize(). Memory is
// taken only in empty() and pack_*(). A Device is used by one thread at a time; its owner serialises. Tensors of
// another device are bugs.
//
// Shapes: n rows (tokens of this pass), T keys visible to the last row, H query heads, KV key/value heads (H a
// multiple), D head dimension, P prompt rows (the last of n), C = T - P candidates.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/host_memory.h"
#include "base/key_turner.h"
#include "base/kvset.h"
#include "base/quantised.h"
#include "base/status.h"
#include "kernels/tensor.h"

namespace finchkv::kernels {

/// `reference`: f32 everywhere, reductions split in a fixed way: the same bytes for any number of threads.
/// `fast`: bf16 operands with f32 accumulation where the processor has them, f32 otherwise.
/// `fp8`: `fast`, but weights inside the layers are rounded to e4m3 with a scale per output channel, and so is what
/// they are multiplied with, with a scale per token, where a pass has more than 32 rows (kernels/e4m3.h). A
/// processor without such products computes them from the rounded values.
enum class NumericClass : std::uint8_t { kReference, kFast, kFp8 };

/// Rows of a weight matrix W [out, in], produced in f32 when asked (a file's rows, dequantised).
struct LinearSource {
  std::int64_t in = 0;
  std::int64_t out = 0;
  /// Writes rows [first, first + count) to dst [count, in]. Called from several threads.
  std::function<void(std::int64_t first, std::int64_t count, float* dst)> rows;
  /// Steps between the smallest and the largest value in a group of 32 when the source is a grid (15 for 4-bit types);
  /// 0 when it is not. A hint: it lets a narrow copy for decoding be exact.
  int grid_steps = 0;
};

/// A weight matrix in the device's own layout. Opaque; made by a Device and used only with it.
class Linear {
 public:
  virtual ~Linear() = default;
  [[nodiscard]] virtual std::int64_t in() const = 0;
  [[nodiscard]] virtual std::int64_t out() const = 0;  ///< of a gated pair: the width after the product
  [[nodiscard]] virtual std::size_t bytes() const = 0;
};

/// One sequence's cache of one layer in a decoding step.
struct DecodeSlot {
  Tensor keys;                ///< kv_type [KV, capacity, D], rotated
  Tensor values;              ///< kv_type [KV, capacity, D]
  std::int64_t used = 0;      ///< entries before this step
  std::int64_t position = 0;  ///< of this step's token
};

/// What is fixed about the decoding steps that a DecodeTable serves.
struct DecodeShape {
  std::int64_t layers = 0;
  std::int64_t rows = 0;  ///< sequences, each with one token
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  RopeRecord rope;
};

/// Where the sequences of a decoding step have their caches, layer by layer: kept over steps, filled anew for each, so
/// that work which was recorded finds other caches when it runs again. Made by a Device and used only with it.
class DecodeTable {
 public:
  virtual ~DecodeTable() = default;
  [[nodiscard]] virtual const DecodeShape& shape() const = 0;
};

/// Ops that run again without being called one by one. Made by a Device, which it must not outlive.
class Recording {
 public:
  virtual ~Recording() = default;
  /// In the order of the Device's other calls; a failure is told by synchronize().
  virtual void run() = 0;
};

/// Keys or values of one layer [KV, n, D] in host memory, as a store lays them out.
struct StoredTensor {
  DType layout = DType::kF32;           ///< of q8 and q4 see base/quantised.h; check_quantised() has taken them
  GroupAxis axis = GroupAxis::kTokens;  ///< of q8 and q4
  DType decoded = DType::kF32;          ///< what their numbers are rounded to before anything else; else the layout
  std::span<const std::byte> bytes;     ///< what the layout takes
  /// Keeps the bytes as long as the device needs them. Null: they stay until synchronize().
  std::shared_ptr<const void> owner;
};

/// A chunk's rows and the entries kept before it, and the places where attention finds them together: n rows behind
/// `kept` entries, T = kept + n. Queries, keys and values may have any strides but dense heads.
struct ChunkRows {
  Tensor q;             ///< f32 or activations [n, H, D], before RoPE
  Tensor k, v;          ///< the same [n, KV, D]
  Tensor kept_keys;     ///< kv_type [KV, kept, D], before RoPE; kept may be 0
  Tensor kept_values;   ///< kv_type [KV, kept, D]
  Tensor kept_origins;  ///< i32 [R, kept]
  Tensor queries;       ///< out: activations [n, H, D], row i rotated to position kept + i
  Tensor plain_keys;    ///< out: kv_type [KV, T, D]: the kept ones, then k
  Tensor rotated_keys;  ///< out: the same, entry i rotated to position i
  Tensor values;        ///< out: kv_type [KV, T, D]: the kept ones, then v
  Tensor origins;       ///< out: i32 [R, kept or more]: the kept ones; the rest stays as it is
};

/// Entries of a layer, as lists of the same order.
struct EntryLists {
  Tensor keys;     ///< kv_type [KV, n, D]
  Tensor values;   ///< kv_type [KV, n, D]
  Tensor origins;  ///< i32 [R, n], R = 1 or KV
};

/// What a Linear is used for decides which copies a device keeps.
enum class LinearUse : std::uint8_t {
  kEveryRow,  ///< inside the layers: prefill and decode
  kFewRows,   ///< the output head: mostly one row at a time
};

class Device {
 public:
  virtual ~Device() = default;

  [[nodiscard]] virtual std::string_view kind() const = 0;    ///< "cpu", "cuda"
  [[nodiscard]] virtual std::string description() const = 0;  ///< processor features, threads, arithmetic in use
  [[nodiscard]] virtual NumericClass numeric_class() const = 0;
  /// Type of keys, values and queries of many rows: f32 or bf16.
  [[nodiscard]] virtual ElementType kv_type() const = 0;
  /// Type of activations in a pass of `rows` rows: kv_type(), or f32 where few rows cost nothing more for it.
  [[nodiscard]] virtual ElementType activation_type(std::int64_t rows) const = 0;

  /// Rows that the output head takes at once when several rows' logits are wanted.
  [[nodiscard]] virtual std::int64_t head_rows() const = 0;

  // --- memory
  // -------------------------------------------------------------------------------------------------------------
  /// Uninitialised. resource_exhausted when there is no memory for it.
  [[nodiscard]] virtual Result<Tensor> empty(ElementType type, std::initializer_list<std::int64_t> shape) = 0;
  /// Dense `to`; host holds its elements, and may be reused as soon as this returns.
  virtual void upload(const void* host, const Tensor& to) = 0;
  virtual void download(const Tensor& from, void* host) = 0;  ///< dense `from`; complete when it returns
  virtual Status synchronize() = 0;                           ///< waits; the first failure since the last call
  /// Bytes that may still be taken, as far as one can know: others may take from the same memory at any time.
  [[nodiscard]] virtual std::size_t free_memory() = 0;

  /// Host memory that load() reads from at its best. May outlive the device.
  [[nodiscard]] virtual std::shared_ptr<HostMemory> host_memory() = 0;

  // --- weights
  // ------------------------------------------------------------------------------------------------------------
  [[nodiscard]] virtual Result<std::unique_ptr<Linear>> pack_linear(const LinearSource& w, LinearUse use) = 0;
  /// gate and up of a SwiGLU, side by side.
  [[nodiscard]] virtual Result<std::unique_ptr<Linear>> pack_gated(const LinearSource& gate,
                                                                   const LinearSource& up) = 0;

  /// A table to look rows up in for embed(); an empty tensor from devices that leave looking up to the host.
  [[nodiscard]] virtual Result<Tensor> pack_embedding(const LinearSource& table) = 0;

  // --- layers
  // -------------------------------------------------------------------------------------------------------------
  /// y[i] = row ids[i] of a table from pack_embedding().  ids i32 [n], within the table; y f32 [n, width].
  virtual void embed(const Tensor& table, const Tensor& ids, const Tensor& y) = 0;
  /// y = x / rms(x) * w.  x f32 [n, d] or strided [n, heads, d]; w f32 [d]; y the same shape, f32 or activations; may
  /// be x.
  virtual void rms_norm(const Tensor& x, const Tensor& w, float eps, const Tensor& y) = 0;
  /// y = x W^T, or y += x W^T.  x activations [n, in], y f32 [n, out].
  virtual void linear(const Linear& w, const Tensor& x, const Tensor& y, bool accumulate) = 0;
  /// y = silu(x G^T) * (x U^T).  x activations [n, in], y activations [n, out].
  virtual void linear_swiglu(const Linear& gated, const Tensor& x, const Tensor& y) = 0;
  /// x += b in every row.  x f32 [n, d], b f32 [d].
  virtual void add_bias(const Tensor& x, const Tensor& b) = 0;

  // --- keys and values
  // ----------------------------------------------------------------------------------------------------
  /// y = x, converting. Any strides, [a, b, D] with dense last dimension on both sides.
  virtual void copy(const Tensor& x, const Tensor& y) = 0;
  /// Row i of x rotated to position first_position + i.  x f32 or activations [n, heads, D], y activations [n, heads,
  /// D]; any strides over n and heads. Dimensions past rope.rotary_dims are copied.
  virtual void rotate(const RopeRecord& rope, const Tensor& x, std::int64_t first_position, const Tensor& y) = 0;
  /// y = stored entries, expanded on the device; entry i rotated to position first_position + i where `rope` is not
  /// null. The same bits as decoding on the host, then rotate() or copy(). y kv_type [KV, n, D], any strides, D dense;
  /// where `rope` is null it may also be of the type that the entries decode to: they are then as decoded.
  /// Does not wait for the bytes to be read: see StoredTensor::owner.
  virtual void load(const StoredTensor& from, const RopeRecord* rope, std::int64_t first_position, const Tensor& y) = 0;
  /// y = x as another engine wants it: turned, its pairs in that engine's order, in its dtype, with the bits of
  /// KeyTurner::turn(), whose table has n entries or more. x, y f32, f16 or bf16 [KV, n, D], dense, apart. The device
  /// may keep `how` until another one comes.
  virtual void turn(const std::shared_ptr<const KeyTurner>& how, const Tensor& x, const Tensor& y) = 0;
  /// Lends `t` to a library that has a stream of its own: what was asked of this device so far is done before what is
  /// put on `stream` from now on. When the owner that this returns goes, from any thread, the memory goes too, if
  /// nobody else has it, and is used again only after what is on `stream` then. Streams are numbered as DLPack has
  /// them: on a GPU 1 is the legacy default stream, 2 the calling thread's, larger ones are a cudaStream_t, which must
  /// outlive the owner; 0 names none: then the device's work is waited for here, and all work on the GPU when the owner
  /// goes. Other devices take no notice. The owner may outlive the device. Returns the first failure since
  /// synchronize().
  [[nodiscard]] virtual Result<std::shared_ptr<const void>> lend(const Tensor& t, std::uint64_t stream) = 0;
  /// Brings a chunk's rows and the entries kept before it to the places where attention and selection find them.
  virtual void place_chunk(const RopeRecord& rope, const ChunkRows& c) = 0;
  /// Bottom-right causal softmax attention with an online softmax, O(T) memory: row i sees T - n + i + 1 keys.
  /// q activations [n, H, D] rotated; k, v kv_type [KV, T, D], k rotated; out activations [n, H, D];
  /// lse f32 [n, H], the log-sum-exp of scaled logits, or empty.
  virtual void attention(const Tensor& q, const Tensor& k, const Tensor& v, float scale, const Tensor& out,
                         const Tensor& lse) = 0;

  // --- decoding steps
  // ---------------------------------------------------------------------------------------------------------
  [[nodiscard]] virtual Result<std::unique_ptr<DecodeTable>> make_decode_table(const DecodeShape& shape) = 0;
  /// The caches of the next step.  slots [layers, rows]; they must stay until the step is over, none in it twice.
  virtual void fill(DecodeTable& table, std::span<const DecodeSlot> slots) = 0;
  /// One token of each of the table's sequences: appends k (rotated to the slot's position) and v as entry `used`, and
  /// lets q (rotated) attend over used + 1 entries. q f32 [n, H, D], k and v f32 [n, KV, D]; any strides over n and
  /// heads; out activations [n, H, D].
  virtual void decode_attention(const DecodeTable& table, std::int64_t layer, const Tensor& q, const Tensor& k,
                                const Tensor& v, float scale, const Tensor& out) = 0;
  /// Keeps the ops that `work` calls instead of running them; devices that cannot keep `work` and call it each time.
  /// `work` neither makes tensors nor moves any to or from the host, has run once before with the same shapes, and what
  /// it works on lives as long as the Recording.
  [[nodiscard]] virtual std::unique_ptr<Recording> record(std::function<void()> work) = 0;

  // --- selection
  // ----------------------------------------------------------------------------------------------------------
  /// mass[g, j] = sum over query heads h of KV head g and prompt rows r of w_r * A[h, r, j], w_r = (T - P + r + 1) / T.
  /// q activations [P, H, D] rotated, k kv_type [KV, T, D] rotated, lse f32 [P, H]; mass f32 [KV, T - P].
  virtual void attention_mass(const Tensor& q, const Tensor& k, const Tensor& lse, float scale, const Tensor& mass) = 0;
  /// sum[0, j] = sum over rows of x[., j], in row order.  x f32 [R, C], sum f32 [1, C].
  virtual void sum_rows(const Tensor& x, const Tensor& sum) = 0;
  /// y[g, j] = mean of x[g, i] over candidates i whose origin is at most `radius` from j's, plus own_share * x[g, j].
  /// x, y f32 [R, C]; origins i32 [R, C], ascending in each row.
  virtual void span_mean(const Tensor& x, const Tensor& origins, std::int32_t radius, float own_share,
                         const Tensor& y) = 0;
  /// The k highest of each row, ties to the lower index, as ascending indices.  x f32 [R, C], indices i32 [R, k].
  virtual void top_k(const Tensor& x, const Tensor& indices) = 0;
  /// Entry i of `to` is entry indices[r, i] of `from`; row r of the indices is a KV head's, or all heads' if there is
  /// one.  indices i32 [R, k], `to` lists of k entries, elsewhere in memory than `from`.
  virtual void gather(const EntryLists& from, const Tensor& indices, const EntryLists& to) = 0;
  /// Index of each row's largest element, the lowest on ties; -1 where a number is not finite.
  /// x f32 [n, vocab], vocab below 2^31; indices i32 [n].
  virtual void argmax(const Tensor& x, const Tensor& indices) = 0;
};

struct CpuOptions {
  NumericClass numeric_class = NumericClass::kFast;
  int threads = 0;         ///< 0: one per processor this process may use
  bool allow_bf16 = true;  ///< false: `fast` computes in f32 even where the processor has bf16
  /// Bytes that tensors may take together; 0: what the machine has. Packed weights and the ops' own scratch come on
  /// top.
  std::size_t memory_limit = 0;
};

[[nodiscard]] Result<std::unique_ptr<Device>> make_cpu_device(const CpuOptions& options);

struct CudaOptions {
  NumericClass numeric_class = NumericClass::kFast;
  int ordinal = 0;  ///< which GPU, as CUDA counts them
  int threads = 0;  ///< for making weights ready; 0: one per processor this process may use
  /// false: without cuDNN, which attends for many rows where our own kernel for Hopper cannot: on other GPUs, and with
  /// heads of other than 64 or 128 dimensions.
  bool cudnn = true;
  /// Bytes of GPU memory that this device may take, weights included; 0: what the GPU has.
  std::size_t memory_limit = 0;
};

/// How many GPUs this process may use; 0 without any, or when built without CUDA.
[[nodiscard]] int cuda_device_count();

/// unavailable when there is no usable GPU or NVIDIA's libraries are missing, unsupported when built without CUDA.
[[nodiscard]] Result<std::unique_ptr<Device>> make_cuda_device(const CudaOptions& options);

/// `auto` takes the GPU where there is a usable one, and the CPU elsewhere.
enum class DeviceChoice : std::uint8_t { kAuto, kCpu, kCuda };

struct DeviceOptions {
  DeviceChoice choice = DeviceChoice::kAuto;
  NumericClass numeric_class = NumericClass::kFast;
  int threads = 0;
  int ordinal = 0;  ///< which GPU, where it is one
};

[[nodiscard]] Result<std::unique_ptr<Device>> open_device(const DeviceOptions& options);

}  // namespace finchkv::kernels
