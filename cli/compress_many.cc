#include "cli/compress_many.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "cli/ask_report.h"
#include "cli/ask_request.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/units.h"
#include "engine/obtain_many.h"
#include "engine/worker_pool.h"

namespace finchkv::cli {
namespace {

using clock = std::chrono::steady_clock;

double ms_since(clock::time_point start) {
  return std::chrono::duration<double, std::milli>(clock::now() - start).count();
}

/// The devices that --device and --gpus name, no more than `documents` can use.
Result<std::vector<std::shared_ptr<kernels::Device>>> open_devices(const AskOptions& o, std::size_t documents) {
  const int there = o.gpus == "1" ? 1 : kernels::cuda_device_count();
  int wanted = there;
  if (o.gpus != "all") wanted = std::atoi(o.gpus.c_str());  // the parser let only numbers through
  if (o.gpus != "all" && wanted > 1 && wanted > there) {
    return Status::invalid_argument(fmt::format("--gpus is {}, but there are {} usable GPUs here", wanted, there));
  }
  if (static_cast<std::size_t>(std::max(wanted, 0)) > documents) wanted = static_cast<int>(documents);
  std::vector<std::shared_ptr<kernels::Device>> devices;
  kernels::DeviceOptions options = o.device_options();
  if (wanted > 1) options.choice = kernels::DeviceChoice::kCuda;  // no processor takes the place of a GPU that fails
  for (int i = 0; i < std::max(1, wanted); ++i) {
    options.ordinal = i;
    FINCHKV_ASSIGN_OR_RETURN(auto device, kernels::open_device(options));
    devices.emplace_back(std::move(device));
  }
  return devices;
}

/// Prints results in the order in which the documents were given, each as soon as those before it are there.
class Results {
 public:
  Results(const AskOptions& options, const std::vector<AskOptions>& each, const model::Model& model)
      : options_(options), each_(each), model_(model), ends_(each.size()) {}

  double load_model_ms = 0;
  double tokenize_ms = 0;
  double open_store_ms = 0;
  ReadingProgress* progress = nullptr;

  void failed(std::size_t i, const Status& why) { end(i, {why, error_json(i, why)}); }
  void obtained(std::size_t i, const engine::Prepared& prepared, const engine::Obtained& entry) {
    ++(entry.hit ? hits_ : reads_);
    if (!entry.hit) read_tokens_ += prepared.request.document.size();
    if (entry.hit && asks_for_keeping(each_[i])) kept_as_it_was_ = true;
    if (!options_.json) return end(i, {Status::ok(), fmt::format("{}  {}\n", entry.id.hex(), name(i))});
    AskReport report;
    report.prepared = &prepared;
    report.entry = &entry;
    report.stored = !options_.no_store;
    report.load_model_ms = load_model_ms;
    report.tokenize_ms = tokenize_ms;
    report.open_store_ms = open_store_ms;
    Json object;
    object["doc"] = name(i);
    object.update(ask_json(report));
    end(i, {Status::ok(), std::move(object)});
  }

  /// Of all together.
  [[nodiscard]] Status finish(double read_ms) const {
    if (!options_.quiet) {
      std::string line = fmt::format("{} read", plural(reads_, "document", "documents"));
      if (reads_ > 0) {
        line += fmt::format(", {} tokens in {} ({} tokens/s)", format_count(read_tokens_), format_ms(read_ms),
                            format_count(static_cast<std::uint64_t>(static_cast<double>(read_tokens_) * 1000 /
                                                                    std::max(read_ms, 0.001))));
      }
      print_note(fmt::format("{}; {} found", line, format_count(hits_)));
      if (kept_as_it_was_) {
        print_note("what was there already is kept as it was: `finchkv label`, `pin` and `expire` change that");
      }
    }
    const auto failed = std::count_if(ends_.begin(), ends_.end(), [](const auto& e) { return !e->status.is_ok(); });
    if (failed == 0) return Status::ok();
    const auto first = std::find_if(ends_.begin(), ends_.end(), [](const auto& e) { return !e->status.is_ok(); });
    return {(*first)->status.code(), fmt::format("{} of {} documents failed", failed, ends_.size())};
  }

 private:
  struct End {
    Status status;
    Json out;  // an object, or a line as it is
  };

  [[nodiscard]] std::string name(std::size_t i) const {
    return each_[i].text_mode() ? *each_[i].doc : *each_[i].doc_tokens;
  }
  [[nodiscard]] Json error_json(std::size_t i, const Status& why) const {
    Json object;
    object["doc"] = name(i);
    object["error"] = {{"code", status_code_name(why.code())}, {"message", why.message()}};
    return object;
  }
  void end(std::size_t i, End how) {
    ends_[i] = std::move(how);
    if (progress != nullptr) progress->finish();
    for (; told_ < ends_.size() && ends_[told_]; ++told_) {
      End& ended = *ends_[told_];
      if (!ended.status.is_ok()) print_error(fmt::format("{}: {}", name(told_), ended.status.message()));
      if (ended.out.is_string()) {
        print(ended.out.get<std::string>());
      } else if (options_.json) {
        print_json(ended.out);
      }
      ended.out = {};
    }
  }

  const AskOptions& options_;
  const std::vector<AskOptions>& each_;
  const model::Model& model_;
  std::vector<std::optional<End>> ends_;
  std::size_t told_ = 0;
  std::uint64_t hits_ = 0, reads_ = 0, read_tokens_ = 0;
  bool kept_as_it_was_ = false;
};

Status check(const AskOptions& o, const std::vector<AskOptions>& each) {
  if (!o.docs.empty() && !o.docs_tokens.empty()) {
    return Status::invalid_argument("--doc and --doc-tokens exclude each other");
  }
  const auto standard =
      std::count(o.docs.begin(), o.docs.end(), "-") + std::count(o.docs_tokens.begin(), o.docs_tokens.end(), "-");
  if (standard > 1) return Status::invalid_argument("standard input can be one document only");
  for (const AskOptions& one : each) FINCHKV_RETURN_IF_ERROR(check_ask_options(one));
  return Status::ok();
}

}  // namespace

Status run_compress_many(const AskOptions& o, const std::vector<AskOptions>& each) {
  FINCHKV_RETURN_IF_ERROR(check(o, each));
  std::uint64_t ttl_ms = 0;
  if (!o.ttl.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(ttl_ms, parse_duration_ms(o.ttl, "--ttl"));
  }
  FINCHKV_ASSIGN_OR_RETURN(Access access, read_access(o.store));
  access.view.publisher = o.share;
  auto at = clock::now();
  FINCHKV_ASSIGN_OR_RETURN(
      const std::unique_ptr<model::Model> model,
      model::Model::open(o.model, {.fingerprint_memory = fingerprint_memory_path(), .threads = o.threads}));
  Results results(o, each, *model);
  results.load_model_ms = ms_since(at);

  std::vector<std::unique_ptr<engine::Prepared>> prepared;
  std::vector<std::size_t> document;  // of each prepared request
  at = clock::now();
  for (std::size_t i = 0; i < each.size(); ++i) {
    const auto prepare = [&]() -> Result<std::unique_ptr<engine::Prepared>> {
      FINCHKV_ASSIGN_OR_RETURN(RawInputs raw, read_inputs(each[i]));
      FINCHKV_ASSIGN_OR_RETURN(Inputs inputs, tokenize_inputs(each[i], std::move(raw), *model));
      return engine::prepare(make_request(each[i], std::move(inputs), ttl_ms), *model, access.tenant);
    };
    auto made = prepare();
    if (made.is_ok()) {
      prepared.push_back(*std::move(made));
      document.push_back(i);
    } else {
      results.failed(i, made.status());
    }
  }
  results.tokenize_ms = ms_since(at);
  std::unique_ptr<AskStore> store;
  if (!o.no_store) {
    at = clock::now();
    FINCHKV_ASSIGN_OR_RETURN(store, open_store(o, access));
    results.open_store_ms = ms_since(at);
  }

  ReadingProgress progress(o.quiet);
  results.progress = &progress;
  std::unique_ptr<engine::WorkerPool> pool;
  clock::time_point reading = clock::now();
  engine::ObtainManyCalls calls;
  calls.workers = [&]() -> Result<engine::WorkerPool*> {
    if (store != nullptr) FINCHKV_RETURN_IF_ERROR(store->check_next_put());
    const auto loading = clock::now();
    FINCHKV_ASSIGN_OR_RETURN(auto devices, open_devices(o, prepared.size()));
    FINCHKV_ASSIGN_OR_RETURN(pool, engine::WorkerPool::open(*model, std::move(devices)));
    results.load_model_ms += ms_since(loading);
    reading = clock::now();
    return pool.get();
  };
  calls.done = [&](std::size_t i, Result<engine::Obtained> result) {
    if (result.is_ok()) {
      results.obtained(document[i], *prepared[i], *result);
    } else {
      results.failed(document[i], result.status());
    }
  };
  calls.progress = [&](std::int64_t read, std::int64_t total) { progress.update(read, total); };
  engine::obtain_many(prepared, *model, store.get(), calls);
  progress.finish();
  return results.finish(ms_since(reading));
}

}  // namespace finchkv::cli
