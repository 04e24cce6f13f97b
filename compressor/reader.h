// Reader: how a document passes through the model (in chunks, whole, and later by passages), making a KvSet.
//
// A reader cuts a document into parts and says what each is to become of; BatchReader (batch_reader.h) runs the parts,
// those of several documents in one pass. A new reader is one file in readers/ and one line in reader_registry.cc.
// Readers are stateless; a Reading belongs to the thread that runs the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/kvset.h"
#include "base/status.h"
#include "compressor/plan.h"
#include "compressor/read_scratch.h"
#include "model/transformer.h"

namespace finchkv::compressor {

/// Called after every chunk with document tokens read so far and in all; return false to stop reading. A document that
/// memory did not suffice for beside others is read again from its start: then `read` goes back.
using Progress = std::function<bool(std::int64_t read, std::int64_t total)>;

struct ReadResult {
  KvSet set;
  std::vector<std::int64_t> kept_after_each_chunk;
  double pass_ms = 0;  ///< of the passes' time, the share of its rows
};

/// One document on its way through the model.
class Reading {
 public:
  virtual ~Reading() = default;
  /// Rows of the next part, its prompt included; 0 when the document has been read.
  [[nodiscard]] virtual std::int64_t next_rows() const = 0;
  /// The next pass runs the part, whose tokens are put at the end of `tokens`. `scratch` has what the reader says that
  /// the plan needs.
  virtual Status begin_part(const ReadScratch& scratch, std::vector<model::TokenId>& tokens) = 0;
  /// What the part's rows attend in, between begin_part() and end_part().
  [[nodiscard]] virtual model::AttentionContext& context() = 0;
  virtual void end_part() = 0;
  /// Forgets all parts, for example after a pass that failed half-way.
  virtual void restart() = 0;
  [[nodiscard]] virtual std::int64_t tokens_read() const = 0;  ///< of the document
  /// When next_rows() is 0. resource_exhausted.
  [[nodiscard]] virtual Result<ReadResult> finish() = 0;
};

class Reader {
 public:
  virtual ~Reader() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual bool one_pass() const { return false; }  ///< the chunk is the document
  /// Rows of the plan's largest part.
  [[nodiscard]] virtual std::int64_t most_rows(const Plan& plan) const = 0;
  /// Device memory that the reading takes as long as it lives.
  [[nodiscard]] virtual std::size_t state_bytes(const Plan& plan, const model::Transformer& model) const = 0;
  [[nodiscard]] virtual ReadScratch::Needs scratch_needs(const Plan& plan, const model::Transformer& model) const = 0;
  /// Takes the memory; nothing is read yet. The plan's tokens must outlive the reading. resource_exhausted.
  [[nodiscard]] virtual Result<std::unique_ptr<Reading>> start(const Plan& plan,
                                                               const model::Transformer& model) const = 0;
};

[[nodiscard]] Result<const Reader*> find_reader(std::string_view name);
[[nodiscard]] std::vector<const Reader*> all_readers();

/// resolve_plan() done, reads the document with the plan's reader: a batch of one. invalid_argument for ids outside the
/// vocabulary; unavailable when `progress` stopped it; resource_exhausted.
[[nodiscard]] Result<ReadResult> read_document(const Plan& plan, model::Transformer& model,
                                               const Progress& progress = {});

}  // namespace finchkv::compressor
