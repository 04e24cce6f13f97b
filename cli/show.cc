// show: one entry, its figures and the map of what it kept.

#include <memory>
#include <utility>

#include <fmt/format.h>

#include "cli/entry_text.h"
#include "cli/files.h"
#include "cli/html_page.h"
#include "cli/kept_map.h"
#include "cli/output.h"
#include "cli/store_access.h"
#include "cli/verbs.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

namespace finchkv::cli {
namespace {

using cache_store::EntryInfo;

struct ShowOptions {
  StoreOptions store;
  std::string id;
  std::string html;
  std::string model;
  bool ascii = false;
  bool json = false;
};

Status print_map(const EntryInfo& entry, const LayerOrigins& origins, bool ascii) {
  const MapStyle style{.width = static_cast<std::size_t>(terminal_width()), .ascii = ascii || !locale_is_utf8()};
  FINCHKV_ASSIGN_OR_RETURN(const KeptMap map, make_kept_map(origins, entry.shape.origin_rows, entry.identity.doc_tokens,
                                                            map_columns(style, origins.size())));
  print("\n" + draw_kept_map(map, style));
  return Status::ok();
}

Status print_entry_json(const EntryInfo& entry, const LayerOrigins& origins) {
  Json out = entry_json(entry);
  out["kept_by_layer"] = entry.n_kept;
  out["origins"] = Json::array();  // [layer][1 or kv_heads][kept]
  const std::size_t rows = entry.shape.origin_rows;
  for (const auto& layer : origins) {
    Json lists = Json::array();
    const std::size_t n = layer.size() / rows;
    for (std::size_t row = 0; row < rows; ++row) {
      const auto begin = layer.begin() + static_cast<std::ptrdiff_t>(row * n);
      lists.push_back(std::vector<std::uint32_t>(begin, begin + static_cast<std::ptrdiff_t>(n)));
    }
    out["origins"].push_back(std::move(lists));
  }
  print_json(out);
  return Status::ok();
}

/// Fills in the text of every token, or why there is none.
Status add_text(const ShowOptions& o, const EntryInfo& entry, cache_store::Store& store, PageInput& page) {
  if (!entry.has_document_tokens) {
    page.why_no_text = "The entry was stored without its document, so only positions can be shown.";
    return Status::ok();
  }
  if (o.model.empty()) {
    page.why_no_text = "The tokens' texts are in the model file: name it with --model to see the document here.";
    return Status::ok();
  }
  FINCHKV_ASSIGN_OR_RETURN(const auto file, model::GgufFile::open(o.model));
  FINCHKV_ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::from_gguf(*file));
  if (tokenizer->fingerprint() != to_hex(entry.identity.tokenizer_fingerprint)) {
    return Status::invalid_argument(
        fmt::format("--model {}: its tokenizer is not the one that the entry was read with", o.model));
  }
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<std::int32_t> ids, store.read_document_tokens(entry.id));
  std::vector<std::string> texts;
  texts.reserve(ids.size());
  for (const std::int32_t id : ids) texts.push_back(tokenizer->token_bytes(id, /*special=*/true));
  page.token_texts = std::move(texts);
  return Status::ok();
}

Status write_page(const ShowOptions& o, const EntryInfo& entry, LayerOrigins origins, cache_store::Store& store) {
  PageInput page;
  page.title = entry.label.empty() ? fmt::format("Entry {}", short_id(entry.id.hex())) : entry.label;
  page.figures = entry_figures(entry);
  page.doc_tokens = entry.identity.doc_tokens;
  page.kept = max_kept(entry);
  page.rows = entry.shape.origin_rows;
  page.origins = std::move(origins);
  FINCHKV_RETURN_IF_ERROR(add_text(o, entry, store, page));
  FINCHKV_ASSIGN_OR_RETURN(const std::string html, make_html_page(page));
  FINCHKV_RETURN_IF_ERROR(write_whole_file(o.html, html));
  if (!page.token_texts) print_note(page.why_no_text);
  print_note(fmt::format("{} written: {}", format_bytes(html.size()), o.html));
  return Status::ok();
}

Status run_show(const ShowOptions& o) {
  if (!o.model.empty() && o.html.empty()) {
    return Status::invalid_argument("--model goes with --html, which prints the document's text");
  }
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_reading(o.store));
  FINCHKV_ASSIGN_OR_RETURN(const EntryInfo entry, find_entry(*open.store, o.id));
  FINCHKV_ASSIGN_OR_RETURN(LayerOrigins origins, open.store->read_origins(entry.id));
  if (o.json) FINCHKV_RETURN_IF_ERROR(print_entry_json(entry, origins));
  if (!o.html.empty()) return write_page(o, entry, std::move(origins), *open.store);
  if (o.json) return Status::ok();
  print_figures(entry_figures(entry));
  return print_map(entry, origins, o.ascii);
}

}  // namespace

void add_show(CLI::App& app, Session& session) {
  auto options = std::make_shared<ShowOptions>();
  CLI::App* verb = app.add_subcommand("show", "One entry, and where in the document its kept entries lie");
  verb->add_option("id", options->id, "The entry's id, or enough of its first digits")->type_name("ID")->required();
  add_store_options(*verb, options->store, /*writes=*/false);
  verb->add_option("--html", options->html, "Write a page with the document's text, shaded by what was kept")
      ->type_name("FILE");
  verb->add_option("--model", options->model, "For --html: the model file, whose tokenizer gives the text")
      ->type_name("FILE");
  verb->add_flag("--ascii", options->ascii, "Draw without block characters");
  verb->add_flag("--json", options->json, "One JSON object on standard output, with every origin");
  verb->footer(
      "Examples:\n  finchkv show 3fa9 --store ./kv\n"
      "  finchkv show 3fa9 --store ./kv --html kept.html --model m.gguf");
  verb->callback([&session, options] { session.action = [options] { return run_show(*options); }; });
}

}  // namespace finchkv::cli
