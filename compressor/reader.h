// Reader: how a document passes through the model (in chunks, whole, and later by passages), making a KvSet.
//
// A new reader is one file in readers/ and one line in reader_registry.cc. Readers are stateless; one read at a time
// per model.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/kvset.h"
#include "base/status.h"
#include "compressor/plan.h"
#include "model/transformer.h"

namespace finchkv::compressor {

/// Called after every chunk with document tokens read so far and in all; return false to stop reading.
using Progress = std::function<bool(std::int64_t read, std::int64_t total)>;

struct ReadResult {
  KvSet set;
  std::vector<std::int64_t> kept_after_each_chunk;
};

class Reader {
 public:
  virtual ~Reader() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual bool one_pass() const { return false; }  ///< the chunk is the document
  /// unavailable when `progress` stopped it; resource_exhausted.
  [[nodiscard]] virtual Result<ReadResult> read(const Plan& plan, model::Transformer& model,
                                                const Progress& progress) const = 0;
};

[[nodiscard]] Result<const Reader*> find_reader(std::string_view name);
[[nodiscard]] std::vector<const Reader*> all_readers();

/// resolve_plan() done, reads the document with the plan's reader.
[[nodiscard]] Result<ReadResult> read_document(const Plan& plan, model::Transformer& model,
                                               const Progress& progress = {});

}  // namespace finchkv::compressor
