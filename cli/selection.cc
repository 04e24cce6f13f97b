#include "cli/selection.h"

#include <fnmatch.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "cli/entry_text.h"
#include "cli/files.h"
#include "cli/store_access.h"
#include "model/model.h"

namespace finchkv::cli {
namespace {

using cache_store::CacheId;
using cache_store::EntryInfo;

constexpr std::size_t kLeastDigits = 8;  // of a fingerprint: fewer would be a slip of the pen

bool is_fingerprint_start(const std::string& text) {
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); };
  return text.size() >= kLeastDigits && text.size() <= 64 && std::all_of(text.begin(), text.end(), is_hex);
}

bool is_file(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

/// The conditions, read from the files that they name.
class Conditions {
 public:
  static Result<Conditions> read(const Selection& s, const cache_store::Tenant& tenant) {
    Conditions out;
    out.label_ = s.label;
    std::unique_ptr<model::Model> model;
    if (!s.model.empty()) FINCHKV_RETURN_IF_ERROR(out.read_model(s.model, model));
    std::vector<model::TokenId> ids;
    if (s.doc_tokens) {
      FINCHKV_ASSIGN_OR_RETURN(ids, read_token_ids(*s.doc_tokens, "--doc-tokens"));
    } else if (s.doc) {
      FINCHKV_ASSIGN_OR_RETURN(ids, tokenize_document(s, *model));
    } else {
      return out;
    }
    out.document_ = Hashes{cache_store::token_hash(ids, tenant), cache_store::token_hash(ids, {})};
    return out;
  }

  [[nodiscard]] bool match(const EntryInfo& e) const {
    const auto& identity = e.identity;
    if (weights_ && identity.weights_fingerprint != *weights_) return false;
    if (!fingerprint_.empty() && !starts(identity.model_fingerprint) && !starts(identity.weights_fingerprint)) {
      return false;
    }
    if (label_ && ::fnmatch(label_->c_str(), e.label.c_str(), 0) != 0) return false;
    if (!document_) return true;
    const bool shared = e.sharing == cache_store::Sharing::kShared;
    return identity.document_hash == (shared ? document_->without_key : document_->tenants);
  }

  /// A start that fits several models names none.
  [[nodiscard]] Status check_unique(const std::vector<EntryInfo>& matched) const {
    std::set<std::string> models;
    for (const EntryInfo& e : matched) {
      for (const Sha256& f : {e.identity.model_fingerprint, e.identity.weights_fingerprint}) {
        if (!fingerprint_.empty() && starts(f)) models.insert(to_hex(f));
      }
    }
    if (models.size() <= 1) return Status::ok();
    return Status::invalid_argument(fmt::format("--model {}: several models start so ({}, {}); give more digits",
                                                fingerprint_, *models.begin(), *std::next(models.begin())));
  }

 private:
  struct Hashes {
    Sha256 tenants, without_key;
  };

  [[nodiscard]] bool starts(const Sha256& fingerprint) const {
    return to_hex(fingerprint).compare(0, fingerprint_.size(), fingerprint_) == 0;
  }

  Status read_model(const std::string& name, std::unique_ptr<model::Model>& model) {
    if (is_file(name)) {
      FINCHKV_ASSIGN_OR_RETURN(
          model, model::Model::open(name, {.fingerprint_memory = fingerprint_memory_path(), .threads = 0}));
      weights_ = model->weights_fingerprint();
      return Status::ok();
    }
    if (!is_fingerprint_start(name)) {
      return Status::not_found(fmt::format(
          "--model {}: there is no such file, and it is not the start of a fingerprint ({} hex digits or more)", name,
          kLeastDigits));
    }
    fingerprint_ = name;
    for (char& c : fingerprint_) c = c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
    return Status::ok();
  }

  static Result<std::vector<model::TokenId>> tokenize_document(const Selection& s, const model::Model& model) {
    FINCHKV_ASSIGN_OR_RETURN(const std::string text, read_input(*s.doc, "--doc"));
    model::ChatTemplate chat = model.chat_template();
    if (!s.chat_template.empty()) {
      FINCHKV_ASSIGN_OR_RETURN(chat, model::chat_template_from_name(s.chat_template));
    }
    model::PromptTexts texts;
    texts.document = text;
    texts.prompt = "?";  // a document's tokens do not depend on it
    texts.instruction = s.instruction;
    if (s.system) texts.system = *s.system;
    FINCHKV_ASSIGN_OR_RETURN(model::PromptTokens tokens, model::tokenize_prompt(model.tokenizer(), chat, texts));
    return std::move(tokens.document);
  }

  std::optional<Sha256> weights_;  // of the model file
  std::string fingerprint_;        // the start of one, in lower case
  std::optional<std::string> label_;
  std::optional<Hashes> document_;
};

Status look_up_ids(const std::vector<std::string>& ids, cache_store::Store& store, Selected& out) {
  for (const std::string& digits : ids) {
    FINCHKV_ASSIGN_OR_RETURN(const CacheId id, resolve_id(store, digits));
    auto entry = store.find(id);
    if (entry.is_ok()) {
      out.entries.push_back(*std::move(entry));
    } else if (entry.status().code() == StatusCode::kCorrupt || entry.status().code() == StatusCode::kUnsupported) {
      out.unreadable.push_back(id);
    } else {
      return entry.status();
    }
  }
  // Two starts may name one entry.
  const auto by_id = [](const EntryInfo& a, const EntryInfo& b) { return a.id < b.id; };
  const auto same_id = [](const EntryInfo& a, const EntryInfo& b) { return a.id == b.id; };
  std::sort(out.entries.begin(), out.entries.end(), by_id);
  out.entries.erase(std::unique(out.entries.begin(), out.entries.end(), same_id), out.entries.end());
  std::sort(out.unreadable.begin(), out.unreadable.end());
  out.unreadable.erase(std::unique(out.unreadable.begin(), out.unreadable.end()), out.unreadable.end());
  return Status::ok();
}

}  // namespace

void add_selection_options(CLI::App& verb, Selection& s, const std::string& all_flag) {
  const char* group = "Which entries";
  auto* doc = verb.add_option("--doc", s.doc, "Made from this text (with --model FILE, whose tokenizer it needs)");
  doc->type_name("FILE|-")->group(group);
  verb.add_option("--doc-tokens", s.doc_tokens, "Made from these token ids, a JSON array")
      ->type_name("FILE")
      ->excludes(doc)
      ->group(group);
  verb.add_option("--model", s.model, "Made by this model: its file, or the start of its fingerprint")
      ->type_name("FILE|HEX")
      ->group(group);
  verb.add_option("--label", s.label, "With a label like this; * stands for any text, ? for one character")
      ->type_name("GLOB")
      ->group(group);
  verb.add_flag(all_flag, s.all, "All of the tenant's entries")->group(group);
  verb.add_option("--instruction", s.instruction, "For --doc: what stood before the document")
      ->type_name("TEXT")
      ->group(group);
  verb.add_option("--system", s.system, "For --doc: the system message")->type_name("TEXT")->group(group);
  verb.add_option("--template", s.chat_template, "For --doc: the chat template, where it was not the model file's own")
      ->type_name("NAME")
      ->group(group);
}

Status check_selection(const Selection& s, const std::string& all_flag) {
  if (s.empty()) {
    return Status::invalid_argument(
        fmt::format("say which entries: ids, --doc, --doc-tokens, --model, --label, or {} for every one", all_flag));
  }
  if (s.all && (!s.ids.empty() || s.has_conditions())) {
    return Status::invalid_argument(fmt::format("{} is for every entry: leave it out to choose some", all_flag));
  }
  if (s.doc && (s.model.empty() || !is_file(s.model))) {
    return Status::invalid_argument(
        "--doc needs --model FILE: only the model's tokenizer says which tokens a text becomes");
  }
  if (!s.doc && (s.system || !s.chat_template.empty() || s.instruction != model::kDefaultInstruction)) {
    return Status::invalid_argument("--instruction, --system and --template go with --doc");
  }
  return Status::ok();
}

Result<Selected> select_entries(const Selection& s, cache_store::Store& store) {
  FINCHKV_ASSIGN_OR_RETURN(const Conditions conditions, Conditions::read(s, store.tenant()));
  Selected out;
  if (!s.ids.empty()) {
    FINCHKV_RETURN_IF_ERROR(look_up_ids(s.ids, store, out));
  } else {
    FINCHKV_ASSIGN_OR_RETURN(Listing listing, list_all(store));
    out.entries = std::move(listing.entries);
    out.unreadable = std::move(listing.unreadable);
  }
  if (!s.has_conditions()) return out;
  out.unreadable.clear();
  std::erase_if(out.entries, [&](const EntryInfo& e) { return !conditions.match(e); });
  FINCHKV_RETURN_IF_ERROR(conditions.check_unique(out.entries));
  return out;
}

}  // namespace finchkv::cli
