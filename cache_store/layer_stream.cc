#include "cache_store/layer_stream.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace finchkv::cache_store {
namespace {

constexpr std::uint64_t kWorthHelp = 1 << 20;
// With so many helpers the caller leaves reading to them: it has layers to hand on (to a GPU, which would idle), and
// they are late by as long as it reads.
constexpr std::size_t kEnoughHelp = 8;

// What the caller and the pool's threads share.
class Work {
 public:
  Work(EntryReader reader, OpenSource open_source, StreamOptions options, bool caller_reads_ahead)
      : reader_(std::move(reader)),
        open_source_(std::move(open_source)),
        options_(std::move(options)),
        caller_reads_ahead_(caller_reads_ahead),
        halves_(std::size_t{2} * reader_.head().shape.n_layers) {}

  // Reads the next half of a layer that nobody has begun; false when there is none.
  bool read_one(BlockSource& source) {
    std::uint32_t half = 0;
    {
      const std::lock_guard lock(mutex_);
      if (stopped_ || !status_.is_ok() || next_ == halves_.size()) return false;
      half = next_++;
    }
    auto read = reader_.read_half(half / 2, half % 2 == 0 ? BlockKind::kKeys : BlockKind::kValues, source, options_);
    const std::lock_guard lock(mutex_);
    if (stopped_) return false;  // its memory goes back with it
    if (read.is_ok()) {
      halves_[half].read = *std::move(read);
    } else if (status_.is_ok()) {
      status_ = read.status();
    }
    changed_.notify_all();
    return true;
  }

  void help() {
    const auto source = open_source_();
    if (!source.is_ok()) return;  // the caller goes on alone, and learns what is wrong by itself
    while (read_one(**source)) {
    }
  }

  // Until the layer is there, or something is wrong. `source` is needed as long as there are layers to read. `take`:
  // and forgets it.
  Result<EntryReader::Layer> wait(std::uint32_t layer, BlockSource* source, bool take) {
    const std::size_t first = std::size_t{2} * layer;
    Entry& keys = halves_[first];
    Entry& values = halves_[first + 1];
    const auto there = [&] { return keys.read && values.read; };
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        if (keys.taken) return Status::invalid_argument(fmt::format("layer {} was taken already", layer));
        // Somebody else is at the layer: then the next ones, not idling.
        const bool begun = next_ >= first + 2;
        if (next_ == halves_.size() || (begun && !caller_reads_ahead_)) {
          changed_.wait(lock, [&] { return there() || !status_.is_ok(); });
        }
        if (there()) {
          EntryReader::Layer joined = reader_.join(layer, *keys.read, *values.read);
          if (take) keys = values = {.read = std::nullopt, .taken = true};
          return joined;
        }
        if (!status_.is_ok()) return status_;
      }
      read_one(*source);
    }
  }

  // What nobody will ask for any more goes back at once, even if a thread of the pool still has its hands on it.
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    halves_.clear();
  }

  [[nodiscard]] const EntryReader& reader() const { return reader_; }
  [[nodiscard]] const StreamOptions& options() const { return options_; }

 private:
  struct Entry {
    std::optional<EntryReader::Half> read;
    bool taken = false;
  };

  const EntryReader reader_;
  const OpenSource open_source_;
  const StreamOptions options_;
  const bool caller_reads_ahead_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Entry> halves_;  // by layer: keys, values with origins
  std::uint32_t next_ = 0;
  bool stopped_ = false;
  Status status_ = Status::ok();
};

class LayerStream final : public EntryStream {
 public:
  LayerStream(EntryInfo info, std::shared_ptr<Work> work, std::unique_ptr<BlockSource> source)
      : info_(std::move(info)), work_(std::move(work)), source_(std::move(source)) {}
  ~LayerStream() override { work_->stop(); }
  LayerStream(const LayerStream&) = delete;
  LayerStream& operator=(const LayerStream&) = delete;

  [[nodiscard]] const EntryInfo& info() const override { return info_; }

  Result<KvLayer> layer(std::uint32_t layer) override {
    FINCHKV_ASSIGN_OR_RETURN(const EntryReader::Layer read, wait(layer, false));
    return read.views;
  }

  Result<OwnedLayer> hold(std::uint32_t layer) override { return wait(layer, false); }
  Result<OwnedLayer> take(std::uint32_t layer) override { return wait(layer, true); }

  Result<KvSet> finish() override {
    if (work_->options().form == LayerForm::kStored && info_.identity.storage != info_.decoded) {
      return Status::invalid_argument("its layers come as they are stored, which no set holds");
    }
    KvSet set = work_->reader().empty_set();
    for (std::uint32_t l = 0; l < info_.shape.n_layers; ++l) {
      FINCHKV_ASSIGN_OR_RETURN(EntryReader::Layer layer, wait(l, false));
      set.layers.push_back(layer.views);
      set.memory.push_back(std::move(layer.memory));
    }
    source_.reset();  // everything has been read: the lease ends here
    if (const Status valid = set.validate(); !valid.is_ok()) return Status::corrupt(valid.message());
    return set;
  }

 private:
  Result<EntryReader::Layer> wait(std::uint32_t layer, bool take) {
    if (layer >= info_.shape.n_layers) {
      return Status::invalid_argument(fmt::format("layer {} of {}", layer, info_.shape.n_layers));
    }
    return work_->wait(layer, source_.get(), take);
  }

  EntryInfo info_;
  std::shared_ptr<Work> work_;
  std::unique_ptr<BlockSource> source_;
};

}  // namespace

std::unique_ptr<EntryStream> make_layer_stream(EntryInfo info, EntryReader reader, std::unique_ptr<BlockSource> source,
                                               OpenSource open_source, ReadPool* pool, StreamOptions options) {
  const bool worth_it = pool != nullptr && reader.head().stored_bytes >= kWorthHelp;
  const std::size_t halves = std::size_t{2} * reader.head().shape.n_layers;
  const std::size_t helpers = worth_it ? std::min(pool->threads(), halves - 1) : 0;
  auto work =
      std::make_shared<Work>(std::move(reader), std::move(open_source), std::move(options), helpers < kEnoughHelp);
  for (std::size_t i = 0; i < helpers; ++i) pool->post([work] { work->help(); });
  return std::make_unique<LayerStream>(std::move(info), std::move(work), std::move(source));
}

}  // namespace finchkv::cache_store
