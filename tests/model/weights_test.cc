// Loading weights: what is missing, misshapen or of a type that cannot be read is said by the tensor's name.
#include "model/weights.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/model/tiny_gguf.h"

namespace finchkv::model {
namespace {

using testing::ParsedGguf;
using testing::TinyGguf;

Result<Weights> weights_of(const TinyGguf& tiny, kernels::NumericClass numeric) {
  const ParsedGguf parsed(tiny);
  if (!parsed.file) return parsed.status;
  FINCHKV_ASSIGN_OR_RETURN(const ModelConfig config, ModelConfig::from_gguf(*parsed.file));
  kernels::CpuOptions options;
  options.numeric_class = numeric;
  options.threads = 1;
  FINCHKV_ASSIGN_OR_RETURN(const auto device, kernels::make_cpu_device(options));
  return load_weights(*parsed.file, config, *device);
}

void expect_refused(const TinyGguf& tiny, StatusCode code, const std::vector<std::string>& naming) {
  for (const auto numeric : {kernels::NumericClass::kReference, kernels::NumericClass::kFast}) {
    const auto weights = weights_of(tiny, numeric);
    ASSERT_FALSE(weights.is_ok()) << "accepted; should name " << naming.front();
    EXPECT_EQ(weights.status().code(), code) << weights.status().to_string();
    for (const std::string& part : naming)
      EXPECT_NE(weights.status().message().find(part), std::string::npos) << weights.status().message();
  }
}

// Everything that a model may have: bias, QK norms, an output head of its own.
TinyGguf with_everything() {
  TinyGguf tiny("qwen3");
  tiny.matrix("output.weight", 32, 40);
  tiny.floats("blk.0.attn_q.bias", {32}, std::vector<float>(32));
  tiny.floats("blk.0.attn_k.bias", {16}, std::vector<float>(16));
  tiny.floats("blk.0.attn_v.bias", {16}, std::vector<float>(16));
  tiny.floats("blk.0.attn_q_norm.weight", {8}, std::vector<float>(8, 1));
  tiny.floats("blk.0.attn_k_norm.weight", {8}, std::vector<float>(8, 1));
  return tiny;
}

TEST(Weights, LoadsAWholeModel) {
  const auto weights = weights_of(with_everything(), kernels::NumericClass::kReference);
  ASSERT_TRUE(weights.is_ok()) << weights.status().to_string();
  ASSERT_EQ(weights->layers.size(), 1U);
  const LayerWeights& layer = weights->layers[0];
  EXPECT_EQ(layer.qkv->in(), 32);
  EXPECT_EQ(layer.qkv->out(), 64);
  EXPECT_EQ(layer.gate_up->out(), 48);
  EXPECT_EQ(layer.down->in(), 48);
  EXPECT_EQ(layer.qkv_bias.elements(), 64);
  EXPECT_EQ(layer.q_norm.elements(), 8);
  EXPECT_EQ(weights->head->out(), 40);
  // f32: every matrix once.
  EXPECT_GE(weights->bytes(), 4U * (32 * 64 + 32 * 32 + 32 * 96 + 48 * 32 + 32 * 40));

  const auto plain = weights_of(TinyGguf(), kernels::NumericClass::kFast);
  ASSERT_TRUE(plain.is_ok()) << plain.status().to_string();
  EXPECT_TRUE(plain->layers[0].qkv_bias.empty());
  EXPECT_TRUE(plain->layers[0].q_norm.empty());
}

TEST(Weights, EveryMissingTensorIsNamed) {
  const TinyGguf whole = with_everything();
  for (const auto& [name, tensor] : whole.tensors) {
    // Without these the file is another model, not a broken one.
    if (name == "token_embd.weight" || name == "output.weight" || name == "blk.0.attn_q.bias" ||
        name == "blk.0.attn_q_norm.weight")
      continue;
    TinyGguf tiny = whole;
    tiny.tensors.erase(name);
    expect_refused(tiny, StatusCode::kCorrupt, {"tensor " + name, "missing"});
  }
}

TEST(Weights, AMissingLayerIsNamed) {
  TinyGguf tiny;
  tiny.keys["llama.block_count"] = std::uint64_t{2};
  expect_refused(tiny, StatusCode::kCorrupt, {"blk.1."});
}

TEST(Weights, EveryWrongShapeIsNamed) {
  const TinyGguf whole = with_everything();
  for (const auto& [name, tensor] : whole.tensors) {
    if (name == "token_embd.weight") continue;  // its shape is the vocabulary's
    for (const std::size_t axis : {0U, 1U}) {
      if (axis >= tensor.dims.size()) continue;
      TinyGguf tiny = whole;
      auto dims = tensor.dims;
      dims[axis] += 4;
      std::uint64_t count = 1;
      for (const std::uint64_t d : dims) count *= d;
      tiny.floats(name, dims, std::vector<float>(count));
      expect_refused(tiny, StatusCode::kCorrupt, {"tensor " + name});
    }
    if (tensor.dims.size() == 2 && tensor.dims[0] != tensor.dims[1]) {
      TinyGguf turned = whole;
      turned.tensors[name].dims = {tensor.dims[1], tensor.dims[0]};
      expect_refused(turned, StatusCode::kCorrupt, {"tensor " + name});
    }
  }
}

TEST(Weights, AnEmbeddingOfAnotherWidth) {
  TinyGguf tiny = with_everything();
  tiny.matrix("token_embd.weight", 36, 40);
  expect_refused(tiny, StatusCode::kCorrupt, {"token_embd.weight"});
}

// ggml's formats for activations have a block size, so the reader takes them, but nothing can expand them.
TEST(Weights, TypesThatCannotBeReadAreNamed) {
  for (const char* name : {"blk.0.attn_k.weight", "blk.0.ffn_gate.weight", "blk.0.attn_output.weight", "output.weight",
                           "token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight"}) {
    TinyGguf tiny = with_everything();
    TinyGguf::Tensor& tensor = tiny.tensors[name];
    tensor.type = GgmlType::kQ8_1;
    tensor.data.assign(tensor.data.size() / 4 / 32 * 36, std::byte{1});
    expect_refused(tiny, StatusCode::kUnsupported, {name, "Q8_1"});
  }
  TinyGguf wide("llama", 256);
  wide.tensors["blk.0.attn_q.weight"].type = GgmlType::kQ8_K;
  wide.tensors["blk.0.attn_q.weight"].data.assign(std::size_t{32} * 292, std::byte{1});
  expect_refused(wide, StatusCode::kUnsupported, {"blk.0.attn_q.weight", "Q8_K"});
}

// Q, K and V of different types stand in one matrix.
TEST(Weights, TensorsThatThePassDoesNotKnowAreNamed) {
  for (const char* name : {"blk.0.attn_output.bias", "blk.0.ffn_down.bias", "blk.0.attn_k.bias", "output.bias"}) {
    TinyGguf tiny;
    tiny.floats(name, {32}, std::vector<float>(32));
    expect_refused(tiny, StatusCode::kUnsupported, {name});
  }
}

TEST(Weights, MixedTypesInOneMatrix) {
  TinyGguf tiny;
  TinyGguf::Tensor& k = tiny.tensors["blk.0.attn_k.weight"];
  k.type = GgmlType::kF16;
  k.data.resize(k.data.size() / 2);
  std::fill(k.data.begin(), k.data.end(), std::byte{0});
  for (const auto numeric : {kernels::NumericClass::kReference, kernels::NumericClass::kFast})
    EXPECT_TRUE(weights_of(tiny, numeric).is_ok());
}

}  // namespace
}  // namespace finchkv::model
