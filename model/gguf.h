// GgufFile: a GGUF v3 model file (or all files of a split one), mapped read-only and checked before anything is
// believed.
//
// Format: ggml's docs/gguf.md. Every count, offset and size in the file is untrusted: open() verifies each against the
// bytes that are there before memory is taken, so a truncated, lying or hostile file gives `corrupt` with a sentence.
// Views (strings, arrays, tensor bytes) live as long as the GgufFile. Immutable after open(), so thread-safe.
// Only little-endian files; version 2 and 3. Dequantising is dequant.h's.
//
// What open() insists on: tensor types whose block size it knows (those of GgmlType; any other is `unsupported`, with
// the tensor's name and the type's name or number), 1 to 4 dimensions, none of them 0, whole blocks in a row, an
// alignment that is a power of two of at least 8, tensors that do not overlap, no key or tensor name twice, no arrays
// of arrays, at most 65,536 keys and 262,144 tensors. Tensor bytes of a file are aligned as the file says (mappings
// start at a page); those of parse() only as far as the caller's memory is. A file that shrinks while it is open is a
// SIGBUS (base/mapped_file.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace finchkv::model {

/// ggml tensor types by their number in the file. dequant.h reads all but Q8_1 and Q8_K, which it refuses by name.
enum class GgmlType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ8_1 = 9,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kQ8_K = 15,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
};

/// "Q4_K", also for types that cannot be read ("IQ1_S"); "type 99" for a number without a name here.
[[nodiscard]] std::string ggml_type_name(std::uint32_t type);

struct GgufTensor {
  std::string_view name;
  GgmlType type = GgmlType::kF32;
  std::vector<std::uint64_t> dims;  ///< fastest first, as in the file: a [rows, cols] matrix is {cols, rows}
  std::span<const std::byte> data;  ///< encoded bytes
  [[nodiscard]] std::uint64_t elements() const;
  [[nodiscard]] std::uint64_t row_length() const { return dims.empty() ? 0 : dims[0]; }
  [[nodiscard]] std::uint64_t rows() const {
    const std::uint64_t length = row_length();
    return length == 0 ? 0 : elements() / length;
  }
};

class GgufFile {
 public:
  /// Opens `path`; for a file named ...-00001-of-000NN.gguf the other parts beside it as well.
  /// not_found (no such file), corrupt (not GGUF, truncated, lying), unsupported (version, byte order, tensor type by
  /// name), invalid_argument (a part of a split file that is not the first, or whose name does not say so; a folder).
  static Result<std::shared_ptr<const GgufFile>> open(const std::string& path);
  /// The same from memory that outlives the result (fuzzing, tests); `name` is what sentences call it. One file only: a
  /// part of a split one is invalid_argument.
  static Result<std::shared_ptr<const GgufFile>> parse(std::span<const std::byte> bytes, const std::string& name);
  ~GgufFile();

  [[nodiscard]] const std::string& path() const;
  [[nodiscard]] const std::vector<std::string>& part_paths() const;  ///< one for an unsplit file
  [[nodiscard]] std::vector<std::string_view> keys() const;          ///< in file order

  // Metadata by key (of a split file: the first part's): nullopt when the key is absent or of another type. get_u64
  // takes any integer type that is not negative (and bool); get_f64 any float or integer; get_floats arrays of f32 or
  // f64; get_ints arrays of integers or bools that fit. String arrays keep their bytes as they are (not always UTF-8).
  [[nodiscard]] std::optional<std::uint64_t> get_u64(std::string_view key) const;
  [[nodiscard]] std::optional<double> get_f64(std::string_view key) const;
  [[nodiscard]] std::optional<bool> get_bool(std::string_view key) const;
  [[nodiscard]] std::optional<std::string_view> get_string(std::string_view key) const;
  [[nodiscard]] std::optional<std::vector<std::string_view>> get_strings(std::string_view key) const;
  [[nodiscard]] std::optional<std::vector<float>> get_floats(std::string_view key) const;
  [[nodiscard]] std::optional<std::vector<std::int64_t>> get_ints(std::string_view key) const;
  /// One line for people: `llama.context_length = 8192`, arrays and long strings shortened, control characters escaped.
  [[nodiscard]] std::string describe(std::string_view key) const;

  [[nodiscard]] const std::vector<GgufTensor>& tensors() const;
  [[nodiscard]] const GgufTensor* find_tensor(std::string_view name) const;  ///< nullptr when absent

 private:
  struct Impl;
  explicit GgufFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace finchkv::model
