// From a KvSet to a llama.cpp sequence state.
#include <algorithm>
#include <cstring>
#include <new>

#include <fmt/format.h>

#include "cache_store/llama_layout.h"
#include "cache_store/llama_state.h"

namespace finchkv::cache_store {
namespace {

// Bytes into memory whose size was counted before.
class Writer {
 public:
  explicit Writer(std::byte* to) : at_(to) {}
  template <typename Number>
  void put(Number value) {
    std::memcpy(at_, &value, sizeof(value));
    at_ += sizeof(value);
  }
  void put(std::span<const std::int32_t> values) {
    if (!values.empty()) std::memcpy(at_, values.data(), values.size_bytes());
    at_ += values.size_bytes();
  }
  std::span<std::byte> take(std::size_t bytes) {
    at_ += bytes;
    return {at_ - bytes, bytes};
  }
  [[nodiscard]] const std::byte* at() const { return at_; }

 private:
  std::byte* at_;
};

// Where a rotated set's entries are. The keys of a cell may stand at different positions in different heads; the cell's
// own is what llama.cpp masks by and counts on from, so that it matters only that all lie before the prompt, in order.
std::uint64_t position_of(const KvSet& set, const LlamaStateOptions& options, std::uint32_t entry) {
  const std::uint32_t n = set.layers.front().n_kept;
  if (set.key_form == KeyForm::kPreRope) return options.base_position + entry;
  const auto origins = set.layers.front().origins;
  const bool as_they_came = set.shape.origin_rows == 1 && std::uint64_t{origins.back()} + 1 == set.next_position;
  return as_they_came ? origins[entry] : set.next_position - n + entry;
}

Status check(const KvSet& set, std::optional<std::span<const std::int32_t>> tokens, const LlamaStateOptions& options) {
  FINCHKV_RETURN_IF_ERROR(set.validate());
  if (is_quantised(options.dtype)) return Status::invalid_argument("a llama.cpp state is made of f32, f16 or bf16");
  if (options.streams == 0 || options.streams > kLlamaMostStreams) {
    return Status::invalid_argument(
        fmt::format("a llama.cpp context has 1 to {} streams, not {}", kLlamaMostStreams, options.streams));
  }
  const std::uint32_t n = set.layers.front().n_kept;
  for (std::size_t l = 0; l < set.layers.size(); ++l) {
    if (set.layers[l].n_kept != n) {
      return Status::invalid_argument(fmt::format(
          "layer {} keeps {} entries and layer 0 keeps {}: the cells of a llama.cpp cache are the same in every layer",
          l, set.layers[l].n_kept, n));
    }
  }
  if (n == 0) return Status::invalid_argument("the set keeps no entries: there is nothing to put into a cache");
  if (set.key_form != KeyForm::kPreRope) {
    if (options.base_position != 0) {
      return Status::invalid_argument(
          fmt::format("keys of form {} cannot be moved to position {}: they stay where they are (base position 0)",
                      key_form_name(set.key_form), options.base_position));
    }
    if (set.next_position < n) {
      return Status::invalid_argument(
          fmt::format("the prompt would start at position {} behind {} entries: this set does not hold together",
                      set.next_position, n));
    }
  }
  const std::uint64_t next = llama_next_position(set, options);
  if (options.base_position > kLlamaMostPosition || next > kLlamaMostPosition) {
    return Status::invalid_argument(
        fmt::format("position {} is past llama.cpp's last one, {}", next, kLlamaMostPosition));
  }
  if (tokens && tokens->size() != next) {
    return Status::invalid_argument(
        fmt::format("the file needs one token for each position before the prompt: {} of them, {} were given", next,
                    tokens->size()));
  }
  return Status::ok();
}

std::size_t state_bytes(const KvSet& set, std::optional<std::span<const std::int32_t>> tokens,
                        const LlamaStateOptions& options) {
  const std::size_t n = set.layers.front().n_kept;
  const std::size_t front = tokens ? 12 + tokens->size_bytes() : 8;
  const std::size_t meta = 4 + std::size_t{options.streams} * 4 + n * kLlamaCellBytes + 8;
  const std::size_t cells = n * set.shape.n_kv_heads * set.shape.head_dim * element_bytes(options.dtype);
  const std::size_t key_front = 4 + 8, value_front = options.transposed_values ? 4 + 4 + 4 : 4 + 8;
  return front + meta + set.layers.size() * (key_front + value_front + 2 * cells);
}

// A layer's keys or values, made fit for the cache and laid out in cells.
Status write_cells(const KeyTurner& turner, std::span<const std::byte> from, const KvSet& set, bool transposed,
                   DType dtype, std::span<std::byte> made, std::span<std::byte> to) {
  const std::uint32_t heads = set.shape.n_kv_heads, n = set.layers.front().n_kept;
  turner.turn(from, set.dtype, heads, n, made, dtype);
  if (!all_elements_finite(dtype, made)) {
    return Status::invalid_argument(
        fmt::format("it has numbers that {} cannot hold; f32 or bf16 can (and the context's type_k and type_v)",
                    dtype_name(dtype)));
  }
  const CellLayout layout{heads, n, set.shape.head_dim, element_bytes(dtype), transposed};
  layout.each([](std::size_t i) { return i; },
              [&](std::size_t in, std::size_t cell, std::size_t bytes) {
                std::memcpy(to.data() + cell, made.data() + in, bytes);
              });
  return Status::ok();
}

Status write_layers(const KvSet& set, const LlamaStateOptions& options, Writer& out) {
  const std::uint32_t n = set.layers.front().n_kept;
  const bool turns = set.key_form == KeyForm::kPreRope;
  FINCHKV_ASSIGN_OR_RETURN(const KeyTurner keys, KeyTurner::create(set.rope, set.shape.head_dim, options.order, turns,
                                                                   options.base_position, n));
  RopeRecord none;
  none.rotary_dims = 0;
  FINCHKV_ASSIGN_OR_RETURN(const KeyTurner values,
                           KeyTurner::create(none, set.shape.head_dim, PairOrder::kAsStored, false, 0, n));
  const std::uint32_t width = set.shape.n_kv_heads * set.shape.head_dim;
  const std::size_t element = element_bytes(options.dtype), cells = std::size_t{n} * width * element;
  const std::shared_ptr<std::byte> made = allocate_shared_bytes(cells);
  if (!made) return Status::resource_exhausted(fmt::format("there is no memory for a layer of {} bytes", cells));
  const auto in_layer = [](const Status& status, std::size_t layer, std::string_view what) {
    return status.is_ok() ? status
                          : Status(status.code(), fmt::format("layer {}, {}: {}", layer, what, status.message()));
  };
  out.put(static_cast<std::uint32_t>(options.transposed_values ? 1 : 0));
  out.put(static_cast<std::uint32_t>(set.layers.size()));
  for (std::size_t l = 0; l < set.layers.size(); ++l) {
    out.put(ggml_type_of(options.dtype));
    out.put(std::uint64_t{width * element});
    FINCHKV_RETURN_IF_ERROR(in_layer(write_cells(keys, set.layers[l].keys, set, /*transposed=*/false, options.dtype,
                                                 {made.get(), cells}, out.take(cells)),
                                     l, "keys"));
  }
  for (std::size_t l = 0; l < set.layers.size(); ++l) {
    out.put(ggml_type_of(options.dtype));
    if (options.transposed_values) {
      out.put(static_cast<std::uint32_t>(element));
      out.put(width);
    } else {
      out.put(std::uint64_t{width * element});
    }
    FINCHKV_RETURN_IF_ERROR(in_layer(write_cells(values, set.layers[l].values, set, options.transposed_values,
                                                 options.dtype, {made.get(), cells}, out.take(cells)),
                                     l, "values"));
  }
  return Status::ok();
}

}  // namespace

std::uint64_t llama_next_position(const KvSet& set, const LlamaStateOptions& options) {
  return set.key_form == KeyForm::kPreRope ? options.base_position + set.max_kept() : set.next_position;
}

Result<std::vector<std::int32_t>> llama_slot_tokens(const KvSet& set, std::span<const std::int32_t> document,
                                                    const LlamaStateOptions& options) {
  if (document.size() != set.doc_tokens) {
    return Status::invalid_argument(
        fmt::format("the set was made from {} tokens, not from {}", set.doc_tokens, document.size()));
  }
  const std::uint64_t next = llama_next_position(set, options);
  if (next == document.size()) return std::vector<std::int32_t>(document.begin(), document.end());
  if (set.layers.empty() || next != set.layers.front().n_kept) {
    return Status::invalid_argument(
        fmt::format("a file whose prompt starts at position {} needs as many tokens, and there is no natural choice of "
                    "them: give them",
                    next));
  }
  std::vector<std::int32_t> tokens;
  const auto kept = set.layers.front().origins.first(set.layers.front().n_kept);
  for (auto origin = kept.rbegin(); origin != kept.rend(); ++origin) {
    if (*origin >= document.size()) return Status::invalid_argument("the set's origins lie behind its document");
    tokens.push_back(document[*origin]);
  }
  return tokens;
}

Result<LlamaState> write_llama_state(const KvSet& set, std::optional<std::span<const std::int32_t>> tokens,
                                     const LlamaStateOptions& options) {
  try {
    FINCHKV_RETURN_IF_ERROR(check(set, tokens, options));
    const std::uint32_t n = set.layers.front().n_kept;
    const std::size_t size = state_bytes(set, tokens, options);
    const std::shared_ptr<std::byte> memory = allocate_shared_bytes(size);
    if (!memory) return Status::resource_exhausted(fmt::format("there is no memory for a state of {} bytes", size));
    Writer out(memory.get());
    if (tokens) {
      out.put(kLlamaFileMagicNumber);
      out.put(kLlamaFileVersion);
      out.put(static_cast<std::uint32_t>(tokens->size()));
      out.put(*tokens);
    } else {
      out.put(kLlamaDataMagic);
      out.put(std::int32_t{0});  // the sequence it was; whoever sets it says which it becomes
    }
    out.put(options.streams);
    out.put(n);
    for (std::uint32_t i = 0; i < n; ++i) {
      out.put(static_cast<std::int32_t>(position_of(set, options, i)));
      out.put(std::uint32_t{1});
      out.put(std::int32_t{0});
    }
    FINCHKV_RETURN_IF_ERROR(write_layers(set, options, out));
    for (std::uint32_t s = 1; s < options.streams; ++s) out.put(std::uint32_t{0});
    return LlamaState{memory, size};
  } catch (const std::bad_alloc&) {
    return Status::resource_exhausted("there is no memory left to make a llama.cpp state in");
  }
}

}  // namespace finchkv::cache_store
