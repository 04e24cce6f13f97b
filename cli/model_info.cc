// model and tokenize: what a model file holds, and what its tokenizer makes of a text.

#include <algorithm>
#include <map>
#include <memory>

#include <fmt/format.h>

#include "cli/entry_text.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "model/model.h"

namespace finchkv::cli {
namespace {

struct ModelOptions {
  std::string path;
  bool metadata = false;
  bool tensors = false;
  bool json = false;
};

std::string tensor_types(const model::GgufFile& file) {
  std::map<std::string, std::uint64_t> counts;
  for (const auto& tensor : file.tensors()) ++counts[model::ggml_type_name(static_cast<std::uint32_t>(tensor.type))];
  std::string text;
  for (const auto& [name, count] : counts) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, name);
  return text;
}

std::string rope_text(const RopeRecord& rope) {
  std::string text = fmt::format("theta {:g}, {} dimensions, {}", rope.theta, rope.rotary_dims,
                                 rope.interleaved ? "pairs side by side" : "pairs half a head apart");
  if (rope.scaling != "none") text += fmt::format(", scaling {} by {:g}", rope.scaling, rope.factor);
  return text;
}

std::uint64_t weight_bytes(const model::GgufFile& file) {
  std::uint64_t bytes = 0;
  for (const auto& tensor : file.tensors()) bytes += tensor.data.size();
  return bytes;
}

Json model_json(const model::Model& m) {
  const model::ModelConfig& c = m.config();
  return {{"file", m.file().path()},
          {"architecture", c.architecture},
          {"name", c.name},
          {"layers", c.n_layers},
          {"hidden", c.hidden},
          {"heads", c.n_heads},
          {"kv_heads", c.n_kv_heads},
          {"head_dim", c.head_dim},
          {"ffn", c.ffn},
          {"vocab", c.vocab},
          {"context_length", c.context_length},
          {"sliding_window", c.sliding_window},
          {"rope",
           {{"theta", c.rope.theta},
            {"scaling", c.rope.scaling},
            {"factor", c.rope.factor},
            {"rotary_dims", c.rope.rotary_dims},
            {"interleaved", c.rope.interleaved}}},
          {"tokenizer", m.tokenizer().kind()},
          {"add_bos", m.tokenizer().add_bos()},
          {"template", model::chat_template_name(m.chat_template())},
          {"tensors", m.file().tensors().size()},
          {"weight_bytes", weight_bytes(m.file())},
          {"model_fingerprint", to_hex(m.model_fingerprint())},
          {"weights_fingerprint", to_hex(m.weights_fingerprint())}};
}

Figures model_figures(const model::Model& m) {
  const model::ModelConfig& c = m.config();
  const auto count = [](std::int64_t n) { return format_count(static_cast<std::uint64_t>(n)); };
  Figures figures = {
      {"name", c.name.empty() ? "none" : c.name},
      {"architecture", c.architecture},
      {"layers", count(c.n_layers)},
      {"heads",
       fmt::format("{} for queries, {} for keys and values, {} dimensions each", c.n_heads, c.n_kv_heads, c.head_dim)},
      {"widths",
       fmt::format("{} hidden, {} feed-forward, {} vocabulary", count(c.hidden), count(c.ffn), count(c.vocab))},
      {"context", fmt::format("{} tokens{}", count(c.context_length),
                              c.sliding_window > 0 ? fmt::format(", sliding window {}", count(c.sliding_window)) : "")},
      {"RoPE", rope_text(c.rope)},
      {"tokenizer", fmt::format("{}{}", m.tokenizer().kind(), m.tokenizer().add_bos() ? ", begins with BOS" : "")},
      {"template", std::string(model::chat_template_name(m.chat_template()))},
      {"tensors", fmt::format("{} ({})", m.file().tensors().size(), tensor_types(m.file()))},
      {"weights", format_bytes(weight_bytes(m.file()))},
      {"one KV entry",
       fmt::format("{} in bf16, all layers",
                   format_bytes(static_cast<std::uint64_t>(c.n_layers * c.n_kv_heads * c.head_dim) * 4))},
      {"model", to_hex(m.model_fingerprint())},
      {"weights id", to_hex(m.weights_fingerprint())},
  };
  return figures;
}

Status run_model(const ModelOptions& o) {
  FINCHKV_ASSIGN_OR_RETURN(const auto model,
                           model::Model::open(o.path, {.fingerprint_memory = fingerprint_memory_path(), .threads = 0}));
  if (o.json) {
    print_json(model_json(*model));
    return Status::ok();
  }
  print_figures(model_figures(*model));
  if (o.metadata) {
    print("\n");
    for (const std::string_view key : model->file().keys()) {
      print(printable(model->file().describe(key), true) + "\n");
    }
  }
  if (o.tensors) {
    print("\n");
    for (const auto& tensor : model->file().tensors()) {
      std::string dims;
      for (const std::uint64_t d : tensor.dims) dims += fmt::format("{}{}", dims.empty() ? "" : " x ", d);
      print(fmt::format("{}  {}  {}\n", printable(tensor.name, true),
                        model::ggml_type_name(static_cast<std::uint32_t>(tensor.type)), dims));
    }
  }
  return Status::ok();
}

Status run_tokenize(const std::string& path) {
  FINCHKV_ASSIGN_OR_RETURN(const auto file, model::GgufFile::open(path));
  FINCHKV_ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::from_gguf(*file));
  FINCHKV_ASSIGN_OR_RETURN(const std::string text, read_input("-", "standard input"));
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<model::TokenId> ids, tokenizer->encode(text, /*parse_special=*/true));
  print_json(ids);
  return Status::ok();
}

}  // namespace

void add_model(CLI::App& app, Session& session) {
  auto path = std::make_shared<std::string>();
  CLI::App* tokenize = app.add_subcommand("tokenize", "Standard input to a JSON array of token ids");
  tokenize->add_option("--model", *path, "The model file (GGUF)")->type_name("FILE")->required();
  tokenize->footer("Special tokens in the text become their ids here; in `finchkv ask` they are plain text.");
  tokenize->callback([&session, path] { session.action = [path] { return run_tokenize(*path); }; });

  auto options = std::make_shared<ModelOptions>();
  CLI::App* model = app.add_subcommand("model", "What a model file holds");
  model->add_option("file", options->path, "The model file (GGUF)")->type_name("FILE")->required();
  model->add_flag("--metadata", options->metadata, "Also every key of the file");
  model->add_flag("--tensors", options->tensors, "Also every tensor");
  model->add_flag("--json", options->json, "One JSON object on standard output");
  model->callback([&session, options] { session.action = [options] { return run_model(*options); }; });
}

}  // namespace finchkv::cli
