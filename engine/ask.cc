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
  if (model.model_fingerprint() != p.identity.model_fingerprint ||
      model.weights_fingerprint() != p.identity.weights_fingerprint) {
    return Status::invalid_argument("the request was prepared for another model than the one that is to run it");
  }
  const bool fast = model.transformer()->device().numeric_class() == kernels::NumericClass::kFast;
  if (fast != (p.identity.numeric == cache_store::NumericClass::kFast)) {
    return Status::invalid_argument(
        fmt::format("the request asks for {} arithmetic, but the model's device computes in another class",
                    cache_store::numeric_class_name(p.identity.numeric)));
  }
  return Status::ok();
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
  const auto stored = clock::now();
  if (store != nullptr) {
    cache_store::PutRequest put;
    put.identity = p.identity;
    put.set = read.set;
    if (p.request.keep_document_tokens) put.document_tokens = p.request.document;
    put.compress_ms = static_cast<std::uint64_t>(out.ms.compress);
    put.label = p.request.label;
    put.if_exists = replace ? cache_store::IfExists::kReplace : cache_store::IfExists::kKeep;
    FINCHKV_ASSIGN_OR_RETURN(const cache_store::EntryInfo info, store->put(put));
    out.stored_bytes = info.stored_bytes;
    out.ms.store = ms_since(stored);
  }
  return cache_store::as_stored(read.set, p.request.kv_dtype);
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
  prepared->identity = make_identity(*prepared, model, tenant);
  FINCHKV_RETURN_IF_ERROR(prepared->identity.validate());
  prepared->id = cache_store::cache_id(prepared->identity, tenant);
  return prepared;
}

Result<Obtained> obtain(const Prepared& p, model::Model& model, cache_store::Store* store,
                        const std::function<Status()>& weights, const compressor::Progress& progress) {
  Obtained out;
  bool replace = p.request.refresh;
  if (store != nullptr && !p.request.refresh) {
    const auto looked = clock::now();
    Result<cache_store::EntryInfo> found = store->find(p.id);
    out.ms.lookup = ms_since(looked);
    if (found.is_ok()) {
      const auto start = clock::now();
      Result<KvSet> set = store->get(p.id);
      out.ms.reload = ms_since(start);
      // An entry of another length than the plan's is not what this reading makes, whoever wrote it.
      if (set.is_ok() && set->max_kept() != static_cast<std::uint64_t>(p.plan.budget)) {
        set =
            Status::corrupt(fmt::format("the entry keeps {} where {} were asked for", set->max_kept(), p.plan.budget));
      }
      if (set.is_ok()) {
        out.hit = true;
        out.stored_bytes = found->stored_bytes;
        out.set = *std::move(set);
        return out;
      }
      found = set.status();
    }
    // A damaged entry is read again and replaced; one that is gone is read. Anything else (a store that cannot be
    // read at all) is the caller's to know.
    const StatusCode code = found.status().code();
    if (code != StatusCode::kNotFound && code != StatusCode::kCorrupt) return found.status();
    replace = code == StatusCode::kCorrupt;
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
