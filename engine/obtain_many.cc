#include "engine/obtain_many.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cache_store/codec.h"
#include "engine/entry_steps.h"

namespace finchkv::engine {
namespace {

constexpr auto kProgressEvery = std::chrono::milliseconds(100);

// Of the numbers of a request's set, `width` bytes each.
std::int64_t set_bytes(const Prepared& request, const model::ModelConfig& c, std::size_t width) {
  return 2 * c.n_layers * c.n_kv_heads * c.head_dim * request.plan.budget * static_cast<std::int64_t>(width);
}

// What the workers have read, for the thread that stores.
class Finished {
 public:
  struct Item {
    std::size_t index = 0;
    Result<compressor::ReadResult> read;
  };

  void put(std::size_t index, Result<compressor::ReadResult> read) {
    const std::lock_guard lock(mutex_);
    items_.push_back({index, std::move(read)});
    there_.notify_one();
  }
  /// Waits up to `longest`.
  std::optional<Item> take(std::chrono::milliseconds longest) {
    std::unique_lock lock(mutex_);
    if (!there_.wait_for(lock, longest, [this] { return !items_.empty(); })) return std::nullopt;
    Item item = std::move(items_.front());
    items_.pop_front();
    return item;
  }

 private:
  std::mutex mutex_;
  std::condition_variable there_;
  std::deque<Item> items_;
};

class Many {
 public:
  Many(std::span<const std::unique_ptr<Prepared>> requests, const model::Model& model, cache_store::Store* store,
       const ObtainManyCalls& calls, const ObtainManyLimits& limits)
      : requests_(requests), model_(model), store_(store), calls_(calls), limits_(limits), reading_(requests.size()) {}

  void run() {
    std::map<std::string, std::size_t> first;
    std::vector<std::size_t> different;
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      const auto [found, is_new] = first.emplace(requests_[i]->target().id.hex(), i);
      if (!is_new) {
        same_[found->second].push_back(i);
        continue;
      }
      different.push_back(i);
      total_ += tokens_of(*requests_[i]);
    }
    for (const std::size_t i : different) {
      while (must_wait(i)) store_next();
      begin(i);
      while (store_finished(std::chrono::milliseconds(0))) {
      }
    }
    while (under_way_ > 0) store_next();
  }

 private:
  struct Reading {
    Obtained out;
    bool replace = false;
  };

  static std::int64_t tokens_of(const Prepared& request) {
    return static_cast<std::int64_t>(request.request.document.size());
  }
  [[nodiscard]] std::int64_t bytes_of(std::size_t i) const { return set_bytes(*requests_[i], model_.config(), width_); }
  [[nodiscard]] bool must_wait(std::size_t i) const {
    if (workers_ == nullptr) return false;
    const std::size_t n = workers_->size();
    if (under_way_ < n) return false;
    return under_way_ >= n * limits_.documents || bytes_ + bytes_of(i) > static_cast<std::int64_t>(n) * limits_.bytes;
  }

  void begin(std::size_t i) {
    const Prepared& request = *requests_[i];
    Reading made;
    made.replace = request.request.refresh;
    if (store_ != nullptr && !request.request.refresh) {
      const Status looked = look_up(request, *store_, made.replace, made.out);
      if (!looked.is_ok() || made.out.hit) {
        total_ -= tokens_of(request);
        made.out.set = {};
        return looked.is_ok() ? end(i, std::move(made.out)) : end(i, looked);
      }
    }
    const Status ready = ready_for(request);
    if (!ready.is_ok()) return end(i, ready);
    reading_[i].emplace(std::move(made));
    ++under_way_;
    bytes_ += bytes_of(i);
    compressor::ReadJob job;
    job.plan = request.plan;
    // What a document that starts again reads twice counts once.
    job.progress = [this, counted = std::int64_t{0}](std::int64_t read, std::int64_t) mutable {
      read_ += std::max<std::int64_t>(0, read - counted);
      counted = std::max(counted, read);
      return true;
    };
    job.done = [this, i](Result<compressor::ReadResult> read) { finished_.put(i, std::move(read)); };
    workers_->read(std::move(job));
  }

  Status ready_for(const Prepared& request) {
    if (workers_ == nullptr) {
      FINCHKV_RETURN_IF_ERROR(no_workers_);
      const auto made = calls_.workers();
      no_workers_ = made.status();
      FINCHKV_RETURN_IF_ERROR(no_workers_);
      workers_ = *made;
      if (workers_ == nullptr) return Status::internal("there is nobody to read documents");
      for (const auto& worker : workers_->workers()) {
        width_ = std::max(width_, kernels::element_size(worker->device().kv_type()));
      }
    }
    for (const auto& worker : workers_->workers()) {
      FINCHKV_RETURN_IF_ERROR(check_model(request, model_, worker->device()));
    }
    return Status::ok();
  }

  void store_next() {
    while (!store_finished(kProgressEvery)) {
    }
  }

  bool store_finished(std::chrono::milliseconds longest) {
    if (under_way_ == 0) return false;
    std::optional<Finished::Item> item = finished_.take(longest);
    if (calls_.progress) calls_.progress(read_, total_);
    if (!item) return false;
    const std::size_t i = item->index;
    Reading reading = *std::move(reading_[i]);
    reading_[i].reset();
    --under_way_;
    bytes_ -= bytes_of(i);
    end(i, store(i, std::move(item->read), reading));
    return true;
  }

  void end(std::size_t i, const Result<Obtained>& result) {
    calls_.done(i, result);
    for (const std::size_t same : same_[i]) {
      Result<Obtained> again = result;
      if (again.is_ok()) {
        again->hit = true;
        again->ms = {};
      }
      calls_.done(same, std::move(again));
    }
  }

  Result<Obtained> store(std::size_t i, Result<compressor::ReadResult> read, Reading& reading) {
    FINCHKV_RETURN_IF_ERROR(read.status());
    reading.out.ms.compress = read->pass_ms;
    FINCHKV_RETURN_IF_ERROR(keep(*requests_[i], store_, reading.replace, read->set, reading.out));
    if (store_ == nullptr) {
      FINCHKV_ASSIGN_OR_RETURN(reading.out.set, cache_store::as_stored(read->set, requests_[i]->request.kv_dtype));
    }
    return std::move(reading.out);
  }

  const std::span<const std::unique_ptr<Prepared>> requests_;
  const model::Model& model_;
  cache_store::Store* const store_;
  const ObtainManyCalls& calls_;
  const ObtainManyLimits limits_;
  WorkerPool* workers_ = nullptr;
  Status no_workers_ = Status::ok();
  std::size_t width_ = 0;                                 // of a number of the workers' sets
  std::map<std::size_t, std::vector<std::size_t>> same_;  // later requests for the entry of an earlier one
  std::vector<std::optional<Reading>> reading_;
  std::size_t under_way_ = 0;
  std::int64_t bytes_ = 0;  // of sets under way
  std::int64_t total_ = 0;
  std::atomic<std::int64_t> read_{0};
  Finished finished_;
};

}  // namespace

void obtain_many(std::span<const std::unique_ptr<Prepared>> requests, const model::Model& model,
                 cache_store::Store* store, const ObtainManyCalls& calls, const ObtainManyLimits& limits) {
  Many(requests, model, store, calls, limits).run();
}

}  // namespace finchkv::engine
