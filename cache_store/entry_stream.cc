#include "cache_store/entry_stream.h"

#include <utility>

#include "cache_store/store_common.h"

namespace finchkv::cache_store {
namespace {

class HostedStream final : public EntryStream {
 public:
  HostedStream(std::shared_ptr<StoreHost> host, std::unique_ptr<EntryStream> layers, RestartStream restart)
      : host_(std::move(host)), layers_(std::move(layers)), restart_(std::move(restart)) {}
  ~HostedStream() override { layers_.reset(); }
  HostedStream(const HostedStream&) = delete;
  HostedStream& operator=(const HostedStream&) = delete;

  [[nodiscard]] const EntryInfo& info() const override { return layers_->info(); }
  Result<KvLayer> layer(std::uint32_t layer) override {
    return attempt<KvLayer>([layer](EntryStream& layers) { return layers.layer(layer); });
  }
  Result<OwnedLayer> hold(std::uint32_t layer) override {
    return attempt<OwnedLayer>([layer](EntryStream& layers) { return layers.hold(layer); });
  }
  Result<OwnedLayer> take(std::uint32_t layer) override {
    return attempt<OwnedLayer>([layer](EntryStream& layers) { return layers.take(layer); });
  }
  Result<KvSet> finish() override {
    return attempt<KvSet>([](EntryStream& layers) { return layers.finish(); });
  }

 private:
  template <typename T>
  Result<T> attempt(const std::function<Result<T>(EntryStream&)>& call) {
    for (;;) {
      Result<T> result = call(*layers_);
      if (result.is_ok()) {
        handed_out_ = true;
        return result;
      }
      const CacheId id = layers_->info().id;
      const StatusCode code = result.status().code();
      const bool damaged = code == StatusCode::kCorrupt && !handed_out_;
      if (code != StatusCode::kNotFound && !damaged) return about_entry(id, result.status());
      if (handed_out_) {
        return about_entry(id, Status::unavailable("it was replaced or removed while it was read: ask for it again"));
      }
      FINCHKV_ASSIGN_OR_RETURN(layers_, restart_(result.status()));
    }
  }

  std::shared_ptr<StoreHost> host_;
  std::unique_ptr<EntryStream> layers_;
  RestartStream restart_;
  bool handed_out_ = false;
};

}  // namespace

std::unique_ptr<EntryStream> make_entry_stream(std::shared_ptr<StoreHost> host, std::unique_ptr<EntryStream> layers,
                                               RestartStream restart) {
  return std::make_unique<HostedStream>(std::move(host), std::move(layers), std::move(restart));
}

}  // namespace finchkv::cache_store
