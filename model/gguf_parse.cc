#include "model/gguf_parse.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>

#include <fmt/format.h>

#include "model/dequant.h"

namespace finchkv::model {
namespace {

// No model comes near these; they bound what a file made to hurt can make us allocate.
constexpr std::uint64_t kMaxKeys = 1 << 16;
constexpr std::uint64_t kMaxTensors = 1 << 18;
constexpr std::uint64_t kMaxKeyBytes = 65535;  // the format's own limit
constexpr std::uint64_t kMaxTensorNameBytes = 1024;
constexpr std::uint32_t kMaxDims = 4;  // the format's own limit

// The fewest bytes that a key (length, name, type, one-byte value) and a tensor (length, name, dimension count, one
// dimension, type, offset) can take.
constexpr std::uint64_t kLeastKeyBytes = 8 + 4 + 1;
constexpr std::uint64_t kLeastTensorBytes = 8 + 4 + 8 + 4 + 8;

constexpr std::uint64_t kDefaultAlignment = 32;

class Parser {
 public:
  Parser(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  Result<GgufPart> parse() {
    FINCHKV_RETURN_IF_ERROR(read_header());
    for (std::uint64_t i = 0; i < n_keys_; ++i) FINCHKV_RETURN_IF_ERROR(read_value(i));
    FINCHKV_RETURN_IF_ERROR(index_keys());
    for (std::uint64_t i = 0; i < n_tensors_; ++i) FINCHKV_RETURN_IF_ERROR(read_tensor(i));
    FINCHKV_RETURN_IF_ERROR(place_tensors());
    return std::move(part_);
  }

 private:
  [[nodiscard]] std::uint64_t left() const { return bytes_.size() - at_; }

  template <typename T>
  bool read(T& out) {
    if (left() < sizeof(T)) return false;
    std::memcpy(&out, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return true;
  }

  bool skip(std::uint64_t count) {
    if (left() < count) return false;
    at_ += count;
    return true;
  }

  bool read_string(std::string_view& out) {
    std::uint64_t length = 0;
    if (!read(length) || left() < length) return false;
    out = {reinterpret_cast<const char*>(bytes_.data() + at_), static_cast<std::size_t>(length)};
    at_ += length;
    return true;
  }

  template <typename... Args>
  [[nodiscard]] Status corrupt(fmt::format_string<Args...> format, Args&&... args) const {
    return Status::corrupt(name_ + ": " + fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  [[nodiscard]] Status unsupported(fmt::format_string<Args...> format, Args&&... args) const {
    return Status::unsupported(name_ + ": " + fmt::format(format, std::forward<Args>(args)...));
  }
  [[nodiscard]] Status truncated(std::string_view where) const {
    return corrupt("{} needs more than the {} bytes of the file; it is truncated or damaged, fetch it again", where,
                   bytes_.size());
  }

  Status read_header();
  Status read_value(std::uint64_t index);
  Status read_array(GgufValue& value);
  Status check_bools(const GgufValue& value) const;
  Status index_keys();
  Status read_tensor(std::uint64_t index);
  Result<std::uint64_t> encoded_bytes(const GgufTensor& tensor, std::uint32_t type) const;
  Status place_tensors();
  Result<std::uint64_t> alignment() const;

  struct Place {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
  };

  std::span<const std::byte> bytes_;
  const std::string& name_;
  std::size_t at_ = 0;
  std::uint64_t n_keys_ = 0;
  std::uint64_t n_tensors_ = 0;
  std::vector<Place> places_;  // [n_tensors_]
  GgufPart part_;
};

Status Parser::read_header() {
  if (bytes_.empty()) return corrupt("is empty; was copying or downloading it interrupted?");
  std::array<char, 4> magic{};
  if (!read(magic)) return truncated("the magic number");
  const std::string_view text(magic.data(), magic.size());
  if (text == "FUGG") return unsupported("is a big-endian GGUF file; convert it to little-endian");
  if (text == "lmgg" || text == "fmgg" || text == "tjgg" || text == "algg") {
    return unsupported("is in a format older than GGUF; convert it with current tools");
  }
  if (text != "GGUF") return corrupt("is not a GGUF file: it starts with {}", quoted(text));

  std::uint32_t version = 0;
  if (!read(version)) return truncated("the version number");
  if (version != 0 && (version & 0xffffU) == 0) {
    return unsupported("is a big-endian GGUF file; convert it to little-endian");
  }
  if (version != 2 && version != 3) {
    return unsupported("is GGUF version {}; versions 2 and 3 can be read, convert it", version);
  }
  if (!read(n_tensors_) || !read(n_keys_)) return truncated("the header");
  if (n_keys_ > left() / kLeastKeyBytes) {
    return corrupt("claims {} metadata keys, but only {} bytes follow; it is truncated or damaged, fetch it again",
                   n_keys_, left());
  }
  if (n_tensors_ > left() / kLeastTensorBytes) {
    return corrupt("claims {} tensors, but only {} bytes follow; it is truncated or damaged, fetch it again",
                   n_tensors_, left());
  }
  if (n_keys_ > kMaxKeys) return unsupported("has {} metadata keys; at most {} are read", n_keys_, kMaxKeys);
  if (n_tensors_ > kMaxTensors) return unsupported("has {} tensors; at most {} are read", n_tensors_, kMaxTensors);
  return Status::ok();
}

Status Parser::read_value(std::uint64_t index) {
  GgufValue value;
  if (!read_string(value.key)) return truncated(fmt::format("the name of metadata key {} of {}", index + 1, n_keys_));
  if (value.key.size() > kMaxKeyBytes) {
    return corrupt("metadata key {} has a name of {} bytes; at most {} are allowed", index + 1, value.key.size(),
                   kMaxKeyBytes);
  }
  std::uint32_t type = 0;
  if (!read(type)) return truncated(fmt::format("the type of key {}", quoted(value.key)));
  value.type = static_cast<GgufValueType>(type);
  if (value.type == GgufValueType::kArray) {
    FINCHKV_RETURN_IF_ERROR(read_array(value));
  } else if (value.type == GgufValueType::kString) {
    std::string_view text;
    if (!read_string(text)) return truncated(fmt::format("the string of key {}", quoted(value.key)));
    value.bytes = std::as_bytes(std::span<const char>(text.data(), text.size()));
  } else {
    const std::size_t size = gguf_value_bytes(value.type);
    if (size == 0) return corrupt("key {} has value type {}, which is none of GGUF's", quoted(value.key), type);
    const std::size_t start = at_;
    if (!skip(size)) return truncated(fmt::format("the value of key {}", quoted(value.key)));
    value.bytes = bytes_.subspan(start, size);
  }
  FINCHKV_RETURN_IF_ERROR(check_bools(value));
  part_.values.push_back(value);
  return Status::ok();
}

Status Parser::read_array(GgufValue& value) {
  value.is_array = true;
  std::uint32_t type = 0;
  if (!read(type) || !read(value.count)) return truncated(fmt::format("the array of key {}", quoted(value.key)));
  value.type = static_cast<GgufValueType>(type);
  if (value.type == GgufValueType::kArray) {
    return unsupported("key {} is an array of arrays; no model needs one, and none is read", quoted(value.key));
  }
  const bool strings = value.type == GgufValueType::kString;
  const std::size_t least = strings ? sizeof(std::uint64_t) : gguf_value_bytes(value.type);
  if (least == 0) return corrupt("key {} is an array of type {}, which is none of GGUF's", quoted(value.key), type);
  if (value.count > left() / least) {
    return corrupt("key {} claims {} array elements, but only {} bytes follow", quoted(value.key), value.count, left());
  }
  const std::size_t start = at_;
  if (!strings) {
    at_ += value.count * least;
  } else {
    std::string_view text;
    for (std::uint64_t i = 0; i < value.count; ++i) {
      if (!read_string(text)) return truncated(fmt::format("string {} of key {}", i, quoted(value.key)));
    }
  }
  value.bytes = bytes_.subspan(start, at_ - start);
  return Status::ok();
}

Status Parser::check_bools(const GgufValue& value) const {
  if (value.type != GgufValueType::kBool) return Status::ok();
  for (const std::byte b : value.bytes) {
    if (std::to_integer<unsigned>(b) > 1) {
      return corrupt("key {} holds a bool of value {}; only 0 and 1 are allowed", quoted(value.key),
                     std::to_integer<unsigned>(b));
    }
  }
  return Status::ok();
}

Status Parser::index_keys() {
  part_.by_key.resize(part_.values.size());
  std::iota(part_.by_key.begin(), part_.by_key.end(), std::size_t{0});
  const auto key = [&](std::size_t i) { return part_.values[i].key; };
  std::ranges::sort(part_.by_key, {}, key);
  const auto twice = std::ranges::adjacent_find(part_.by_key, {}, key);
  if (twice != part_.by_key.end()) return corrupt("has the metadata key {} twice", quoted(key(*twice)));
  return Status::ok();
}

Status Parser::read_tensor(std::uint64_t index) {
  GgufTensor tensor;
  if (!read_string(tensor.name)) return truncated(fmt::format("the name of tensor {} of {}", index + 1, n_tensors_));
  if (tensor.name.size() > kMaxTensorNameBytes) {
    return corrupt("tensor {} has a name of {} bytes; at most {} are allowed", index + 1, tensor.name.size(),
                   kMaxTensorNameBytes);
  }
  const std::string shown = quoted(tensor.name);
  std::uint32_t n_dims = 0;
  if (!read(n_dims)) return truncated("the description of tensor " + shown);
  if (n_dims == 0 || n_dims > kMaxDims) {
    return corrupt("tensor {} has {} dimensions; 1 to {} are allowed", shown, n_dims, kMaxDims);
  }
  tensor.dims.resize(n_dims);
  for (std::uint64_t& d : tensor.dims) {
    if (!read(d)) return truncated("the description of tensor " + shown);
  }
  std::uint32_t type = 0;
  Place place;
  if (!read(type) || !read(place.offset)) return truncated("the description of tensor " + shown);
  tensor.type = static_cast<GgmlType>(type);
  FINCHKV_ASSIGN_OR_RETURN(place.size, encoded_bytes(tensor, type));
  places_.push_back(place);
  part_.tensors.push_back(std::move(tensor));
  return Status::ok();
}

Result<std::uint64_t> Parser::encoded_bytes(const GgufTensor& tensor, std::uint32_t type) const {
  const std::string shown = quoted(tensor.name);
  std::uint64_t elements = 1;
  for (const std::uint64_t d : tensor.dims) {
    if (d == 0) return corrupt("tensor {} has a dimension of 0", shown);
    if (__builtin_mul_overflow(elements, d, &elements)) {
      return corrupt("tensor {} has more elements ({}) than 64 bits can count", shown, fmt::join(tensor.dims, " x "));
    }
  }
  const GgmlBlock block = ggml_block(tensor.type);
  if (block.elements == 0) {
    return unsupported("tensor {} has the type {} (number {}), which cannot be read; requantise the model", shown,
                       ggml_type_name(type), type);
  }
  if (tensor.dims[0] % block.elements != 0) {
    return corrupt("tensor {} has rows of {} elements, which {}'s blocks of {} do not divide", shown, tensor.dims[0],
                   ggml_type_name(type), block.elements);
  }
  std::uint64_t size = 0;
  if (__builtin_mul_overflow(elements / block.elements, block.bytes, &size)) {
    return corrupt("tensor {} would take more bytes ({} elements of {}) than 64 bits can count", shown, elements,
                   ggml_type_name(type));
  }
  return size;
}

Result<std::uint64_t> Parser::alignment() const {
  const GgufValue* value = part_.find("general.alignment");
  if (value == nullptr) return kDefaultAlignment;
  const auto given = value->as_u64();
  if (!given) return corrupt("general.alignment is not a whole number");
  if (*given < 8 || !std::has_single_bit(*given)) {
    return corrupt("general.alignment is {}; it must be a power of two of at least 8", *given);
  }
  return *given;
}

Status Parser::place_tensors() {
  FINCHKV_ASSIGN_OR_RETURN(const std::uint64_t align, alignment());
  if (part_.tensors.empty()) return Status::ok();
  // align - 1 plus a file's size cannot overflow: a power of two is at most 2^63, and a span's size is below it.
  const std::uint64_t data_start = (at_ + (align - 1)) & ~(align - 1);
  if (data_start > bytes_.size()) return truncated("the tensor data");
  const std::uint64_t data_bytes = bytes_.size() - data_start;
  for (std::size_t i = 0; i < places_.size(); ++i) {
    const Place& place = places_[i];
    GgufTensor& tensor = part_.tensors[i];
    if (place.offset % align != 0) {
      return corrupt("tensor {} is at offset {}, which is no multiple of the alignment {}", quoted(tensor.name),
                     place.offset, align);
    }
    if (place.offset > data_bytes || place.size > data_bytes - place.offset) {
      return corrupt(
          "tensor {} ({} bytes at offset {}) reaches past the end of the file, which has {} bytes of tensor "
          "data; it is truncated or damaged, fetch it again",
          quoted(tensor.name), place.size, place.offset, data_bytes);
    }
    tensor.data = bytes_.subspan(data_start + place.offset, place.size);
  }
  // Without this, many tensors over the same bytes would make a small file a huge model.
  std::vector<std::size_t> order(places_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return places_[i].offset; });
  for (std::size_t k = 1; k < order.size(); ++k) {
    const Place& before = places_[order[k - 1]];
    if (places_[order[k]].offset < before.offset + before.size) {
      return corrupt("tensors {} and {} overlap", quoted(part_.tensors[order[k - 1]].name),
                     quoted(part_.tensors[order[k]].name));
    }
  }
  return Status::ok();
}

}  // namespace

const GgufValue* GgufPart::find(std::string_view key) const {
  const auto key_of = [&](std::size_t i) { return values[i].key; };
  const auto it = std::ranges::lower_bound(by_key, key, {}, key_of);
  return it != by_key.end() && key_of(*it) == key ? &values[*it] : nullptr;
}

Result<GgufPart> parse_gguf(std::span<const std::byte> bytes, const std::string& name) {
  return Parser(bytes, name).parse();
}

}  // namespace finchkv::model
