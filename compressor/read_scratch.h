// ReadScratch: working memory for one layer of one document, shared by all that are read together.
//
// The documents of a pass go through a layer one after the other on one queue, so what lives only inside a layer is
// there once, however many they are. It grows to what the largest of them needs and never shrinks. Belongs to the
// thread that runs the model.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/transformer.h"

namespace finchkv::compressor {

class ReadScratch {
 public:
  explicit ReadScratch(const model::Transformer& model) : model_(&model) {}

  /// What one document needs of it.
  struct Needs {
    std::int64_t rows = 0;     ///< of a part with its prompt
    std::int64_t keys = 0;     ///< T, the most keys that a row can see
    std::int64_t indices = 0;  ///< chosen candidates, of all origin rows
  };
  /// Not between the parts of one pass: tensors that grow lose their contents. resource_exhausted.
  Status reserve(const Needs& needs);
  /// Bytes that reserve() would take beyond what is there.
  [[nodiscard]] std::size_t missing_bytes(const Needs& needs) const;

  kernels::Tensor plain_keys;    ///< kv_type [KV, T, D] before RoPE
  kernels::Tensor rotated_keys;  ///< [KV, T, D]
  kernels::Tensor values;        ///< [KV, T, D]
  kernels::Tensor queries;       ///< [rows, H, D]
  kernels::Tensor lse;           ///< f32 [rows, H]
  kernels::Tensor indices;       ///< i32 [indices]

 private:
  [[nodiscard]] Needs round_up(const Needs& needs) const;

  const model::Transformer* model_;
  Needs there_;
};

}  // namespace finchkv::compressor
