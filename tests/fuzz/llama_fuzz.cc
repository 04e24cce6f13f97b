// llama.cpp sequence states, of either form, for a model of two layers with two KV heads of two dimensions. What is
// accepted must be a whole set, and what is written from it must be read as the same.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "cache_store/llama_state.h"

namespace {

using namespace finchkv;
using namespace finchkv::cache_store;

void require(bool ok) {
  if (!ok) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  LlamaModelShape shape{.n_layers = 2, .n_kv_heads = 2, .head_dim = 2, .rope = {}};
  shape.rope.rotary_dims = 2;
  shape.rope.inv_freq = {1.0F};
  const auto read = read_llama_state(std::as_bytes(std::span(data, size)), shape);
  if (!read.is_ok()) return 0;
  require(read->set.validate().is_ok());
  require(read->set.tensor_bytes() <= size);
  for (const bool transposed : {false, true}) {
    const auto written =
        write_llama_state(read->set, std::nullopt, {.dtype = read->set.dtype, .transposed_values = transposed});
    if (!written.is_ok()) return 0;  // numbers that are not finite
    const auto again = read_llama_state(written->bytes(), shape);
    require(again.is_ok() && again->set.next_position == read->set.next_position);
    for (std::size_t l = 0; l < 2; ++l) {
      const KvLayer &a = read->set.layers[l], &b = again->set.layers[l];
      require(a.keys.size() == b.keys.size() && std::memcmp(a.keys.data(), b.keys.data(), a.keys.size()) == 0);
      require(std::memcmp(a.values.data(), b.values.data(), a.values.size()) == 0);
    }
  }
  return 0;
}
