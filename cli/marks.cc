// label, pin, unpin and expire: what is kept about entries apart from what they hold.

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "cli/output.h"
#include "cli/selection.h"
#include "cli/store_access.h"
#include "cli/units.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

constexpr char kAllFlag[] = "--all";

struct MarkOptions {
  StoreOptions store;
  Selection selection;
  std::string id, label;          // label
  std::optional<std::string> in;  // expire
  bool never = false;
  bool json = false;
};

/// How a verb changes one entry, and what it says of it.
struct Mark {
  std::string done;  ///< "pinned": the key in JSON, and what is printed before the id
  std::function<Status(cache_store::Store&, const cache_store::CacheId&)> change;
  std::string detail;  ///< behind the id
};

Status run_marks(const MarkOptions& o, const Mark& mark) {
  FINCHKV_RETURN_IF_ERROR(check_selection(o.selection, kAllFlag));
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_writing(o.store, /*create=*/false));
  FINCHKV_ASSIGN_OR_RETURN(const Selected selected, select_entries(o.selection, *open.store));
  if (!o.selection.ids.empty() && !selected.unreadable.empty()) {
    return open.store->find(selected.unreadable.front()).status();
  }
  Json changed = Json::array();
  for (const auto& entry : selected.entries) {
    FINCHKV_RETURN_IF_ERROR(mark.change(*open.store, entry.id));
    changed.push_back(entry.id.hex());
    if (!o.json) print(fmt::format("{} {}{}\n", mark.done, entry.id.hex(), mark.detail));
  }
  if (o.json) {
    print_json({{mark.done, changed}});
  } else if (changed.empty()) {
    print_note("nothing matches: nothing was changed");
  }
  return Status::ok();
}

Status run_label(const MarkOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_writing(o.store, /*create=*/false));
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::CacheId id, resolve_id(*open.store, o.id));
  FINCHKV_RETURN_IF_ERROR(open.store->set_label(id, o.label));
  if (o.json) {
    print_json({{"labelled", Json::array({id.hex()})}, {"label", o.label}});
  } else {
    print(fmt::format("labelled {}\n", id.hex()));
  }
  return Status::ok();
}

Status run_pin(const MarkOptions& o, bool pinned) {
  return run_marks(o, {.done = pinned ? "pinned" : "unpinned",
                       .change = [pinned](cache_store::Store& store,
                                          const cache_store::CacheId& id) { return store.set_pinned(id, pinned); },
                       .detail = {}});
}

Status run_expire(const MarkOptions& o) {
  if (o.in.has_value() == o.never) {
    return Status::invalid_argument("say when: --in 2d, or --never");
  }
  std::uint64_t at = 0;
  if (o.in) {
    FINCHKV_ASSIGN_OR_RETURN(const std::uint64_t ms, parse_duration_ms(*o.in, "--in"));
    if (ms == 0) return Status::invalid_argument("--in 0 would remove it now: that is `finchkv rm`");
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    at = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
    if (__builtin_add_overflow(at, ms, &at)) {
      return Status::invalid_argument(fmt::format("--in {} is past any calendar: write --never", *o.in));
    }
  }
  return run_marks(o, {.done = at == 0 ? "kept" : "expiring",
                       .change = [at](cache_store::Store& store,
                                      const cache_store::CacheId& id) { return store.set_expiry(id, at); },
                       .detail = at == 0 ? "" : fmt::format(" on {}", format_time(at))});
}

using Run = std::function<Status(const MarkOptions&)>;

CLI::App* add_verb(CLI::App& app, Session& session, const char* name, const char* about,
                   const std::shared_ptr<MarkOptions>& options, const Run& run) {
  CLI::App* verb = app.add_subcommand(name, about);
  add_publisher_option(*verb, options->store);
  add_store_options(*verb, options->store, /*writes=*/true);
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->callback([&session, options, run] { session.action = [options, run] { return run(*options); }; });
  return verb;
}

void add_selection(CLI::App& verb, MarkOptions& options) {
  verb.add_option("id", options.selection.ids, "Ids, or enough of their first digits")->type_name("ID");
  add_selection_options(verb, options.selection, kAllFlag);
}

}  // namespace

void add_marks(CLI::App& app, Session& session) {
  auto label = std::make_shared<MarkOptions>();
  CLI::App* verb = add_verb(app, session, "label", "Give an entry another label", label, run_label);
  verb->add_option("id", label->id, "The entry's id, or enough of its first digits")->type_name("ID")->required();
  verb->add_option("text", label->label, "What `finchkv ls` shows; '' for none")->type_name("TEXT")->required();
  verb->footer("Example:\n  finchkv label 3fa9 'annual report 2024' --store ./kv");

  auto pin = std::make_shared<MarkOptions>();
  verb = add_verb(app, session, "pin", "Keep entries from being evicted", pin,
                  [](const MarkOptions& o) { return run_pin(o, true); });
  add_selection(*verb, *pin);
  verb->footer("Example:\n  finchkv pin 3fa9 --store ./kv\nHow much may be pinned: `finchkv config --pinned-percent`.");

  auto unpin = std::make_shared<MarkOptions>();
  verb = add_verb(app, session, "unpin", "Let entries be evicted again", unpin,
                  [](const MarkOptions& o) { return run_pin(o, false); });
  add_selection(*verb, *unpin);

  auto expire = std::make_shared<MarkOptions>();
  verb = add_verb(app, session, "expire", "Say when entries go by themselves", expire, run_expire);
  add_selection(*verb, *expire);
  auto* in = verb->add_option("--in", expire->in, "From now: 12h, 2d");
  in->type_name("TIME");
  verb->add_flag("--never", expire->never, "Only when they are removed or evicted")->excludes(in);
  verb->footer(
      "Examples:\n  finchkv expire 3fa9 --in 2d --store ./kv\n"
      "  finchkv expire --label 'draft*' --in 12h --store ./kv");
}

}  // namespace finchkv::cli
