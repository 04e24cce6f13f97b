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

// What the caller and the pool's threads share.
class Work {
 public:
  Work(EntryReader reader, OpenSource open_source)
      : reader_(std::move(reader)), open_source_(std::move(open_source)), layers_(reader_.head().shape.n_layers) {}

  // Reads the next layer that nobody has begun; false when there is none.
  bool read_one(BlockSource& source) {
    std::uint32_t layer = 0;
    {
      const std::lock_guard lock(mutex_);
      if (stopped_ || !status_.is_ok() || next_ == layers_.size()) return false;
      layer = next_++;
    }
    auto read = reader_.read_layer(layer, source);
    const std::lock_guard lock(mutex_);
    if (read.is_ok()) {
      layers_[layer] = *std::move(read);
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

  // Until the layer is there, or something is wrong. `source` is needed as long as there are layers to read.
  Result<EntryReader::Layer> wait(std::uint32_t layer, BlockSource* source) {
    bool more = true;  // somebody else is at the layer: then the next ones, not idling
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        if (!more) changed_.wait(lock, [&] { return layers_[layer] || !status_.is_ok(); });
        if (layers_[layer]) return *layers_[layer];
        if (!status_.is_ok()) return status_;
      }
      more = read_one(*source);
    }
  }

  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }

  [[nodiscard]] const EntryReader& reader() const { return reader_; }

 private:
  const EntryReader reader_;
  const OpenSource open_source_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::optional<EntryReader::Layer>> layers_;
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
    if (layer >= info_.shape.n_layers) {
      return Status::invalid_argument(fmt::format("layer {} of {}", layer, info_.shape.n_layers));
    }
    FINCHKV_ASSIGN_OR_RETURN(const EntryReader::Layer read, work_->wait(layer, source_.get()));
    return read.views;
  }

  Result<KvSet> finish() override {
    KvSet set = work_->reader().empty_set();
    for (std::uint32_t l = 0; l < info_.shape.n_layers; ++l) {
      FINCHKV_ASSIGN_OR_RETURN(EntryReader::Layer layer, work_->wait(l, source_.get()));
      set.layers.push_back(layer.views);
      set.memory.push_back(std::move(layer.memory));
    }
    source_.reset();  // everything has been read: the lease ends here
    if (const Status valid = set.validate(); !valid.is_ok()) return Status::corrupt(valid.message());
    return set;
  }

 private:
  EntryInfo info_;
  std::shared_ptr<Work> work_;
  std::unique_ptr<BlockSource> source_;
};

}  // namespace

std::unique_ptr<EntryStream> make_layer_stream(EntryInfo info, EntryReader reader, std::unique_ptr<BlockSource> source,
                                               OpenSource open_source, ReadPool* pool) {
  const bool worth_it = pool != nullptr && reader.head().stored_bytes >= kWorthHelp;
  const std::size_t layers = reader.head().shape.n_layers;
  auto work = std::make_shared<Work>(std::move(reader), std::move(open_source));
  if (worth_it) {
    const std::size_t helpers = std::min(pool->threads(), layers - 1);
    for (std::size_t i = 0; i < helpers; ++i) pool->post([work] { work->help(); });
  }
  return std::make_unique<LayerStream>(std::move(info), std::move(work), std::move(source));
}

}  // namespace finchkv::cache_store
