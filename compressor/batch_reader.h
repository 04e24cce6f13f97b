// BatchReader: reads several documents at once, so that small ones fill the processor too.
//
// A pass takes the next part of every document in flight; a document joins when a pass has room for its rows and the
// device has memory for what is kept of it, and leaves when it has been read. When memory runs out all the same, the
// pass is made again with half of the documents; the others wait and start again. In f32 a document's result has the
// same bytes as its result alone. Belongs to the thread that runs the model; callbacks come from pass(), add() and
// stop(), and may call add().
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "compressor/reader.h"

namespace finchkv::compressor {

struct BatchOptions {
  /// Of one pass. More rows cost memory (some 150 KiB each for an 8B model) and gain nothing once the processor is
  /// full: on an H200, 32 documents of 1k tokens take 0.856 s with 4352 rows, 0.842 s with 17408. A document whose own
  /// part has more rows is read alone.
  std::int64_t rows = 5120;
  /// Left free when a document joins others: what the device's operations take beside what is counted.
  std::size_t spare_bytes = std::size_t{64} << 20;
};

struct ReadJob {
  Plan plan;                          ///< its tokens must stay until done() was called; owner can see to that
  std::shared_ptr<const void> owner;  ///< kept until then
  Progress progress;
  std::stop_token cancel;  ///< looked at between passes; the document then ends with unavailable
  /// Once for every job. As read_document(); resource_exhausted when the document does not fit even alone.
  std::function<void(Result<ReadResult>)> done;
};

class BatchReader {
 public:
  explicit BatchReader(model::Transformer& model, const BatchOptions& options = {});
  BatchReader(const BatchReader&) = delete;
  BatchReader& operator=(const BatchReader&) = delete;
  ~BatchReader();  ///< after stop(), or when idle

  void add(ReadJob job);
  [[nodiscard]] bool idle() const { return active_.empty() && waiting_.empty(); }

  enum class Outcome : std::uint8_t { kRan, kIdle, kNoMemory };
  /// Runs one pass. `memory_may_come`: others hold memory of this device and will give it back, so a document that does
  /// not fit alone waits (kNoMemory, when nothing else could be done) instead of failing.
  Outcome pass(bool memory_may_come = false);
  /// Gives back what is kept between passes, the model's part with it; the next pass takes it again.
  void release_memory();
  /// Ends everything with `why`.
  void stop(const Status& why);

 private:
  struct Document;

  void end_cancelled();
  void admit(bool memory_may_come);
  Status start(Document& document);
  [[nodiscard]] bool has_memory_for(const Document& document, std::int64_t rows) const;
  Status run(std::vector<Document>& members, bool& touched);
  void after_success(std::vector<Document> members);
  bool after_no_memory(std::vector<Document> members, bool touched, const Status& why, bool memory_may_come);

  model::Transformer* model_;
  BatchOptions options_;
  std::int64_t rows_limit_;
  int calm_passes_ = 0;    // since memory ran out, or the limit was raised
  bool released_ = false;  // what was kept for reuse, for the document that is alone
  ReadScratch scratch_;
  std::vector<Document> active_;  // every one has a part in the next pass
  std::deque<Document> waiting_;
  std::vector<model::TokenId> tokens_;
};

/// Reads all plans; `on_done` is told each result as it is there, in no fixed order.
void read_documents(std::span<const Plan> plans, model::Transformer& model, const BatchOptions& options,
                    const std::function<void(std::size_t index, Result<ReadResult> result)>& on_done);

}  // namespace finchkv::compressor
