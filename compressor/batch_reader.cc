#include "compressor/batch_reader.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "model/ragged_context.h"

namespace finchkv::compressor {
namespace {

// Successful passes before more rows are tried again.
constexpr int kCalmPasses = 16;

}  // namespace

struct BatchReader::Document {
  ReadJob job;
  std::unique_ptr<Reading> reading;  // null while it waits
  double pass_ms = 0;                // its share

  [[nodiscard]] std::int64_t first_rows() const { return job.plan.reader->most_rows(job.plan); }
  void end(Result<ReadResult> result) {
    reading.reset();  // its memory first: the callback may want some
    auto done = std::move(job.done);
    auto owner = std::move(job.owner);
    done(std::move(result));
  }
};

BatchReader::BatchReader(model::Transformer& model, const BatchOptions& options)
    : model_(&model), options_(options), rows_limit_(std::max<std::int64_t>(1, options.rows)), scratch_(model) {}
BatchReader::~BatchReader() = default;

void BatchReader::add(ReadJob job) {
  Document document{std::move(job), nullptr, 0};
  const model::ModelConfig& config = model_->config();
  Status fine = config.check_tokens(document.job.plan.document, "document");
  if (fine.is_ok()) fine = config.check_tokens(document.job.plan.prompt, "prompt");
  if (!fine.is_ok()) return document.end(std::move(fine));
  waiting_.push_back(std::move(document));
}

void BatchReader::stop(const Status& why) {
  std::vector<Document> all = std::exchange(active_, {});
  std::move(waiting_.begin(), waiting_.end(), std::back_inserter(all));
  waiting_.clear();
  for (Document& document : all) document.end(why);
}

void BatchReader::end_cancelled() {
  std::vector<Document> cancelled;
  const auto take_from = [&](auto& documents) {
    const auto first = std::stable_partition(documents.begin(), documents.end(), [](const Document& document) {
      return !document.job.cancel.stop_requested();
    });
    std::move(first, documents.end(), std::back_inserter(cancelled));
    documents.erase(first, documents.end());
  };
  take_from(active_);
  take_from(waiting_);
  for (Document& document : cancelled) document.end(Status::unavailable("reading the document was cancelled"));
}

bool BatchReader::has_memory_for(const Document& document, std::int64_t rows) const {
  const Plan& plan = document.job.plan;
  const std::size_t needed = plan.reader->state_bytes(plan, *model_) +
                             scratch_.missing_bytes(plan.reader->scratch_needs(plan, *model_)) +
                             model_->missing_bytes(rows) + options_.spare_bytes;
  return needed <= model_->device().free_memory();
}

Status BatchReader::start(Document& document) {
  const Plan& plan = document.job.plan;
  FINCHKV_RETURN_IF_ERROR(scratch_.reserve(plan.reader->scratch_needs(plan, *model_)));
  FINCHKV_ASSIGN_OR_RETURN(document.reading, plan.reader->start(plan, *model_));
  return Status::ok();
}

// First come, first served: a large document is not overtaken for ever by small ones.
void BatchReader::admit(bool memory_may_come) {
  std::int64_t rows = 0;
  for (const Document& document : active_) rows += document.reading->next_rows();
  while (!waiting_.empty()) {
    rows += waiting_.front().first_rows();
    if (!active_.empty() && (rows > rows_limit_ || !has_memory_for(waiting_.front(), rows))) return;
    Document document = std::move(waiting_.front());
    waiting_.pop_front();
    const Status started = start(document);
    if (started.is_ok()) {
      active_.push_back(std::move(document));
      continue;
    }
    if (started.code() != StatusCode::kResourceExhausted) {
      document.end(started);
      rows = 0;
      for (const Document& other : active_) rows += other.reading->next_rows();
      continue;
    }
    if (!active_.empty()) {
      waiting_.push_front(std::move(document));
      return;
    }
    std::vector<Document> alone;
    alone.push_back(std::move(document));
    if (!after_no_memory(std::move(alone), false, started, memory_may_come)) return;
    rows = 0;
  }
}

void BatchReader::release_memory() {
  scratch_ = ReadScratch(*model_);
  model_->release_activations();
}

// True when it is worth going on at once.
bool BatchReader::after_no_memory(std::vector<Document> members, bool touched, const Status& why,
                                  bool memory_may_come) {
  static_cast<void>(model_->device().synchronize());  // what was queued is waited for, and the failure is taken
  calm_passes_ = 0;
  if (members.size() > 1) {
    std::int64_t rows = 0;
    for (const Document& member : members) rows += member.reading->next_rows();
    rows_limit_ = std::max<std::int64_t>(1, rows / 2);
    const auto half = members.begin() + static_cast<std::ptrdiff_t>(members.size() / 2);
    for (auto later = members.end(); later != half;) {
      --later;
      later->reading.reset();
      waiting_.push_front(std::move(*later));
    }
    members.erase(half, members.end());
    if (touched) {
      for (Document& member : members) member.reading->restart();
    }
    active_ = std::move(members);
    return true;
  }
  Document alone = std::move(members.front());
  const Plan& plan = alone.job.plan;
  if (!std::exchange(released_, true)) {  // earlier, larger passes may have left what this one does not need
    alone.reading.reset();
    release_memory();
    waiting_.push_front(std::move(alone));
    return true;
  }
  released_ = false;
  alone.reading.reset();
  if (memory_may_come) {
    waiting_.push_front(std::move(alone));
    return false;
  }
  release_memory();
  const std::size_t state = plan.reader->state_bytes(plan, *model_);
  const std::size_t pass =
      scratch_.missing_bytes(plan.reader->scratch_needs(plan, *model_)) + model_->missing_bytes(alone.first_rows());
  const std::size_t free = model_->device().free_memory();
  alone.end(Status::resource_exhausted(fmt::format(
      "the document of {} tokens does not fit into the device's memory: what is kept of it takes {} bytes, a pass of "
      "{} rows {} or more, and {} are free ({}); lower keep or chunk",
      plan.document.size(), state, alone.first_rows(), pass, free, why.message())));
  return true;
}

Status BatchReader::run(std::vector<Document>& members, bool& touched) {
  tokens_.clear();
  std::vector<model::RaggedContext::Member> rows;
  for (Document& member : members) {
    const std::int64_t before = static_cast<std::int64_t>(tokens_.size());
    FINCHKV_RETURN_IF_ERROR(member.reading->begin_part(scratch_, tokens_));
    rows.push_back({&member.reading->context(), static_cast<std::int64_t>(tokens_.size()) - before, Status::ok()});
  }
  model::RaggedContext ragged(std::move(rows));
  const auto start = std::chrono::steady_clock::now();
  const Status ran = model_->forward(tokens_, ragged, model::LogitRows::kNone).status();
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  touched = ragged.touched();
  FINCHKV_RETURN_IF_ERROR(ran);
  // Those that failed on their own leave; what follows is for the rest.
  std::vector<Document> rest;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const Status& failure = ragged.members()[i].failure;
    if (failure.is_ok()) {
      const auto share = static_cast<double>(ragged.members()[i].rows) / static_cast<double>(tokens_.size());
      members[i].pass_ms += ms * share;
      rest.push_back(std::move(members[i]));
    } else {
      members[i].end(failure);
    }
  }
  members = std::move(rest);
  return Status::ok();
}

void BatchReader::after_success(std::vector<Document> members) {
  released_ = false;
  if (++calm_passes_ >= kCalmPasses && rows_limit_ < options_.rows) {
    rows_limit_ = std::min(options_.rows, 2 * rows_limit_);
    calm_passes_ = 0;
  }
  for (Document& member : members) {
    Reading& reading = *member.reading;
    reading.end_part();
    const auto all = static_cast<std::int64_t>(member.job.plan.document.size());
    if (member.job.progress && !member.job.progress(reading.tokens_read(), all)) {
      member.end(Status::unavailable("reading the document was stopped"));
    } else if (reading.next_rows() == 0) {
      Result<ReadResult> result = reading.finish();
      if (result.is_ok()) result->pass_ms = member.pass_ms;
      member.end(std::move(result));
    } else {
      active_.push_back(std::move(member));
    }
  }
}

BatchReader::Outcome BatchReader::pass(bool memory_may_come) {
  for (;;) {
    end_cancelled();
    admit(memory_may_come);
    if (active_.empty()) return waiting_.empty() ? Outcome::kIdle : Outcome::kNoMemory;
    std::vector<Document> members = std::exchange(active_, {});
    bool touched = false;
    const Status ran = run(members, touched);
    if (ran.is_ok()) {
      after_success(std::move(members));
      return Outcome::kRan;
    }
    if (ran.code() != StatusCode::kResourceExhausted) {
      static_cast<void>(model_->device().synchronize());
      for (Document& member : members) member.end(ran);
      return Outcome::kRan;
    }
    if (!after_no_memory(std::move(members), touched, ran, memory_may_come)) return Outcome::kNoMemory;
  }
}

void read_documents(std::span<const Plan> plans, model::Transformer& model, const BatchOptions& options,
                    const std::function<void(std::size_t index, Result<ReadResult> result)>& on_done) {
  BatchReader reader(model, options);
  for (std::size_t i = 0; i < plans.size(); ++i) {
    ReadJob job;
    job.plan = plans[i];
    job.done = [&on_done, i](Result<ReadResult> result) { on_done(i, std::move(result)); };
    reader.add(std::move(job));
  }
  while (reader.pass() != BatchReader::Outcome::kIdle) {
  }
}

Result<ReadResult> read_document(const Plan& plan, model::Transformer& model, const Progress& progress) {
  BatchReader reader(model);
  std::optional<Result<ReadResult>> result;
  ReadJob job;
  job.plan = plan;
  job.progress = progress;
  job.done = [&result](Result<ReadResult> made) { result.emplace(std::move(made)); };
  reader.add(std::move(job));
  while (!result) static_cast<void>(reader.pass());
  return *std::move(result);
}

}  // namespace finchkv::compressor
