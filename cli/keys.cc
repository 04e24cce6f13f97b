// key: the keys that entries are encrypted under at rest. New ones, their names, and rotation.

#include <memory>
#include <string>

#include <fmt/format.h>

#include "cache_store/key_source.h"
#include "cli/output.h"
#include "cli/store_access.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

struct KeyOptions {
  StoreOptions store;
  std::string file;
  bool json = false;
};

Status run_new(const KeyOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::KeyId id, cache_store::generate_key_file(o.file));
  if (o.json) {
    print_json({{"file", o.file}, {"id", id.hex()}});
    return Status::ok();
  }
  print(fmt::format("{}\n", id.hex()));
  print_note(fmt::format("{} holds the new key: keep a copy where neither the store nor its backups are", o.file));
  return Status::ok();
}

Status run_id(const KeyOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::KeyRing ring, cache_store::load_key_file(o.file));
  Json ids = Json::array();
  for (const auto& id : ring.ids()) {
    ids.push_back(id.hex());
    if (!o.json) print(id.hex() + "\n");
  }
  if (o.json) print_json({{"ids", ids}});  // the current one first
  return Status::ok();
}

Status tell_rewrapped(const KeyOptions& o, const std::string& id, std::uint64_t count) {
  if (o.json) {
    print_json({{"id", id}, {"rewrapped", count}});
  } else {
    print(fmt::format("{} now under key {}\n", count == 1 ? "1 entry is" : format_count(count) + " entries are", id));
  }
  return Status::ok();
}

Status rewrap(const KeyOptions& o, const OpenStore& open, const Access& access) {
  FINCHKV_ASSIGN_OR_RETURN(const auto store, open.host->view(access.tenant, access.view));
  auto count = store->rewrap_keys();
  if (!count.is_ok()) {
    return {count.status().code(),
            fmt::format("{}; the new key is in place and older ones still open what they wrapped: run `finchkv key "
                        "rewrap` once this is mended",
                        count.status().message())};
  }
  return tell_rewrapped(o, access.view.keys->current().hex(), *count);
}

Status run_rotate(const KeyOptions& o) {
  if (o.store.encryption_key_file.empty()) {
    return Status::invalid_argument(
        "key rotate needs --encryption-key-file, which it puts a new key into; where a command gives the keys, put a "
        "new one in front there and run `finchkv key rewrap`");
  }
  FINCHKV_RETURN_IF_ERROR(store_directory(o.store).status());
  FINCHKV_ASSIGN_OR_RETURN(Access access, read_access(o.store));
  // The writer's place first: a key that nothing could be wrapped under would be made for nothing.
  FINCHKV_ASSIGN_OR_RETURN(const OpenStore open, open_for_writing(o.store, access, /*create=*/false));
  FINCHKV_RETURN_IF_ERROR(cache_store::rotate_key_file(o.store.encryption_key_file).status());
  FINCHKV_ASSIGN_OR_RETURN(access.view.keys, read_keys(o.store.encryption_key_file, ""));
  return rewrap(o, open, access);
}

Status run_rewrap(const KeyOptions& o) {
  if (o.store.encryption_key_file.empty() && o.store.encryption_key_command.empty()) {
    return Status::invalid_argument("say which keys: --encryption-key-file or --encryption-key-command");
  }
  FINCHKV_RETURN_IF_ERROR(store_directory(o.store).status());
  FINCHKV_ASSIGN_OR_RETURN(const Access access, read_access(o.store));
  FINCHKV_ASSIGN_OR_RETURN(const OpenStore open, open_for_writing(o.store, access, /*create=*/false));
  return rewrap(o, open, access);
}

CLI::App* add_verb(CLI::App& key, Session& session, const char* name, const char* about,
                   const std::shared_ptr<KeyOptions>& options, Status (*run)(const KeyOptions&)) {
  CLI::App* verb = key.add_subcommand(name, about);
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->callback([&session, options, run] { session.action = [options, run] { return run(*options); }; });
  return verb;
}

}  // namespace

void add_key(CLI::App& app, Session& session) {
  CLI::App* key = app.add_subcommand("key", "Make, name and rotate the keys that entries are encrypted under");
  key->require_subcommand(1);

  auto made = std::make_shared<KeyOptions>();
  add_verb(*key, session, "new", "Write a new key into a new file; prints the key's id", made, run_new)
      ->add_option("file", made->file, "The file to make")
      ->type_name("FILE")
      ->required();

  auto named = std::make_shared<KeyOptions>();
  add_verb(*key, session, "id", "The ids of the keys in a file, the current one first", named, run_id)
      ->add_option("file", named->file, "A key file")
      ->type_name("FILE")
      ->required();

  auto rotated = std::make_shared<KeyOptions>();
  CLI::App* verb =
      add_verb(*key, session, "rotate", "Put a new key in front of the file, and wrap a tenant's data keys under it",
               rotated, run_rotate);
  add_store_options(*verb, rotated->store, /*writes=*/true);
  verb->footer(
      "Example:\n  finchkv key rotate --store ./kv --encryption-key-file kv.key\n\n"
      "What is stored stays as it is: only the small keys of entries are wrapped again. Older keys stay in the file, "
      "since backups and other tenants may need them; once they do not, delete their lines.");

  auto rewrapped = std::make_shared<KeyOptions>();
  verb = add_verb(*key, session, "rewrap", "Wrap a tenant's data keys under the current key", rewrapped, run_rewrap);
  add_store_options(*verb, rewrapped->store, /*writes=*/true);

  key->footer(
      "Examples:\n  finchkv key new kv.key\n"
      "  finchkv compress ... --store ./kv --encryption-key-file kv.key\n"
      "  finchkv key rotate --store ./kv --encryption-key-file kv.key\n\n"
      "Without its key an encrypted entry is lost, and destroying all copies of a key erases what it protects.");
}

}  // namespace finchkv::cli
