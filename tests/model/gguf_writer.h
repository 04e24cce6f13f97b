// GgufWriter: makes small GGUF files in memory for tests.
//
// It writes whatever it is told, wrong types and sizes included, so that tests can make lying files; ByteSink below is
// the raw layer for those that are broken further down. Not for production use: everything is held in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "model/gguf.h"

namespace finchkv::testing {

/// Little-endian bytes, appended.
class ByteSink {
 public:
  template <typename T>
  ByteSink& put(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    std::memcpy(bytes_.data() + at, &value, sizeof(T));
    return *this;
  }
  ByteSink& u8(std::uint8_t v) { return put(v); }
  ByteSink& u32(std::uint32_t v) { return put(v); }
  ByteSink& u64(std::uint64_t v) { return put(v); }
  ByteSink& raw(std::span<const std::byte> data) {
    bytes_.insert(bytes_.end(), data.begin(), data.end());
    return *this;
  }
  ByteSink& text(std::string_view s) { return raw(std::as_bytes(std::span<const char>(s.data(), s.size()))); }
  /// A GGUF string: 64-bit length, then the bytes.
  ByteSink& str(std::string_view s) { return u64(s.size()).text(s); }
  ByteSink& pad_to(std::size_t alignment) {
    while (bytes_.size() % alignment != 0) bytes_.push_back(std::byte{0});
    return *this;
  }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }

 private:
  std::vector<std::byte> bytes_;
};

/// Numbers of metadata value types, as in the file.
enum GgufValueType : std::uint32_t {
  kGgufU8 = 0,
  kGgufI8 = 1,
  kGgufU16 = 2,
  kGgufI16 = 3,
  kGgufU32 = 4,
  kGgufI32 = 5,
  kGgufF32 = 6,
  kGgufBool = 7,
  kGgufString = 8,
  kGgufArray = 9,
  kGgufU64 = 10,
  kGgufI64 = 11,
  kGgufF64 = 12,
};

class GgufWriter {
 public:
  void set_u32(std::string_view key, std::uint32_t v) { set_scalar(key, kGgufU32, v); }
  void set_u64(std::string_view key, std::uint64_t v) { set_scalar(key, kGgufU64, v); }
  void set_f32(std::string_view key, float v) { set_scalar(key, kGgufF32, v); }
  void set_bool(std::string_view key, bool v) { set_scalar(key, kGgufBool, static_cast<std::uint8_t>(v ? 1 : 0)); }
  void set_string(std::string_view key, std::string_view v) { head(key, kGgufString).str(v); }
  void set_strings(std::string_view key, const std::vector<std::string>& v) {
    ByteSink& out = head(key, kGgufArray).u32(kGgufString).u64(v.size());
    for (const std::string& s : v) out.str(s);
  }
  void set_floats(std::string_view key, const std::vector<float>& v) { set_array(key, kGgufF32, v); }
  void set_ints(std::string_view key, const std::vector<std::int32_t>& v) { set_array(key, kGgufI32, v); }

  /// Any scalar under any type number.
  template <typename T>
  void set_scalar(std::string_view key, std::uint32_t type, T v) {
    head(key, type).put(v);
  }
  template <typename T>
  void set_array(std::string_view key, std::uint32_t element_type, const std::vector<T>& v) {
    ByteSink& out = head(key, kGgufArray).u32(element_type).u64(v.size());
    for (const T x : v) out.put(x);
  }
  /// A key whose type number and value bytes are the caller's.
  void set_raw(std::string_view key, std::uint32_t type, std::span<const std::byte> value) {
    head(key, type).raw(value);
  }

  /// dims: fastest first, as in the file.
  void add_tensor(std::string_view name, std::vector<std::uint64_t> dims, model::GgmlType type,
                  std::vector<std::byte> data) {
    tensors_.push_back({std::string(name), std::move(dims), type, std::move(data)});
  }
  void add_tensor_f32(std::string_view name, std::vector<std::uint64_t> dims, const std::vector<float>& values) {
    const auto bytes = std::as_bytes(std::span<const float>(values));
    add_tensor(name, std::move(dims), model::GgmlType::kF32, {bytes.begin(), bytes.end()});
  }

  /// The whole file. An alignment other than 32 is written as general.alignment too.
  [[nodiscard]] std::vector<std::byte> finish(std::uint32_t alignment = 32) {
    if (alignment != 32) set_u32("general.alignment", alignment);
    ByteSink out;
    out.text("GGUF").u32(3).u64(tensors_.size()).u64(n_keys_).raw(metadata_.bytes());
    std::uint64_t offset = 0;
    for (const Tensor& t : tensors_) {
      out.str(t.name).u32(static_cast<std::uint32_t>(t.dims.size()));
      for (const std::uint64_t d : t.dims) out.u64(d);
      out.u32(static_cast<std::uint32_t>(t.type)).u64(offset);
      offset = (offset + t.data.size() + alignment - 1) / alignment * alignment;
    }
    out.pad_to(alignment);
    for (const Tensor& t : tensors_) out.raw(t.data).pad_to(alignment);
    return out.bytes();
  }

 private:
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> dims;
    model::GgmlType type;
    std::vector<std::byte> data;
  };

  ByteSink& head(std::string_view key, std::uint32_t type) {
    ++n_keys_;
    return metadata_.str(key).u32(type);
  }

  std::uint64_t n_keys_ = 0;
  ByteSink metadata_;
  std::vector<Tensor> tensors_;
};

}  // namespace finchkv::testing
