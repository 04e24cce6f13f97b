// backup and restore: a store's files as they are, copied incrementally and verified.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "cache_store/rocksdb_backup.h"
#include "cli/output.h"
#include "cli/store_access.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

struct BackupVerbOptions {
  StoreOptions store;
  std::string directory;
  std::uint32_t keep = 0;
  std::optional<std::uint32_t> id;
  bool list = false;
  bool verify = false;
  bool json = false;
};

Json record_json(const cache_store::BackupRecord& r) {
  return {{"id", r.id},
          {"created_unix_ms", r.created_unix_ms},
          {"bytes", r.bytes},
          {"files", r.files},
          {"damaged", r.damaged}};
}

Status list_all_backups(const BackupVerbOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(const auto backups, cache_store::list_backups(o.directory));
  if (o.json) {
    Json list = Json::array();
    for (const auto& record : backups) list.push_back(record_json(record));
    print_json({{"backups", list}});
    return Status::ok();
  }
  if (backups.empty()) print_note(fmt::format("{} holds no backups", o.directory));
  for (const auto& r : backups) {
    print(r.damaged ? fmt::format("{:>4}  damaged\n", r.id)
                    : fmt::format("{:>4}  {}  {}  {}\n", r.id, format_time(r.created_unix_ms),
                                  pad(format_bytes(r.bytes), 7, true), plural(r.files, "file", "files")));
  }
  return Status::ok();
}

Status verify_backups(const BackupVerbOptions& o) {
  FINCHKV_RETURN_IF_ERROR(cache_store::verify_backup(o.directory, o.id));
  if (o.json) {
    print_json({{"ok", true}});
  } else {
    print(o.id ? fmt::format("backup {} is sound\n", *o.id) : std::string("all backups are sound\n"));
  }
  return Status::ok();
}

Status make_backup(const BackupVerbOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(const OpenStore open, open_for_writing(o.store, /*create=*/false));
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::BackupReport report, open.host->back_up(o.directory, o.keep));
  if (o.json) {
    Json out = record_json(report.backup);
    out["copied_bytes"] = report.copied_bytes;
    out["copied_files"] = report.copied_files;
    out["removed"] = report.removed;
    print_json(out);
    return Status::ok();
  }
  print(fmt::format("backup {} made and verified: {}, {} of it new\n", report.backup.id,
                    format_bytes(report.backup.bytes), format_bytes(report.copied_bytes)));
  for (const std::uint32_t id : report.removed) print(fmt::format("backup {} removed\n", id));
  return Status::ok();
}

Status run_backup(const BackupVerbOptions& o) {
  if (o.list || o.verify) {
    if (!o.store.url.empty() || o.keep != 0) {
      return Status::invalid_argument(
          "--list and --verify look at a backup directory alone: leave out --store and --keep");
    }
    return o.list ? list_all_backups(o) : verify_backups(o);
  }
  if (o.id) return Status::invalid_argument("--id goes with --verify: a new backup gets the next number");
  return make_backup(o);
}

Status run_restore(const BackupVerbOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(const std::string directory, store_directory(o.store));
  cache_store::RestoreOptions how;
  how.id = o.id;
  FINCHKV_ASSIGN_OR_RETURN(const cache_store::BackupRecord record, cache_store::restore(o.directory, directory, how));
  if (o.json) {
    Json out = record_json(record);
    out["store"] = directory;
    print_json(out);
  } else {
    print(fmt::format("backup {} of {} restored to {}: {}\n", record.id, format_time(record.created_unix_ms), directory,
                      format_bytes(record.bytes)));
  }
  return Status::ok();
}

}  // namespace

void add_backup(CLI::App& app, Session& session) {
  auto options = std::make_shared<BackupVerbOptions>();
  CLI::App* backup = app.add_subcommand("backup", "Back up a store: incremental, and verified when it is made");
  backup->add_option("dir", options->directory, "The directory of the store's backups")->type_name("DIR")->required();
  add_store_options(*backup, options->store, /*writes=*/true);
  backup->add_option("--keep", options->keep, "Remove older backups, so that this many stay")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  auto* list = backup->add_flag("--list", options->list, "Only list the backups in the directory");
  backup->add_flag("--verify", options->verify, "Only read and check the backups in the directory")->excludes(list);
  backup->add_option("--id", options->id, "With --verify: this backup alone")->type_name("N");
  backup->add_flag("--json", options->json, "One JSON object on standard output");
  backup->footer(
      "Examples:\n  finchkv backup /mnt/backup/kv --store ./kv --keep 7\n  finchkv backup --list /mnt/backup/kv\n\n"
      "What is encrypted in the store is encrypted in its backups, and no key is in them: keep the keys elsewhere.");
  backup->callback([&session, options] { session.action = [options] { return run_backup(*options); }; });

  auto restoring = std::make_shared<BackupVerbOptions>();
  CLI::App* restore = app.add_subcommand("restore", "Make a store of a backup");
  restore->add_option("dir", restoring->directory, "The directory of the backups")->type_name("DIR")->required();
  restore->add_option("--store", restoring->store.url, "Where the store is made: a directory")
      ->type_name("URL")
      ->required();
  restore->add_option("--id", restoring->id, "Which backup (default: the newest)")->type_name("N");
  restore->add_flag("--json", restoring->json, "One JSON object on standard output");
  restore->footer(
      "Example:\n  finchkv restore /mnt/backup/kv --store ./kv\n\n"
      "--store names a directory that is missing or empty: a restore overwrites nothing.");
  restore->callback([&session, restoring] { session.action = [restoring] { return run_restore(*restoring); }; });
}

}  // namespace finchkv::cli
