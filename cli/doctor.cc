// doctor: is this machine, this store, this model file fit for work?

#include <unistd.h>

#include <filesystem>
#include <memory>

#include <fmt/format.h>

#include "cache_store/library_versions.h"
#include "cli/doctor_store.h"
#include "cli/files.h"
#include "cli/findings.h"
#include "cli/open_files.h"
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
  bool deep = false;
  bool json = false;
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

/// A store keeps its tables open, two or three for each large entry that is read.
void check_open_files(Findings& findings) {
  constexpr std::uint64_t kFew = 1024;
  const OpenFileLimit limit = open_file_limit();
  const std::string text = fmt::format("up to {} files at once", format_count(limit.now));
  if (limit.now < kFew) {
    findings.bad("open files", fmt::format("only {}: raise it (ulimit -n) for stores of many entries", text));
  } else {
    findings.good("open files", text);
  }
}

void check_libraries(Findings& findings) {
  std::string text;
  for (const auto& [name, version] : cache_store::library_versions()) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, version);
  }
  findings.good("libraries", text);
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
  if (o.deep && o.store.url.empty()) return Status::invalid_argument("--deep reads a store: name it with --store");
  Findings findings(o.json);
  findings.good("version", fmt::format("finchkv {}, compiled by {} with C++{}", FINCHKV_VERSION, FINCHKV_COMPILER,
                                       __cplusplus / 100 % 100));
  check_libraries(findings);
  check_processor(findings);
  check_gpu(findings);
  check_open_files(findings);
  check_memory_file(findings);
  if (!o.store.url.empty()) check_store(findings, o.store, o.deep);
  if (!o.model.empty()) check_model(findings, o.model);
  return findings.end();
}

}  // namespace

void add_doctor(CLI::App& app, Session& session) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* verb = app.add_subcommand("doctor", "Check this machine, and a store and a model file where named");
  add_store_options(*verb, options->store, /*writes=*/false);
  verb->add_option("--model", options->model, "A model file to look into")->type_name("FILE");
  verb->add_flag("--deep", options->deep, "Read every entry of the store, not a sample");
  verb->add_flag("--json", options->json, "One JSON object on standard output");
  verb->footer(
      "Examples:\n  finchkv doctor --model m.gguf\n  finchkv doctor --store ./kv --deep\n\n"
      "Exit status 1 when something is wrong.");
  verb->callback([&session, options] { session.action = [options] { return run_doctor(*options); }; });
}

}  // namespace finchkv::cli
