// ask: where the model and the store meet. Hits, misses, damage, and that answers do not depend on where a set came
// from.
#include "engine/ask.h"

#include <gtest/gtest.h>

#include "cache_store/codec.h"
#include "cache_store/memory_store.h"
#include "tests/compressor/plain_finch.h"
#include "tests/golden.h"

namespace finchkv::engine {
namespace {

using cache_store::CacheId;
using cache_store::EntryInfo;
using cache_store::EntryPage;
using cache_store::EntryStream;
using cache_store::PackedEntry;
using cache_store::PutOptions;
using cache_store::PutRequest;
using cache_store::Sharing;
using cache_store::Store;
using cache_store::StoreStats;
using cache_store::StreamOptions;
using cache_store::Tenant;
using model::TokenId;

// A stream that fails at the end.
class FaultyStream final : public EntryStream {
 public:
  FaultyStream(std::unique_ptr<EntryStream> inner, Status failure)
      : inner_(std::move(inner)), failure_(std::move(failure)) {}
  const EntryInfo& info() const override { return inner_->info(); }
  Result<KvLayer> layer(std::uint32_t) override { return failure_; }
  Result<OwnedLayer> hold(std::uint32_t) override { return failure_; }
  Result<OwnedLayer> take(std::uint32_t) override { return failure_; }
  Result<KvSet> finish() override { return failure_; }

 private:
  std::unique_ptr<EntryStream> inner_;
  Status failure_;
};

// Another store, with failures on demand.
class FaultyStore final : public Store {
 public:
  explicit FaultyStore(Store& inner) : inner_(inner) {}
  std::optional<Status> fail_find, fail_get, fail_put;  // each once: looking it up, reading it to its end, storing it
  int puts = 0, replacing_puts = 0;

  Result<EntryInfo> put(const PutRequest& request) override {
    ++puts;
    if (request.if_exists == cache_store::IfExists::kReplace) ++replacing_puts;
    if (auto failure = std::exchange(fail_put, std::nullopt)) return *failure;
    return inner_.put(request);
  }
  Result<std::unique_ptr<EntryStream>> stream(const CacheId& id, const StreamOptions& options) override {
    if (auto failure = std::exchange(fail_find, std::nullopt)) return *failure;
    FINCHKV_ASSIGN_OR_RETURN(auto entry, inner_.stream(id, options));
    if (auto failure = std::exchange(fail_get, std::nullopt)) {
      return std::unique_ptr<EntryStream>(new FaultyStream(std::move(entry), *failure));
    }
    return entry;
  }
  Result<EntryInfo> find(const CacheId& id) override { return inner_.find(id); }
  Result<std::vector<std::vector<std::uint32_t>>> read_origins(const CacheId& id) override {
    return inner_.read_origins(id);
  }
  Result<std::vector<std::int32_t>> read_document_tokens(const CacheId& id) override {
    return inner_.read_document_tokens(id);
  }
  Status verify(const CacheId& id) override { return inner_.verify(id); }
  Status remove(const CacheId& id) override { return inner_.remove(id); }
  Status set_label(const CacheId& id, const std::string& label) override { return inner_.set_label(id, label); }
  Status set_pinned(const CacheId& id, bool pinned) override { return inner_.set_pinned(id, pinned); }
  Status set_expiry(const CacheId& id, std::uint64_t unix_ms) override { return inner_.set_expiry(id, unix_ms); }
  Result<std::uint64_t> rewrap_keys() override { return inner_.rewrap_keys(); }
  Result<EntryPage> list(const std::optional<CacheId>& after, std::size_t limit) override {
    return inner_.list(after, limit);
  }
  Result<CacheId> resolve_prefix(std::string_view hex) override { return inner_.resolve_prefix(hex); }
  Result<PackedEntry> read_packed(const CacheId& id) override { return inner_.read_packed(id); }
  Result<EntryInfo> put_packed(const PackedEntry& entry, const PutOptions& options) override {
    return inner_.put_packed(entry, options);
  }
  Result<StoreStats> stats() override { return inner_.stats(); }
  const Tenant& tenant() const override { return inner_.tenant(); }

 private:
  Store& inner_;
};

class AskTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = testing::load_model(testing::data_path("tiny-llama/model.gguf"), kernels::NumericClass::kReference);
    golden_ = testing::load_golden("tiny-llama");
  }
  static void TearDownTestSuite() {
    model_.reset();
    golden_ = {};
  }
  void SetUp() override {
    ASSERT_NE(model_, nullptr);
    request.document = golden_.json["doc"].get<std::vector<TokenId>>();
    request.document.resize(120);
    request.prompt = golden_.json["prompt"].get<std::vector<TokenId>>();
    request.policy = "finch";
    request.keep = 24;
    request.chunk = 50;
    request.kv_dtype = DType::kF32;
    request.numeric = cache_store::NumericClass::kReference;
    request.keeping.label = "a label";
    request.answer_tokens = 32;
    generate.max_tokens = 6;
    host = cache_store::make_memory_store();
    auto view = host->view({});
    ASSERT_TRUE(view.is_ok());
    memory = *std::move(view);
    store = std::make_unique<FaultyStore>(*memory);
  }

  Result<std::unique_ptr<Prepared>> prepared() const { return prepare(request, *model_, {}); }
  CacheId id_of(const Request& r) {
    const auto p = prepare(r, *model_, {});
    EXPECT_TRUE(p.is_ok()) << p.status().to_string();
    return p.is_ok() ? (*p)->own.id : CacheId{};
  }
  Result<Asked> run(Store* with) {
    FINCHKV_ASSIGN_OR_RETURN(const auto p, prepared());
    return ask(
        *p, *model_, with, [] { return Status::ok(); }, {}, generate);
  }
  /// What is stored, read without an answer.
  Obtained found() {
    const auto p = prepared();
    auto result = obtain(**p, *model_, memory.get(), [] { return Status::ok(); }, {});
    EXPECT_TRUE(result.is_ok()) << result.status().to_string();
    return result.is_ok() ? *std::move(result) : Obtained{};
  }
  Asked asked(Store* with) {
    auto result = run(with);
    EXPECT_TRUE(result.is_ok()) << result.status().to_string();
    return result.is_ok() ? *std::move(result) : Asked{};
  }

  static inline std::unique_ptr<model::Model> model_;
  static inline testing::Golden golden_;
  Request request;
  model::GenerateOptions generate;
  std::shared_ptr<cache_store::StoreHost> host;
  std::unique_ptr<Store> memory;
  std::unique_ptr<FaultyStore> store;
};

TEST_F(AskTest, MissThenHitGivesTheSameAnswer) {
  const Asked miss = asked(store.get());
  EXPECT_FALSE(miss.entry.hit);
  EXPECT_GT(miss.entry.ms.compress, 0);
  EXPECT_EQ(miss.answer.tokens.size(), 6U);
  const Asked hit = asked(store.get());
  EXPECT_TRUE(hit.entry.hit);
  EXPECT_EQ(hit.entry.ms.compress, 0);
  EXPECT_EQ(hit.answer.tokens, miss.answer.tokens);
  EXPECT_TRUE(hit.entry.set.layers.empty()) << "it went straight to the device";
  EXPECT_EQ(hit.entry.kept, 24U);
  EXPECT_EQ(miss.entry.kept, 24U);
  EXPECT_EQ(testing::bytes_of(found().set), testing::bytes_of(miss.entry.set));
  EXPECT_GT(miss.entry.stored_bytes, 0U);
  EXPECT_EQ(hit.entry.stored_bytes, miss.entry.stored_bytes);
  EXPECT_EQ(store->puts, 1);
}

TEST_F(AskTest, WhatIsStoredSaysHowItWasMade) {
  static_cast<void>(asked(store.get()));
  const auto p = prepared();
  const auto info = memory->find((*p)->own.id);
  ASSERT_TRUE(info.is_ok()) << info.status().to_string();
  EXPECT_EQ(info->label, "a label");
  EXPECT_EQ(info->sharing, Sharing::kPrivate);
  EXPECT_FALSE(info->pinned);
  EXPECT_EQ(info->expires_unix_ms, 0U);
  EXPECT_EQ(info->identity, (*p)->own.identity);
  EXPECT_EQ(info->identity.policy, "finch");
  EXPECT_EQ(info->identity.reader, "chunks");
  EXPECT_EQ(info->identity.keep, 24U);
  EXPECT_EQ(info->identity.chunk, 50U);
  EXPECT_EQ(info->identity.doc_tokens, 120U);
  EXPECT_EQ(info->identity.prompt_tokens, request.prompt.size());
  EXPECT_EQ(info->identity.model_fingerprint, model_->model_fingerprint());
  EXPECT_EQ(info->identity.weights_fingerprint, model_->weights_fingerprint());
  EXPECT_EQ(info->n_kept, std::vector<std::uint32_t>(3, 24));
  EXPECT_EQ(*memory->read_document_tokens((*p)->own.id), request.document);
  EXPECT_TRUE(memory->verify((*p)->own.id).is_ok());
}

TEST_F(AskTest, TheDocumentsTokensAreKeptOnlyWhenWanted) {
  request.keep_document_tokens = false;
  static_cast<void>(asked(store.get()));
  const auto id = (*prepared())->own.id;
  EXPECT_FALSE(memory->find(id)->has_document_tokens);
  EXPECT_EQ(memory->read_document_tokens(id).status().code(), StatusCode::kNotFound);
}

TEST_F(AskTest, AnEntryIsKeptAsTheRequestSays) {
  request.keeping = {.label = "for a week", .ttl_ms = 7 * 86'400'000, .pinned = true};
  const Asked first = asked(store.get());
  const auto info = memory->find(first.entry.id);
  ASSERT_TRUE(info.is_ok()) << info.status().to_string();
  EXPECT_EQ(info->label, "for a week");
  EXPECT_TRUE(info->pinned);
  EXPECT_EQ(info->expires_unix_ms - info->created_unix_ms, 7U * 86'400'000);
}

// Two tenants and the default one, over one storage.
class SharingTest : public AskTest {
 protected:
  static Tenant tenant(char name) {
    return {std::string(1, name), std::vector<std::byte>(16, static_cast<std::byte>(name))};
  }
  std::unique_ptr<Store> view(const Tenant& of, bool publisher = true) {
    auto made = host->view(of, {.publisher = publisher});
    EXPECT_TRUE(made.is_ok()) << made.status().to_string();
    return made.is_ok() ? *std::move(made) : nullptr;
  }
  Result<Obtained> obtain_as(const Tenant& who, bool publisher = true) {
    FINCHKV_ASSIGN_OR_RETURN(const auto p, prepare(request, *model_, who));
    return obtain(*p, *model_, view(who, publisher).get(), [] { return Status::ok(); }, {});
  }
  Result<Obtained> share_as(const Tenant& who, bool publisher = true) {
    request.keeping.sharing = Sharing::kShared;
    auto result = obtain_as(who, publisher);
    request.keeping.sharing = Sharing::kPrivate;
    return result;
  }
};

TEST_F(SharingTest, ASharedEntryIsFoundByEveryTenant) {
  const auto made = share_as(tenant('a'));
  ASSERT_TRUE(made.is_ok()) << made.status().to_string();
  EXPECT_FALSE(made->hit);
  for (const Tenant& who : {tenant('a'), tenant('b'), Tenant{}}) {
    const auto found = obtain_as(who, false);
    ASSERT_TRUE(found.is_ok()) << found.status().to_string();
    EXPECT_TRUE(found->hit) << who.name;
    EXPECT_EQ(found->id, made->id);
    EXPECT_EQ(testing::bytes_of(found->set), testing::bytes_of(made->set));
  }
  EXPECT_EQ(view(tenant('a'))->find(made->id)->sharing, Sharing::kShared);
  EXPECT_EQ(view(tenant('a'))->stats()->entries, 0U) << "it is nobody's own";
}

TEST_F(SharingTest, APrivateEntryIsNotFoundByOthers) {
  ASSERT_TRUE(obtain_as(tenant('a')).is_ok());
  EXPECT_FALSE(obtain_as(tenant('b'))->hit);
  EXPECT_FALSE(obtain_as({})->hit);
}

TEST_F(SharingTest, TheOwnEntryComesFirst) {
  const auto own = obtain_as(tenant('a'));
  ASSERT_TRUE(share_as(tenant('b')).is_ok());
  const auto again = obtain_as(tenant('a'));
  EXPECT_TRUE(again->hit);
  EXPECT_EQ(again->id, own->id);
  EXPECT_NE(again->id, obtain_as(tenant('c'))->id);
}

TEST_F(SharingTest, WhatIsThereIsPublishedWithoutReading) {
  for (const Tenant& who : {tenant('a'), Tenant{}}) {
    SCOPED_TRACE(who.name);
    host = cache_store::make_memory_store();
    const auto own = obtain_as(who);
    const auto shared = share_as(who);
    ASSERT_TRUE(shared.is_ok()) << shared.status().to_string();
    EXPECT_TRUE(shared->hit);
    const auto theirs = obtain_as(tenant('z'), false);
    EXPECT_TRUE(theirs->hit);
    EXPECT_EQ(testing::bytes_of(theirs->set), testing::bytes_of(own->set));
    const auto others = view(tenant('z'));
    EXPECT_TRUE(others->verify(theirs->id).is_ok()) << others->verify(theirs->id).to_string();
    EXPECT_EQ(*others->read_document_tokens(theirs->id), request.document);
  }
}

TEST_F(SharingTest, WhatWasNotComputedHereIsNotPublished) {
  const Tenant who = tenant('a');
  const auto p = prepare(request, *model_, who);
  cache_store::PutRequest put;
  put.identity = (*p)->own.identity;
  put.set = obtain_as(tenant('b'))->set;
  put.provenance = cache_store::Provenance::kImported;
  ASSERT_TRUE(view(who)->put(put).is_ok());
  EXPECT_TRUE(obtain_as(who)->hit) << "its own tenant uses it";
  EXPECT_FALSE(share_as(who)->hit) << "for the others the document is read";
  EXPECT_EQ(view(who)->find((*p)->shared.id)->provenance, cache_store::Provenance::kComputed);
}

TEST_F(SharingTest, SharingIsARight) {
  EXPECT_EQ(share_as(tenant('a'), false).status().code(), StatusCode::kPermissionDenied);
  ASSERT_TRUE(obtain_as(tenant('a')).is_ok());
  EXPECT_EQ(share_as(tenant('a'), false).status().code(), StatusCode::kPermissionDenied);
  EXPECT_FALSE(obtain_as(tenant('b'))->hit);
}

TEST_F(AskTest, RefreshReadsAgainAndReplaces) {
  const Asked first = asked(store.get());
  request.refresh = true;
  request.keeping.label = "newer";
  const Asked again = asked(store.get());
  EXPECT_FALSE(again.entry.hit);
  EXPECT_EQ(again.answer.tokens, first.answer.tokens);
  EXPECT_EQ(store->replacing_puts, 1);
  EXPECT_EQ(memory->find((*prepared())->own.id)->label, "newer");
  EXPECT_EQ(memory->stats()->entries, 1U);
}

TEST_F(AskTest, WithoutAStoreTheAnswerIsTheStoredOne) {
  std::string f32;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8, DType::kQ4}) {
    SCOPED_TRACE(std::string(dtype_name(dtype)));
    request.kv_dtype = dtype;
    const Asked without = asked(nullptr), miss = asked(store.get()), hit = asked(store.get());
    EXPECT_FALSE(without.entry.hit);
    EXPECT_EQ(without.entry.stored_bytes, 0U);
    EXPECT_FALSE(miss.entry.hit);
    EXPECT_TRUE(hit.entry.hit);
    const std::string bytes = testing::bytes_of(without.entry.set);
    EXPECT_TRUE(testing::bytes_of(miss.entry.set) == bytes);
    const Obtained set = found();
    EXPECT_TRUE(testing::bytes_of(set.set) == bytes);
    EXPECT_EQ(set.set.dtype, without.entry.set.dtype);
    EXPECT_EQ(miss.answer.tokens, without.answer.tokens);
    EXPECT_EQ(hit.answer.tokens, without.answer.tokens);
    if (dtype == DType::kF32) f32 = bytes;
    EXPECT_EQ(bytes == f32, dtype == DType::kF32) << "a narrower dtype is another set";
  }
}

TEST_F(AskTest, EveryParameterIsInTheId) {
  const auto changed = [&](const auto& change) {
    Request r = request;
    change(r);
    return id_of(r) != id_of(request);
  };
  EXPECT_FALSE(changed([](Request&) {}));
  EXPECT_TRUE(changed([](Request& r) { r.document[60] ^= 1; }));
  EXPECT_TRUE(changed([](Request& r) { r.document.pop_back(); }));
  EXPECT_TRUE(changed([](Request& r) { r.prompt[2] ^= 1; }));
  EXPECT_TRUE(changed([](Request& r) { r.prompt.push_back(1); }));
  EXPECT_TRUE(changed([](Request& r) { r.keep = 25; }));
  EXPECT_TRUE(changed([](Request& r) { r.chunk = 51; }));
  EXPECT_TRUE(changed([](Request& r) { r.policy = "finch-head"; }));
  EXPECT_TRUE(changed([](Request& r) { r.policy = "finch-span"; }));
  EXPECT_TRUE(changed([](Request& r) { r.reader = "whole"; }));
  EXPECT_TRUE(changed([](Request& r) { r.kv_dtype = DType::kQ8; }));
  EXPECT_TRUE(changed([](Request& r) { r.numeric = cache_store::NumericClass::kFast; }));
  EXPECT_TRUE(changed([](Request& r) { r.numeric = cache_store::NumericClass::kFp8; }));
  request.chunk = 120;  // the same chunks then, by another way of reading
  EXPECT_TRUE(changed([](Request& r) { r.reader = "whole"; }));
  request.policy = "random";
  EXPECT_TRUE(changed([](Request& r) { r.seed = 9; }));
  EXPECT_NE((*prepare(request, *model_, Tenant{"other", std::vector<std::byte>(16, std::byte{1})}))->own.id,
            id_of(request));
}

TEST_F(AskTest, WhatChangesNoByteIsNotInTheId) {
  const CacheId before = id_of(request);
  Request r = request;
  r.keeping.label = "another";
  r.refresh = true;
  r.keep_document_tokens = false;
  r.answer_tokens = 30;
  r.seed = 77;  // finch draws nothing
  EXPECT_EQ(id_of(r), before);
  r.keep.reset();
  r.ratio = 5;  // 120 / 5
  EXPECT_EQ(id_of(r), before) << "a ratio is what it resolves to";
  r.chunk = 120;
  Request longer = r;
  longer.chunk = 4000;
  EXPECT_EQ(id_of(longer), id_of(r)) << "a chunk is at most the document";
}

TEST_F(AskTest, PoliciesThatIgnoreThePromptHitWithAnother) {
  for (const char* policy : {"streaming", "random", "full"}) {
    request.policy = policy;
    request.prompt = golden_.json["prompt"].get<std::vector<TokenId>>();
    EXPECT_FALSE(asked(store.get()).entry.hit) << policy;
    request.prompt = {8, 9, 10};
    const Asked other = asked(store.get());
    EXPECT_TRUE(other.entry.hit) << policy;
    EXPECT_EQ(other.answer.tokens, asked(nullptr).answer.tokens) << "the answer is to the new prompt";
  }
  request.policy = "finch";
  static_cast<void>(asked(store.get()));
  request.prompt = {8, 9, 11};
  EXPECT_FALSE(asked(store.get()).entry.hit);
}

TEST_F(AskTest, ACorruptEntryIsReadAgainAndReplaced) {
  const Asked first = asked(store.get());
  store->fail_get = Status::corrupt("a block's digest is wrong");
  const Asked again = asked(store.get());
  EXPECT_FALSE(again.entry.hit);
  EXPECT_EQ(again.answer.tokens, first.answer.tokens);
  EXPECT_EQ(store->replacing_puts, 1) << "else the damage would stay";
  EXPECT_TRUE(asked(store.get()).entry.hit);
}

TEST_F(AskTest, ACorruptHeadIsReadAgainAndReplaced) {
  static_cast<void>(asked(store.get()));
  store->fail_find = Status::corrupt("the head is damaged");
  EXPECT_FALSE(asked(store.get()).entry.hit);
  EXPECT_EQ(store->replacing_puts, 1);
}

TEST_F(AskTest, AnEntryThatWentMeanwhileIsRead) {
  static_cast<void>(asked(store.get()));
  store->fail_get = Status::not_found("evicted");
  const Asked again = asked(store.get());
  EXPECT_FALSE(again.entry.hit);
  EXPECT_EQ(store->replacing_puts, 0);
}

TEST_F(AskTest, AStoreThatFailsIsTheCallersToKnow) {
  store->fail_find = Status::unavailable("no connection");
  EXPECT_EQ(run(store.get()).status().code(), StatusCode::kUnavailable);
  store->fail_put = Status::resource_exhausted("the disk is full");
  EXPECT_EQ(run(store.get()).status().code(), StatusCode::kResourceExhausted);
  static_cast<void>(asked(store.get()));
  store->fail_get = Status::permission_denied("not yours");
  EXPECT_EQ(run(store.get()).status().code(), StatusCode::kPermissionDenied);
}

TEST_F(AskTest, AHitNeedsNoWeights) {
  static_cast<void>(asked(store.get()));
  const auto p = prepared();
  int called = 0;
  const auto weights = [&called] {
    ++called;
    return Status::resource_exhausted("no memory for weights");
  };
  EXPECT_TRUE(obtain(**p, *model_, store.get(), weights, {})->hit);
  EXPECT_EQ(called, 0);
  request.refresh = true;
  EXPECT_EQ(obtain(**prepared(), *model_, store.get(), weights, {}).status().code(), StatusCode::kResourceExhausted);
}

TEST_F(AskTest, WhatWasStoppedIsNotStored) {
  const auto p = prepared();
  const auto stopped = obtain(
      **p, *model_, store.get(), [] { return Status::ok(); }, [](std::int64_t, std::int64_t) { return false; });
  EXPECT_EQ(stopped.status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(store->puts, 0);
}

TEST_F(AskTest, BadRequestsAreRefusedBeforeAnyWork) {
  request.keep = 0;
  EXPECT_EQ(prepared().status().code(), StatusCode::kInvalidArgument);
  request.keep = 10;
  request.document.clear();
  EXPECT_EQ(prepared().status().code(), StatusCode::kInvalidArgument);
  request.document = {1, 2, 3};
  EXPECT_EQ(prepare(request, *model_, Tenant{"name without a key", {}}).status().code(), StatusCode::kInvalidArgument);
}

// Policies that ignore the prompt resolve without one; the answer still needs it.
TEST_F(AskTest, AnEmptyPromptCannotBeAnswered) {
  request.policy = "streaming";
  request.prompt.clear();
  EXPECT_EQ(run(store.get()).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(AskTest, ArithmeticOfAnotherClassIsRefused) {
  for (const auto numeric : {cache_store::NumericClass::kFast, cache_store::NumericClass::kFp8}) {
    request.numeric = numeric;  // the model of this test computes in f32
    const auto result = run(store.get());
    ASSERT_FALSE(result.is_ok());
    EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(result.status().message().find(cache_store::numeric_class_name(numeric)), std::string::npos)
        << result.status().message();
    EXPECT_EQ(store->puts, 0);
  }
}

// fast and fp8 are two classes: one's model does not answer for the other.
TEST_F(AskTest, ADeviceOfEveryClassAnswersItsOwnRequests) {
  const std::pair<kernels::NumericClass, cache_store::NumericClass> classes[] = {
      {kernels::NumericClass::kReference, cache_store::NumericClass::kReference},
      {kernels::NumericClass::kFast, cache_store::NumericClass::kFast},
      {kernels::NumericClass::kFp8, cache_store::NumericClass::kFp8}};
  std::unique_ptr<model::Model> before = std::move(model_);
  for (const auto& [of_device, of_entry] : classes) {
    EXPECT_EQ(named_class(of_device), of_entry);
    model_ = testing::load_model(testing::data_path("tiny-llama/model.gguf"), of_device);
    for (const auto& [unused, asked] : classes) {
      request.numeric = asked;
      EXPECT_EQ(run(nullptr).is_ok(), asked == of_entry)
          << cache_store::numeric_class_name(asked) << " on " << cache_store::numeric_class_name(of_entry);
    }
  }
  model_ = std::move(before);
}

TEST_F(AskTest, AnAnswerLongerThanWasPreparedForIsRefused) {
  generate.max_tokens = request.answer_tokens + 1;
  const auto result = run(store.get());
  ASSERT_FALSE(result.is_ok());
  EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(store->puts, 0) << "the document was read before the request was judged";
}

TEST_F(AskTest, TheAnswerIsTheGoldenOne) {
  const auto& cases = golden_.json["cases"];
  for (const auto& c : cases) {
    if (c["policy"] != "finch" || c["budget"] != 64) continue;
    request.document = golden_.json["doc"].get<std::vector<TokenId>>();
    request.keep = 64;
    request.chunk = c["chunk"].get<std::int64_t>();
    generate.max_tokens = 12;
    EXPECT_EQ(asked(store.get()).answer.tokens, c["greedy_after_prompt"].get<std::vector<TokenId>>());
    EXPECT_EQ(asked(store.get()).answer.tokens, c["greedy_after_prompt"].get<std::vector<TokenId>>());
    return;
  }
  FAIL() << "the golden data has no such case";
}

}  // namespace
}  // namespace finchkv::engine
