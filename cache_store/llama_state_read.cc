// From a llama.cpp sequence state, whoever made it, to a KvSet.
#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>

#include <fmt/format.h>

#include "cache_store/llama_layout.h"
#include "cache_store/llama_state.h"

namespace finchkv::cache_store {
namespace {

constexpr std::uint32_t kMostLayers = 4096;
constexpr std::uint64_t kMostWidth = 1U << 24U;

// What is left of the input. Taking more than that fails, and nothing is read or allocated by a number not yet checked.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <typename Number>
  [[nodiscard]] Result<Number> number(std::string_view what) {
    FINCHKV_ASSIGN_OR_RETURN(const auto bytes, take(sizeof(Number), what));
    Number value;
    std::memcpy(&value, bytes.data(), sizeof(value));
    return value;
  }
  [[nodiscard]] Result<std::span<const std::byte>> take(std::uint64_t bytes, std::string_view what) {
    if (bytes > rest_.size()) {
      return Status::corrupt(
          fmt::format("it ends before {}: {} bytes are needed there, {} are left", what, bytes, rest_.size()));
    }
    const auto taken = rest_.first(bytes);
    rest_ = rest_.subspan(bytes);
    return taken;
  }
  [[nodiscard]] std::size_t left() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
};

// What llama-server makes of its list (`packed`, behind the mark): a version, the ids, and where images or sounds stand
// among them, which only a list of a text has none of.
Result<std::span<const std::byte>> unpack_tokens(std::span<const std::byte> packed) {
  Reader in(packed);
  FINCHKV_ASSIGN_OR_RETURN(const auto version, in.number<std::uint32_t>("the version of llama-server's token list"));
  if (version != kLlamaServerVersion) {
    return Status::unsupported(fmt::format("llama-server's token list in it is of version {}; this program knows {}",
                                           version, kLlamaServerVersion));
  }
  FINCHKV_ASSIGN_OR_RETURN(const auto count, in.number<std::uint32_t>("the number of llama-server's tokens"));
  FINCHKV_ASSIGN_OR_RETURN(const auto ids,
                           in.take(std::uint64_t{count} * sizeof(std::int32_t), "the end of llama-server's tokens"));
  FINCHKV_ASSIGN_OR_RETURN(const auto media, in.number<std::uint32_t>("the number of images among its tokens"));
  if (media != 0) {
    return Status::unsupported(
        fmt::format("{} images or sounds stand among its tokens: only text can be stored", media));
  }
  if (in.left() != 0) {
    return Status::corrupt(fmt::format("{} bytes follow the end of llama-server's token list", in.left()));
  }
  return ids;
}

Result<std::vector<std::int32_t>> read_tokens(Reader& in) {
  FINCHKV_ASSIGN_OR_RETURN(const auto version, in.number<std::uint32_t>("its version"));
  if (version != kLlamaFileVersion) {
    return Status::unsupported(fmt::format(
        "it is a llama.cpp sequence file of version {}; this program knows version {}", version, kLlamaFileVersion));
  }
  FINCHKV_ASSIGN_OR_RETURN(const auto count, in.number<std::uint32_t>("the number of its tokens"));
  FINCHKV_ASSIGN_OR_RETURN(auto bytes, in.take(std::uint64_t{count} * sizeof(std::int32_t), "its tokens' end"));
  std::int32_t first = 0;
  if (count != 0) std::memcpy(&first, bytes.data(), sizeof(first));
  if (first == kLlamaServerMark) {
    FINCHKV_ASSIGN_OR_RETURN(bytes, unpack_tokens(bytes.subspan(sizeof(first))));
  }
  std::vector<std::int32_t> tokens(bytes.size() / sizeof(std::int32_t));
  if (!tokens.empty()) std::memcpy(tokens.data(), bytes.data(), bytes.size());
  const auto bad = std::find_if(tokens.begin(), tokens.end(), [](std::int32_t t) { return t < 0; });
  if (bad != tokens.end()) {
    return Status::corrupt(fmt::format("token {} of it is {}: ids are not negative", bad - tokens.begin(), *bad));
  }
  return tokens;
}

struct Cells {
  std::vector<std::uint32_t> positions;  // ascending
  std::vector<std::uint32_t> cell;       // [n]: where entry i lies
};

Result<Cells> read_cells(Reader& in, std::uint32_t count) {
  FINCHKV_ASSIGN_OR_RETURN(const auto bytes, in.take(std::uint64_t{count} * kLlamaCellBytes, "its cells' end"));
  std::vector<std::uint32_t> at(count);
  for (std::size_t i = 0; i < count; ++i) {
    std::int32_t position = 0;
    std::uint32_t sequences = 0;
    std::memcpy(&position, bytes.data() + i * kLlamaCellBytes, sizeof(position));
    std::memcpy(&sequences, bytes.data() + i * kLlamaCellBytes + 4, sizeof(sequences));
    if (sequences != 1) {
      return Status::corrupt(
          fmt::format("cell {} is said to be of {} sequences: a sequence's state says 1 "
                      "(positions in several dimensions are not supported)",
                      i, sequences));
    }
    if (position < 0 || std::uint64_t(position) > kLlamaMostPosition) {
      return Status::corrupt(fmt::format("cell {} is at position {}", i, position));
    }
    at[i] = static_cast<std::uint32_t>(position);
  }
  Cells out;
  out.cell.resize(count);
  std::iota(out.cell.begin(), out.cell.end(), 0U);
  std::sort(out.cell.begin(), out.cell.end(), [&](std::uint32_t a, std::uint32_t b) { return at[a] < at[b]; });
  out.positions.reserve(count);
  for (const std::uint32_t cell : out.cell) {
    if (!out.positions.empty() && out.positions.back() == at[cell]) {
      return Status::corrupt(fmt::format("two of its cells are at position {}", at[cell]));
    }
    out.positions.push_back(at[cell]);
  }
  return out;
}

/// The number of its cells, all streams before theirs passed over. 0: it has none.
Result<std::uint32_t> find_cells(Reader& in, std::uint32_t& streams_left) {
  FINCHKV_ASSIGN_OR_RETURN(streams_left, in.number<std::uint32_t>("the number of its streams"));
  if (streams_left == 0 || streams_left > kLlamaMostStreams) {
    return Status::corrupt(fmt::format("it would have {} streams: 1 to {}", streams_left, kLlamaMostStreams));
  }
  std::uint32_t count = 0;
  while (streams_left != 0 && count == 0) {
    FINCHKV_ASSIGN_OR_RETURN(count, in.number<std::uint32_t>("the number of its cells"));
    --streams_left;
  }
  return count;
}

Status check_shape(const LlamaModelShape& shape) {
  const std::uint64_t width = std::uint64_t{shape.n_kv_heads} * shape.head_dim;
  if (shape.n_layers == 0 || shape.n_layers > kMostLayers || width == 0 || width > kMostWidth) {
    return Status::invalid_argument(fmt::format("{} layers of {} KV heads of {} dimensions are no model's",
                                                shape.n_layers, shape.n_kv_heads, shape.head_dim));
  }
  return Status::ok();
}

// The front of one layer's keys, or of its values as rows: element type and bytes of a row.
Result<DType> read_type(Reader& in, std::uint32_t layer, std::string_view what) {
  FINCHKV_ASSIGN_OR_RETURN(const auto type, in.number<std::int32_t>("a layer's element type"));
  const auto dtype = dtype_of_ggml(type);
  if (!dtype) {
    return Status::unsupported(fmt::format(
        "layer {}'s {} are of ggml's type {}: f32, f16 and bf16 can be stored (type_k and type_v)", layer, what, type));
  }
  return *dtype;
}

class LayerReader {
 public:
  LayerReader(Reader& in, const LlamaModelShape& shape, const Cells& cells, KvSet& set)
      : in_(in), shape_(shape), cells_(cells), set_(set) {}

  Status read() {
    FINCHKV_ASSIGN_OR_RETURN(const auto transposed, in_.number<std::uint32_t>("how its values lie"));
    if (transposed > 1)
      return Status::corrupt(fmt::format("values lie as rows (0) or transposed (1), not {}", transposed));
    FINCHKV_ASSIGN_OR_RETURN(const auto layers, in_.number<std::uint32_t>("the number of its layers"));
    if (layers != shape_.n_layers) {
      return Status::invalid_argument(fmt::format(
          "the state has {} layers, the model has {}: they do not belong together", layers, shape_.n_layers));
    }
    set_.layers.resize(layers);
    for (std::uint32_t l = 0; l < layers; ++l) FINCHKV_RETURN_IF_ERROR(keys(l));
    for (std::uint32_t l = 0; l < layers; ++l) FINCHKV_RETURN_IF_ERROR(values(l, transposed == 1));
    return Status::ok();
  }

 private:
  [[nodiscard]] std::uint64_t width() const { return std::uint64_t{shape_.n_kv_heads} * shape_.head_dim; }

  Status keys(std::uint32_t l) {
    FINCHKV_ASSIGN_OR_RETURN(const DType dtype, read_type(in_, l, "keys"));
    if (l == 0) set_.dtype = dtype;
    FINCHKV_RETURN_IF_ERROR(same_type(dtype, l, "keys"));
    FINCHKV_RETURN_IF_ERROR(row_bytes(l, "keys"));
    FINCHKV_ASSIGN_OR_RETURN(set_.layers[l].keys, tensor(/*transposed=*/false));
    set_.layers[l].n_kept = static_cast<std::uint32_t>(cells_.positions.size());
    return Status::ok();
  }

  Status values(std::uint32_t l, bool transposed) {
    FINCHKV_ASSIGN_OR_RETURN(const DType dtype, read_type(in_, l, "values"));
    FINCHKV_RETURN_IF_ERROR(same_type(dtype, l, "values"));
    if (transposed) {
      FINCHKV_ASSIGN_OR_RETURN(const auto element, in_.number<std::uint32_t>("the size of an element"));
      FINCHKV_ASSIGN_OR_RETURN(const auto rows, in_.number<std::uint32_t>("the width of a layer's values"));
      if (element != element_bytes(dtype)) {
        return Status::corrupt(fmt::format("layer {}'s values are {} of {} bytes", l, dtype_name(dtype), element));
      }
      FINCHKV_RETURN_IF_ERROR(same_width(rows, l, "values"));
    } else {
      FINCHKV_RETURN_IF_ERROR(row_bytes(l, "values"));
    }
    FINCHKV_ASSIGN_OR_RETURN(set_.layers[l].values, tensor(transposed));
    return Status::ok();
  }

  Status same_type(DType dtype, std::uint32_t layer, std::string_view what) const {
    if (dtype == set_.dtype) return Status::ok();
    return Status::unsupported(fmt::format("layer {}'s {} are {} and layer 0's keys are {}: make type_k and type_v one",
                                           layer, what, dtype_name(dtype), dtype_name(set_.dtype)));
  }
  Status same_width(std::uint64_t found, std::uint32_t layer, std::string_view what) const {
    if (found == width()) return Status::ok();
    return Status::invalid_argument(
        fmt::format("layer {}'s {} are {} numbers wide in the state, {} in the model ({} KV heads of {} dimensions): "
                    "they do not belong together",
                    layer, what, found, width(), shape_.n_kv_heads, shape_.head_dim));
  }
  Status row_bytes(std::uint32_t layer, std::string_view what) {
    FINCHKV_ASSIGN_OR_RETURN(const auto bytes, in_.number<std::uint64_t>("the size of a row"));
    const std::size_t element = element_bytes(set_.dtype);
    if (bytes % element != 0) {
      return Status::corrupt(
          fmt::format("a row of layer {}'s {} would have {} bytes of {}", layer, what, bytes, dtype_name(set_.dtype)));
    }
    return same_width(bytes / element, layer, what);
  }

  Result<std::span<const std::byte>> tensor(bool transposed) {
    const std::size_t n = cells_.positions.size();
    const CellLayout layout{shape_.n_kv_heads, n, shape_.head_dim, element_bytes(set_.dtype), transposed};
    FINCHKV_ASSIGN_OR_RETURN(const auto cells, in_.take(layout.bytes(), "a layer's end"));
    const std::shared_ptr<std::byte> made = allocate_shared_bytes(cells.size());
    if (!made) return Status::resource_exhausted(fmt::format("there is no memory for {} bytes of it", cells.size()));
    layout.each([this](std::size_t i) { return cells_.cell[i]; },
                [&](std::size_t to, std::size_t from, std::size_t bytes) {
                  std::memcpy(made.get() + to, cells.data() + from, bytes);
                });
    set_.memory.push_back(made);
    return std::span<const std::byte>(made.get(), cells.size());
  }

  Reader& in_;
  const LlamaModelShape& shape_;
  const Cells& cells_;
  KvSet& set_;
};

Result<LlamaSequence> read(std::span<const std::byte> state, const LlamaModelShape& shape,
                           std::span<const std::int32_t> tokens) {
  FINCHKV_RETURN_IF_ERROR(check_shape(shape));
  LlamaSequence out;
  Reader in(state);
  FINCHKV_ASSIGN_OR_RETURN(const auto magic, in.number<std::uint32_t>("its first number"));
  if (magic == kLlamaFileMagicNumber) {
    FINCHKV_ASSIGN_OR_RETURN(out.tokens, read_tokens(in));
    if (!tokens.empty()) return Status::invalid_argument("it says which tokens it has: none are to be given with it");
  } else if (magic == kLlamaDataMagic) {
    FINCHKV_RETURN_IF_ERROR(in.number<std::int32_t>("its sequence").status());
    out.tokens.assign(tokens.begin(), tokens.end());
  } else {
    return Status::corrupt("it begins neither like a sequence state of llama.cpp nor like a file of one");
  }
  std::uint32_t streams_left = 0;
  FINCHKV_ASSIGN_OR_RETURN(const std::uint32_t count, find_cells(in, streams_left));
  if (count == 0) return Status::invalid_argument("it is empty: the sequence had no cells when it was saved");
  FINCHKV_ASSIGN_OR_RETURN(const Cells cells, read_cells(in, count));

  KvSet& set = out.set;
  set.shape = {shape.n_layers, shape.n_kv_heads, shape.head_dim, 1};
  set.key_form = KeyForm::kRotated;
  set.rope = shape.rope;
  FINCHKV_RETURN_IF_ERROR(LayerReader(in, shape, cells, set).read());
  for (; streams_left != 0; --streams_left) {
    FINCHKV_ASSIGN_OR_RETURN(const auto more, in.number<std::uint32_t>("the number of its cells"));
    if (more != 0) return Status::unsupported("it has cells in several streams: save one sequence alone");
  }
  if (in.left() != 0) return Status::corrupt(fmt::format("{} bytes follow its end", in.left()));

  set.next_position = std::uint64_t{cells.positions.back()} + 1;
  const bool has_tokens = magic == kLlamaFileMagicNumber || !tokens.empty();
  if (has_tokens && out.tokens.size() < set.next_position) {
    const std::string sentence = fmt::format("it has cells up to position {} and {} tokens: one for each is needed",
                                             cells.positions.back(), out.tokens.size());
    return magic == kLlamaFileMagicNumber ? Status::corrupt(sentence) : Status::invalid_argument(sentence);
  }
  if (has_tokens) out.tokens.resize(set.next_position);  // a drawn token without a cell has not been read yet
  set.doc_tokens = set.next_position;
  const auto origins = std::make_shared<std::vector<std::uint32_t>>(cells.positions);
  for (KvLayer& layer : set.layers) layer.origins = *origins;
  set.memory.push_back(origins);
  FINCHKV_RETURN_IF_ERROR(set.validate());
  return out;
}

}  // namespace

Result<LlamaSequence> read_llama_state(std::span<const std::byte> state, const LlamaModelShape& shape,
                                       std::span<const std::int32_t> tokens) {
  try {
    return read(state, shape, tokens);
  } catch (const std::bad_alloc&) {
    return Status::resource_exhausted("there is no memory left to read a llama.cpp state into");
  }
}

}  // namespace finchkv::cache_store
