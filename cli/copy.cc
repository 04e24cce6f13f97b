// copy and warm: entries into another store, and into the page cache.

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "cli/output.h"
#include "cli/selection.h"
#include "cli/store_access.h"
#include "cli/taken_counts.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

constexpr char kAllFlag[] = "--all";

struct CopyOptions {
  StoreOptions store;
  Selection selection;
  std::string to, to_key_file, to_key_command;
  bool to_unencrypted = false;
  bool json = false;
};

/// Unreadable entries that were named are told; of a whole store they are counted.
Status check_readable(const Selection& selection, const Selected& selected, cache_store::Store& store) {
  if (selected.unreadable.empty()) return Status::ok();
  if (!selection.ids.empty()) return store.find(selected.unreadable.front()).status();
  return Status::corrupt(fmt::format("{} unreadable and left out: `finchkv verify` says what is wrong",
                                     selected.unreadable.size() == 1
                                         ? std::string("1 entry is")
                                         : fmt::format("{} entries are", selected.unreadable.size())));
}

/// Tenant and keys are the source's unless other keys are named: ids are made with the tenant's key, so an entry can
/// be at home in its own tenant only.
Result<OpenStore> open_target(const CopyOptions& o, Access access) {
  StoreOptions target = o.store;
  target.url = o.to;
  if (o.to_unencrypted) access.view.keys = nullptr;
  if (!o.to_key_file.empty() || !o.to_key_command.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(access.view.keys, read_keys(o.to_key_file, o.to_key_command));
  }
  return open_for_writing(target, access, /*create=*/true);
}

Status run_copy(const CopyOptions& o) {
  FINCHKV_RETURN_IF_ERROR(check_selection(o.selection, kAllFlag));
  FINCHKV_RETURN_IF_ERROR(store_directory(o.store).status());
  FINCHKV_ASSIGN_OR_RETURN(const Access access, read_access(o.store));
  FINCHKV_ASSIGN_OR_RETURN(OpenStore from, open_for_reading(o.store, access));
  FINCHKV_ASSIGN_OR_RETURN(const Selected selected, select_entries(o.selection, *from.store));
  const Status readable = check_readable(o.selection, selected, *from.store);
  if (!readable.is_ok() && !o.selection.ids.empty()) return readable;
  FINCHKV_ASSIGN_OR_RETURN(OpenStore to, open_target(o, access));
  TakenCounts counts;
  Json copied = Json::array();
  for (const auto& entry : selected.entries) {
    auto packed = pack_entry(*from.store, entry);
    if (packed.status().code() == StatusCode::kNotFound) continue;  // it went meanwhile
    FINCHKV_RETURN_IF_ERROR(packed.status());
    FINCHKV_ASSIGN_OR_RETURN(const TakenEntry taken,
                             take_entry(*to.store, *packed, entry.provenance, Existing::kBelieve));
    counts.add(taken);
    if (taken.how != Taken::kAlreadyThere) copied.push_back(entry.id.hex());
  }
  if (o.json) {
    print_json({{"copied", copied},
                {"bytes", counts.bytes},
                {"replaced", counts.replaced},
                {"already_there", counts.already_there},
                {"unpinned", counts.unpinned},
                {"unreadable", selected.unreadable.size()}});
  } else {
    print(counts.text("copied") + "\n");
  }
  return readable;
}

Status run_warm(const CopyOptions& o) {
  FINCHKV_RETURN_IF_ERROR(check_selection(o.selection, kAllFlag));
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_reading(o.store));
  FINCHKV_ASSIGN_OR_RETURN(const Selected selected, select_entries(o.selection, *open.store));
  const Status readable = check_readable(o.selection, selected, *open.store);
  if (!readable.is_ok() && !o.selection.ids.empty()) return readable;
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;
  for (const auto& entry : selected.entries) {
    // Verifying reads every byte and is no hit: warming does not make an entry look used.
    const Status status = open.store->verify(entry.id);
    if (status.code() == StatusCode::kNotFound) continue;
    FINCHKV_RETURN_IF_ERROR(status);
    ++entries;
    bytes += entry.stored_bytes;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double rate = seconds > 0 ? static_cast<double>(bytes) / seconds : 0;
  if (o.json) {
    print_json({{"entries", entries}, {"bytes", bytes}, {"seconds", seconds}, {"bytes_per_s", rate}});
  } else {
    print(fmt::format("{} read and verified: {} in {}, {} per second\n", plural(entries, "entry", "entries"),
                      format_bytes(bytes), format_ms(seconds * 1000), format_bytes(static_cast<std::uint64_t>(rate))));
  }
  return readable;
}

CLI::App* add_verb(CLI::App& app, Session& session, const char* name, const char* about, bool writes,
                   const std::shared_ptr<CopyOptions>& options, Status (*run)(const CopyOptions&)) {
  CLI::App* verb = app.add_subcommand(name, about);
  verb->add_option("id", options->selection.ids, "Ids, or enough of their first digits")->type_name("ID");
  add_selection_options(*verb, options->selection, kAllFlag);
  add_store_options(*verb, options->store, writes);
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->callback([&session, options, run] { session.action = [options, run] { return run(*options); }; });
  return verb;
}

}  // namespace

void add_copy(CLI::App& app, Session& session) {
  auto options = std::make_shared<CopyOptions>();
  CLI::App* verb = add_verb(app, session, "copy", "Copy entries to another store", /*writes=*/true, options, run_copy);
  const char* group = "Where it goes";
  verb->add_option("--to", options->to, "The other store: a directory, made where there is none")
      ->type_name("URL")
      ->required()
      ->group(group);
  auto* file = verb->add_option("--to-encryption-key-file", options->to_key_file,
                                "The keys that copies are encrypted under (default: the same as here)");
  file->type_name("FILE")->group(group);
  auto* command = verb->add_option("--to-encryption-key-command", options->to_key_command,
                                   "The same with a command that prints the keys");
  command->type_name("CMD")->excludes(file)->group(group);
  verb->add_flag("--to-unencrypted", options->to_unencrypted, "Leave the copies open")
      ->excludes(file)
      ->excludes(command)
      ->group(group);
  add_publisher_option(*verb, options->store);
  verb->footer(
      "Examples:\n  finchkv copy --all --store ./kv --to /mnt/backup/kv\n"
      "  finchkv copy 3fa9 71c2 --store ./kv --to ./other\n\n"
      "Labels, pins, expiry and times go along; hits do not. Nothing is decoded: what was read stays bit for bit. What "
      "is there already stays as it is. A shared entry is named by its whole id, and needs --publisher.");

  auto warm = std::make_shared<CopyOptions>();
  verb = add_verb(app, session, "warm", "Read entries, so that the next reader finds them in memory", /*writes=*/false,
                  warm, run_warm);
  verb->footer("Examples:\n  finchkv warm --all --store ./kv\n  finchkv warm --label 'faq*' --store ./kv");
}

}  // namespace finchkv::cli
