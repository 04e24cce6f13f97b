// export and import of llama.cpp's sequence files: one entry as the file that llama-server's slots are restored from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/status.h"
#include "cache_store/llama_state.h"
#include "cache_store/store.h"

namespace finchkv::cli {

struct LlamaExportOptions {
  std::string cache_type = "f16";
  bool no_flash_attention = false;
  std::uint32_t streams = 1;
  std::string tokens;  ///< a file of token ids; empty: made from the document's
  std::string model;   ///< to check against; empty: not checked
};

void add_llama_export_options(CLI::App& verb, LlamaExportOptions& options);

struct LlamaExported {
  std::vector<std::int32_t> tokens;  ///< the slot's; the prompt starts at the position behind them
  std::uint64_t bytes = 0;
};
/// `base`: where the first kept entry goes.
[[nodiscard]] Result<LlamaExported> export_llama(const LlamaExportOptions& options, cache_store::Store& store,
                                                 const cache_store::EntryInfo& entry, std::uint64_t base,
                                                 const std::string& path);

/// What `file`, named `name` in sentences, holds, as an entry of the model in the file `model`.
[[nodiscard]] Result<cache_store::PutRequest> import_llama(std::span<const std::byte> file, const std::string& name,
                                                           const std::string& model, const cache_store::Tenant& tenant);

}  // namespace finchkv::cli
