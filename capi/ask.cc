// compress and ask: from the caller's options to an engine::Request, and from what came of it to an answer.
#include <memory>
#include <utility>

#include "capi/guard.h"
#include "capi/handles.h"
#include "model/chat_template.h"

namespace finchkv::capi {
namespace {

constexpr std::uint64_t kDefaultTokens = 128;
constexpr std::uint64_t kMostTokens = 1ULL << 40U;  // far past any context window, inside every integer

constexpr std::string_view kNoPrompt = "the prompt is empty; there is nothing to answer";

struct Texts {
  std::string reader, policy, label, instruction, system, chat_template;
  std::string_view document, prompt;
};

Result<Texts> read_texts(const fkv_ask_options& o) {
  Texts t;
  FINCHKV_ASSIGN_OR_RETURN(t.reader, name_of(o.reader, "reader"));
  FINCHKV_ASSIGN_OR_RETURN(t.policy, name_of(o.policy, "policy"));
  FINCHKV_ASSIGN_OR_RETURN(t.label, name_of(o.label, "label"));
  FINCHKV_ASSIGN_OR_RETURN(const std::string_view instruction, view_of(o.instruction, "instruction"));
  FINCHKV_ASSIGN_OR_RETURN(const std::string_view system, view_of(o.system, "system"));
  t.instruction = instruction;
  t.system = system;
  FINCHKV_ASSIGN_OR_RETURN(t.chat_template, name_of(o.chat_template, "chat_template"));
  FINCHKV_ASSIGN_OR_RETURN(t.document, view_of(o.document, "document"));
  FINCHKV_ASSIGN_OR_RETURN(t.prompt, view_of(o.prompt, "prompt"));
  return t;
}

/// Texts with the chat template around them. An empty one gives the template's part alone.
Result<model::PromptTokens> tokenize_texts(const Texts& t, const model::Model& m) {
  model::ChatTemplate chat = m.chat_template();
  if (!t.chat_template.empty()) {
    FINCHKV_ASSIGN_OR_RETURN(chat, model::chat_template_from_name(t.chat_template));
  }
  model::PromptTexts texts{.document = t.document, .prompt = t.prompt};
  if (!t.instruction.empty()) texts.instruction = t.instruction;
  if (!t.system.empty()) texts.system = t.system;
  return model::tokenize_prompt(m.tokenizer(), chat, texts);
}

bool gives_tokens(const fkv_ask_options& o) { return o.document_token_count != 0 || o.prompt_token_count != 0; }

Result<model::PromptTokens> read_tokens(const fkv_ask_options& o, const Texts& t, const model::Model& m) {
  if (!gives_tokens(o)) {
    if (t.document.empty()) return Status::invalid_argument("the document is empty; there is nothing to read");
    if (t.prompt.empty()) return Status::invalid_argument(std::string(kNoPrompt));
    return tokenize_texts(t, m);
  }
  if (!t.document.empty() || !t.prompt.empty()) {
    return Status::invalid_argument("document and prompt are given as texts and as tokens: give one of them");
  }
  if (o.document_token_count == 0 || o.prompt_token_count == 0) {
    return Status::invalid_argument("tokens are needed of both, document and prompt");
  }
  FINCHKV_ASSIGN_OR_RETURN(const auto document, array_of(o.document_tokens, o.document_token_count, "document_tokens"));
  FINCHKV_ASSIGN_OR_RETURN(const auto prompt, array_of(o.prompt_tokens, o.prompt_token_count, "prompt_tokens"));
  return model::PromptTokens{{document.begin(), document.end()}, {prompt.begin(), prompt.end()}};
}

Result<engine::Request> make_request(const fkv_ask_options& o, const Texts& t, model::PromptTokens tokens,
                                     kernels::NumericClass numeric) {
  if (o.keep > kMostTokens || o.chunk > kMostTokens || o.max_tokens > kMostTokens) {
    return Status::invalid_argument("keep, chunk and max_tokens count tokens: that many there are not");
  }
  if (o.storage_dtype > FKV_Q4) return Status::invalid_argument("storage_dtype is none of FKV_F32 to FKV_Q4");
  engine::Request r;
  r.document = std::move(tokens.document);
  r.prompt = std::move(tokens.prompt);
  if (!t.reader.empty()) r.reader = t.reader;
  if (!t.policy.empty()) r.policy = t.policy;
  if (o.keep != 0) r.keep = static_cast<std::int64_t>(o.keep);
  if (o.ratio != 0) r.ratio = o.ratio;
  if (o.chunk != 0) r.chunk = static_cast<std::int64_t>(o.chunk);
  r.seed = o.seed;
  r.kv_dtype = static_cast<DType>(o.storage_dtype);
  r.numeric = engine::named_class(numeric);
  r.keeping.label = t.label;
  r.keeping.ttl_ms = o.ttl_ms;
  r.keeping.pinned = o.pinned != 0;
  r.keeping.sharing = o.shared != 0 ? cache_store::Sharing::kShared : cache_store::Sharing::kPrivate;
  r.keeping.zstd_tensors = o.zstd != 0;
  r.refresh = o.refresh != 0;
  r.keep_document_tokens = o.no_document_tokens == 0;
  return r;
}

Result<model::GenerateOptions> read_generate(const fkv_ask_options& o) {
  model::GenerateOptions g;
  g.max_tokens = static_cast<std::int64_t>(o.max_tokens == 0 ? kDefaultTokens : o.max_tokens);
  g.sampler.temperature = o.temperature;
  if (o.top_p != 0) g.sampler.top_p = o.top_p;
  g.sampler.seed = o.sampling_seed;
  FINCHKV_ASSIGN_OR_RETURN(const auto stops, array_of(o.stop, o.stop_count, "stop strings"));
  for (const fkv_str& text : stops) {
    FINCHKV_ASSIGN_OR_RETURN(const std::string_view stop, view_of(text, "stop"));
    g.stop.emplace_back(stop);
  }
  FINCHKV_RETURN_IF_ERROR(g.validate());
  return g;
}

// SentencePiece begins a text with a space of its own making: that one is dropped.
class AnswerText {
 public:
  AnswerText(const fkv_ask_options& o, bool drop_space) : o_(o), drop_space_(drop_space) {}
  bool add(std::string_view piece) {
    if (piece.empty()) return true;
    if (!started_ && drop_space_ && piece.front() == ' ') piece.remove_prefix(1);
    started_ = true;
    text_ += piece;
    return piece.empty() || o_.on_text == nullptr || o_.on_text(o_.user, piece.data(), piece.size()) != 0;
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  const fkv_ask_options& o_;
  bool drop_space_;
  bool started_ = false;
  std::string text_;
};

/// What was asked for, resolved. The model's turn is taken.
Result<std::unique_ptr<engine::Prepared>> prepare(const fkv_model& m, const fkv_store* store, const fkv_ask_options& o,
                                                  std::int64_t answer_tokens) {
  FINCHKV_ASSIGN_OR_RETURN(const Texts texts, read_texts(o));
  FINCHKV_ASSIGN_OR_RETURN(model::PromptTokens tokens, read_tokens(o, texts, *m.model));
  FINCHKV_ASSIGN_OR_RETURN(engine::Request request, make_request(o, texts, std::move(tokens), m.numeric));
  request.answer_tokens = answer_tokens;
  const cache_store::Tenant nobody;
  return engine::prepare(std::move(request), *m.model, store == nullptr ? nobody : store->store->tenant());
}

/// `o` outlives it.
compressor::Progress progress_of(const fkv_ask_options& o) {
  return [&o](std::int64_t read, std::int64_t total) {
    if (is_set(o.cancel)) return false;
    return o.on_progress == nullptr ||
           o.on_progress(o.user, static_cast<std::uint64_t>(read), static_cast<std::uint64_t>(total)) != 0;
  };
}

Result<std::unique_ptr<fkv_answer>> run(fkv_model& m, fkv_store* store, const fkv_ask_options& o, bool answers) {
  model::GenerateOptions generate;
  if (answers) {
    FINCHKV_ASSIGN_OR_RETURN(generate, read_generate(o));
  }
  FINCHKV_ASSIGN_OR_RETURN([[maybe_unused]] const ModelTurn turn, ModelTurn::take(m));
  FINCHKV_ASSIGN_OR_RETURN(const auto prepared, prepare(m, store, o, answers ? generate.max_tokens : 0));

  AnswerText text(o, m.model->tokenizer().kind() == "llama");
  generate.on_text = [&](std::string_view piece) { return text.add(piece); };
  generate.on_token = [&](std::int32_t id) {
    return !is_set(o.cancel) && (o.on_token == nullptr || o.on_token(o.user, id) != 0);
  };
  const auto weights = [&m] { return m.weights(); };
  cache_store::Store* const where = store == nullptr ? nullptr : store->store.get();
  auto out = std::make_unique<fkv_answer>();
  if (store != nullptr) out->store = store->store;
  if (answers) {
    FINCHKV_ASSIGN_OR_RETURN(out->asked, engine::ask(*prepared, *m.model, where, weights, progress_of(o), generate));
    out->text = text.take();
  } else {
    FINCHKV_ASSIGN_OR_RETURN(out->asked.entry, engine::obtain(*prepared, *m.model, where, weights, progress_of(o)));
  }
  return out;
}

fkv_code call(fkv_model* model, fkv_store* store, const fkv_ask_options* options, fkv_answer** answer, bool answers,
              fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(model, "model"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(answer, "answer"));
    *answer = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(const fkv_ask_options o, read_struct(options, "fkv_ask_options"));
    FINCHKV_ASSIGN_OR_RETURN(auto out, run(*model, store, o, answers));
    *answer = out.release();
    return Status::ok();
  });
}

Result<double> score(fkv_model& m, fkv_store* store, const fkv_ask_options& o, std::span<const std::int32_t> answer) {
  FINCHKV_ASSIGN_OR_RETURN([[maybe_unused]] const ModelTurn turn, ModelTurn::take(m));
  const auto tokens = static_cast<std::int64_t>(answer.size());
  FINCHKV_ASSIGN_OR_RETURN(const auto prepared, prepare(m, store, o, tokens));
  cache_store::Store* const where = store == nullptr ? nullptr : store->store.get();
  const auto weights = [&m] { return m.weights(); };
  FINCHKV_ASSIGN_OR_RETURN(const engine::Obtained entry,
                           engine::obtain(*prepared, *m.model, where, weights, progress_of(o)));
  FINCHKV_RETURN_IF_ERROR(m.weights());
  model::Transformer& transformer = *m.model->transformer();
  const auto room = static_cast<std::int64_t>(prepared->request.prompt.size()) + tokens;
  FINCHKV_ASSIGN_OR_RETURN(model::DecodeContext context, model::DecodeContext::from_set(transformer, entry.set, room));
  return model::score_answer(transformer, context, prepared->request.prompt, answer);
}

}  // namespace
}  // namespace finchkv::capi

using namespace finchkv;        // NOLINT(google-build-using-namespace): the definitions below are extern "C"
using namespace finchkv::capi;  // NOLINT(google-build-using-namespace)

extern "C" {

fkv_code fkv_compress(fkv_model* model, fkv_store* store, const fkv_ask_options* options, fkv_answer** answer,
                      fkv_error** error) {
  return call(model, store, options, answer, /*answers=*/false, error);
}

fkv_code fkv_ask(fkv_model* model, fkv_store* store, const fkv_ask_options* options, fkv_answer** answer,
                 fkv_error** error) {
  return call(model, store, options, answer, /*answers=*/true, error);
}

fkv_code fkv_ask_id(fkv_model* model, fkv_store* store, const fkv_ask_options* options, fkv_id* id, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(model, "model"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(id, "id"));
    FINCHKV_ASSIGN_OR_RETURN(const fkv_ask_options o, read_struct(options, "fkv_ask_options"));
    FINCHKV_ASSIGN_OR_RETURN([[maybe_unused]] const ModelTurn turn, ModelTurn::take(*model));
    FINCHKV_ASSIGN_OR_RETURN(const auto prepared, prepare(*model, store, o, 0));
    *id = id_out(prepared->target().id);
    return Status::ok();
  });
}

fkv_code fkv_score(fkv_model* model, fkv_store* store, const fkv_ask_options* options, const int32_t* answer_tokens,
                   size_t count, double* mean_log_likelihood, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(model, "model"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(mean_log_likelihood, "mean_log_likelihood"));
    FINCHKV_ASSIGN_OR_RETURN(const fkv_ask_options o, read_struct(options, "fkv_ask_options"));
    FINCHKV_ASSIGN_OR_RETURN(const auto answer, array_of(answer_tokens, count, "answer_tokens"));
    if (answer.empty()) return Status::invalid_argument("answer_tokens are none: there is nothing to score");
    // Before a document is read for it.
    FINCHKV_RETURN_IF_ERROR(model->model->config().check_tokens(answer, "answer"));
    FINCHKV_ASSIGN_OR_RETURN(*mean_log_likelihood, score(*model, store, o, answer));
    return Status::ok();
  });
}

fkv_code fkv_ask_tokens(fkv_model* model, const fkv_ask_options* options, fkv_tokens** document, fkv_tokens** prompt,
                        fkv_error** error) {
  return guard(error, [&]() -> Status {
    if (document != nullptr) *document = nullptr;
    if (prompt != nullptr) *prompt = nullptr;
    FINCHKV_RETURN_IF_ERROR(must_be_given(model, "model"));
    FINCHKV_ASSIGN_OR_RETURN(const fkv_ask_options o, read_struct(options, "fkv_ask_options"));
    FINCHKV_ASSIGN_OR_RETURN(const Texts texts, read_texts(o));
    // Only the prompt is wanted where the document is not at hand any more: its ids do not depend on the document.
    const bool prompt_alone = document == nullptr && texts.document.empty() && !gives_tokens(o);
    if (prompt_alone && texts.prompt.empty()) return Status::invalid_argument(std::string(kNoPrompt));
    FINCHKV_ASSIGN_OR_RETURN(model::PromptTokens tokens, prompt_alone ? tokenize_texts(texts, *model->model)
                                                                      : read_tokens(o, texts, *model->model));
    auto of_document = std::make_unique<fkv_tokens>();
    of_document->ids = std::move(tokens.document);
    if (prompt != nullptr) *prompt = new fkv_tokens{std::move(tokens.prompt)};
    if (document != nullptr) *document = of_document.release();
    return Status::ok();
  });
}

fkv_code fkv_answer_get_info(const fkv_answer* answer, fkv_answer_info* info, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(answer, "answer"));
    const engine::Obtained& entry = answer->asked.entry;
    fkv_answer_info out{};
    out.id = id_out(entry.id);
    out.hit = entry.hit ? 1 : 0;
    out.ended = answer->asked.answer.ended ? 1 : 0;
    out.text = str_of(answer->text);
    out.tokens = answer->asked.answer.tokens.data();
    out.token_count = answer->asked.answer.tokens.size();
    out.stored_bytes = entry.stored_bytes;
    out.lookup_ms = entry.ms.lookup;
    out.reload_ms = entry.ms.reload;
    out.compress_ms = entry.ms.compress;
    out.store_ms = entry.ms.store;
    out.decode_ms = entry.ms.decode;
    return write_struct(out, info, "fkv_answer_info");
  });
}

fkv_code fkv_answer_kvset(const fkv_answer* answer, fkv_kvset** set, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(answer, "answer"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(set, "set"));
    *set = nullptr;
    const engine::Obtained& entry = answer->asked.entry;
    KvSet whole = entry.set;
    if (whole.layers.empty()) {  // its layers went straight to a device
      const auto store = answer->store.lock();
      if (store == nullptr) {
        return Status::invalid_argument(
            "the answer's set went straight to a device, and its store is closed: ask for it before");
      }
      FINCHKV_ASSIGN_OR_RETURN(whole, store->get(entry.id));
    }
    *set = new fkv_kvset{.set = std::move(whole)};
    return Status::ok();
  });
}

void fkv_answer_free(fkv_answer* answer) { delete answer; }

}  // extern "C"
