// export and import: one entry as a safetensors file or a llama.cpp sequence for other programs, or many as an archive
// for another store.

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/mapped_file.h"
#include "cache_store/packed_entry.h"
#include "cache_store/safetensors.h"
#include "cli/entry_text.h"
#include "cli/files.h"
#include "cli/llama_transfer.h"
#include "cli/output.h"
#include "cli/selection.h"
#include "cli/store_access.h"
#include "cli/streams.h"
#include "cli/taken_counts.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

using cache_store::ArchivedEntry;
using cache_store::EntryInfo;

constexpr char kAllFlag[] = "--all";
constexpr char kLlamaFormat[] = "llama-state";

struct ExportOptions {
  StoreOptions store;
  Selection selection;
  std::vector<std::string> places;  ///< ids, if any, and the file behind them
  bool archive = false;
  std::optional<std::uint64_t> rope_base;
  std::string format = "safetensors";
  LlamaExportOptions llama;
  bool json = false;
};

struct ImportOptions {
  StoreOptions store;
  std::string path;
  std::string model;  ///< of a llama.cpp sequence
  bool json = false;
};

Status export_one(const ExportOptions& o, const std::string& id, const std::string& path) {
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_reading(o.store));
  FINCHKV_ASSIGN_OR_RETURN(const EntryInfo entry, find_entry(*open.store, id));
  if (o.format == kLlamaFormat) {
    FINCHKV_ASSIGN_OR_RETURN(const LlamaExported made,
                             export_llama(o.llama, *open.store, entry, o.rope_base.value_or(0), path));
    if (o.json) {
      print_json({{"id", entry.id.hex()},
                  {"file", path},
                  {"tokens", made.tokens.size()},
                  {"token_ids", made.tokens},
                  {"bytes", made.bytes}});
    } else {
      print(fmt::format("{} exported to {} (llama.cpp, {} positions, {})\n", short_id(entry.id.hex()), path,
                        format_count(made.tokens.size()), format_bytes(made.bytes)));
    }
    return Status::ok();
  }
  FINCHKV_ASSIGN_OR_RETURN(const KvSet set, open.store->get(entry.id));
  FINCHKV_RETURN_IF_ERROR(cache_store::export_safetensors(set, entry.identity, path, {.rope_base = o.rope_base}));
  if (o.json) {
    print_json({{"id", entry.id.hex()}, {"file", path}});
  } else {
    print(fmt::format("{} exported to {}\n", short_id(entry.id.hex()), path));
  }
  return Status::ok();
}

Status export_archive(const ExportOptions& o, const Selection& selection, const std::string& path) {
  if (o.json && path == "-") return Status::invalid_argument("--json and - both want standard output: name a file");
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_reading(o.store));
  FINCHKV_ASSIGN_OR_RETURN(const Selected selected, select_entries(selection, *open.store));
  FINCHKV_ASSIGN_OR_RETURN(FileSink file, FileSink::create(path));
  cache_store::ArchiveWriter archive([&file](std::span<const std::byte> bytes) { return file.write(bytes); });
  Status damaged = selected.unreadable.empty() ? Status::ok() : open.store->find(selected.unreadable.front()).status();
  std::uint64_t left_out = selected.unreadable.size();
  for (const EntryInfo& entry : selected.entries) {
    const auto packed = pack_entry(*open.store, entry);
    if (packed.status().code() == StatusCode::kNotFound) continue;  // it went meanwhile
    if (packed.status().code() == StatusCode::kCorrupt) {           // the others are wanted all the more
      if (damaged.is_ok()) damaged = packed.status();
      ++left_out;
      continue;
    }
    FINCHKV_RETURN_IF_ERROR(packed.status());
    FINCHKV_RETURN_IF_ERROR(archive.add(*packed));
  }
  FINCHKV_RETURN_IF_ERROR(archive.finish());
  FINCHKV_RETURN_IF_ERROR(file.finish());
  if (o.json) {
    print_json({{"file", path}, {"entries", archive.entries()}, {"bytes", archive.bytes()}, {"left_out", left_out}});
  } else {
    print_note(fmt::format("{} exported to {} ({})", plural(archive.entries(), "entry", "entries"),
                           path == "-" ? "standard output" : path, format_bytes(archive.bytes())));
  }
  if (left_out > 1) print_note(fmt::format("{} damaged entries were left out", left_out));
  return damaged;
}

Status run_export(const ExportOptions& o) {
  if (o.places.empty()) return Status::invalid_argument("name the file to write");
  const std::string& path = o.places.back();
  Selection selection = o.selection;
  selection.ids.assign(o.places.begin(), o.places.end() - 1);
  const bool one = selection.ids.size() == 1 && !selection.has_conditions() && !selection.all && !o.archive;
  if (one) return export_one(o, selection.ids.front(), path);
  if (selection.empty()) {
    return Status::invalid_argument(
        fmt::format("say which entries go into {}: an id before it, conditions, or --all", path));
  }
  FINCHKV_RETURN_IF_ERROR(check_selection(selection, kAllFlag));
  if (o.format == kLlamaFormat) return Status::invalid_argument("a llama.cpp sequence file is of a single entry");
  if (o.rope_base) return Status::invalid_argument("--rope is for a single entry: archives keep entries as they are");
  return export_archive(o, selection, path);
}

Status put_one(const ImportOptions& o, OpenStore open, cache_store::PutRequest put) {
  const Status there = open.store->verify(cache_store::cache_id(put.identity, open.store->tenant()));
  if (there.code() == StatusCode::kCorrupt) {
    put.if_exists = cache_store::IfExists::kReplace;
  } else if (!there.is_ok() && there.code() != StatusCode::kNotFound) {
    return there;
  }
  FINCHKV_ASSIGN_OR_RETURN(const EntryInfo entry, open.store->put(put));
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

Status import_one(const ImportOptions& o, cache_store::ImportedSet imported) {
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_writing(o.store, /*create=*/true));
  cache_store::PutRequest put;
  put.identity = std::move(imported.identity);
  put.set = std::move(imported.set);
  put.provenance = cache_store::Provenance::kImported;
  return put_one(o, std::move(open), std::move(put));
}

/// Read and checked before the store is opened, but for what depends on whose it is: the token hash.
Status import_sequence(const ImportOptions& o, std::span<const std::byte> bytes, const std::string& name) {
  FINCHKV_ASSIGN_OR_RETURN(const Access access, read_access(o.store));
  FINCHKV_ASSIGN_OR_RETURN(cache_store::PutRequest put, import_llama(bytes, name, o.model, access.tenant));
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_writing(o.store, access, /*create=*/true));
  return put_one(o, std::move(open), std::move(put));
}

/// Each entry is checked whole before it is stored; those before a damaged one stay.
Status import_archive(const ImportOptions& o, FileSource file) {
  cache_store::ArchiveReader archive([&file](std::span<std::byte> into) { return file.read(into); });
  // The first entry is read before the store is opened: what is no archive makes no store.
  auto next = archive.next();
  if (!next.is_ok()) return Status(next.status().code(), fmt::format("{}: {}", file.name(), next.status().message()));
  FINCHKV_ASSIGN_OR_RETURN(OpenStore open, open_for_writing(o.store, /*create=*/true));
  TakenCounts counts;
  Json ids = Json::array();
  Status failed = Status::ok();
  while (failed.is_ok() && next.is_ok() && *next) {
    const ArchivedEntry& entry = **next;
    const bool shared = entry.sharing == cache_store::Sharing::kShared;
    failed = cache_store::check_packed(entry.packed, shared ? cache_store::Tenant{} : open.store->tenant());
    if (failed.is_ok()) {
      auto taken = take_entry(*open.store, entry, cache_store::Provenance::kImported, Existing::kVerify);
      failed = taken.status();
      if (taken.is_ok()) {
        counts.add(*taken);
        ids.push_back(taken->info.id.hex());
        if (!o.json) print(taken->info.id.hex() + "\n");
      }
    }
    if (failed.is_ok()) next = archive.next();
  }
  if (failed.is_ok()) failed = next.is_ok() ? archive.expect_end_of_source() : next.status();
  if (o.json) {
    print_json({{"imported", ids},
                {"bytes", counts.bytes},
                {"replaced", counts.replaced},
                {"already_there", counts.already_there},
                {"unpinned", counts.unpinned}});
  } else {
    print_note(counts.text("imported"));
  }
  if (failed.is_ok()) return failed;
  return {failed.code(), fmt::format("{}, entry {}: {}", file.name(),
                                     counts.stored + counts.replaced + counts.already_there + 1, failed.message())};
}

Status run_import(const ImportOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(FileSource file, FileSource::open(o.path));
  FINCHKV_ASSIGN_OR_RETURN(const std::string start, file.peek(cache_store::kArchiveMagic.size()));
  if (start == cache_store::kArchiveMagic) return import_archive(o, std::move(file));
  const bool sequence = start.starts_with(cache_store::kLlamaFileMagic);
  if (o.path != "-" && sequence) {
    FINCHKV_ASSIGN_OR_RETURN(const auto mapped, MappedFile::open(o.path));
    return import_sequence(o, mapped.bytes(), o.path);
  }
  if (o.path != "-") {
    FINCHKV_ASSIGN_OR_RETURN(cache_store::ImportedSet imported, cache_store::import_safetensors(o.path));
    return import_one(o, std::move(imported));
  }
  FINCHKV_ASSIGN_OR_RETURN(const std::string rest, read_input("-", "import"));
  const std::string bytes = start + rest;
  if (sequence) return import_sequence(o, as_byte_span(bytes), file.name());
  FINCHKV_ASSIGN_OR_RETURN(cache_store::ImportedSet imported,
                           cache_store::parse_safetensors(as_byte_span(bytes), file.name()));
  return import_one(o, std::move(imported));
}

void add_export(CLI::App& app, Session& session) {
  auto options = std::make_shared<ExportOptions>();
  CLI::App* verb =
      app.add_subcommand("export", "Write one entry as safetensors or for llama.cpp, or many as an archive");
  verb->add_option("file", options->places, "An id and a file; or a file, - for standard output, for an archive")
      ->type_name("[ID...] FILE")
      ->required();
  add_selection_options(*verb, options->selection, kAllFlag);
  add_store_options(*verb, options->store, /*writes=*/false);
  verb->add_option(
          "--rope", options->rope_base,
          "Rotate one entry's keys to positions BASE.. (default: as they are, before RoPE; for llama-state: to 0..)")
      ->type_name("BASE");
  verb->add_option("--format", options->format, "Of one entry: safetensors, or llama-state for llama.cpp's slots")
      ->check(CLI::IsMember({"safetensors", kLlamaFormat}))
      ->capture_default_str();
  add_llama_export_options(*verb, options->llama);
  verb->add_flag("--archive", options->archive, "An archive even of one entry");
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->footer(
      "Examples:\n"
      "  finchkv export 3fa9 one.safetensors --store ./kv\n"
      "  finchkv export 3fa9 slot.bin --format llama-state --store ./kv\n"
      "  finchkv export --all all.finchkv --store ./kv\n"
      "  finchkv export --all - --store ./kv | ssh host finchkv import - --store ./kv\n\n"
      "An archive keeps labels, pins and expiry. It is not encrypted, even where the store is: what was read can be "
      "rebuilt from it.");
  verb->callback([&session, options] { session.action = [options] { return run_export(*options); }; });
}

void add_import(CLI::App& app, Session& session) {
  auto options = std::make_shared<ImportOptions>();
  CLI::App* verb = app.add_subcommand("import", "Store what `export` wrote; prints ids");
  verb->add_option("file", options->path,
                   "A safetensors file, an archive or a llama.cpp sequence; - for standard input")
      ->type_name("FILE|-")
      ->required();
  add_store_options(*verb, options->store, /*writes=*/true);
  add_publisher_option(*verb, options->store);
  verb->add_option("--model", options->model, "The model (GGUF) that a llama.cpp sequence is of")->type_name("FILE");
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->footer(
      "Examples:\n  finchkv import one.safetensors --store ./kv\n  finchkv import all.finchkv --store ./kv\n\n"
      "Which of them it is, is seen by how the file begins. Everything is checked before it is stored, and counts "
      "as "
      "imported: seen by its own tenant.");
  verb->callback([&session, options] { session.action = [options] { return run_import(*options); }; });
}

}  // namespace

void add_transfer(CLI::App& app, Session& session) {
  add_export(app, session);
  add_import(app, session);
}

}  // namespace finchkv::cli
