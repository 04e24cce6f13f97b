// Model: opening what is there, refusing what is not a model, loading weights onto a device.
#include "model/model.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "model/decode_context.h"
#include "tests/golden.h"
#include "tests/model/tiny_gguf.h"

namespace finchkv::model {
namespace {

namespace fs = std::filesystem;

class ModelFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "finchkv-model-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
  }
  void TearDown() override { fs::remove_all(folder); }
  std::string write(const std::string& name, std::span<const std::byte> bytes) const {
    const std::string at = (folder / name).string();
    std::ofstream(at, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return at;
  }
  static Status opened(const std::string& path) {
    ModelOptions options;
    options.threads = 1;
    return Model::open(path, options).status();
  }
  fs::path folder;
};

class TinyModels : public ::testing::TestWithParam<const char*> {};

TEST_P(TinyModels, Open) {
  const std::string path = testing::data_path(std::string(GetParam()) + "/model.gguf");
  auto model = Model::open(path, {});
  ASSERT_TRUE(model.is_ok()) << model.status().to_string();
  const Model& m = **model;
  EXPECT_EQ(m.config().n_layers, 3);
  EXPECT_EQ(m.config().vocab, 320);
  EXPECT_EQ(m.config().rope.interleaved, m.config().architecture == "llama");
  EXPECT_EQ(m.tokenizer().vocab_size(), 320);
  EXPECT_TRUE(m.tokenizer().is_end(2));
  EXPECT_FALSE(m.tokenizer().encode("text", false).is_ok()) << "a placeholder vocabulary has no merges";
  EXPECT_EQ(m.transformer(), nullptr) << "before load_weights()";
  EXPECT_EQ(m.file().path(), path);
  const Sha256 zero{};
  EXPECT_NE(m.model_fingerprint(), zero);
  EXPECT_NE(m.weights_fingerprint(), zero);
  EXPECT_NE(m.tokenizer_fingerprint(), zero);

  const auto again = Model::open(path, {});
  EXPECT_EQ((*again)->model_fingerprint(), m.model_fingerprint());
  EXPECT_EQ((*again)->weights_fingerprint(), m.weights_fingerprint());

  ASSERT_TRUE((*model)->load_weights(testing::cpu(kernels::NumericClass::kFast)).is_ok());
  ASSERT_NE(m.transformer(), nullptr);
  EXPECT_GT(m.transformer()->weight_bytes(), 100000U);
}

INSTANTIATE_TEST_SUITE_P(Data, TinyModels,
                         ::testing::Values("tiny-llama", "tiny-qwen2", "tiny-qwen3", "tiny-llama3rope",
                                           "tiny-qwen2-yarn"));

TEST(Models, AllDiffer) {
  std::vector<Sha256> models, weights;
  for (const char* name : {"tiny-llama", "tiny-qwen2", "tiny-qwen3", "tiny-llama3rope", "tiny-qwen2-yarn"}) {
    const auto m = Model::open(testing::data_path(std::string(name) + "/model.gguf"), {});
    ASSERT_TRUE(m.is_ok());
    for (const Sha256& other : models) EXPECT_NE((*m)->model_fingerprint(), other) << name;
    for (const Sha256& other : weights) EXPECT_NE((*m)->weights_fingerprint(), other) << name;
    models.push_back((*m)->model_fingerprint());
    weights.push_back((*m)->weights_fingerprint());
  }
}

TEST_F(ModelFile, OpensOneMadeHere) { EXPECT_TRUE(opened(write("tiny.gguf", testing::TinyGguf().bytes())).is_ok()); }

TEST_F(ModelFile, WhatIsNotThereOrNotAFile) {
  EXPECT_EQ(opened((folder / "none.gguf").string()).code(), StatusCode::kNotFound);
  EXPECT_EQ(opened(folder.string()).code(), StatusCode::kInvalidArgument);
}

TEST_F(ModelFile, WhatIsNoGguf) {
  EXPECT_EQ(opened(write("text", as_byte_span("once upon a time there was a file of text"))).code(),
            StatusCode::kCorrupt);
  EXPECT_EQ(opened(write("empty", {})).code(), StatusCode::kCorrupt);
}

TEST_F(ModelFile, EveryTruncationIsAnError) {
  const auto bytes = testing::TinyGguf().bytes();
  for (std::size_t size = 1; size < bytes.size(); size += 1 + bytes.size() / 97) {
    const Status status = opened(write("cut.gguf", std::span(bytes).first(size)));
    EXPECT_FALSE(status.is_ok()) << size << " of " << bytes.size();
    EXPECT_NE(status.message().find("cut.gguf"), std::string::npos) << status.message();
  }
}

TEST_F(ModelFile, AVocabularyBeyondTheEmbedding) {
  testing::TinyGguf tiny;
  tiny.vocabulary.push_back("one too many");
  const Status status = opened(write("v.gguf", tiny.bytes()));
  EXPECT_EQ(status.code(), StatusCode::kCorrupt);
  EXPECT_NE(status.message().find("41"), std::string::npos) << status.message();
}

TEST_F(ModelFile, APaddedEmbeddingIsUsual) {
  testing::TinyGguf tiny;
  tiny.vocabulary.resize(30);
  EXPECT_TRUE(opened(write("p.gguf", tiny.bytes())).is_ok());
}

TEST_F(ModelFile, AModelWithoutAVocabularyTakesIdsOnly) {
  testing::TinyGguf tiny;
  tiny.keys.erase("tokenizer.ggml.model");
  tiny.vocabulary.clear();
  auto model = Model::open(write("ids.gguf", tiny.bytes()), {});
  ASSERT_TRUE(model.is_ok()) << model.status().to_string();
  EXPECT_EQ((*model)->tokenizer().kind(), "none");
  ASSERT_TRUE((*model)->load_weights(testing::cpu(kernels::NumericClass::kReference)).is_ok());
  Transformer& transformer = *(*model)->transformer();
  auto context = DecodeContext::create(transformer, 8);
  const std::vector<TokenId> ids = {0, 39};
  EXPECT_TRUE(transformer.forward(ids, *context, LogitRows::kLast).is_ok());
  for (const TokenId outside : {40, -1}) {
    const auto refused = transformer.forward({&outside, 1}, *context, LogitRows::kLast);
    EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(refused.status().message().find(std::to_string(outside)), std::string::npos);
  }
  EXPECT_EQ(transformer.forward({}, *context, LogitRows::kLast).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ModelFile, BrokenWeightsFailWhenLoadedAndLeaveNoTransformer) {
  testing::TinyGguf tiny;
  tiny.tensors.erase("blk.0.ffn_up.weight");
  auto model = Model::open(write("w.gguf", tiny.bytes()), {});
  ASSERT_TRUE(model.is_ok()) << "a look-up needs no weights";
  const Status loaded = (*model)->load_weights(testing::cpu(kernels::NumericClass::kReference));
  EXPECT_EQ(loaded.code(), StatusCode::kCorrupt);
  EXPECT_EQ((*model)->transformer(), nullptr);
}

// A hidden width that is no multiple of 32: one row of a pass must be what it is among many, in both classes.
TEST_F(ModelFile, WidthsThatFillNoGroupDecodeTheSame) {
  testing::TinyGguf tiny("llama", 40);
  for (const auto numeric : {kernels::NumericClass::kReference, kernels::NumericClass::kFast}) {
    auto model = Model::open(write("odd.gguf", tiny.bytes()), {});
    ASSERT_TRUE(model.is_ok()) << model.status().to_string();
    ASSERT_TRUE((*model)->load_weights(testing::cpu(numeric)).is_ok());
    Transformer& transformer = *(*model)->transformer();
    const std::vector<TokenId> ids = {3, 14, 15, 9, 26, 5, 35};
    auto whole = DecodeContext::create(transformer, 7), steps = DecodeContext::create(transformer, 7);
    const auto want = transformer.forward(ids, *whole, LogitRows::kLast);
    Result<std::vector<float>> got = Status::internal("not run");
    for (const TokenId id : ids) got = transformer.forward({&id, 1}, *steps, LogitRows::kLast);
    ASSERT_TRUE(want.is_ok() && got.is_ok());
    EXPECT_LT(testing::largest_difference(*got, *want), numeric == kernels::NumericClass::kReference ? 1e-4F : 0.1F);
  }
}

}  // namespace
}  // namespace finchkv::model
