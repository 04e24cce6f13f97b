#include "cache_store/safetensors_header.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace finchkv::cache_store {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // for writing alone: its look-ups are linear

constexpr std::size_t kMaxLayers = 4096;
constexpr std::size_t kMaxHeadDim = 65536;

std::string_view tensor_type(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "F32";
    case DType::kF16: return "F16";
    case DType::kBF16: return "BF16";
    default: return "";
  }
}

Status corrupt(std::string_view what) { return Status::corrupt(std::string(what)); }

std::optional<std::uint64_t> as_count(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<std::uint64_t>();
}

const std::string* find_text(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() ? nullptr : it->get_ptr<const std::string*>();
}

std::optional<std::uint64_t> find_number(const Json& metadata, const char* key) {
  const std::string* text = find_text(metadata, key);
  if (text == nullptr) return std::nullopt;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size()) return std::nullopt;
  return value;
}

std::string rope_text(const RopeRecord& rope) {
  OrderedJson out;
  out["scaling"] = rope.scaling;
  out["theta"] = rope.theta;
  out["factor"] = rope.factor;
  out["original_context"] = rope.original_context;
  out["rotary_dims"] = rope.rotary_dims;
  out["interleaved"] = rope.interleaved;
  out["attention_factor"] = rope.attention_factor;
  out["inv_freq"] = rope.inv_freq;
  return out.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

// Drops whatever is nested deeper than a header of ours: a few bytes could otherwise ask for a lot of memory.
Json parse_json(std::string_view text) {
  const auto shallow = [](int depth, Json::parse_event_t /*event*/, Json& /*value*/) { return depth <= 4; };
  return Json::parse(text, shallow, false);
}

bool read_float(const Json& object, const char* key, float& out) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number()) return false;
  out = static_cast<float>(it->get<double>());
  return std::isfinite(out);
}

bool read_u32(const Json& object, const char* key, std::uint32_t& out) {
  const auto it = object.find(key);
  const auto value = it == object.end() ? std::nullopt : as_count(*it);
  if (!value || *value > 0xffffffffU) return false;
  out = static_cast<std::uint32_t>(*value);
  return true;
}

bool read_rope(const std::string& text, RopeRecord& rope) {
  const Json in = parse_json(text);
  if (!in.is_object()) return false;
  const std::string* scaling = find_text(in, "scaling");
  const auto interleaved = in.find("interleaved");
  const auto frequencies = in.find("inv_freq");
  if (scaling == nullptr || scaling->size() > 32 || interleaved == in.end() || !interleaved->is_boolean() ||
      frequencies == in.end() || !frequencies->is_array() || frequencies->size() > kMaxHeadDim) {
    return false;
  }
  rope.scaling = *scaling;
  rope.interleaved = interleaved->get<bool>();
  for (const Json& f : *frequencies) {
    if (!f.is_number() || !std::isfinite(static_cast<float>(f.get<double>()))) return false;
    rope.inv_freq.push_back(static_cast<float>(f.get<double>()));
  }
  return read_float(in, "theta", rope.theta) && read_float(in, "factor", rope.factor) &&
         read_float(in, "attention_factor", rope.attention_factor) &&
         read_u32(in, "original_context", rope.original_context) && read_u32(in, "rotary_dims", rope.rotary_dims) &&
         rope.inv_freq.size() == rope.rotary_dims / 2;
}

Status read_metadata(const Json& root, SafetensorsHeader& out) {
  const auto metadata = root.find("__metadata__");
  if (metadata == root.end() || !metadata->is_object() || find_text(*metadata, "finchkv_export") == nullptr) {
    return Status::unsupported("it is a safetensors file, but not one that finchkv exported");
  }
  const auto format = find_number(*metadata, "finchkv_export");
  if (format != kExportFormat) {
    return Status::unsupported(fmt::format("its export format is \"{}\" and not {}: use the finchkv that wrote it",
                                           find_text(*metadata, "finchkv_export")->substr(0, 20), kExportFormat));
  }
  if (metadata->contains("rope_base")) {
    return Status::unsupported(
        "its keys were rotated for another engine (export --rope): only an export without --rope comes back");
  }
  const std::string* identity_hex = find_text(*metadata, "identity");
  const auto identity = identity_hex == nullptr ? std::nullopt : finchkv::from_hex(*identity_hex);
  if (!identity) return corrupt("its metadata has no identity in hex digits");
  FINCHKV_ASSIGN_OR_RETURN(out.identity, decode_identity(as_byte_span(*identity)));
  const std::string* form = find_text(*metadata, "key_form");
  const auto forms = {KeyForm::kPreRope, KeyForm::kRotated, KeyForm::kNone};
  const auto key_form =
      std::find_if(forms.begin(), forms.end(), [&](KeyForm f) { return form != nullptr && key_form_name(f) == *form; });
  if (key_form == forms.end()) return corrupt("its metadata has no key_form that is known");
  out.form.key_form = *key_form;
  const auto next = find_number(*metadata, "next_position");
  if (!next) return corrupt("its metadata has no next_position");
  out.form.next_position = *next;
  out.form.doc_tokens = out.identity.doc_tokens;
  const std::string* rope = find_text(*metadata, "rope");
  if (rope == nullptr || !read_rope(*rope, out.form.rope)) return corrupt("its metadata has no RoPE record");
  return Status::ok();
}

struct TensorEntry {
  std::string type;
  std::vector<std::uint64_t> shape;
  TensorPlace place;
};

Result<TensorEntry> read_tensor(const Json& root, const std::string& name, std::uint64_t data_bytes) {
  const auto wrong = [&](std::string_view what) { return Status::corrupt(fmt::format("tensor {} {}", name, what)); };
  const auto it = root.find(name);
  if (it == root.end() || !it->is_object()) return wrong("is missing");
  const std::string* type = find_text(*it, "dtype");
  const auto shape = it->find("shape");
  const auto offsets = it->find("data_offsets");
  if (type == nullptr || shape == it->end() || !shape->is_array() || shape->size() > 3 || offsets == it->end() ||
      !offsets->is_array() || offsets->size() != 2) {
    return wrong("has no dtype, shape and data_offsets");
  }
  TensorEntry tensor{.type = *type, .shape = {}, .place = {}};
  std::uint64_t elements = *type == "F16" || *type == "BF16" ? 2 : 4;  // other types are refused by the caller
  for (const Json& dimension : *shape) {
    const auto size = as_count(dimension);
    if (!size || (*size != 0 && elements > data_bytes / *size)) return wrong("is larger than the file");
    elements *= *size;
    tensor.shape.push_back(*size);
  }
  const auto begin = as_count((*offsets)[0]);
  const auto end = as_count((*offsets)[1]);
  if (!begin || !end || *begin > *end || *end > data_bytes) return wrong("lies outside the file");
  if (*end - *begin != elements) return wrong("has another length than its shape");
  tensor.place = {*begin, *end};
  return tensor;
}

Status read_layer(const Json& root, std::size_t l, std::uint64_t data_bytes, SafetensorsHeader& out) {
  const auto name = [&](std::string_view part) { return fmt::format("layers.{}.{}", l, part); };
  FINCHKV_ASSIGN_OR_RETURN(const TensorEntry key, read_tensor(root, name("key"), data_bytes));
  FINCHKV_ASSIGN_OR_RETURN(const TensorEntry value, read_tensor(root, name("value"), data_bytes));
  FINCHKV_ASSIGN_OR_RETURN(const TensorEntry origin, read_tensor(root, name("origin"), data_bytes));
  const auto wrong = [&](std::string_view what) { return Status::corrupt(fmt::format("layer {}: {}", l, what)); };
  if (key.shape.size() != 3 || value.shape != key.shape || value.type != key.type || origin.shape.size() != 2 ||
      origin.type != "I32" || origin.shape[1] != key.shape[1]) {
    return wrong("key, value and origin do not fit each other");
  }
  if (std::ranges::any_of(key.shape, [](std::uint64_t n) { return n > 0xffffffffU; }) || key.shape[0] == 0 ||
      key.shape[0] > kMaxHeadDim || key.shape[2] == 0 || key.shape[2] > kMaxHeadDim ||
      (origin.shape[0] != 1 && origin.shape[0] != key.shape[0])) {
    return wrong("its shape cannot be");
  }
  const auto dtypes = {DType::kF32, DType::kF16, DType::kBF16};
  const auto dtype = std::find_if(dtypes.begin(), dtypes.end(), [&](DType d) { return tensor_type(d) == key.type; });
  if (dtype == dtypes.end()) return wrong("its dtype is not F32, F16 or BF16");
  KvSet& form = out.form;
  const KvShape shape{.n_layers = 0,
                      .n_kv_heads = static_cast<std::uint32_t>(key.shape[0]),
                      .head_dim = static_cast<std::uint32_t>(key.shape[2]),
                      .origin_rows = static_cast<std::uint32_t>(origin.shape[0])};
  if (l == 0) {
    form.shape = shape;
    form.dtype = *dtype;
  }
  if (form.shape != shape || form.dtype != *dtype) return wrong("its shape or dtype is not the first layer's");
  out.layers.push_back({.n_kept = static_cast<std::uint32_t>(key.shape[1]),
                        .key = key.place,
                        .value = value.place,
                        .origin = origin.place});
  return Status::ok();
}

// The tensors must tile the data: nothing shared, nothing left over.
bool tiles(const std::vector<LayerPlaces>& layers, std::uint64_t data_bytes) {
  std::vector<TensorPlace> places;
  for (const LayerPlaces& layer : layers) places.insert(places.end(), {layer.key, layer.value, layer.origin});
  std::ranges::sort(places, [](const TensorPlace& a, const TensorPlace& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  std::uint64_t at = 0;
  for (const TensorPlace& place : places) {
    if (place.begin != at) return false;
    at = place.end;
  }
  return at == data_bytes;
}

Result<SafetensorsHeader> parse(std::string_view text, std::uint64_t data_bytes) {
  const Json root = parse_json(text);
  if (!root.is_object()) return corrupt("its header is not a JSON object");
  SafetensorsHeader out;
  FINCHKV_RETURN_IF_ERROR(read_metadata(root, out));
  const std::size_t tensors = root.size() - 1;
  if (tensors == 0 || tensors % 3 != 0 || tensors / 3 > kMaxLayers) {
    return corrupt(fmt::format("{} tensors are not key, value and origin of some layers", tensors));
  }
  // As many tensors as these names: so there are no others.
  for (std::size_t l = 0; l < tensors / 3; ++l) FINCHKV_RETURN_IF_ERROR(read_layer(root, l, data_bytes, out));
  out.form.shape.n_layers = static_cast<std::uint32_t>(out.layers.size());
  if (!tiles(out.layers, data_bytes)) return corrupt("its tensors overlap or leave bytes between them");
  const DType storage = out.identity.storage;
  const bool fits = is_quantised(storage) ? out.form.dtype != DType::kF16 : out.form.dtype == storage;
  if (!fits) return corrupt("its tensors' dtype is not the one of its identity");
  return out;
}

}  // namespace

std::string make_safetensors_header(const KvSet& set, const CacheIdentity& identity,
                                    std::optional<std::uint64_t> rope_base) {
  const auto canonical = canonical_encoding(identity);
  OrderedJson root;
  OrderedJson& metadata = root["__metadata__"];
  metadata["finchkv_export"] = std::to_string(kExportFormat);
  metadata["identity"] = to_hex({reinterpret_cast<const std::uint8_t*>(canonical.data()), canonical.size()});
  metadata["key_form"] = rope_base ? key_form_name(KeyForm::kRotated) : key_form_name(set.key_form);
  metadata["next_position"] = std::to_string(rope_base ? *rope_base + set.max_kept() : set.next_position);
  metadata["doc_tokens"] = std::to_string(set.doc_tokens);
  metadata["policy"] = identity.policy;
  metadata["rope"] = rope_text(set.rope);
  if (rope_base) metadata["rope_base"] = std::to_string(*rope_base);

  std::uint64_t at = 0;
  const auto add = [&](std::size_t l, std::string_view part, std::string_view type, OrderedJson shape,
                       std::uint64_t bytes) {
    OrderedJson& tensor = root[fmt::format("layers.{}.{}", l, part)];
    tensor["dtype"] = type;
    tensor["shape"] = std::move(shape);
    tensor["data_offsets"] = {at, at + bytes};
    at += bytes;
  };
  for (std::size_t l = 0; l < set.layers.size(); ++l) {
    const KvLayer& layer = set.layers[l];
    const OrderedJson shape = {set.shape.n_kv_heads, layer.n_kept, set.shape.head_dim};
    add(l, "key", tensor_type(set.dtype), shape, layer.keys.size());
    add(l, "value", tensor_type(set.dtype), shape, layer.values.size());
    add(l, "origin", "I32", {set.shape.origin_rows, layer.n_kept}, layer.origins.size_bytes());
  }
  std::string json = root.dump();
  constexpr std::size_t kLength = 8;
  constexpr std::size_t kAlign = 64;
  json.append((kAlign - (kLength + json.size()) % kAlign) % kAlign, ' ');
  std::string out;
  for (std::uint64_t i = 0, n = json.size(); i < kLength; ++i, n >>= 8) out += static_cast<char>(n & 0xffU);
  return out + json;
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, std::uint64_t data_bytes) {
  try {
    return parse(json, data_bytes);
  } catch (const std::exception& e) {  // nlohmann throws where a value has another type than asked for
    return Status::corrupt(fmt::format("its header does not parse: {}", e.what()));
  }
}

}  // namespace finchkv::cache_store
