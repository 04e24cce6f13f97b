#include "cli/ask_report.h"

#include <fmt/format.h>

namespace finchkv::cli {
namespace {

double ratio_of(const AskReport& r) {
  const auto kept = static_cast<double>(r.entry->kept);
  return r.entry->kept == 0 ? 0 : static_cast<double>(r.prepared->request.document.size()) / kept;
}

/// Null where nothing was measured: a rate of 0 would be a statement.
Json rate(double count, double ms) { return ms > 0 && count > 0 ? Json(count / ms * 1000) : Json(nullptr); }

}  // namespace

Json ask_json(const AskReport& r) {
  const engine::Obtained& entry = *r.entry;
  const auto& plan = r.prepared->plan;
  Json out;
  out["id"] = r.entry->id.hex();
  out["hit"] = entry.hit;
  out["from"] = entry.hit ? "entry" : "text";
  out["policy"] = plan.policy->name();
  out["chunk"] = plan.chunk;
  out["doc_tokens"] = r.prepared->request.document.size();
  out["prompt_tokens"] = r.prepared->request.prompt.size();
  out["kept"] = entry.kept;
  out["ratio"] = ratio_of(r);
  out["bytes"] = r.stored ? entry.stored_bytes : static_cast<std::uint64_t>(entry.set.tensor_bytes());
  if (r.answer != nullptr) {
    out["answer"] = r.answer_text;
    out["answer_tokens"] = r.answer->tokens;
  }
  Json ms;
  ms["load_model"] = r.load_model_ms;
  ms["tokenize"] = r.tokenize_ms;
  ms["lookup"] = r.open_store_ms + entry.ms.lookup;
  ms["reload"] = entry.ms.reload;
  ms["compress"] = entry.ms.compress;
  ms["store"] = entry.ms.store;
  Json per_s;
  per_s["compress"] = rate(static_cast<double>(r.prepared->request.document.size()), entry.ms.compress);
  if (r.answer != nullptr) {
    ms["first_token"] = r.first_token_ms;
    ms["decode"] = entry.ms.decode;
    // The first token came before the clock of decode started.
    per_s["decode"] = rate(static_cast<double>(r.answer->tokens.size()) - 1, entry.ms.decode);
  }
  out["ms"] = std::move(ms);
  out["tokens_per_s"] = std::move(per_s);
  if (r.mean_log_likelihood) {
    out["score"] = {{"mean_log_likelihood", *r.mean_log_likelihood}, {"tokens", r.scored_tokens}};
  }
  return out;
}

std::string ask_summary(const AskReport& r) {
  const std::string id = short_id(r.entry->id.hex());
  const engine::Obtained& entry = *r.entry;
  std::string line;
  if (entry.hit) {
    line = fmt::format("found {}: nothing was read", id);
  } else {
    line = fmt::format("read {} tokens in {}, kept {} of each layer ({})",
                       format_count(r.prepared->request.document.size()), format_ms(entry.ms.compress),
                       format_count(entry.kept), format_ratio(ratio_of(r)));
    line += r.stored ? fmt::format(", {} stored as {}", format_bytes(entry.stored_bytes), id)
                     : fmt::format(", {} not stored", format_bytes(entry.set.tensor_bytes()));
  }
  if (r.answer != nullptr) line += fmt::format("; first token after {}", format_ms(r.first_token_ms));
  if (r.mean_log_likelihood) {
    line += fmt::format("\nmean log-likelihood of {} tokens: {:.4f}", r.scored_tokens, *r.mean_log_likelihood);
  }
  return line;
}

}  // namespace finchkv::cli
