// doctor: is this machine, this store, this model file fit for work?

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <system_error>

#include <fmt/format.h>

#include "cache_store/rocksdb_store.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/store_access.h"
#include "cli/verbs.h"
#include "kernels/device.h"
#include "model/model.h"

namespace finchkv::cli {
namespace {

namespace fs = std::filesystem;

struct DoctorOptions {
  StoreOptions store;
  std::string model;
  bool json = false;
};

class Findings {
 public:
  explicit Findings(bool json) : json_(json), list_(Json::array()) {}

  void good(std::string_view what, const std::string& text) { add(what, text, true); }
  void bad(std::string_view what, const std::string& text) { add(what, text, false); }
  /// One object at the end in JSON; lines are printed as they come.
  Status end() {
    if (json_) print_json({{"ok", wrong_ == 0}, {"findings", list_}});
    if (wrong_ == 0) return Status::ok();
    return {StatusCode::kInternal, fmt::format("doctor: {} of {} checks failed", wrong_, list_.size())};
  }

 private:
  void add(std::string_view what, const std::string& text, bool ok) {
    list_.push_back({{"check", what}, {"ok", ok}, {"text", text}});
    wrong_ += ok ? 0 : 1;
    if (!json_)
      print(fmt::format("{}  {}  {}\n", ok ? "ok   " : "WRONG", pad(std::string(what), 12), printable(text, true)));
  }

  bool json_;
  int wrong_ = 0;
  Json list_;
};

void check_processor(Findings& findings) {
  const auto device = kernels::make_cpu_device({});
  if (device.is_ok()) {
    findings.good("processor", (*device)->description());
  } else {
    findings.bad("processor", device.status().message());
  }
}

void check_gpu(Findings& findings) {
  const auto device = kernels::make_cuda_device({});
  findings.good("gpu", device.is_ok() ? (*device)->description() : "none in use: " + device.status().message());
}

void check_memory_file(Findings& findings) {
  const std::string path = fingerprint_memory_path();
  if (path.empty()) {
    findings.bad("remembering", "HOME is not set: model files are hashed on every run");
  } else if (::access(fs::path(path).parent_path().c_str(), W_OK) != 0) {
    findings.bad("remembering", path + " cannot be written: model files are hashed on every run");
  } else {
    findings.good("remembering", "hashes of model files in " + path);
  }
}

void check_space(Findings& findings, const std::string& directory) {
  constexpr std::uint64_t kLow = 1'000'000'000;
  std::error_code error;
  const fs::space_info space = fs::space(directory, error);
  if (error) {
    findings.bad("disk space", fmt::format("{}: {}", directory, error.message()));
  } else if (space.available < kLow) {
    findings.bad("disk space", fmt::format("only {} are free at {}", format_bytes(space.available), directory));
  } else {
    findings.good("disk space", fmt::format("{} are free at {}", format_bytes(space.available), directory));
  }
}

void check_permissions(Findings& findings, const std::string& directory) {
  struct stat info {};
  if (::stat(directory.c_str(), &info) != 0) {
    findings.bad("permissions", directory + " cannot be looked at");
  } else if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    findings.bad("permissions",
                 fmt::format("{} is open to other users (mode {:o}): what was read can be rebuilt from it; "
                             "chmod 700 it",
                             directory, info.st_mode & 07777U));
  } else if (::access(directory.c_str(), R_OK | W_OK | X_OK) != 0) {
    findings.bad("permissions", fmt::format("{} cannot be written by this user", directory));
  } else {
    findings.good("permissions", "only this user reads " + directory);
  }
}

void check_store(Findings& findings, const StoreOptions& options) {
  const auto directory = store_directory(options);
  if (!directory.is_ok()) return findings.bad("store", directory.status().message());
  const auto open = open_for_reading(options);
  if (!open.is_ok()) return findings.bad("store", open.status().message());
  const auto stats = open->store->stats();
  if (!stats.is_ok()) return findings.bad("store", stats.status().message());
  const std::string what = fmt::format("{} entries, {} on disk", stats->entries, format_bytes(stats->disk_bytes));
  if (stats->unreadable > 0) {
    findings.bad("store", fmt::format("{}, {} unreadable: run `finchkv verify`", what, stats->unreadable));
  } else {
    findings.good("store", what);
  }
  check_permissions(findings, *directory);
  check_space(findings, *directory);
}

void check_model(Findings& findings, const std::string& path) {
  const auto model = model::Model::open(path, {.fingerprint_memory = fingerprint_memory_path(), .threads = 0});
  if (!model.is_ok()) return findings.bad("model", model.status().message());
  const auto& config = (*model)->config();
  findings.good("model", fmt::format("{} ({}), {} layers, {} tokens of context", config.name, config.architecture,
                                     config.n_layers, config.context_length));
  const std::string_view kind = (*model)->tokenizer().kind();
  if (kind == "none") {
    findings.bad("tokenizer", "the file has none: this model takes token ids only");
  } else {
    findings.good("tokenizer",
                  fmt::format("{}, template {}", kind, model::chat_template_name((*model)->chat_template())));
  }
}

Status run_doctor(const DoctorOptions& o) {
  Findings findings(o.json);
  findings.good("version", fmt::format("finchkv {}, compiled by {} with C++{}", FINCHKV_VERSION, FINCHKV_COMPILER,
                                       __cplusplus / 100 % 100));
  check_processor(findings);
  check_gpu(findings);
  check_memory_file(findings);
  if (!o.store.url.empty()) check_store(findings, o.store);
  if (!o.model.empty()) check_model(findings, o.model);
  return findings.end();
}

}  // namespace

void add_doctor(CLI::App& app, Session& session) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* verb = app.add_subcommand("doctor", "Check this machine, and a store and a model file where named");
  add_store_options(*verb, options->store, /*writes=*/false);
  verb->add_option("--model", options->model, "A model file to look into")->type_name("FILE");
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->footer("Exit status 1 when something is wrong.");
  verb->callback([&session, options] { session.action = [options] { return run_doctor(*options); }; });
}

}  // namespace finchkv::cli
