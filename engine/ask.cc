#include "engine/ask.h"

#include <fmt/format.h>

#include "cache_store/codec.h"

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

// An id promises who computed the bytes: the model that was fingerprinted, in the arithmetic that was asked for.
Status check_model(const Prepared& p, const model::Model& model) {
  if (model.transformer() == nullptr) return Status::internal("the model's weights were not loaded");
  const cache_store::CacheIdentity& identity = p.own.identity;
  if (model.model_fingerprint() != identity.model_fingerprint ||
      model.weights_fingerprint() != identity.weights_fingerprint) {
    return Status::invalid_argument("the request was prepared for another model than the one that is to run it");
  }
  const bool fast = model.transformer()->device().numeric_class() == kernels::NumericClass::kFast;
  if (fast != (identity.numeric == cache_store::NumericClass::kFast)) {
    return Status::invalid_argument(
        fmt::format("the request asks for {} arithmetic, but the model's device computes in another class",
                    cache_store::numeric_class_name(identity.numeric)));
  }
  return Status::ok();
}

cache_store::PutOptions put_options(const Keeping& keeping) {
  cache_store::PutOptions options;
  options.label = keeping.label;
  options.ttl_ms = keeping.ttl_ms;
  options.pinned = keeping.pinned;
  options.sharing = keeping.sharing;
  return options;
}

Result<KvSet> read_and_store(const Prepared& p, model::Model& model, cache_store::Store* store, bool replace,
                             const std::function<Status()>& weights, const compressor::Progress& progress,
                             Obtained& out) {
  FINCHKV_RETURN_IF_ERROR(weights());
  FINCHKV_RETURN_IF_ERROR(check_model(p, model));
  const auto start = clock::now();
  FINCHKV_ASSIGN_OR_RETURN(compressor::ReadResult read,
                           compressor::read_document(p.plan, *model.transformer(), progress));
  out.ms.compress = ms_since(start);
  out.id = p.target().id;
  const auto stored = clock::now();
  if (store != nullptr) {
    cache_store::PutRequest put;
    static_cast<cache_store::PutOptions&>(put) = put_options(p.request.keeping);
    put.identity = p.target().identity;
    put.set = read.set;
    if (p.request.keep_document_tokens) put.document_tokens = p.request.document;
    put.compress_ms = static_cast<std::uint64_t>(out.ms.compress);
    put.zstd_tensors = p.request.keeping.zstd_tensors;
    put.if_exists = replace ? cache_store::IfExists::kReplace : cache_store::IfExists::kKeep;
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::EntryInfo info, store->put(put));
    out.stored_bytes = info.stored_bytes;
    out.ms.store = ms_since(stored);
  }
  return cache_store::as_stored(read.set, p.request.kv_dtype);
}

bool may_be_read_again(const Status& status) {
  return status.code() == StatusCode::kNotFound || status.code() == StatusCode::kCorrupt;
}

// One entry, whole: not_found and corrupt as the store says.
Status load(const Prepared& p, cache_store::Store& store, const cache_store::CacheId& id, Obtained& out) {
  const auto looked = clock::now();
  auto entry = store.stream(id);
  out.ms.lookup += ms_since(looked);
  FINCHKV_RETURN_IF_ERROR(entry.status());
  const auto start = clock::now();
  Result<KvSet> set = (*entry)->finish();
  out.ms.reload += ms_since(start);
  FINCHKV_RETURN_IF_ERROR(set.status());
  // An entry of another length than the plan's is not what this reading makes, whoever wrote it.
  if (set->max_kept() != static_cast<std::uint64_t>(p.plan.budget)) {
    return Status::corrupt(fmt::format("the entry keeps {} where {} were asked for", set->max_kept(), p.plan.budget));
  }
  out.hit = true;
  out.id = id;
  out.stored_bytes = (*entry)->info().stored_bytes;
  out.set = *std::move(set);
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
Status look_up(const Prepared& p, cache_store::Store& store, bool& replace, Obtained& out) {
  if (p.request.keeping.sharing == cache_store::Sharing::kShared) {
    const Status published = publish_own(p, store);
    if (!published.is_ok() && !may_be_read_again(published)) return published;
    if (!published.is_ok() && p.own.id == p.shared.id) {
      replace = published.code() == StatusCode::kCorrupt;
      return Status::ok();
    }
  }
  Status found = load(p, store, p.target().id, out);
  replace = found.code() == StatusCode::kCorrupt;
  if (may_be_read_again(found) && p.target().id != p.shared.id) {
    const Status shared = load(p, store, p.shared.id, out);
    // A damaged shared entry is its publisher's to replace.
    if (shared.is_ok() || !may_be_read_again(shared)) found = shared;
  }
  // A damaged entry is read again and replaced; one that is gone is read. Anything else (a store that cannot be read
  // at all) is the caller's to know.
  return may_be_read_again(found) ? Status::ok() : found;
}

}  // namespace

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
  Obtained out;
  bool replace = p.request.refresh;
  if (store != nullptr && !p.request.refresh) {
    FINCHKV_RETURN_IF_ERROR(look_up(p, *store, replace, out));
    if (out.hit) return out;
  }
  FINCHKV_ASSIGN_OR_RETURN(out.set, read_and_store(p, model, store, replace, weights, progress, out));
  return out;
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
  FINCHKV_ASSIGN_OR_RETURN(asked.entry, obtain(p, model, store, weights, progress));
  FINCHKV_RETURN_IF_ERROR(weights());
  FINCHKV_RETURN_IF_ERROR(check_model(p, model));
  const auto room = static_cast<std::int64_t>(p.request.prompt.size()) + generate.max_tokens;
  FINCHKV_ASSIGN_OR_RETURN(model::DecodeContext context,
                           model::DecodeContext::from_set(*model.transformer(), asked.entry.set, room));
  FINCHKV_ASSIGN_OR_RETURN(
      asked.answer, model::generate(*model.transformer(), &model.tokenizer(), context, p.request.prompt, generate));
  asked.entry.ms.first_token = asked.answer.first_token;
  asked.entry.ms.decode = asked.answer.decode_ms;
  return asked;
}

}  // namespace finchkv::engine
