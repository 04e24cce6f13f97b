// Fuzz target: the GGUF reader on any bytes. What it accepts must be readable in full: every key, every tensor.
//
// corpus/gguf: small valid files of several kinds (written with tests/model/gguf_writer.h) and damaged or lying ones.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "model/dequant.h"
#include "model/gguf.h"

namespace {

using finchkv::StatusCode;
using finchkv::model::GgufFile;
using finchkv::model::GgufTensor;

void require(bool held) {
  if (!held) std::abort();
}

/// Calls every getter; the total keeps the reads from being optimised away.
std::size_t touch(const GgufFile& file, std::string_view key) {
  std::size_t total = file.describe(key).size();
  total += file.get_u64(key).value_or(0) % 7;
  total += file.get_f64(key).has_value() ? 1 : 0;
  total += file.get_bool(key).value_or(false) ? 1 : 0;
  for (const char c : file.get_string(key).value_or("")) total += static_cast<unsigned char>(c);
  if (const auto strings = file.get_strings(key)) {
    for (const std::string_view s : *strings) total += s.empty() ? 0 : static_cast<unsigned char>(s.back());
  }
  if (const auto floats = file.get_floats(key)) total += floats->size();
  if (const auto ints = file.get_ints(key)) total += ints->size();
  return total;
}

void read_tensor(const GgufFile& file, const GgufTensor& tensor) {
  require(file.find_tensor(tensor.name) == &tensor);
  require(tensor.rows() >= 1 && tensor.elements() == tensor.rows() * tensor.row_length());
  std::vector<float> row(tensor.row_length());
  const auto first = finchkv::model::dequantize_rows(tensor, 0, 1, row);
  require(first.is_ok() || first.code() == StatusCode::kUnsupported);
  const auto last = finchkv::model::dequantize_rows(tensor, tensor.rows() - 1, 1, row);
  require(last.code() == first.code());
  require(!finchkv::model::dequantize_rows(tensor, tensor.rows(), 1, row).is_ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = GgufFile::parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file.is_ok()) {
    require(!file.status().message().empty());
    require(file.status().code() == StatusCode::kCorrupt || file.status().code() == StatusCode::kUnsupported ||
            file.status().code() == StatusCode::kInvalidArgument);
    return 0;
  }
  std::size_t total = 0;
  for (const std::string_view key : (*file)->keys()) total += touch(**file, key);
  for (const GgufTensor& tensor : (*file)->tensors()) read_tensor(**file, tensor);
  volatile std::size_t sink = total;
  static_cast<void>(sink);
  return 0;
}
