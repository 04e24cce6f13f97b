#include <algorithm>
#include <iterator>

#include "capi/guard.h"
#include "capi/handles.h"

namespace finchkv::capi {
namespace {

fkv_digest digest_out(const Sha256& digest) {
  fkv_digest out{};
  std::copy(digest.begin(), digest.end(), std::begin(out.bytes));
  return out;
}

}  // namespace

fkv_entry_info info_out(const cache_store::EntryInfo& info) {
  fkv_entry_info out{};
  out.id = id_out(info.id);
  out.label = str_of(info.label);
  out.reader = str_of(info.identity.reader);
  out.policy = str_of(info.identity.policy);
  out.doc_tokens = info.identity.doc_tokens;
  out.prompt_tokens = info.identity.prompt_tokens;
  out.keep = info.identity.keep;
  out.chunk = info.identity.chunk;
  out.n_layers = info.shape.n_layers;
  out.n_kv_heads = info.shape.n_kv_heads;
  out.head_dim = info.shape.head_dim;
  out.origin_rows = info.shape.origin_rows;
  out.max_kept = info.n_kept.empty() ? 0 : *std::max_element(info.n_kept.begin(), info.n_kept.end());
  out.storage_dtype = static_cast<std::uint32_t>(info.identity.storage);
  out.dtype = static_cast<std::uint32_t>(info.decoded);
  out.key_form = static_cast<std::uint32_t>(info.key_form);
  out.next_position = info.next_position;
  out.stored_bytes = info.stored_bytes;
  out.raw_bytes = info.raw_bytes;
  out.compress_ms = info.compress_ms;
  out.created_unix_ms = info.created_unix_ms;
  out.last_used_unix_ms = info.last_used_unix_ms;
  out.expires_unix_ms = info.expires_unix_ms;
  out.hits = info.hits;
  out.pinned = info.pinned ? 1 : 0;
  out.shared = info.sharing == cache_store::Sharing::kShared ? 1 : 0;
  out.sealed = info.sealed ? 1 : 0;
  out.has_document_tokens = info.has_document_tokens ? 1 : 0;
  out.model = digest_out(info.identity.model_fingerprint);
  out.weights = digest_out(info.identity.weights_fingerprint);
  out.tokenizer = digest_out(info.identity.tokenizer_fingerprint);
  out.numeric = static_cast<std::uint32_t>(info.identity.numeric);
  out.provenance = static_cast<std::uint32_t>(info.provenance);
  return out;
}

}  // namespace finchkv::capi

using namespace finchkv;        // NOLINT(google-build-using-namespace): the definitions below are extern "C"
using namespace finchkv::capi;  // NOLINT(google-build-using-namespace)

extern "C" {

fkv_code fkv_entry_get_info(const fkv_entry* entry, fkv_entry_info* info, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(entry, "entry"));
    return write_struct(info_out(entry->info), info, "fkv_entry_info");
  });
}

fkv_code fkv_entry_layer_kept(const fkv_entry* entry, uint32_t layer, uint32_t* n_kept, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(entry, "entry"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(n_kept, "n_kept"));
    const auto& kept = entry->info.n_kept;
    if (layer >= kept.size()) {
      return Status::invalid_argument(fmt::format("there is no layer {} in an entry of {}", layer, kept.size()));
    }
    *n_kept = kept[layer];
    return Status::ok();
  });
}

void fkv_entry_free(fkv_entry* entry) { delete entry; }

size_t fkv_listing_size(const fkv_listing* listing) { return listing == nullptr ? 0 : listing->page.entries.size(); }

fkv_code fkv_listing_get_info(const fkv_listing* listing, size_t index, fkv_entry_info* info, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(listing, "listing"));
    if (index >= listing->page.entries.size()) {
      return Status::invalid_argument(
          fmt::format("there is no entry {} in a listing of {}", index, listing->page.entries.size()));
    }
    return write_struct(info_out(listing->page.entries[index]), info, "fkv_entry_info");
  });
}

uint32_t fkv_listing_next(const fkv_listing* listing, fkv_id* after) {
  if (listing == nullptr || after == nullptr || !listing->page.next) return 0;
  *after = id_out(*listing->page.next);
  return 1;
}

const fkv_id* fkv_listing_unreadable(const fkv_listing* listing, size_t* count) {
  if (count != nullptr) *count = listing == nullptr ? 0 : listing->unreadable.size();
  return listing == nullptr ? nullptr : listing->unreadable.data();
}

void fkv_listing_free(fkv_listing* listing) { delete listing; }

}  // extern "C"
