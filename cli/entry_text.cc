#include "cli/entry_text.h"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

namespace finchkv::cli {

using cache_store::EntryInfo;

std::uint32_t max_kept(const EntryInfo& e) {
  return e.n_kept.empty() ? 0 : *std::max_element(e.n_kept.begin(), e.n_kept.end());
}

double entry_ratio(const EntryInfo& e) {
  const std::uint32_t kept = max_kept(e);
  return kept == 0 ? 0 : static_cast<double>(e.identity.doc_tokens) / kept;
}

Json entry_json(const EntryInfo& e) {
  const auto& identity = e.identity;
  Json out;
  out["id"] = e.id.hex();
  out["label"] = e.label;
  out["kind"] = cache_store::entry_kind_name(identity.kind);
  out["policy"] = identity.policy;
  out["policy_revision"] = identity.policy_revision;
  out["read"] = identity.reader;
  out["chunk"] = identity.chunk;
  out["keep"] = identity.keep;
  out["doc_tokens"] = identity.doc_tokens;
  out["prompt_tokens"] = identity.prompt_tokens;
  out["kept"] = max_kept(e);
  out["ratio"] = entry_ratio(e);
  out["seed"] = identity.seed;
  out["numeric"] = cache_store::numeric_class_name(identity.numeric);
  out["kv_dtype"] = dtype_name(identity.storage);
  out["key_form"] = key_form_name(e.key_form);
  out["next_position"] = e.next_position;
  out["layers"] = e.shape.n_layers;
  out["kv_heads"] = e.shape.n_kv_heads;
  out["head_dim"] = e.shape.head_dim;
  out["origin_rows"] = e.shape.origin_rows;
  out["bytes"] = e.stored_bytes;
  out["raw_bytes"] = e.raw_bytes;
  out["provenance"] = cache_store::provenance_name(e.provenance);
  out["compress_ms"] = e.compress_ms;
  out["created_unix_ms"] = e.created_unix_ms;
  out["last_used_unix_ms"] = e.last_used_unix_ms;
  out["hits"] = e.hits;
  out["expires_unix_ms"] = e.expires_unix_ms;
  out["pinned"] = e.pinned;
  out["sealed"] = e.sealed;
  out["shared"] = e.sharing == cache_store::Sharing::kShared;
  out["has_document_tokens"] = e.has_document_tokens;
  out["model_fingerprint"] = to_hex(identity.model_fingerprint);
  out["weights_fingerprint"] = to_hex(identity.weights_fingerprint);
  return out;
}

void print_figures(const Figures& figures) {
  std::size_t width = 0;
  for (const auto& [name, value] : figures) width = std::max(width, display_width(name));
  for (const auto& [name, value] : figures) {
    print(fmt::format("{}  {}\n", pad(name, width), printable(value, /*one_line=*/true)));
  }
}

Figures entry_figures(const EntryInfo& e) {
  const auto& identity = e.identity;
  std::string read = plural(identity.doc_tokens, "token", "tokens");
  if (identity.chunk > 0 && identity.chunk < identity.doc_tokens) {
    read += fmt::format(", in chunks of {}", format_count(identity.chunk));
  } else {
    read += ", in one pass";
  }
  const std::string guided = identity.prompt_tokens > 0
                                 ? fmt::format("a prompt of {}", plural(identity.prompt_tokens, "token", "tokens"))
                                 : "nothing: it serves any prompt";
  const bool per_head = e.shape.origin_rows > 1;
  Figures figures = {
      {"id", e.id.hex()},
      {"label", e.label.empty() ? "none" : e.label},
      {"read", read},
      {"guided by", guided},
      {"kept", fmt::format("{} entries in each of {}, {} ({})", format_count(max_kept(e)),
                           plural(e.shape.n_layers, "layer", "layers"),
                           per_head ? "each KV head its own choice" : "one choice for all heads of a layer",
                           format_ratio(entry_ratio(e)))},
      {"policy", fmt::format("{}, revision {}", identity.policy, identity.policy_revision)},
      {"arithmetic", std::string(cache_store::numeric_class_name(identity.numeric))},
      {"shape", fmt::format("{} x {} dimensions", plural(e.shape.n_kv_heads, "KV head", "KV heads"), e.shape.head_dim)},
      {"stored", fmt::format("{} as {} ({} when decoded to {})", format_bytes(e.stored_bytes),
                             dtype_name(identity.storage), format_bytes(e.raw_bytes), dtype_name(e.decoded))},
      {"keys", e.key_form == KeyForm::kPreRope ? std::string("before RoPE: they fit any position")
                                               : std::string(key_form_name(e.key_form))},
      {"made by", std::string(cache_store::provenance_name(e.provenance)) +
                      (e.compress_ms > 0 ? fmt::format(", in {}", format_ms(static_cast<double>(e.compress_ms))) : "")},
      {"created", format_time(e.created_unix_ms)},
      {"used", e.hits == 0
                   ? std::string("never since")
                   : fmt::format("{}, last {}", plural(e.hits, "time", "times"), format_time(e.last_used_unix_ms))},
      {"expires", e.expires_unix_ms == 0
                      ? std::string("never")
                      : fmt::format("{} ({})", format_until(e.expires_unix_ms), format_time(e.expires_unix_ms))},
      {"pinned", e.pinned ? "yes: never evicted" : "no"},
      {"sealed", e.sealed ? "yes: encrypted at rest" : "no"},
      {"seen by", e.sharing == cache_store::Sharing::kShared ? "every tenant" : "its own tenant"},
      {"model", to_hex(identity.model_fingerprint).substr(0, 16)},
      {"weights", to_hex(identity.weights_fingerprint).substr(0, 16)},
  };
  return figures;
}

std::string entry_marks(const EntryInfo& e) {
  std::string marks;
  if (e.pinned) marks += 'P';
  if (e.sealed) marks += 'E';
  if (e.sharing == cache_store::Sharing::kShared) marks += 'S';
  if (e.provenance != cache_store::Provenance::kComputed) marks += 'I';
  return marks;
}

namespace {

using ListPage = Result<cache_store::EntryPage> (cache_store::Store::*)(const std::optional<cache_store::CacheId>&,
                                                                        std::size_t);

Result<Listing> all_pages(cache_store::Store& store, ListPage list) {
  constexpr std::size_t kPage = 1000;
  Listing all;
  std::optional<cache_store::CacheId> after;
  do {
    FINCHKV_ASSIGN_OR_RETURN(cache_store::EntryPage page, (store.*list)(after, kPage));
    std::move(page.entries.begin(), page.entries.end(), std::back_inserter(all.entries));
    all.unreadable.insert(all.unreadable.end(), page.unreadable.begin(), page.unreadable.end());
    after = page.next;
  } while (after);
  return all;
}

}  // namespace

Result<Listing> list_all(cache_store::Store& store) { return all_pages(store, &cache_store::Store::list); }

Result<Listing> list_all_shared(cache_store::Store& store) {
  return all_pages(store, &cache_store::Store::list_shared);
}

}  // namespace finchkv::cli
