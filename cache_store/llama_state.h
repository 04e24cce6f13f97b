// A KvSet as llama.cpp's state of one sequence, and back (docs/formats.md, "llama.cpp sequence state").
//
// Two forms: the bytes of llama_state_seq_get_data, and the file of llama_state_seq_save_file, which has the tokens in
// front and is what llama-server's slots are restored from. The layout is that of llama.cpp with
// LLAMA_STATE_SEQ_VERSION 3 (src/llama-kv-cache.cpp: state_write, state_read; src/llama-context.cpp). A state says
// nothing of its model but the number of layers and the width of a row: whoever reads one names the model.
// Pure functions over bytes, thread-safe; llama.cpp's own library is not needed. Left out: quantised caches, several
// sequences in one state, multi-dimensional positions, recurrent and sliding-window memories.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/key_turner.h"
#include "base/kvset.h"
#include "base/status.h"

namespace finchkv::cache_store {

/// The first four bytes of a file of the second form.
inline constexpr std::string_view kLlamaFileMagic = "qsgg";

/// What the receiving context is like.
struct LlamaStateOptions {
  DType dtype = DType::kF16;  ///< its type_k and type_v, which must be the same
  /// Its values lie with the tokens running fastest: a context without flash attention.
  bool transposed_values = false;
  PairOrder order = PairOrder::kAsStored;  ///< of the keys; the model file's own unless somebody permuted its weights
  std::uint32_t streams = 1;               ///< n_seq_max of a context whose sequences share no cells, else 1
  /// Entry i of a set from before RoPE goes to base_position + i. Rotated sets stay where they are.
  std::uint64_t base_position = 0;
};

/// Bytes that their last owner frees.
struct LlamaState {
  std::shared_ptr<const std::byte> memory;
  std::size_t size = 0;
  [[nodiscard]] std::span<const std::byte> bytes() const { return {memory.get(), size}; }
};

/// The position at which decoding goes on behind a state that write_llama_state makes of this set.
[[nodiscard]] std::uint64_t llama_next_position(const KvSet& set, const LlamaStateOptions& options);

/// A file's tokens, one for each position before the prompt, made from the document's: the document itself where it has
/// as many (nothing was left out, or the set was moved so that it ends where the document does); else, for a set that
/// starts at position 0, the tokens that layer 0 (its first head) kept, the last first. A server uses a slot for
/// prompts that begin with its tokens: no text begins like that, so the set serves only who asks for it by these
/// tokens. invalid_argument where neither fits.
[[nodiscard]] Result<std::vector<std::int32_t>> llama_slot_tokens(const KvSet& set,
                                                                  std::span<const std::int32_t> document,
                                                                  const LlamaStateOptions& options);

/// With `tokens` the file's form, else that of llama_state_seq_set_data.
/// invalid_argument: layers that keep different numbers of entries (the cells of a llama.cpp cache are the same in
/// every layer), an empty set, a rotated set that is to be moved, an entry that f16 cannot hold. resource_exhausted.
[[nodiscard]] Result<LlamaState> write_llama_state(const KvSet& set,
                                                   std::optional<std::span<const std::int32_t>> tokens,
                                                   const LlamaStateOptions& options);

/// What a state does not say of itself.
struct LlamaModelShape {
  std::uint32_t n_layers = 0;
  std::uint32_t n_kv_heads = 0;
  std::uint32_t head_dim = 0;
  RopeRecord rope;
};

struct LlamaSequence {
  KvSet set;  ///< rotated; one origin row: the cells' positions; doc_tokens is next_position
  /// Those of positions 0 .. next_position - 1; none where the state has no tokens and none were given.
  std::vector<std::int32_t> tokens;
};

/// Reads either form and copies what it keeps. `tokens`: what was read, for the form that does not say. corrupt for
/// bytes that no llama.cpp wrote, invalid_argument for a state of another shape (naming the difference) or too few
/// tokens, unsupported for what is left out (see above).
[[nodiscard]] Result<LlamaSequence> read_llama_state(std::span<const std::byte> state, const LlamaModelShape& shape,
                                                     std::span<const std::int32_t> tokens = {});

}  // namespace finchkv::cache_store
