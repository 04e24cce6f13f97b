// Worker: one replica of a model on one device, and the thread that runs it for many callers.
//
// Jobs come from any thread and are of two kinds: to read a document, and to answer behind a set. Documents are read
// together in ragged passes (compressor/batch_reader.h); answers are decoded together, one pass over the weights for a
// step of all, joining and leaving between steps. Turns alternate, so neither starves. In f32 every result is what it
// would be alone. Every job ends exactly once, through its `done`, also when it is cancelled or the worker stops.
// Callbacks come from the worker's thread (or from the caller's, when a job is refused): they must not block for long,
// must not throw, and may add jobs, but must not call stop(). Looking up and storing entries is not a worker's
// business.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "base/status.h"
#include "compressor/batch_reader.h"
#include "model/decode_context.h"
#include "model/generate.h"
#include "model/transformer.h"

namespace finchkv::engine {

struct WorkerOptions {
  compressor::BatchOptions reading;
  std::size_t sequences = 64;  ///< answers decoded together at most; more wait
  /// Decoding steps between two passes over documents: a pass takes some ten times as long as a step.
  int steps_per_pass = 4;
};

struct GenerateJob {
  /// Makes the cache to answer behind, on the worker's thread (DecodeContext::from_set, from_layers), with room for the
  /// prompt and max_tokens. Called again later when memory is short and other jobs will give some back.
  std::function<Result<model::DecodeContext>(const model::Transformer& model)> context;
  std::vector<model::TokenId> prompt;
  model::GenerateOptions options;
  std::stop_token cancel;  ///< looked at between steps; the job then ends with unavailable
  /// Once. As generate(); resource_exhausted when it does not fit even alone.
  std::function<void(Result<model::Answer>)> done;
};

class Worker {
 public:
  /// `tokenizer` may be null (answers then have ids only) and must outlive the worker.
  Worker(std::unique_ptr<model::Transformer> replica, const model::Tokenizer* tokenizer,
         const WorkerOptions& options = {});
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker();  ///< stop()

  void read(compressor::ReadJob job);
  void generate(GenerateJob job);
  /// Ends all jobs with unavailable and waits for the thread; later jobs are refused in the same way. Thread-safe.
  void stop();

  /// Tokens of jobs that have not ended: what a new job would queue behind.
  [[nodiscard]] std::int64_t outstanding_tokens() const { return outstanding_.load(); }
  [[nodiscard]] const model::ModelConfig& config() const { return replica_->config(); }
  /// For what never changes (its kind, its numeric class): all else is the worker's thread's.
  [[nodiscard]] const kernels::Device& device() const { return replica_->device(); }

 private:
  struct Sequence;
  struct Inbox {
    std::vector<compressor::ReadJob> reads;
    std::vector<GenerateJob> answers;
  };

  void run();
  bool take_jobs(bool wait);
  void end_all(const Status& why);
  void end_cancelled();
  void ended(std::int64_t tokens);
  void join_one();
  Status begin(Sequence& sequence);
  void decode_step();
  void step_together(std::span<const std::unique_ptr<Sequence>> members);

  std::unique_ptr<model::Transformer> replica_;
  const model::Tokenizer* tokenizer_;
  WorkerOptions options_;
  std::atomic<std::int64_t> outstanding_{0};

  std::mutex mutex_;  // the next three
  std::condition_variable wake_;
  Inbox inbox_;
  bool stopping_ = false;
  std::mutex stop_mutex_;  // one thread joins

  // The worker's thread alone.
  compressor::BatchReader reader_;
  std::deque<std::unique_ptr<Sequence>> waiting_;     // answers that have not begun
  std::vector<std::unique_ptr<Sequence>> sequences_;  // decoding
  std::size_t together_;                              // sequences of a step: fewer after memory ran out
  // Memory ran out for them while others held some: they wait until a job ends.
  bool answers_wait_ = false;
  bool documents_wait_ = false;
  std::thread thread_;
};

}  // namespace finchkv::engine
