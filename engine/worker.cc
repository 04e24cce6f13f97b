#include "engine/worker.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "model/decode_batch.h"
#include "model/generation.h"

namespace finchkv::engine {

struct Worker::Sequence {
  explicit Sequence(GenerateJob of) : job(std::move(of)) {}

  GenerateJob job;
  std::optional<model::DecodeContext> context;
  std::optional<model::Generation> generation;
  std::optional<model::TokenId> next;  // to run; nothing when the answer is over
  Status failure = Status::ok();       // the answer's end, if it is not that

  void end() {
    context.reset();  // its memory first: the callback may want some
    auto done = std::move(job.done);
    failure.is_ok() ? done(generation->take()) : done(failure);
  }
};

Worker::Worker(std::unique_ptr<model::Transformer> replica, const model::Tokenizer* tokenizer,
               const WorkerOptions& options)
    : replica_(std::move(replica)),
      tokenizer_(tokenizer),
      options_(options),
      reader_(*replica_, options.reading),
      together_(std::max<std::size_t>(1, options.sequences)) {
  options_.sequences = together_;
  thread_ = std::thread([this] { run(); });
}

Worker::~Worker() { stop(); }

void Worker::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  const std::lock_guard lock(stop_mutex_);
  if (thread_.joinable()) thread_.join();
}

namespace {

const char* const kStopping = "the engine is stopping; ask again when it runs";

}  // namespace

void Worker::read(compressor::ReadJob job) {
  const auto tokens = static_cast<std::int64_t>(job.plan.document.size() + job.plan.prompt.size());
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) {
      outstanding_ += tokens;
      job.done = [this, tokens, done = std::move(job.done)](Result<compressor::ReadResult> result) {
        ended(tokens);
        done(std::move(result));
      };
      inbox_.reads.push_back(std::move(job));
      wake_.notify_all();
      return;
    }
  }
  job.done(Status::unavailable(kStopping));
}

void Worker::generate(GenerateJob job) {
  Status refused = job.options.validate();
  if (refused.is_ok() && job.prompt.empty()) {
    refused = Status::invalid_argument("the prompt is empty; an answer needs at least one prompt token");
  }
  if (refused.is_ok()) {
    const auto tokens = static_cast<std::int64_t>(job.prompt.size()) + job.options.max_tokens;
    const std::lock_guard lock(mutex_);
    if (!stopping_) {
      outstanding_ += tokens;
      job.done = [this, tokens, done = std::move(job.done)](Result<model::Answer> result) {
        ended(tokens);
        done(std::move(result));
      };
      inbox_.answers.push_back(std::move(job));
      wake_.notify_all();
      return;
    }
    refused = Status::unavailable(kStopping);
  }
  job.done(refused);
}

// A job's memory has come back.
void Worker::ended(std::int64_t tokens) {
  outstanding_ -= tokens;
  answers_wait_ = documents_wait_ = false;
  together_ = options_.sequences;
}

void Worker::run() {
  for (;;) {
    if (!take_jobs(/*wait=*/reader_.idle() && waiting_.empty() && sequences_.empty())) break;
    end_cancelled();
    const int steps = reader_.idle() ? 1 : std::max(1, options_.steps_per_pass);
    for (int i = 0; i < steps; ++i) {
      join_one();
      decode_step();
    }
    if (reader_.idle() || (documents_wait_ && !sequences_.empty())) continue;
    documents_wait_ = reader_.pass(!sequences_.empty()) == compressor::BatchReader::Outcome::kNoMemory;
  }
  end_all(Status::unavailable(kStopping));
}

bool Worker::take_jobs(bool wait) {
  Inbox taken;
  {
    std::unique_lock lock(mutex_);
    if (wait) wake_.wait(lock, [this] { return stopping_ || !inbox_.reads.empty() || !inbox_.answers.empty(); });
    std::swap(taken, inbox_);
    if (stopping_) {
      std::swap(taken, inbox_);  // end_all() ends them
      return false;
    }
  }
  for (compressor::ReadJob& job : taken.reads) reader_.add(std::move(job));
  for (GenerateJob& job : taken.answers) waiting_.push_back(std::make_unique<Sequence>(std::move(job)));
  return true;
}

void Worker::end_all(const Status& why) {
  reader_.stop(why);
  std::vector<std::unique_ptr<Sequence>> all = std::move(sequences_);
  std::move(waiting_.begin(), waiting_.end(), std::back_inserter(all));
  waiting_.clear();
  for (const auto& sequence : all) {
    sequence->failure = why;
    sequence->end();
  }
  Inbox late;
  {
    const std::lock_guard lock(mutex_);
    std::swap(late, inbox_);
  }
  for (compressor::ReadJob& job : late.reads) job.done(why);
  for (GenerateJob& job : late.answers) job.done(why);
}

void Worker::end_cancelled() {
  std::vector<std::unique_ptr<Sequence>> cancelled;
  const auto take_from = [&](auto& sequences) {
    const auto first = std::stable_partition(sequences.begin(), sequences.end(),
                                             [](const auto& s) { return !s->job.cancel.stop_requested(); });
    std::move(first, sequences.end(), std::back_inserter(cancelled));
    sequences.erase(first, sequences.end());
  };
  take_from(sequences_);
  take_from(waiting_);
  for (const auto& sequence : cancelled) {
    sequence->failure = Status::unavailable("the answer was cancelled");
    sequence->end();
  }
}

Status Worker::begin(Sequence& sequence) {
  GenerateJob& job = sequence.job;
  FINCHKV_ASSIGN_OR_RETURN(model::DecodeContext context, job.context(*replica_));
  const std::int64_t needed = static_cast<std::int64_t>(job.prompt.size()) + job.options.max_tokens - 1;
  if (context.room() < needed) return Status::invalid_argument("the cache has no room for the prompt and max-tokens");
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<float> logits,
                           replica_->forward(job.prompt, context, model::LogitRows::kLast));
  sequence.context.emplace(std::move(context));
  sequence.generation.emplace(tokenizer_, job.options);
  sequence.next = sequence.generation->next(logits);
  return Status::ok();
}

// One answer at a time begins, so that those being decoded wait for one prompt at most.
void Worker::join_one() {
  const bool others = !sequences_.empty() || !reader_.idle();
  if (waiting_.empty() || sequences_.size() >= options_.sequences || (answers_wait_ && others)) return;
  std::unique_ptr<Sequence> sequence = std::move(waiting_.front());
  waiting_.pop_front();
  Status begun = begin(*sequence);
  if (begun.code() == StatusCode::kResourceExhausted) {
    static_cast<void>(replica_->device().synchronize());
    if (others) {
      answers_wait_ = true;
      waiting_.push_front(std::move(sequence));
      return;
    }
    reader_.release_memory();  // of larger passes, the documents' too
    begun = begin(*sequence);
  }
  if (!begun.is_ok()) static_cast<void>(replica_->device().synchronize());
  sequence->failure = std::move(begun);
  if (sequence->next) {
    sequences_.push_back(std::move(sequence));
  } else {
    sequence->end();
  }
}

void Worker::decode_step() {
  const std::span<const std::unique_ptr<Sequence>> all = sequences_;
  for (std::size_t first = 0; first < all.size();) {
    const std::size_t count = std::min(together_, all.size() - first);
    step_together(all.subspan(first, count));
    first += count;
  }
  const auto over =
      std::stable_partition(sequences_.begin(), sequences_.end(), [](const auto& s) { return s->next.has_value(); });
  std::vector<std::unique_ptr<Sequence>> ending(std::make_move_iterator(over),
                                                std::make_move_iterator(sequences_.end()));
  sequences_.erase(over, sequences_.end());
  for (const auto& sequence : ending) sequence->end();
}

// After a failure the same step is made again by halves, down to the one whose failure it is.
void Worker::step_together(std::span<const std::unique_ptr<Sequence>> members) {
  std::vector<model::DecodeContext*> contexts;
  std::vector<model::TokenId> tokens;
  for (const auto& member : members) {
    contexts.push_back(&*member->context);
    tokens.push_back(*member->next);
  }
  std::vector<std::size_t> sampled;  // whose logits are needed on the host
  for (std::size_t i = 0; i < members.size(); ++i) {
    if (!members[i]->generation->greedy()) sampled.push_back(i);
  }
  model::DecodeBatch batch(*replica_, contexts);
  const auto step = replica_->step(tokens, batch, sampled);
  if (step.is_ok()) {
    std::span<const float> logits = step->logits;
    const auto vocab = static_cast<std::size_t>(replica_->config().vocab);
    for (std::size_t i = 0; i < members.size(); ++i) {
      model::Generation& generation = *members[i]->generation;
      if (generation.greedy()) {
        members[i]->next = generation.accept(step->likeliest[i]);
      } else {
        members[i]->next = generation.next(logits.first(vocab));
        logits = logits.subspan(vocab);
      }
    }
    return;
  }
  static_cast<void>(replica_->device().synchronize());
  if (members.size() == 1) {
    members[0]->failure = step.status();
    members[0]->next.reset();
    return;
  }
  const std::size_t half = members.size() / 2;
  if (step.status().code() == StatusCode::kResourceExhausted) together_ = std::max<std::size_t>(1, half);
  step_together(members.first(half));
  step_together(members.subspan(half));
}

}  // namespace finchkv::engine
