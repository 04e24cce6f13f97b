#include "cli/ask_options.h"

#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "cli/units.h"
#include "compressor/policy.h"
#include "compressor/reader.h"

namespace finchkv::cli {
namespace {

std::string policy_names() {
  std::string names;
  for (const compressor::Policy* policy : compressor::all_policies()) {
    if (!names.empty()) names += ", ";
    names += policy->name();
  }
  return names;
}

void add_inputs(CLI::App& verb, AskOptions& o) {
  const char* group = "What to read";
  verb.add_option("--model", o.model, "The model file (GGUF)")->type_name("FILE")->required()->group(group);
  const std::string one_document = "The document, a text file; - reads standard input";
  auto* doc = o.answers ? verb.add_option("--doc", o.doc, one_document)
                        : verb.add_option("--doc", o.docs, one_document + "; may repeat: they are read together")
                              ->allow_extra_args(false);
  doc->type_name("FILE|-")->group(group);
  auto* prompt = verb.add_option("--prompt", o.prompt, "What to answer from it; it guides what is kept");
  prompt->type_name("TEXT")->group(group);
  const std::string token_ids = "Instead of --doc: a JSON array of token ids, used as they are";
  auto* doc_tokens =
      o.answers ? verb.add_option("--doc-tokens", o.doc_tokens, token_ids)
                : verb.add_option("--doc-tokens", o.docs_tokens, token_ids + "; may repeat")->allow_extra_args(false);
  doc_tokens->type_name("FILE")->excludes(doc)->group(group);
  verb.add_option("--prompt-tokens", o.prompt_tokens, "Instead of --prompt: a JSON array of token ids")
      ->type_name("FILE")
      ->excludes(prompt)
      ->group(group);
  verb.add_option("--instruction", o.instruction, "What stands before the document")
      ->type_name("TEXT")
      ->capture_default_str()
      ->group(group);
  verb.add_option("--system", o.system, "A system message (none unless given)")->type_name("TEXT")->group(group);
  verb.add_option("--template", o.chat_template,
                  "The chat template: chatml, llama3, mistral, plain (default: the model file's)")
      ->type_name("NAME")
      ->group(group);
}

void add_reading(CLI::App& verb, AskOptions& o) {
  const char* group = "How to read";
  auto* keep = verb.add_option("--keep", o.keep, "KV entries kept in every layer");
  keep->type_name("N")->group(group);
  verb.add_option("--ratio", o.ratio, "Instead of --keep: document tokens per kept entry (default: 16)")
      ->type_name("R")
      ->excludes(keep)
      ->group(group);
  verb.add_option("--policy", o.policy, "How entries are chosen: " + policy_names())
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  verb.add_option("--chunk", o.chunk, "Document tokens read at a time (default: 512, or what fits)")
      ->type_name("M")
      ->group(group);
  verb.add_option("--read", o.reader, "How the document passes through the model: chunks or whole")
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  verb.add_option("--passage", o.passage, "Tokens of a passage, with --read passages")
      ->type_name("TOKENS")
      ->group(group);
  verb.add_option("--kv-dtype", o.kv_dtype,
                  "How entries are stored: f32, f16, bf16, q8, q4 (default: bf16; f32 with --compute f32)")
      ->type_name("NAME")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8", "q4"}))
      ->group(group);
  verb.add_option("--compute", o.compute,
                  "Arithmetic: auto and bf16 are fast, fp8 rounds weights to 8 bits, f32 is the reference mode")
      ->type_name("NAME")
      ->check(CLI::IsMember({"auto", "bf16", "f32", "fp8"}))
      ->capture_default_str()
      ->group(group);
  verb.add_option("--device", o.device, "Where to compute: auto, cpu or cuda")
      ->type_name("NAME")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str()
      ->group(group);
  if (!o.answers) {
    verb.add_option("--gpus", o.gpus, "GPUs to spread several documents over: a number, or all; one document takes one")
        ->type_name("N|all")
        ->check(CLI::Range(1, 1024) | CLI::IsMember({"all"}))
        ->capture_default_str()
        ->group(group);
  }
  verb.add_option("--seed", o.seed, "For sampling, and for policies that draw")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  verb.add_option("--threads", o.threads, "Processor threads (default: one per processor)")
      ->type_name("N")
      ->check(CLI::Range(1, 4096))
      ->group(group);
}

void add_answering(CLI::App& verb, AskOptions& o) {
  const char* group = "The answer";
  verb.add_option("--max-tokens", o.max_tokens, "The answer's greatest length")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  verb.add_option("--temperature", o.temperature, "0 takes the likeliest token each time")
      ->type_name("T")
      ->capture_default_str()
      ->group(group);
  verb.add_option("--top-p", o.top_p, "Draw only from the likeliest tokens that reach this probability together")
      ->type_name("P")
      ->capture_default_str()
      ->group(group);
  verb.add_option("--stop", o.stop, "End the answer before this text; may repeat")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  verb.add_option("--score-tokens", o.score_tokens,
                  "Also the mean log-likelihood of these token ids (a JSON array) as the answer")
      ->type_name("FILE")
      ->group(group);
}

void add_keeping(CLI::App& verb, AskOptions& o) {
  const char* group = "How it is kept, if it is stored";
  verb.add_option("--label", o.label, "What `finchkv ls` shows (default: the document's file name and the prompt)")
      ->type_name("TEXT")
      ->group(group);
  verb.add_option("--ttl", o.ttl, "Remove it after this time, 12h or 30d (default: as `finchkv config` says)")
      ->type_name("TIME")
      ->group(group);
  verb.add_flag("--pin", o.pin, "Never evict it")->group(group);
  verb.add_flag("--share", o.share, "Let every tenant of the store find it")->group(group);
  verb.add_flag("--zstd", o.zstd, "Compress it further where that helps: smaller, several times slower to read")
      ->group(group);
}

/// What comes from standard input can be read once.
Status check_standard_input(const AskOptions& o) {
  const std::vector<std::pair<std::string_view, bool>> inputs = {{"--doc", o.doc == "-"},
                                                                 {"--doc-tokens", o.doc_tokens == "-"},
                                                                 {"--prompt-tokens", o.prompt_tokens == "-"},
                                                                 {"--score-tokens", o.score_tokens == "-"},
                                                                 {"--tenant-key-file", o.store.tenant_key_file == "-"}};
  std::string_view first;
  for (const auto& [option, is_standard] : inputs) {
    if (!is_standard) continue;
    if (!first.empty()) {
      return Status::invalid_argument(
          fmt::format("{} - and {} -: standard input can be one of them, put the other into a file", first, option));
    }
    first = option;
  }
  return Status::ok();
}

}  // namespace

kernels::NumericClass AskOptions::numeric_class() const {
  if (compute == "fp8") return kernels::NumericClass::kFp8;
  return compute == "f32" ? kernels::NumericClass::kReference : kernels::NumericClass::kFast;
}

kernels::DeviceChoice AskOptions::device_choice() const {
  if (device == "cpu") return kernels::DeviceChoice::kCpu;
  return device == "cuda" ? kernels::DeviceChoice::kCuda : kernels::DeviceChoice::kAuto;
}

kernels::DeviceOptions AskOptions::device_options() const {
  return {.choice = device_choice(), .numeric_class = numeric_class(), .threads = threads};
}

std::vector<AskOptions> one_by_one(const AskOptions& options) {
  std::vector<AskOptions> all;
  AskOptions one = options;
  one.docs.clear();
  one.docs_tokens.clear();
  for (const std::string& doc : options.docs) {
    one.doc = doc;
    all.push_back(one);
  }
  for (const std::string& doc : options.docs_tokens) {
    one.doc_tokens = doc;
    all.push_back(one);
  }
  if (all.empty()) all.push_back(one);
  return all;
}

DType AskOptions::storage_dtype() const {
  if (kv_dtype.empty()) return compute == "f32" ? DType::kF32 : DType::kBF16;
  return dtype_from_name(kv_dtype).value_or(DType::kBF16);  // the parser let only names through
}

void add_ask_options(CLI::App& verb, AskOptions& o) {
  add_inputs(verb, o);
  add_store_options(verb, o.store, /*writes=*/true);
  verb.add_flag("--no-store", o.no_store, "Neither look up nor store")->group("Where it is kept");
  verb.add_flag("--refresh", o.refresh, "Read again and replace what is stored")->group("Where it is kept");
  add_keeping(verb, o);
  add_reading(verb, o);
  if (o.answers) add_answering(verb, o);
  verb.add_flag("--json", o.json, "One JSON object on standard output");
  verb.add_flag("--quiet", o.quiet, "No progress and no summary on standard error");
}

Status check_ask_options(const AskOptions& o) {
  if (o.gpus != "1" && o.device_choice() == kernels::DeviceChoice::kCpu) {
    return Status::invalid_argument(fmt::format("--gpus {} goes with --device cuda or auto", o.gpus));
  }
  if (!o.doc && !o.doc_tokens) return Status::invalid_argument("there is nothing to read: give --doc or --doc-tokens");
  if (!o.prompt && !o.prompt_tokens) {
    return Status::invalid_argument("there is nothing to answer: give --prompt or --prompt-tokens");
  }
  if (o.doc.has_value() != o.prompt.has_value()) {
    return Status::invalid_argument("--doc goes with --prompt, and --doc-tokens with --prompt-tokens");
  }
  if (o.prompt && o.prompt->empty()) return Status::invalid_argument("--prompt is empty: say what to answer");
  if (o.answers && o.max_tokens < 1) {
    return Status::invalid_argument(fmt::format("--max-tokens is {}; it must be 1 or more", o.max_tokens));
  }
  for (const std::string& stop : o.stop) {
    if (stop.empty()) return Status::invalid_argument("--stop is empty: give the text that ends the answer");
  }
  FINCHKV_RETURN_IF_ERROR(check_standard_input(o));
  if (!o.no_store) {
    if (o.store.url.empty()) {
      return Status::invalid_argument("--store is missing: name the directory of the store, or say --no-store");
    }
    FINCHKV_RETURN_IF_ERROR(store_directory(o.store).status());
  }
  if (o.no_store && (o.label || !o.ttl.empty() || o.pin || o.share || o.zstd)) {
    return Status::invalid_argument(
        "--label, --ttl, --pin, --share and --zstd say how it is stored: not with --no-store");
  }
  if (!o.ttl.empty()) FINCHKV_RETURN_IF_ERROR(parse_duration_ms(o.ttl, "--ttl").status());
  if (const auto reader = compressor::find_reader(o.reader); !reader.is_ok()) {
    if (o.reader == "passages") {
      return Status::unsupported("--read passages comes with a later version: use chunks or whole");
    }
    return reader.status();
  }
  if (o.passage && o.reader != "passages") return Status::invalid_argument("--passage goes with --read passages");
  return compressor::find_policy(o.policy).status();
}

}  // namespace finchkv::cli
