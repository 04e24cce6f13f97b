#include "engine/ask.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "cache_store/codec.h"
#include "engine/entry_steps.h"

namespace finchkv::engine {
namespace {

using clock = std::chrono::steady_clock;

double ms_since(clock::time_point start) {
  return std::chrono::duration<double, std::milli>(clock::now() - start).count();
}

cache_store::CacheIdentity make_identity(const Prepared& p, const model::Model& model,
                                         const cache_store::Tenant& tenant) {
  cache_store::CacheIdentity id;
  // An entry that no prompt guided serves every prompt: the document alone names it.
  id.kind = p.plan.policy->uses_prompt() ? cache_store::EntryKind::kPromptGuided : cache_store::EntryKind::kDocument;
  id.model_fingerprint = model.model_fingerprint();
  id.weights_fingerprint = model.weights_fingerprint();
  id.tokenizer_fingerprint = model.tokenizer_fingerprint();
  id.document_hash = cache_store::token_hash(p.plan.document, tenant);
  id.doc_tokens = p.plan.document.size();
  if (p.plan.policy->uses_prompt()) {
    id.prompt_hash = cache_store::token_hash(p.plan.prompt, tenant);
    id.prompt_tokens = p.plan.prompt.size();
  }
  id.reader = p.plan.reader->name();
  id.policy = p.plan.policy->name();
  id.policy_revision = p.plan.policy->revision();
  id.model_code_revision = model::kModelCodeRevision;
  id.keep = static_cast<std::uint64_t>(p.plan.budget);
  id.chunk = static_cast<std::uint64_t>(p.plan.chunk);
  id.seed = p.plan.seed;
  id.parameters = p.plan.policy->parameters();
  id.numeric = p.request.numeric;
  id.storage = p.request.kv_dtype;
  return id;
}

Status check_model(const Prepared& p, const model::Model& model) {
  if (model.transformer() == nullptr) return Status::internal("the model's weights were not loaded");
  return check_model(p, model, model.transformer()->device());
}

cache_store::PutOptions put_options(const Keeping& keeping) {
  cache_store::PutOptions options;
  options.label = keeping.label;
  options.ttl_ms = keeping.ttl_ms;
  options.pinned = keeping.pinned;
  options.sharing = keeping.sharing;
  return options;
}

Status read_and_store(const Prepared& p, model::Model& model, cache_store::Store* store, bool replace,
                      const std::function<Status()>& weights, const compressor::Progress& progress, Obtained& out) {
  FINCHKV_RETURN_IF_ERROR(weights());
  FINCHKV_RETURN_IF_ERROR(check_model(p, model));
  const auto start = clock::now();
  FINCHKV_ASSIGN_OR_RETURN(compressor::ReadResult read,
                           compressor::read_document(p.plan, *model.transformer(), progress));
  out.ms.compress = ms_since(start);
  FINCHKV_RETURN_IF_ERROR(keep(p, store, replace, read.set, out));
  FINCHKV_ASSIGN_OR_RETURN(out.set, cache_store::as_stored(read.set, p.request.kv_dtype));
  return Status::ok();
}

bool may_be_read_again(const Status& status) {
  return status.code() == StatusCode::kNotFound || status.code() == StatusCode::kCorrupt;
}

// What an answer is decoded from, made while an entry's layers are still on their way: each goes to the device as it is
// stored and is expanded there, so no set of the host's is made. Only where the weights are loaded: loading them can
// take longer than a reader may hold an entry without using it.
class EarlyContext {
 public:
  EarlyContext(const Prepared& p, model::Model& model, std::int64_t room) : p_(p), model_(model), room_(room) {}

  [[nodiscard]] bool is_possible() const { return model_.transformer() != nullptr; }
  [[nodiscard]] cache_store::StreamOptions how() const {
    return {.form = cache_store::LayerForm::kStored, .memory = model_.transformer()->device().host_memory()};
  }
  /// `entry` was opened as how() says.
  Status take(cache_store::EntryStream& entry) {
    drop();
    FINCHKV_RETURN_IF_ERROR(check_model(p_, model_));
    const cache_store::EntryInfo& info = entry.info();
    const model::SetFrame frame{info.shape, info.decoded, info.identity.storage, info.key_form, info.next_position,
                                info.rope,  info.n_kept};
    auto made = model::DecodeContext::from_layers(
        *model_.transformer(), frame, [&entry](std::uint32_t layer) { return entry.take(layer); }, room_);
    FINCHKV_RETURN_IF_ERROR(made.status());
    context_.emplace(*std::move(made));
    return Status::ok();
  }
  void drop() { context_.reset(); }  ///< what it was made of turned out to be damaged
  /// Of `set` where it was not made early.
  Result<model::DecodeContext> give(const KvSet& set) {
    if (context_) return *std::move(context_);
    return model::DecodeContext::from_set(*model_.transformer(), set, room_);
  }

 private:
  const Prepared& p_;
  model::Model& model_;
  std::int64_t room_;
  std::optional<model::DecodeContext> context_;
};

// One entry, whole: not_found and corrupt as the store says. `early` may be null.
Status load(const Prepared& p, cache_store::Store& store, const cache_store::CacheId& id, EarlyContext* early,
            Obtained& out) {
  const bool straight = early != nullptr && early->is_possible();
  const auto looked = clock::now();
  auto entry = store.stream(id, straight ? early->how() : cache_store::StreamOptions{});
  out.ms.lookup += ms_since(looked);
  FINCHKV_RETURN_IF_ERROR(entry.status());
  const auto& n_kept = (*entry)->info().n_kept;
  const std::uint64_t longest = n_kept.empty() ? 0 : *std::max_element(n_kept.begin(), n_kept.end());
  // An entry of another length than the plan's is not what this reading makes, whoever wrote it.
  if (longest != static_cast<std::uint64_t>(p.plan.budget)) {
    return Status::corrupt(fmt::format("the entry keeps {} where {} were asked for", longest, p.plan.budget));
  }
  const auto start = clock::now();
  Status loaded = Status::ok();
  if (straight) {
    loaded = early->take(**entry);
  } else {
    Result<KvSet> set = (*entry)->finish();
    loaded = set.status();
    if (set.is_ok()) out.set = *std::move(set);
  }
  out.ms.reload += ms_since(start);
  FINCHKV_RETURN_IF_ERROR(loaded);
  out.hit = true;
  out.id = id;
  out.kept = longest;
  out.stored_bytes = (*entry)->info().stored_bytes;
  return Status::ok();
}

// The tenant's own entry as a shared one too, as it is stored. An entry that this engine did not compute is never
// shared: not_found, so that the document is read.
Status publish_own(const Prepared& p, cache_store::Store& store) {
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::EntryInfo own, store.find(p.own.id));
  if (own.sharing == cache_store::Sharing::kShared) return Status::ok();
  if (own.provenance != cache_store::Provenance::kComputed) return Status::not_found("it was not computed here");
  FINCHKV_ASSIGN_OR_RETURN(cache_store::PackedEntry packed, store.read_packed(p.own.id));
  packed.head.identity = p.shared.identity;
  return store.put_packed(packed, put_options(p.request.keeping)).status();
}

// Ok with out.hit on a hit, ok without on a miss; then `replace` says whether what is there is to be replaced.
Status look_up(const Prepared& p, cache_store::Store& store, EarlyContext* early, bool& replace, Obtained& out) {
  if (p.request.keeping.sharing == cache_store::Sharing::kShared) {
    const Status published = publish_own(p, store);
    if (!published.is_ok() && !may_be_read_again(published)) return published;
    if (!published.is_ok() && p.own.id == p.shared.id) {
      replace = published.code() == StatusCode::kCorrupt;
      return Status::ok();
    }
  }
  Status found = load(p, store, p.target().id, early, out);
  replace = found.code() == StatusCode::kCorrupt;
  if (may_be_read_again(found) && p.target().id != p.shared.id) {
    const Status shared = load(p, store, p.shared.id, early, out);
    // A damaged shared entry is its publisher's to replace.
    if (shared.is_ok() || !may_be_read_again(shared)) found = shared;
  }
  // A damaged entry is read again and replaced; one that is gone is read. Anything else (a store that cannot be read
  // at all) is the caller's to know.
  return may_be_read_again(found) ? Status::ok() : found;
}

Result<Obtained> obtain_with(const Prepared& p, model::Model& model, cache_store::Store* store,
                             const std::function<Status()>& weights, const compressor::Progress& progress,
                             EarlyContext* early) {
  Obtained out;
  bool replace = p.request.refresh;
  if (store != nullptr && !p.request.refresh) {
    FINCHKV_RETURN_IF_ERROR(look_up(p, *store, early, replace, out));
    if (out.hit) return out;
  }
  if (early != nullptr) early->drop();
  FINCHKV_RETURN_IF_ERROR(read_and_store(p, model, store, replace, weights, progress, out));
  return out;
}

}  // namespace

cache_store::NumericClass named_class(kernels::NumericClass numeric) {
  switch (numeric) {
    case kernels::NumericClass::kReference: return cache_store::NumericClass::kReference;
    case kernels::NumericClass::kFast: return cache_store::NumericClass::kFast;
    case kernels::NumericClass::kFp8: return cache_store::NumericClass::kFp8;
  }
  return cache_store::NumericClass::kReference;
}

// An id promises who computed the bytes: the model that was fingerprinted, in the arithmetic that was asked for.
Status check_model(const Prepared& p, const model::Model& model, const kernels::Device& device) {
  const cache_store::CacheIdentity& identity = p.own.identity;
  if (model.model_fingerprint() != identity.model_fingerprint ||
      model.weights_fingerprint() != identity.weights_fingerprint) {
    return Status::invalid_argument("the request was prepared for another model than the one that is to run it");
  }
  const cache_store::NumericClass has = named_class(device.numeric_class());
  if (has != identity.numeric) {
    return Status::invalid_argument(
        fmt::format("the request asks for {} arithmetic, but the model's device computes in class {}",
                    cache_store::numeric_class_name(identity.numeric), cache_store::numeric_class_name(has)));
  }
  return Status::ok();
}

Status look_up(const Prepared& p, cache_store::Store& store, bool& replace, Obtained& out) {
  return look_up(p, store, nullptr, replace, out);
}

Status keep(const Prepared& p, cache_store::Store* store, bool replace, const KvSet& set, Obtained& out) {
  out.id = p.target().id;
  out.kept = set.max_kept();
  const auto stored = clock::now();
  if (store != nullptr) {
    cache_store::PutRequest put;
    static_cast<cache_store::PutOptions&>(put) = put_options(p.request.keeping);
    put.identity = p.target().identity;
    put.set = set;
    if (p.request.keep_document_tokens) put.document_tokens = p.request.document;
    put.compress_ms = static_cast<std::uint64_t>(out.ms.compress);
    put.zstd_tensors = p.request.keeping.zstd_tensors;
    put.if_exists = replace ? cache_store::IfExists::kReplace : cache_store::IfExists::kKeep;
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::EntryInfo info, store->put(put));
    out.stored_bytes = info.stored_bytes;
    out.ms.store = ms_since(stored);
  }
  return Status::ok();
}

Result<std::unique_ptr<Prepared>> prepare(Request request, const model::Model& model,
                                          const cache_store::Tenant& tenant) {
  FINCHKV_RETURN_IF_ERROR(tenant.validate());
  auto prepared = std::make_unique<Prepared>();
  prepared->request = std::move(request);
  const Request& r = prepared->request;
  compressor::ReadRequest read;
  read.document = r.document;
  read.prompt = r.prompt;
  read.reader = r.reader;
  read.policy = r.policy;
  read.keep = r.keep;
  read.ratio = r.ratio;
  read.chunk = r.chunk;
  read.seed = r.seed;
  read.answer_tokens = r.answer_tokens;
  FINCHKV_ASSIGN_OR_RETURN(prepared->plan, compressor::resolve_plan(read, model.config()));
  const auto named = [&](const cache_store::Tenant& under) -> Named {
    cache_store::CacheIdentity identity = make_identity(*prepared, model, under);
    const cache_store::CacheId id = cache_store::cache_id(identity, under);
    return {std::move(identity), id};
  };
  prepared->own = named(tenant);
  prepared->shared = named({});
  FINCHKV_RETURN_IF_ERROR(prepared->own.identity.validate());
  return prepared;
}

Result<Obtained> obtain(const Prepared& p, model::Model& model, cache_store::Store* store,
                        const std::function<Status()>& weights, const compressor::Progress& progress) {
  return obtain_with(p, model, store, weights, progress, nullptr);
}

Result<Asked> ask(const Prepared& p, model::Model& model, cache_store::Store* store,
                  const std::function<Status()>& weights, const compressor::Progress& progress,
                  const model::GenerateOptions& generate) {
  FINCHKV_RETURN_IF_ERROR(generate.validate());
  if (generate.max_tokens > p.request.answer_tokens) {
    return Status::invalid_argument(
        fmt::format("max-tokens is {}, but the request was prepared with room for an answer of {}", generate.max_tokens,
                    p.request.answer_tokens));
  }
  Asked asked;
  const auto room = static_cast<std::int64_t>(p.request.prompt.size()) + generate.max_tokens;
  EarlyContext early(p, model, room);
  FINCHKV_ASSIGN_OR_RETURN(asked.entry, obtain_with(p, model, store, weights, progress, &early));
  FINCHKV_RETURN_IF_ERROR(weights());
  FINCHKV_RETURN_IF_ERROR(check_model(p, model));
  FINCHKV_ASSIGN_OR_RETURN(model::DecodeContext context, early.give(asked.entry.set));
  FINCHKV_ASSIGN_OR_RETURN(
      asked.answer, model::generate(*model.transformer(), &model.tokenizer(), context, p.request.prompt, generate));
  asked.entry.ms.first_token = asked.answer.first_token;
  asked.entry.ms.decode = asked.answer.decode_ms;
  return asked;
}

}  // namespace finchkv::engine
