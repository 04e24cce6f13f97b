// The options of ask and compress, checked against each other before any file is opened.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/dtype.h"
#include "base/status.h"
#include "cli/store_access.h"
#include "kernels/device.h"
#include "model/chat_template.h"

namespace finchkv::cli {

struct AskOptions {
  bool answers = true;  ///< ask; false: compress
  std::string model;
  StoreOptions store;
  bool no_store = false;
  std::optional<std::string> label;
  std::string ttl;  ///< empty: the store's setting
  bool pin = false;
  bool share = false;
  bool zstd = false;

  std::optional<std::string> doc, prompt;                // text
  std::optional<std::string> doc_tokens, prompt_tokens;  // files of token ids
  /// compress: all that were given; doc and doc_tokens are then the one that is being looked at.
  std::vector<std::string> docs, docs_tokens;
  std::string instruction = std::string(model::kDefaultInstruction);
  std::optional<std::string> system;
  std::string chat_template;  ///< empty: as the model file says

  std::string reader = "chunks";
  std::optional<std::int64_t> passage;
  std::string policy = "finch-span";
  std::optional<std::int64_t> keep;
  std::optional<double> ratio;
  std::optional<std::int64_t> chunk;
  std::string kv_dtype;  ///< empty: bf16, or f32 with --compute f32
  std::string compute = "auto";
  std::string device = "auto";
  std::string gpus = "1";  ///< a number, or "all"
  std::uint64_t seed = 0;
  int threads = 0;
  bool refresh = false;

  std::int64_t max_tokens = 128;
  float temperature = 0;
  float top_p = 1;
  std::vector<std::string> stop;
  std::optional<std::string> score_tokens;

  bool json = false;
  bool quiet = false;

  [[nodiscard]] bool text_mode() const { return doc.has_value(); }
  [[nodiscard]] kernels::NumericClass numeric_class() const;
  [[nodiscard]] kernels::DeviceChoice device_choice() const;
  [[nodiscard]] kernels::DeviceOptions device_options() const;
  [[nodiscard]] DType storage_dtype() const;
};

void add_ask_options(CLI::App& verb, AskOptions& options);

/// Of compress: these options for each document by itself, in the order given.
[[nodiscard]] std::vector<AskOptions> one_by_one(const AskOptions& options);

/// invalid_argument: something is missing, or two options exclude each other. unsupported: what a later version brings.
[[nodiscard]] Status check_ask_options(const AskOptions& options);

}  // namespace finchkv::cli
