// Which entries a verb is for: ids, or what they were made from, or all of them.
//
// Conditions narrow: an entry is chosen when every condition that was given holds. Only the tenant's own entries are
// looked through; a shared entry is named by its id.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/status.h"
#include "cache_store/store.h"
#include "model/chat_template.h"

namespace finchkv::cli {

struct Selection {
  std::vector<std::string> ids;
  std::optional<std::string> doc;  ///< needs `model` to be a file
  std::optional<std::string> doc_tokens;
  std::string instruction = std::string(model::kDefaultInstruction);
  std::optional<std::string> system;
  std::string chat_template;
  std::string model;  ///< a model file, or the start of a fingerprint
  std::optional<std::string> label;
  bool all = false;

  [[nodiscard]] bool has_conditions() const { return doc || doc_tokens || !model.empty() || label; }
  [[nodiscard]] bool empty() const { return ids.empty() && !has_conditions() && !all; }
};

/// Adds the conditions, and `all_flag` ("--all"); ids are the verb's own to add.
void add_selection_options(CLI::App& verb, Selection& selection, const std::string& all_flag);
/// invalid_argument: nothing chosen, or options that do not go together. Before anything is opened.
[[nodiscard]] Status check_selection(const Selection& selection, const std::string& all_flag);

struct Selected {
  std::vector<cache_store::EntryInfo> entries;   ///< by id, each once
  std::vector<cache_store::CacheId> unreadable;  ///< named by id, or all were asked for; conditions match none of them
};
/// Every id is looked up before anything is returned: not_found for one that is not there.
[[nodiscard]] Result<Selected> select_entries(const Selection& selection, cache_store::Store& store);

}  // namespace finchkv::cli
