// An entry from a store to the device: whatever it is stored as, a context made of its stream is the one made of its
// set.
#include <gtest/gtest.h>

#include <cstring>

#include "cache_store/memory_store.h"
#include "compressor/reader.h"
#include "model/decode_context.h"
#include "tests/golden.h"

namespace finchkv::engine {
namespace {

using cache_store::EntryStream;
using cache_store::LayerForm;
using model::DecodeContext;
using model::LogitRows;

std::string device_name(const ::testing::TestParamInfo<const char*>& on) { return on.param; }

class Reload : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    FINCHKV_REQUIRE_DEVICE(device, GetParam(), kernels::NumericClass::kReference);
    model = testing::load_model(testing::data_path("tiny-qwen3/model.gguf"), device);
    ASSERT_NE(model, nullptr);
    const auto golden = testing::load_golden("tiny-qwen3");
    document = golden.json["doc"].get<std::vector<model::TokenId>>();
    prompt = golden.json["prompt"].get<std::vector<model::TokenId>>();
    compressor::ReadRequest read;
    read.document = document;
    read.prompt = prompt;
    read.policy = "finch";
    read.keep = 90;  // a whole group of keys and part of one
    auto plan = compressor::resolve_plan(read, model->config());
    ASSERT_TRUE(plan.is_ok()) << plan.status().to_string();
    auto result = compressor::read_document(*plan, *model->transformer(), {});
    ASSERT_TRUE(result.is_ok()) << result.status().to_string();
    set = result->set;
    auto view = host->view({});
    ASSERT_TRUE(view.is_ok());
    store = *std::move(view);
  }

  cache_store::CacheId put(DType storage) {
    cache_store::PutRequest request;
    request.set = set;
    request.identity.doc_tokens = set.doc_tokens;
    request.identity.prompt_tokens = prompt.size();
    request.identity.prompt_hash.fill(1);
    request.identity.reader = "chunks";
    request.identity.policy = "finch";
    request.identity.keep = 90;
    request.identity.storage = storage;
    const auto info = store->put(request);
    EXPECT_TRUE(info.is_ok()) << info.status().to_string();
    return info.is_ok() ? info->id : cache_store::CacheId{};
  }
  Result<DecodeContext> from_stream(EntryStream& entry, DType layout) {
    const cache_store::EntryInfo& info = entry.info();
    const model::SetFrame frame{info.shape,         info.decoded, layout,     info.key_form,
                                info.next_position, info.rope,    info.n_kept};
    return DecodeContext::from_layers(
        *model->transformer(), frame, [&entry](std::uint32_t l) { return entry.take(l); }, 40);
  }
  std::vector<float> logits(DecodeContext& context) {
    auto made = model->transformer()->forward(prompt, context, LogitRows::kAll);
    EXPECT_TRUE(made.is_ok()) << made.status().to_string();
    return made.is_ok() ? *std::move(made) : std::vector<float>();
  }

  std::unique_ptr<model::Model> model;
  std::vector<model::TokenId> document, prompt;
  KvSet set;
  std::shared_ptr<cache_store::StoreHost> host = cache_store::make_memory_store();
  std::unique_ptr<cache_store::Store> store;
};

TEST_P(Reload, AContextOfAStreamIsTheOneOfItsSet) {
  std::vector<float> exact;
  for (const DType storage : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8, DType::kQ4}) {
    SCOPED_TRACE(std::string(dtype_name(storage)));
    const auto id = put(storage);
    const auto decoded = store->get(id);
    ASSERT_TRUE(decoded.is_ok()) << decoded.status().to_string();
    auto of_set = DecodeContext::from_set(*model->transformer(), *decoded, 40);
    ASSERT_TRUE(of_set.is_ok()) << of_set.status().to_string();
    const auto want = logits(*of_set);
    ASSERT_FALSE(want.empty());
    for (const bool own_memory : {false, true}) {
      for (const LayerForm form : {LayerForm::kStored, LayerForm::kDecoded}) {
        auto entry = store->stream(
            id, {.form = form, .memory = own_memory ? model->transformer()->device().host_memory() : nullptr});
        ASSERT_TRUE(entry.is_ok()) << entry.status().to_string();
        auto context = from_stream(**entry, form == LayerForm::kStored ? storage : decoded->dtype);
        ASSERT_TRUE(context.is_ok()) << context.status().to_string();
        entry->reset();
        EXPECT_EQ(context->position(), 90);
        EXPECT_EQ(logits(*context), want) << "bit for bit";
      }
    }
    if (storage == DType::kF32) exact = want;
    EXPECT_EQ(want == exact, storage == DType::kF32) << "another storage type is another set";
  }
}

TEST_P(Reload, AStreamThatBreaksOffIsWhatItSays) {
  const auto id = put(DType::kQ8);
  const auto entry = *store->stream(id, {.form = LayerForm::kStored});
  const cache_store::EntryInfo& info = entry->info();
  const model::SetFrame frame{info.shape, info.decoded, info.identity.storage, info.key_form, info.next_position,
                              info.rope,  info.n_kept};
  const auto broken = DecodeContext::from_layers(
      *model->transformer(), frame,
      [&entry](std::uint32_t l) -> Result<OwnedLayer> {
        if (l == 2) return Status::corrupt("the third layer is damaged");
        return entry->take(l);
      },
      40);
  EXPECT_EQ(broken.status().code(), StatusCode::kCorrupt);
  EXPECT_EQ(broken.status().message(), "the third layer is damaged");
  // Layers of another layout than the frame says are refused.
  const auto again = *store->stream(id, {.form = LayerForm::kStored});
  EXPECT_EQ(from_stream(*again, DType::kQ4).status().code(), StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Devices, Reload, ::testing::Values("cpu", "cuda"), device_name);

}  // namespace
}  // namespace finchkv::engine
