// The chunk loop at its edges, against a plain loop in double (plain_finch.h).
#include <gtest/gtest.h>

#include <cmath>

#include "compressor/reader.h"
#include "tests/compressor/plain_finch.h"
#include "tests/golden.h"

namespace finchkv::compressor {
namespace {

using model::TokenId;

class ChunkReaderTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    model_ = testing::load_model(testing::data_path(std::string(GetParam()) + "/model.gguf"),
                                 kernels::NumericClass::kReference);
    ASSERT_NE(model_, nullptr);
    config = model_->config();
    const auto json =
        nlohmann::json::parse(testing::read_file(testing::data_path(std::string(GetParam()) + "/golden.json")));
    document = json["doc"].get<std::vector<TokenId>>();
    prompt = json["prompt"].get<std::vector<TokenId>>();
  }
  Result<ReadResult> read(std::int64_t keep, std::int64_t chunk, const std::string& reader = "chunks",
                          const Progress& progress = {}) {
    ReadRequest request;
    request.document = document;
    request.prompt = prompt;
    request.reader = reader;
    request.policy = policy;
    request.keep = keep;
    request.chunk = chunk;
    FINCHKV_ASSIGN_OR_RETURN(const Plan plan, resolve_plan(request, config));
    return read_document(plan, *model_->transformer(), progress);
  }

  // Reads with policy finch both ways and compares every kept entry.
  void agree(std::int64_t keep, std::int64_t chunk) {
    SCOPED_TRACE(::testing::Message() << "n " << document.size() << " P " << prompt.size() << " keep " << keep
                                      << " chunk " << chunk);
    const auto result = read(keep, chunk);
    ASSERT_TRUE(result.is_ok()) << result.status().to_string();
    const auto n = static_cast<std::int64_t>(document.size());
    const std::int64_t budget = std::min(keep, n), m = std::min(chunk, n);
    testing::PlainFinch plain(config, static_cast<std::int64_t>(prompt.size()), budget, n);
    ASSERT_TRUE(plain.read(*model_->transformer(), document, prompt, static_cast<std::size_t>(chunk)).is_ok());
    ASSERT_GT(plain.smallest_gap, 1e-5) << "two candidates are too close to tell rounding from error";
    EXPECT_LT(plain.largest_position, budget + m + static_cast<std::int64_t>(prompt.size()));

    const KvSet& set = result->set;
    EXPECT_TRUE(set.validate().is_ok()) << set.validate().to_string();
    EXPECT_EQ(set.doc_tokens, document.size());
    EXPECT_EQ(set.next_position, static_cast<std::uint64_t>(budget));
    EXPECT_EQ(set.key_form, KeyForm::kPreRope);
    EXPECT_EQ(set.rope, config.rope);
    EXPECT_EQ(static_cast<std::int64_t>(result->kept_after_each_chunk.size()), (n + m - 1) / m);
    EXPECT_EQ(result->kept_after_each_chunk.back(), budget);
    const auto origins = testing::origins_of(set);
    const auto heads = static_cast<std::size_t>(config.n_kv_heads), d = static_cast<std::size_t>(config.head_dim);
    for (std::size_t l = 0; l < plain.layers.size(); ++l) {
      ASSERT_EQ(origins[l][0], plain.layers[l].origins) << "layer " << l;
      const auto* keys = reinterpret_cast<const float*>(set.layers[l].keys.data());
      const auto* values = reinterpret_cast<const float*>(set.layers[l].values.data());
      const std::size_t count = origins[l][0].size();
      for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t g = 0; g < heads; ++g) {
          for (std::size_t x = 0; x < d; ++x) {
            ASSERT_NEAR(keys[(g * count + i) * d + x], plain.layers[l].keys[i][g * d + x], 2e-4F);
            ASSERT_NEAR(values[(g * count + i) * d + x], plain.layers[l].values[i][g * d + x], 2e-4F);
          }
        }
      }
    }
  }

  std::unique_ptr<model::Model> model_;
  model::ModelConfig config;
  std::vector<TokenId> document, prompt;
  std::string policy = "finch";
};

TEST_P(ChunkReaderTest, UsualChunks) {
  document.resize(150);
  agree(30, 50);
  agree(30, 64);  // a short last chunk
  agree(7, 149);  // a last chunk of one token
}

TEST_P(ChunkReaderTest, ChunkOfOneToken) {
  document.resize(60);
  agree(10, 1);
}

TEST_P(ChunkReaderTest, ChunkOfSeven) {
  document.resize(100);
  agree(13, 7);
}

TEST_P(ChunkReaderTest, ChunkLargerThanTheDocument) {
  document.resize(80);
  agree(12, 4000);
}

TEST_P(ChunkReaderTest, KeepAboveTheDocumentKeepsEverything) {
  document.resize(50);
  agree(51, 20);
  agree(100000, 50);
  EXPECT_EQ(read(100000, 20)->kept_after_each_chunk, (std::vector<std::int64_t>{20, 40, 50}));
}

TEST_P(ChunkReaderTest, KeepOfOne) {
  document.resize(60);
  agree(1, 20);
}

TEST_P(ChunkReaderTest, PromptOfOneToken) {
  document.resize(120);
  prompt = {77};
  agree(20, 40);
  agree(5, 120);
  prompt = {4};
  document.resize(30);
  agree(6, 1);
}

TEST_P(ChunkReaderTest, PromptLongerThanAChunk) {
  document.resize(90);
  prompt.clear();
  for (int i = 0; i < 70; ++i) prompt.push_back(5 + i * 13 % 300);
  agree(20, 16);
}

TEST_P(ChunkReaderTest, DocumentOfOneToken) {
  document.resize(1);
  agree(1, 1);
  agree(5, 512);
}

TEST_P(ChunkReaderTest, DocumentLongerThanTheContextWindow) {
  config.context_length = 24 + 32 + static_cast<std::int64_t>(prompt.size());
  ASSERT_GT(document.size(), static_cast<std::size_t>(2 * config.context_length));
  agree(24, 32);  // checks that no position reaches keep + chunk + prompt
  EXPECT_EQ(read(24, 33).status().code(), StatusCode::kInvalidArgument);
}

TEST_P(ChunkReaderTest, WholeIsOneChunkByteForByte) {
  document.resize(130);
  for (const char* name : {"finch", "finch-span", "streaming"}) {
    policy = name;
    const auto whole = read(20, 10, "whole"), chunk = read(20, 130);
    ASSERT_TRUE(whole.is_ok() && chunk.is_ok());
    EXPECT_EQ(testing::bytes_of(whole->set), testing::bytes_of(chunk->set)) << name;
    EXPECT_EQ(whole->kept_after_each_chunk.size(), 1U);
  }
}

TEST_P(ChunkReaderTest, ProgressTellsEveryChunk) {
  document.resize(100);
  std::vector<std::pair<std::int64_t, std::int64_t>> told;
  const auto result = read(10, 30, "chunks", [&](std::int64_t done, std::int64_t total) {
    told.emplace_back(done, total);
    return true;
  });
  ASSERT_TRUE(result.is_ok());
  EXPECT_EQ(told, (std::vector<std::pair<std::int64_t, std::int64_t>>{{30, 100}, {60, 100}, {90, 100}, {100, 100}}));
}

TEST_P(ChunkReaderTest, ProgressMayStopIt) {
  document.resize(100);
  int calls = 0;
  const auto result = read(10, 30, "chunks", [&](std::int64_t, std::int64_t) { return ++calls < 2; });
  EXPECT_EQ(result.status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(calls, 2);
  EXPECT_TRUE(read(10, 30).is_ok()) << "the model is as good as before";
}

TEST_P(ChunkReaderTest, TokensOutsideTheVocabularyAreNamed) {
  document.resize(60);
  document[40] = 320;
  const auto result = read(10, 30);
  EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(result.status().message().find("320"), std::string::npos) << result.status().message();
}

INSTANTIATE_TEST_SUITE_P(Tiny, ChunkReaderTest, ::testing::Values("tiny-llama", "tiny-qwen3"),
                         [](const auto& tested) { return std::string(tested.param).substr(5); });

}  // namespace
}  // namespace finchkv::compressor
