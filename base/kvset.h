// KvSet: the kept keys and values of all layers of one reading, where each came from, and how they were made.
//
// A KvSet is a host-memory value: views into memory that it owns together with its copies (shared_ptr), immutable once
// made, so it may be read from many threads and outlives the store or model it came from.
// It knows nothing of models, devices or files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"

namespace finchkv {

/// How the keys of a set are turned. Stored in files: values never change.
enum class KeyForm : std::uint8_t {
  kPreRope = 0,  ///< before RoPE: an engine rotates them to any base position
  kRotated = 1,  ///< as another engine made them: goes back verbatim, cannot be moved or joined
  kNone = 2,     ///< the model has no RoPE
};
[[nodiscard]] std::string_view key_form_name(KeyForm form);  // "pre_rope", "rotated", "none"

/// Everything needed to rotate a key of this model to position p: angle_i = f32(p) * inv_freq[i], then cos and sin
/// times attention_factor. Pairs are (2i, 2i+1) when interleaved, else (i, i + rotary_dims/2); dims past rotary_dims
/// stay.
struct RopeRecord {
  std::string scaling = "none";  ///< none, linear, llama3, yarn
  float theta = 10000.0F;
  float factor = 1.0F;                 ///< scaling factor s; 1 for none
  std::uint32_t original_context = 0;  ///< L0 of yarn and llama3; 0 where it does not apply
  std::uint32_t rotary_dims = 0;       ///< d, even, <= head_dim
  bool interleaved = false;
  float attention_factor = 1.0F;  ///< yarn: 0.1 ln s + 1
  std::vector<float> inv_freq;    ///< [rotary_dims / 2], final values

  bool operator==(const RopeRecord&) const = default;
};

struct KvShape {
  std::uint32_t n_layers = 0;
  std::uint32_t n_kv_heads = 0;
  std::uint32_t head_dim = 0;
  /// Rows of the origin list in each layer: 1 when a layer's heads share their choice, else n_kv_heads.
  std::uint32_t origin_rows = 1;

  bool operator==(const KvShape&) const = default;
};

/// One layer's views. Elements are the set's dtype, row-major.
struct KvLayer {
  std::uint32_t n_kept = 0;
  std::span<const std::byte> keys;         // [n_kv_heads, n_kept, head_dim]
  std::span<const std::byte> values;       // [n_kv_heads, n_kept, head_dim]
  std::span<const std::uint32_t> origins;  // [origin_rows, n_kept], document positions, ascending in each row
};

/// A layer and what keeps its views alive.
struct OwnedLayer {
  KvLayer views;
  std::shared_ptr<const void> memory;
};

struct KvSet {
  KvShape shape;
  DType dtype = DType::kF32;  ///< f32, f16 or bf16: quantised layouts exist only inside a store
  KeyForm key_form = KeyForm::kPreRope;
  std::uint64_t doc_tokens = 0;     ///< n: origins are below it
  std::uint64_t next_position = 0;  ///< where the prompt starts: the largest n_kept for pre_rope sets
  RopeRecord rope;
  std::vector<KvLayer> layers;                      // [n_layers]
  std::vector<std::shared_ptr<const void>> memory;  ///< owners of what the views point to

  [[nodiscard]] std::size_t layer_bytes(std::uint32_t n_kept) const {  ///< bytes of keys (or values) of one layer
    return static_cast<std::size_t>(shape.n_kv_heads) * n_kept * shape.head_dim * element_bytes(dtype);
  }
  [[nodiscard]] std::uint32_t max_kept() const;
  [[nodiscard]] std::size_t tensor_bytes() const;  ///< keys + values of all layers
  /// invalid_argument when views and shapes disagree or an origin list is not ascending below doc_tokens.
  [[nodiscard]] Status validate() const;
};

/// Uninitialised, 64-byte aligned memory shared by its views; nullptr when there is none left.
[[nodiscard]] std::shared_ptr<std::byte> allocate_shared_bytes(std::size_t bytes);

/// The same set in another floating dtype (a copy, even when the dtype stays).
[[nodiscard]] Result<KvSet> convert_kvset(const KvSet& set, DType dtype);

}  // namespace finchkv
