// export and import of single entries; backup and restore are refused by name until they are there.

#include <memory>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "cache_store/safetensors.h"
#include "cli/entry_text.h"
#include "cli/output.h"
#include "cli/store_access.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

struct TransferOptions {
  StoreOptions store;
  std::string id;
  std::string path;
  std::optional<std::uint64_t> rope_base;
  bool json = false;
};

Status run_export(const TransferOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_reading(o.store));
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::EntryInfo entry, find_entry(*open.store, o.id));
  FINCHKV_ASSIGN_OR_RETURN(const KvSet set, open.store->get(entry.id));
  FINCHKV_RETURN_IF_ERROR(cache_store::export_safetensors(set, entry.identity, o.path, {.rope_base = o.rope_base}));
  if (o.json) {
    print_json({{"id", entry.id.hex()}, {"file", o.path}});
  } else {
    print(fmt::format("{} exported to {}\n", short_id(entry.id.hex()), o.path));
  }
  return Status::ok();
}

Status run_import(const TransferOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(cache_store::ImportedSet imported, cache_store::import_safetensors(o.path));
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_writing(o.store, /*create=*/true));
  cache_store::PutRequest put;
  put.identity = std::move(imported.identity);
  put.set = std::move(imported.set);
  put.provenance = cache_store::Provenance::kImported;
  const Status there = open.store->verify(cache_store::cache_id(put.identity, open.store->tenant()));
  if (there.code() == StatusCode::kCorrupt) {
    put.if_exists = cache_store::IfExists::kReplace;
  } else if (!there.is_ok() && there.code() != StatusCode::kNotFound) {
    return there;
  }
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::EntryInfo entry, open.store->put(put));
  if (o.json) {
    print_json(entry_json(entry));
  } else {
    print(entry.id.hex() + "\n");
  }
  if (there.is_ok()) print_note(fmt::format("{} was already there, and stays as it was", short_id(entry.id.hex())));
  if (there.code() == StatusCode::kCorrupt) {
    print_note(fmt::format("{} was there and damaged: it has been replaced", short_id(entry.id.hex())));
  }
  return Status::ok();
}

CLI::App* add_verb(CLI::App& app, Session& session, const char* name, const char* about, bool writes, bool has_id,
                   Status (*run)(const TransferOptions&), const std::shared_ptr<TransferOptions>& options) {
  CLI::App* verb = app.add_subcommand(name, about);
  if (has_id) {
    verb->add_option("id", options->id, "The entry's id, or enough of its first digits")->type_name("ID")->required();
  }
  verb->add_option("file", options->path, "A safetensors file")->type_name("FILE")->required();
  add_store_options(*verb, options->store, writes);
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->callback([&session, options, run] { session.action = [options, run] { return run(*options); }; });
  return verb;
}

void add_later(CLI::App& app, Session& session, const char* name, const char* about) {
  CLI::App* verb = app.add_subcommand(name, about);
  auto options = std::make_shared<TransferOptions>();
  verb->add_option("dir", options->path, "The folder of the backup")->type_name("DIR")->required();
  add_store_options(*verb, options->store, /*writes=*/true);
  verb->callback([&session, name, options] {  // the options live as long as the verb does
    session.action = [name] {
      return Status::unsupported(
          fmt::format("{} comes with a later version: until then use export and import, or copy the store's "
                      "directory while nothing writes to it",
                      name));
    };
  });
}

}  // namespace

void add_transfer(CLI::App& app, Session& session) {
  auto out = std::make_shared<TransferOptions>();
  add_verb(app, session, "export", "Write one entry to a safetensors file", /*writes=*/false, /*has_id=*/true,
           run_export, out)
      ->add_option("--rope", out->rope_base, "Rotate the keys to positions BASE.. (default: as they are, before RoPE)")
      ->type_name("BASE");
  add_verb(app, session, "import", "Store an entry from a safetensors file; prints its id", /*writes=*/true,
           /*has_id=*/false, run_import, std::make_shared<TransferOptions>());
  add_later(app, session, "backup", "Copy a store (comes with a later version)");
  add_later(app, session, "restore", "Bring a copy back (comes with a later version)");
}

}  // namespace finchkv::cli
