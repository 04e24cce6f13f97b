// ModelConfig: what a file must state, what it may leave out, and what is refused by name.
#include "model/config.h"

#include <gtest/gtest.h>

#include "tests/model/tiny_gguf.h"

namespace finchkv::model {
namespace {

using testing::ParsedGguf;
using testing::TinyGguf;

Result<ModelConfig> config_of(const TinyGguf& tiny) {
  const ParsedGguf parsed(tiny);
  if (!parsed.file) return parsed.status;
  return ModelConfig::from_gguf(*parsed.file);
}

void expect_refused(const TinyGguf& tiny, StatusCode code, const std::string& naming) {
  const auto config = config_of(tiny);
  ASSERT_FALSE(config.is_ok()) << "accepted; should name " << naming;
  EXPECT_EQ(config.status().code(), code) << config.status().to_string();
  EXPECT_NE(config.status().message().find(naming), std::string::npos) << config.status().message();
  EXPECT_NE(config.status().message().find("tiny.gguf"), std::string::npos) << config.status().message();
}

TEST(ModelConfig, ReadsWhatTheFileStates) {
  const auto config = config_of(TinyGguf());
  ASSERT_TRUE(config.is_ok()) << config.status().to_string();
  EXPECT_EQ(config->architecture, "llama");
  EXPECT_EQ(config->name, "tiny");
  EXPECT_EQ(config->n_layers, 1);
  EXPECT_EQ(config->hidden, 32);
  EXPECT_EQ(config->ffn, 48);
  EXPECT_EQ(config->n_heads, 4);
  EXPECT_EQ(config->n_kv_heads, 2);
  EXPECT_EQ(config->head_dim, 8);
  EXPECT_EQ(config->vocab, 40);
  EXPECT_EQ(config->context_length, 256);
  EXPECT_EQ(config->sliding_window, 0);
  EXPECT_EQ(config->norm_eps, 1e-5F);
  EXPECT_TRUE(config->tied_output);
  EXPECT_FALSE(config->qkv_bias);
  EXPECT_FALSE(config->qk_norm);
  EXPECT_TRUE(config->rope.interleaved);
  EXPECT_EQ(config->rope.rotary_dims, 8U);
}

TEST(ModelConfig, DefaultsOfWhatMayBeAbsent) {
  TinyGguf tiny;
  for (const char* key :
       {"general.name", "llama.attention.head_count_kv", "llama.attention.key_length", "llama.attention.value_length",
        "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"})
    tiny.keys.erase(key);
  const auto config = config_of(tiny);
  ASSERT_TRUE(config.is_ok()) << config.status().to_string();
  EXPECT_EQ(config->name, "");
  EXPECT_EQ(config->n_kv_heads, 4) << "as many as query heads";
  EXPECT_EQ(config->head_dim, 8) << "hidden / heads";
  EXPECT_EQ(config->norm_eps, 1e-5F);
  EXPECT_EQ(config->rope.theta, 10000.0F);
}

TEST(ModelConfig, TensorsTellWhatTheModelHas) {
  TinyGguf tiny("qwen3");
  tiny.matrix("output.weight", 32, 40);
  tiny.floats("blk.0.attn_q.bias", {32}, std::vector<float>(32));
  tiny.floats("blk.0.attn_q_norm.weight", {8}, std::vector<float>(8));
  const auto config = config_of(tiny);
  ASSERT_TRUE(config.is_ok()) << config.status().to_string();
  EXPECT_FALSE(config->tied_output);
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_TRUE(config->qk_norm);
  EXPECT_FALSE(config->rope.interleaved) << "qwen turns halves";
}

TEST(ModelConfig, SlidingWindow) {
  TinyGguf tiny;
  tiny.keys["llama.attention.sliding_window"] = std::uint64_t{100};
  EXPECT_EQ(config_of(tiny)->sliding_window, 100);
  tiny.keys["llama.attention.sliding_window"] = ~std::uint64_t{0};
  const auto huge = config_of(tiny);
  EXPECT_TRUE(!huge.is_ok() || huge->sliding_window > 0);
}

TEST(ModelConfig, TokensOutsideTheVocabularyAreNamed) {
  ModelConfig c;
  c.vocab = 32;
  EXPECT_TRUE(c.check_tokens(std::vector<std::int32_t>{0, 31}, "prompt").is_ok());
  EXPECT_TRUE(c.check_tokens({}, "prompt").is_ok());
  for (const std::int32_t bad : {32, -1}) {
    const Status status = c.check_tokens(std::vector<std::int32_t>{5, 6, bad, 99}, "prompt");
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(),
              "prompt token id " + std::to_string(bad) + " at place 2 is outside the vocabulary of 32");
  }
}

TEST(ModelConfig, MissingKeysAreNamed) {
  for (const char* key : {"general.architecture", "llama.block_count", "llama.context_length", "llama.embedding_length",
                          "llama.feed_forward_length", "llama.attention.head_count"}) {
    TinyGguf tiny;
    tiny.keys.erase(key);
    expect_refused(tiny, StatusCode::kCorrupt, key);
  }
}

TEST(ModelConfig, ZeroAbsurdAndMistypedCountsAreNamed) {
  for (const char* key :
       {"llama.block_count", "llama.context_length", "llama.embedding_length", "llama.feed_forward_length",
        "llama.attention.head_count", "llama.attention.head_count_kv", "llama.attention.key_length"}) {
    for (const std::uint64_t count : {std::uint64_t{0}, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
      TinyGguf tiny;
      tiny.keys[key] = count;
      expect_refused(tiny, StatusCode::kCorrupt, key);
    }
  }
  TinyGguf mistyped;
  mistyped.keys["llama.block_count"] = std::string("three");
  expect_refused(mistyped, StatusCode::kCorrupt, "llama.block_count");
}

TEST(ModelConfig, HeadsMustShareEvenly) {
  TinyGguf tiny;
  tiny.keys["llama.attention.head_count_kv"] = std::uint64_t{3};
  expect_refused(tiny, StatusCode::kCorrupt, "3 KV heads");
  tiny.keys["llama.attention.head_count_kv"] = std::uint64_t{8};
  expect_refused(tiny, StatusCode::kCorrupt, "8 KV heads");
}

TEST(ModelConfig, MoreHeadsThanWidth) {
  TinyGguf tiny;
  tiny.keys.erase("llama.attention.key_length");
  tiny.keys.erase("llama.attention.value_length");
  tiny.keys["llama.attention.head_count"] = std::uint64_t{64};
  EXPECT_FALSE(config_of(tiny).is_ok());
}

TEST(ModelConfig, UnsupportedByName) {
  expect_refused(TinyGguf("mamba"), StatusCode::kUnsupported, "'mamba'");
  TinyGguf experts;
  experts.keys["llama.expert_count"] = std::uint64_t{8};
  expect_refused(experts, StatusCode::kUnsupported, "expert_count");
  TinyGguf widths;
  widths.keys["llama.attention.value_length"] = std::uint64_t{16};
  expect_refused(widths, StatusCode::kUnsupported, "16");
  for (const char* scaling : {"longrope", "dynamic", "nonsense"}) {
    TinyGguf tiny;
    tiny.keys["llama.rope.scaling.type"] = std::string(scaling);
    expect_refused(tiny, StatusCode::kUnsupported, scaling);
  }
  TinyGguf factors;
  factors.floats("rope_factors_long.weight", {4}, {1, 1, 1, 1});
  expect_refused(factors, StatusCode::kUnsupported, "longrope");
}

TEST(ModelConfig, NumbersThatCannotBe) {
  for (const double epsilon : {-1.0, 1e300, std::numeric_limits<double>::quiet_NaN()}) {
    TinyGguf tiny;
    tiny.keys["llama.attention.layer_norm_rms_epsilon"] = epsilon;
    expect_refused(tiny, StatusCode::kCorrupt, "epsilon");
  }
}

TEST(ModelConfig, TheEmbeddingMustBeAMatrix) {
  TinyGguf tiny;
  tiny.tensors.erase("token_embd.weight");
  expect_refused(tiny, StatusCode::kCorrupt, "token_embd.weight");
  tiny.floats("token_embd.weight", {32}, std::vector<float>(32));
  expect_refused(tiny, StatusCode::kCorrupt, "token_embd.weight");
}

TEST(ModelConfig, CanonicalTellsEveryNumberApart) {
  const std::string before = config_of(TinyGguf())->canonical();
  EXPECT_EQ(config_of(TinyGguf())->canonical(), before);
  const auto changed = [&](const std::string& key, TinyGguf::Value value) {
    TinyGguf tiny;
    tiny.keys[key] = std::move(value);
    const auto config = config_of(tiny);
    EXPECT_TRUE(config.is_ok()) << config.status().to_string();
    return config.is_ok() && config->canonical() != before;
  };
  EXPECT_TRUE(changed("llama.block_count", std::uint64_t{2}));
  EXPECT_TRUE(changed("llama.feed_forward_length", std::uint64_t{49}));
  EXPECT_TRUE(changed("llama.attention.head_count_kv", std::uint64_t{4}));
  EXPECT_TRUE(changed("llama.attention.layer_norm_rms_epsilon", 1.0001e-5));
  EXPECT_TRUE(changed("llama.attention.sliding_window", std::uint64_t{64}));
  EXPECT_TRUE(changed("llama.rope.freq_base", 10001.0));
  EXPECT_TRUE(changed("llama.rope.dimension_count", std::uint64_t{6}));
  EXPECT_TRUE(changed("llama.rope.scaling.factor", 2.0));
  EXPECT_FALSE(changed("general.name", std::string("another name"))) << "a name is for people";
  EXPECT_NE(config_of(TinyGguf("qwen2"))->canonical(), before);
}

TEST(ModelConfig, TooManyQueryHeadsForOneKvHead) {
  TinyGguf tiny;
  tiny.keys["llama.attention.head_count"] = std::uint64_t{256};
  tiny.keys["llama.attention.head_count_kv"] = std::uint64_t{1};
  const auto config = config_of(tiny);
  ASSERT_FALSE(config.is_ok());
  EXPECT_EQ(config.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(config.status().message().find("256"), std::string::npos) << config.status().message();
}

}  // namespace
}  // namespace finchkv::model
