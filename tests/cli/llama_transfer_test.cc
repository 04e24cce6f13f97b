// export --format llama-state, and import of what llama.cpp saves.
#include <gtest/gtest.h>

#include "cache_store/llama_state.h"
#include "model/model.h"
#include "tests/cli/store_fixture.h"

namespace finchkv::testing {
namespace {

class LlamaTransfer : public StoreCommandTest {
 protected:
  void SetUp() override {
    StoreCommandTest::SetUp();
    const auto made = run(on_tokens("compress") + Arguments{"--json"});
    ASSERT_EQ(made.status, 0) << made.err;
    id_ = made.json()["id"].get<std::string>();
  }

  Result<cache_store::LlamaSequence> read_back(const std::string& name) {
    const std::string bytes = read_file(path(name));
    auto model = model::Model::open(model_, {});
    const auto& c = (*model)->config();
    return cache_store::read_llama_state(as_byte_span(bytes), {.n_layers = static_cast<std::uint32_t>(c.n_layers),
                                                               .n_kv_heads = static_cast<std::uint32_t>(c.n_kv_heads),
                                                               .head_dim = static_cast<std::uint32_t>(c.head_dim),
                                                               .rope = c.rope});
  }

  std::string id_;
};

TEST_F(LlamaTransfer, AnEntryBecomesASlotAndComesBack) {
  const Arguments go = in_store({"export", id_, path("slot.bin"), "--format", "llama-state", "--json"});
  const auto out = run(go);
  ASSERT_EQ(out.status, 0) << out.err;
  EXPECT_EQ(out.json()["tokens"], 24);
  const auto slot = read_back("slot.bin");
  ASSERT_TRUE(slot.is_ok()) << slot.status().message();
  EXPECT_EQ(slot->set.next_position, 24U);
  EXPECT_EQ(slot->set.dtype, DType::kF16);

  EXPECT_NE(run(in_store({"import", path("slot.bin")})).err.find("--model"), std::string::npos);
  const auto back = run(in_store({"import", path("slot.bin"), "--model", model_, "--json"}));
  ASSERT_EQ(back.status, 0) << back.err;
  const auto entry = back.json();
  EXPECT_EQ(entry["policy"], "full");
  EXPECT_EQ(entry["key_form"], "rotated");

  const std::string other = entry["id"].get<std::string>();
  ASSERT_EQ(run(in_store({"export", other, path("again.bin"), "--format", "llama-state"})).status, 0);
  EXPECT_EQ(read_file(path("again.bin")), read_file(path("slot.bin")));
}

TEST_F(LlamaTransfer, PlaceTypeAndTokensCanBeSaid) {
  // 96 tokens, 24 kept: moved by 72 the set ends where the document does, and the slot's tokens are the document.
  ASSERT_EQ(run(in_store({"export", id_, path("slot.bin"), "--format", "llama-state", "--rope", "72", "--cache-type",
                          "f32", "--no-flash-attn", "--check-model", model_}))
                .status,
            0);
  const auto slot = read_back("slot.bin");
  ASSERT_TRUE(slot.is_ok()) << slot.status().message();
  EXPECT_EQ(slot->set.next_position, 96U);
  EXPECT_EQ(slot->set.dtype, DType::kF32);
  EXPECT_EQ(slot->tokens[1], 48);
  const auto few =
      run(in_store({"export", id_, path("few.bin"), "--format", "llama-state", "--tokens", path("prompt.json")}));
  EXPECT_EQ(few.status, 2);
  EXPECT_NE(few.err.find("24 of them, 3 were given"), std::string::npos) << few.err;
}

// Two selections of one document, moved to its end, have the same tokens: they are two entries all the same.
TEST_F(LlamaTransfer, StatesOfTheSameTokensAreToldApart) {
  write_file(path("prompt.json"), "[150, 3, 99, 61]");
  const auto other = run(on_tokens("compress") + Arguments{"--json"}).json()["id"].get<std::string>();
  std::vector<std::string> imported;
  for (const std::string& id : {id_, other, id_}) {
    const auto out =
        run(in_store({"export", id, path("slot.bin"), "--format", "llama-state", "--rope", "72", "--json"}));
    ASSERT_EQ(out.status, 0) << out.err;
    EXPECT_EQ(out.json()["tokens"], 96);
    EXPECT_EQ(out.json()["token_ids"].size(), 96U);
    const auto back = run(in_store({"import", path("slot.bin"), "--model", model_, "--json"}));
    ASSERT_EQ(back.status, 0) << back.err;
    EXPECT_EQ(back.json()["policy"], "cells");
    imported.push_back(back.json()["id"].get<std::string>());
  }
  EXPECT_NE(imported[0], imported[1]);
  EXPECT_EQ(imported[0], imported[2]);
}

// The same shape and configuration, one weight changed; and a tokenizer with one piece changed.
TEST_F(LlamaTransfer, OtherWeightsAndAnotherTokenizerAreNamed) {
  const auto said_of = [&](const std::string& model) {
    const auto checked =
        run(in_store({"export", id_, path("slot.bin"), "--format", "llama-state", "--check-model", model}));
    EXPECT_EQ(checked.status, 2);
    return checked.err;
  };
  std::string bytes = read_file(model_);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file(path("weights.gguf"), bytes);
  EXPECT_NE(said_of(path("weights.gguf")).find("the weights are others ("), std::string::npos);

  bytes = read_file(model_);
  const std::size_t key = bytes.find("tokenizer.ggml.tokens");
  ASSERT_NE(key, std::string::npos);
  // Behind the key: the value's type, the elements' type (4 bytes each), their number and the first one's length (8).
  const std::size_t piece = key + std::string("tokenizer.ggml.tokens").size() + 4 + 4 + 8 + 8;
  bytes[piece] = bytes[piece] == 'q' ? 'z' : 'q';
  write_file(path("tokenizer.gguf"), bytes);
  EXPECT_NE(said_of(path("tokenizer.gguf")).find("another tokenizer"), std::string::npos);

  EXPECT_NE(said_of(data_path("tiny-qwen3/model.gguf")).find("KV heads of"), std::string::npos);
}

TEST_F(LlamaTransfer, AnotherModelIsRefused) {
  const std::string other = data_path("tiny-qwen2/model.gguf");
  const auto checked =
      run(in_store({"export", id_, path("slot.bin"), "--format", "llama-state", "--check-model", other}));
  EXPECT_EQ(checked.status, 2);
  EXPECT_NE(checked.err.find("is not of"), std::string::npos) << checked.err;
  const auto many = run(in_store({"export", "--all", path("slot.bin"), "--format", "llama-state"}));
  EXPECT_EQ(many.status, 2);
  EXPECT_NE(many.err.find("single entry"), std::string::npos) << many.err;
}

}  // namespace
}  // namespace finchkv::testing
