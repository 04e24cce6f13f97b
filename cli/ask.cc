// ask and compress.

#include <unistd.h>

#include <chrono>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "cli/ask_options.h"
#include "cli/ask_report.h"
#include "cli/ask_request.h"
#include "cli/compress_many.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/units.h"
#include "cli/verbs.h"
#include "engine/ask.h"

namespace finchkv::cli {
namespace {

using clock = std::chrono::steady_clock;

double ms_between(clock::time_point from, clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

/// The model of this run, its weights packed when they are first needed, and the time all that took.
class LazyModel {
 public:
  explicit LazyModel(const AskOptions& options) : options_(options) {}

  Status open() {
    const auto start = clock::now();
    FINCHKV_ASSIGN_OR_RETURN(
        model_, model::Model::open(options_.model,
                                   {.fingerprint_memory = fingerprint_memory_path(), .threads = options_.threads}));
    ms_ += ms_between(start, clock::now());
    return Status::ok();
  }
  Status weights() {
    if (model_->transformer() != nullptr) return Status::ok();
    const auto start = clock::now();
    FINCHKV_ASSIGN_OR_RETURN(std::shared_ptr<kernels::Device> device, kernels::open_device(options_.device_options()));
    FINCHKV_RETURN_IF_ERROR(model_->load_weights(std::move(device)));
    ms_ += ms_between(start, clock::now());
    return Status::ok();
  }
  [[nodiscard]] model::Model& operator*() { return *model_; }
  [[nodiscard]] model::Model* operator->() { return model_.get(); }
  [[nodiscard]] double ms() const { return ms_; }

 private:
  const AskOptions& options_;
  std::unique_ptr<model::Model> model_;
  double ms_ = 0;
};

}  // namespace

engine::Request make_request(const AskOptions& o, Inputs inputs, std::uint64_t ttl_ms) {
  engine::Request request;
  request.document = std::move(inputs.document);
  request.prompt = std::move(inputs.prompt);
  request.reader = o.reader;
  request.policy = o.policy;
  request.keep = o.keep;
  request.ratio = o.ratio;
  request.chunk = o.chunk;
  request.seed = o.seed;
  request.kv_dtype = o.storage_dtype();
  request.numeric = engine::named_class(o.numeric_class());
  request.keeping.label = make_label(o);
  request.keeping.ttl_ms = ttl_ms;
  request.keeping.pinned = o.pin;
  request.keeping.sharing = o.share ? cache_store::Sharing::kShared : cache_store::Sharing::kPrivate;
  request.keeping.zstd_tensors = o.zstd;
  request.refresh = o.refresh;
  request.answer_tokens = o.answers ? o.max_tokens : 0;
  return request;
}

namespace {

/// Prints the answer as it settles. SentencePiece begins a text with a space of its own making: that one is dropped.
class AnswerText {
 public:
  AnswerText(bool drop_space, bool streams)
      : drop_space_(drop_space), streams_(streams), terminal_(is_terminal(STDOUT_FILENO)) {}

  void add(std::string_view piece) {
    if (piece.empty()) return;
    if (!started_ && drop_space_ && piece.front() == ' ') piece.remove_prefix(1);
    started_ = true;
    text_ += piece;
    if (!streams_) return;
    // A document must not be able to drive a terminal through its answer; a file gets the bytes as they are.
    print(terminal_ ? printable(piece) : std::string(piece));
    if (terminal_) std::fflush(stdout);
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  bool drop_space_;
  bool streams_;
  bool terminal_;
  bool started_ = false;
  std::string text_;
};

}  // namespace

Result<std::unique_ptr<AskStore>> open_store(const AskOptions& o, const Access& access) {
  const bool quiet = o.quiet;
  const double timeout_s = o.store.timeout_s;
  return AskStore::open(o.store, access, [quiet, timeout_s](const std::string& taken) {
    if (!quiet) print_note(fmt::format("{}; waiting up to {:g} s", taken, timeout_s));
  });
}

bool asks_for_keeping(const AskOptions& o) { return o.label || !o.ttl.empty() || o.pin || o.zstd; }

namespace {

Result<double> score(model::Model& model, const engine::Prepared& prepared, const KvSet& set,
                     const std::vector<model::TokenId>& ids) {
  const auto room = static_cast<std::int64_t>(prepared.request.prompt.size() + ids.size());
  FINCHKV_ASSIGN_OR_RETURN(model::DecodeContext context,
                           model::DecodeContext::from_set(*model.transformer(), set, room));
  return model::score_answer(*model.transformer(), context, prepared.request.prompt, ids);
}

Status run_ask(const AskOptions& o, clock::time_point start) {
  FINCHKV_RETURN_IF_ERROR(check_ask_options(o));
  model::GenerateOptions generate;
  generate.max_tokens = o.max_tokens;
  generate.sampler = {.temperature = o.temperature, .top_p = o.top_p, .seed = o.seed};
  generate.stop = o.stop;
  FINCHKV_RETURN_IF_ERROR(generate.sampler.validate());
  std::uint64_t ttl_ms = 0;
  if (!o.ttl.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(ttl_ms, parse_duration_ms(o.ttl, "--ttl"));
  }
  FINCHKV_ASSIGN_OR_RETURN(Access access, read_access(o.store));
  access.view.publisher = o.share;
  FINCHKV_ASSIGN_OR_RETURN(RawInputs raw, read_inputs(o));
  const std::vector<model::TokenId> score_ids = raw.score_ids;

  LazyModel model(o);
  FINCHKV_RETURN_IF_ERROR(model.open());
  AskReport report;
  auto at = clock::now();
  FINCHKV_ASSIGN_OR_RETURN(Inputs inputs, tokenize_inputs(o, std::move(raw), *model));
  report.tokenize_ms = ms_between(at, clock::now());
  FINCHKV_ASSIGN_OR_RETURN(const std::unique_ptr<engine::Prepared> prepared,
                           engine::prepare(make_request(o, std::move(inputs), ttl_ms), *model, access.tenant));
  std::unique_ptr<AskStore> store;
  if (!o.no_store) {
    at = clock::now();
    FINCHKV_ASSIGN_OR_RETURN(store, open_store(o, access));
    report.open_store_ms = ms_between(at, clock::now());
  }

  ReadingProgress progress(o.quiet);
  const auto on_progress = [&](std::int64_t read, std::int64_t total) {
    progress.update(read, total);
    if (read >= total) progress.finish();
    return true;
  };
  const auto weights = [&] {
    // Before a document is read for it: can what comes of it be stored?
    if (store != nullptr) FINCHKV_RETURN_IF_ERROR(store->check_next_put());
    return model.weights();
  };
  AnswerText text(model->tokenizer().kind() == "llama", !o.json);
  generate.on_text = [&](std::string_view piece) {
    text.add(piece);
    return true;
  };
  engine::Asked asked;
  if (o.answers) {
    FINCHKV_ASSIGN_OR_RETURN(asked, engine::ask(*prepared, *model, store.get(), weights, on_progress, generate));
    report.answer = &asked.answer;
    report.answer_text = text.text();
    report.first_token_ms = ms_between(start, asked.answer.first_token) - model.ms();
  } else {
    FINCHKV_ASSIGN_OR_RETURN(asked.entry, engine::obtain(*prepared, *model, store.get(), weights, on_progress));
  }
  report.prepared = prepared.get();
  report.entry = &asked.entry;
  report.stored = store != nullptr;
  report.load_model_ms = model.ms();
  if (!score_ids.empty()) {
    if (asked.entry.set.layers.empty()) {
      FINCHKV_ASSIGN_OR_RETURN(const engine::Obtained again,
                               engine::obtain(*prepared, *model, store.get(), weights, on_progress));
      asked.entry.set = again.set;
    }
    FINCHKV_ASSIGN_OR_RETURN(report.mean_log_likelihood, score(*model, *prepared, asked.entry.set, score_ids));
    report.scored_tokens = score_ids.size();
  }

  if (o.json) {
    print_json(ask_json(report));
  } else {
    print(o.answers ? "\n" : asked.entry.id.hex() + "\n");
  }
  if (!o.quiet) print_note(ask_summary(report));
  if (!o.quiet && asked.entry.hit && asks_for_keeping(o)) {
    print_note("it was there already and is kept as it was: `finchkv label`, `pin` and `expire` change that");
  }
  return Status::ok();
}

constexpr char kAskExamples[] = R"(Examples:
  finchkv ask --model m.gguf --store ./kv --doc book.txt --prompt "Who built the tower?"
  cat *.txt | finchkv ask --model m.gguf --store ./kv --doc - --prompt "What was decided?" --keep 256
  finchkv ask --model m.gguf --no-store --doc book.txt --prompt "Summarise." --policy full --json

The first run reads the document (seconds to minutes); every later run with the same model, document, prompt and
options finds the entry and answers at once. Another prompt reads again: what is kept depends on it.)";

constexpr char kCompressExamples[] = R"(Examples:
  finchkv compress --model m.gguf --store ./kv --doc book.txt --prompt "Who built the tower?"
  finchkv compress --model m.gguf --store ./kv --doc-tokens doc.json --prompt-tokens prompt.json --json
  finchkv compress --model m.gguf --store ./kv --doc a.txt --doc b.txt --doc c.txt --prompt "What was decided?"

Prints the entry's id. `finchkv ask` with the same options then answers from the entry. With several documents, which
are read together and much faster than one by one where they are short, each line is an id and its file, in the order
given; with --json, one object a line. Documents that are there already are not read again. One that fails is told on
standard error (with --json as an object with "error") and leaves the others going; the exit status says that one did.)";

void add_verb(CLI::App& app, Session& session, bool answers) {
  auto options = std::make_shared<AskOptions>();
  options->answers = answers;
  CLI::App* verb =
      answers ? app.add_subcommand("ask", "Answer a prompt about a document: from the store, or by reading it")
              : app.add_subcommand("compress", "The same without answering: reads, stores, prints the entry's id");
  add_ask_options(*verb, *options);
  verb->footer(answers ? kAskExamples : kCompressExamples);
  verb->callback([&session, options] {
    session.action = [&session, options] {
      const std::vector<AskOptions> each = one_by_one(*options);
      return each.size() == 1 ? run_ask(each.front(), session.start) : run_compress_many(*options, each);
    };
  });
}

}  // namespace

void add_ask(CLI::App& app, Session& session) {
  add_verb(app, session, /*answers=*/true);
  add_verb(app, session, /*answers=*/false);
}

}  // namespace finchkv::cli
