// compress and ask: from the caller's options to an engine::Request, and from what came of it to an answer.
#include <utility>

#include "capi/guard.h"
#include "capi/handles.h"
#include "model/chat_template.h"

namespace finchkv::capi {
namespace {

constexpr std::uint64_t kDefaultTokens = 128;
constexpr std::uint64_t kMostTokens = 1ULL << 40U;  // far past any context window, inside every integer

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

Result<model::PromptTokens> read_tokens(const fkv_ask_options& o, const Texts& t, const model::Model& m) {
  const bool ids = o.document_token_count != 0 || o.prompt_token_count != 0;
  if (!ids) {
    if (t.document.empty()) return Status::invalid_argument("the document is empty; there is nothing to read");
    if (t.prompt.empty()) return Status::invalid_argument("the prompt is empty; there is nothing to answer");
    model::ChatTemplate chat = m.chat_template();
    if (!t.chat_template.empty()) {
      FINCHKV_ASSIGN_OR_RETURN(chat, model::chat_template_from_name(t.chat_template));
    }
    model::PromptTexts texts{.document = t.document, .prompt = t.prompt};
    if (!t.instruction.empty()) texts.instruction = t.instruction;
    if (!t.system.empty()) texts.system = t.system;
    return model::tokenize_prompt(m.tokenizer(), chat, texts);
  }
  if (!t.document.empty() || !t.prompt.empty()) {
    return Status::invalid_argument("document and prompt are given as texts and as tokens: give one of them");
  }
  if (o.document_token_count == 0 || o.prompt_token_count == 0) {
    return Status::invalid_argument("tokens are needed of both, document and prompt");
  }
  FINCHKV_RETURN_IF_ERROR(must_be_given(o.document_tokens, "document_tokens"));
  FINCHKV_RETURN_IF_ERROR(must_be_given(o.prompt_tokens, "prompt_tokens"));
  return model::PromptTokens{{o.document_tokens, o.document_tokens + o.document_token_count},
                             {o.prompt_tokens, o.prompt_tokens + o.prompt_token_count}};
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
  if (o.stop_count != 0) FINCHKV_RETURN_IF_ERROR(must_be_given(o.stop, "stop"));
  for (std::size_t i = 0; i < o.stop_count; ++i) {
    FINCHKV_ASSIGN_OR_RETURN(const std::string_view stop, view_of(o.stop[i], "stop"));
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

/// What was asked for, resolved. The model's mutex is held.
Result<std::unique_ptr<engine::Prepared>> prepare(const fkv_model& m, const fkv_store* store, const fkv_ask_options& o,
                                                  std::int64_t answer_tokens) {
  FINCHKV_ASSIGN_OR_RETURN(const Texts texts, read_texts(o));
  FINCHKV_ASSIGN_OR_RETURN(model::PromptTokens tokens, read_tokens(o, texts, *m.model));
  FINCHKV_ASSIGN_OR_RETURN(engine::Request request, make_request(o, texts, std::move(tokens), m.numeric));
  request.answer_tokens = answer_tokens;
  const cache_store::Tenant nobody;
  return engine::prepare(std::move(request), *m.model, store == nullptr ? nobody : store->store->tenant());
}

Result<std::unique_ptr<fkv_answer>> run(fkv_model& m, fkv_store* store, const fkv_ask_options& o, bool answers) {
  model::GenerateOptions generate;
  if (answers) {
    FINCHKV_ASSIGN_OR_RETURN(generate, read_generate(o));
  }
  const std::lock_guard lock(m.mutex);
  FINCHKV_ASSIGN_OR_RETURN(const auto prepared, prepare(m, store, o, answers ? generate.max_tokens : 0));

  const auto cancelled = [&o] { return o.cancel != nullptr && *o.cancel != 0; };
  const auto progress = [&](std::int64_t read, std::int64_t total) {
    if (cancelled()) return false;
    return o.on_progress == nullptr ||
           o.on_progress(o.user, static_cast<std::uint64_t>(read), static_cast<std::uint64_t>(total)) != 0;
  };
  AnswerText text(o, m.model->tokenizer().kind() == "llama");
  generate.on_text = [&](std::string_view piece) { return text.add(piece) && !cancelled(); };
  const auto weights = [&m] { return m.weights(); };
  cache_store::Store* const where = store == nullptr ? nullptr : store->store.get();
  auto out = std::make_unique<fkv_answer>();
  if (store != nullptr) out->store = store->store;
  if (answers) {
    FINCHKV_ASSIGN_OR_RETURN(out->asked, engine::ask(*prepared, *m.model, where, weights, progress, generate));
    out->text = text.take();
  } else {
    FINCHKV_ASSIGN_OR_RETURN(out->asked.entry, engine::obtain(*prepared, *m.model, where, weights, progress));
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
    const std::lock_guard lock(model->mutex);
    FINCHKV_ASSIGN_OR_RETURN(const auto prepared, prepare(*model, store, o, 0));
    *id = id_out(prepared->target().id);
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
