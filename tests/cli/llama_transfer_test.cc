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
