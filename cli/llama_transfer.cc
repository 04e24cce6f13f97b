#include "cli/llama_transfer.h"

#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/digest.h"
#include "cli/files.h"
#include "cli/streams.h"
#include "engine/same_model.h"

namespace finchkv::cli {

void add_llama_export_options(CLI::App& verb, LlamaExportOptions& options) {
  const char* group = "llama.cpp";
  verb.add_option("--cache-type", options.cache_type, "The context's type_k and type_v")
      ->check(CLI::IsMember({"f16", "bf16", "f32"}))
      ->capture_default_str()
      ->group(group);
  verb.add_flag("--no-flash-attn", options.no_flash_attention, "The context works without flash attention")
      ->group(group);
  verb.add_option("--streams", options.streams, "Slots of a server whose slots share no cells (--no-kv-unified)")
      ->capture_default_str()
      ->type_name("N")
      ->group(group);
  verb.add_option("--tokens", options.tokens,
                  "The slot's tokens (JSON array of ids); default: the document, or what the first layer kept, last "
                  "first")
      ->type_name("FILE")
      ->group(group);
  verb.add_option("--check-model", options.model, "Only if the entry is of this model (GGUF)")
      ->type_name("FILE")
      ->group(group);
}

Result<LlamaExported> export_llama(const LlamaExportOptions& options, cache_store::Store& store,
                                   const cache_store::EntryInfo& entry, std::uint64_t base, const std::string& path) {
  if (!options.model.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(
        const auto model,
        model::Model::open(options.model, {.fingerprint_memory = fingerprint_memory_path(), .threads = 0}));
    FINCHKV_RETURN_IF_ERROR(engine::check_same_model(entry, *model));
  }
  cache_store::LlamaStateOptions how;
  how.dtype = *dtype_from_name(options.cache_type);
  how.transposed_values = options.no_flash_attention;
  how.streams = options.streams;
  how.base_position = base;
  FINCHKV_ASSIGN_OR_RETURN(const KvSet set, store.get(entry.id));
  std::vector<std::int32_t> tokens;
  if (!options.tokens.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(tokens, read_token_ids(options.tokens, "--tokens"));
  } else if (entry.has_document_tokens) {
    FINCHKV_ASSIGN_OR_RETURN(const auto document, store.read_document_tokens(entry.id));
    FINCHKV_ASSIGN_OR_RETURN(tokens, cache_store::llama_slot_tokens(set, document, how));
  } else {
    return Status::invalid_argument(
        fmt::format("entry {} was stored without its document's tokens, which the file is to have: name them with "
                    "--tokens, {} of them",
                    entry.id.hex().substr(0, 12), cache_store::llama_next_position(set, how)));
  }
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::LlamaState state, cache_store::write_llama_state(set, tokens, how));
  FINCHKV_ASSIGN_OR_RETURN(FileSink file, FileSink::create(path));
  FINCHKV_RETURN_IF_ERROR(file.write(state.bytes()));
  FINCHKV_RETURN_IF_ERROR(file.finish());
  return LlamaExported{std::move(tokens), state.size};
}

namespace {

/// What the keys and values are, as a number of the identity: a state does not say how it came about, and two that have
/// the same tokens may be different selections of one document.
std::int64_t content_of(const KvSet& set) {
  std::vector<std::byte> digests;
  const auto add = [&digests](std::span<const std::byte> bytes) {
    const Sha256 digest = sha256(bytes);
    const auto of = std::as_bytes(std::span(digest));
    digests.insert(digests.end(), of.begin(), of.end());
  };
  for (const KvLayer& layer : set.layers) {
    add(layer.keys);
    add(layer.values);
  }
  add(std::as_bytes(set.layers.front().origins));
  const Sha256 all = sha256(digests);
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < sizeof(number); ++i) number = number << 8U | all.at(i);
  return static_cast<std::int64_t>(number >> 1U);
}

}  // namespace

Result<cache_store::PutRequest> import_llama(std::span<const std::byte> file, const std::string& name,
                                             const std::string& model_path, const cache_store::Tenant& tenant) {
  if (model_path.empty()) {
    return Status::invalid_argument(
        fmt::format("{} is a llama.cpp sequence file, which does not say of which model: name it with --model", name));
  }
  FINCHKV_ASSIGN_OR_RETURN(
      const auto model,
      model::Model::open(model_path, {.fingerprint_memory = fingerprint_memory_path(), .threads = 0}));
  auto read = cache_store::read_llama_state(file, engine::llama_shape_of(*model));
  if (!read.is_ok()) {
    return Status(read.status().code(), fmt::format("{} cannot be imported: {}", name, read.status().message()));
  }
  cache_store::PutRequest put;
  cache_store::CacheIdentity& id = put.identity;
  id.kind = cache_store::EntryKind::kDocument;
  id.model_fingerprint = model->model_fingerprint();
  id.weights_fingerprint = model->weights_fingerprint();
  id.tokenizer_fingerprint = model->tokenizer_fingerprint();
  id.document_hash = cache_store::token_hash(read->tokens, tenant);
  id.doc_tokens = read->tokens.size();
  id.reader = "llama.cpp";
  id.policy = read->set.max_kept() == read->set.next_position ? "full" : "cells";
  id.parameters["content"] = content_of(read->set);
  id.keep = read->set.max_kept();
  id.numeric = cache_store::NumericClass::kFast;
  id.storage = read->set.dtype;
  put.set = std::move(read->set);
  put.document_tokens = std::move(read->tokens);
  put.provenance = cache_store::Provenance::kImported;
  return put;
}

}  // namespace finchkv::cli
