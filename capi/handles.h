// What the C ABI's opaque types hold.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/key_turner.h"
#include "base/kvset.h"
#include "base/status.h"
#include "cache_store/store.h"
#include "capi/device_set.h"
#include "capi/finchkv.h"
#include "engine/ask.h"
#include "model/model.h"

struct fkv_error {
  fkv_code code = FKV_OK;
  std::string message;
  const char* words = nullptr;  // a literal instead of a message, for when there is no memory for one
};

struct fkv_text {
  std::string text;
};

struct fkv_bytes {
  std::shared_ptr<const std::byte> memory;
  std::size_t size = 0;
};

struct fkv_tokens {
  std::vector<std::int32_t> ids;
};

struct fkv_store {
  std::shared_ptr<finchkv::cache_store::StoreHost> host;
  std::shared_ptr<finchkv::cache_store::Store> store;
};

struct fkv_model {
  std::mutex mutex;                      // one call at a time
  std::atomic<std::thread::id> busy_in;  // the thread that holds it
  std::unique_ptr<finchkv::model::Model> model;
  finchkv::kernels::NumericClass numeric = finchkv::kernels::NumericClass::kFast;
  finchkv::kernels::DeviceChoice device = finchkv::kernels::DeviceChoice::kAuto;
  int threads = 0;

  /// Loads the weights at the first call. The model's turn is taken.
  [[nodiscard]] finchkv::Status weights();
};

namespace finchkv::capi {

/// A model's one call at a time: others wait until this is destroyed.
class ModelTurn {
 public:
  /// invalid_argument on the thread that has the turn: a callback that asks its own model would wait for itself.
  [[nodiscard]] static Result<ModelTurn> take(fkv_model& model);
  ~ModelTurn() {
    if (lock_.owns_lock()) model_->busy_in = std::thread::id();
  }
  ModelTurn(ModelTurn&&) = default;
  ModelTurn& operator=(ModelTurn&&) = delete;

 private:
  explicit ModelTurn(fkv_model& model) : model_(&model), lock_(model.mutex) {
    model.busy_in = std::this_thread::get_id();
  }
  fkv_model* model_;
  std::unique_lock<std::mutex> lock_;
};

}  // namespace finchkv::capi

struct fkv_entry {
  finchkv::cache_store::EntryInfo info;
};

struct fkv_listing {
  finchkv::cache_store::EntryPage page;
  std::vector<fkv_id> unreadable;  // the page's, as the caller sees them
};

namespace finchkv::capi {

/// The last table of angles that was made, kept for the next layer, which nearly always wants the same.
class Turners {
 public:
  /// KeyTurner::create with the same arguments; `longest` may come out larger.
  [[nodiscard]] Result<std::shared_ptr<const KeyTurner>> get(const RopeRecord& rope, std::uint32_t head_dim,
                                                             PairOrder order, bool rotate, std::uint64_t base,
                                                             std::uint32_t longest);

 private:
  std::mutex mutex_;
  std::shared_ptr<const KeyTurner> last_;
  PairOrder order_ = PairOrder::kAsStored;
  bool rotate_ = false;
  std::uint64_t base_ = 0;
  std::uint32_t longest_ = 0;
};

}  // namespace finchkv::capi

struct fkv_kvset {
  finchkv::KvSet set;
  std::shared_ptr<const finchkv::capi::DeviceLayers> there = nullptr;  // the tensors, where they are on a GPU
  /// Shared by the sets that one fetch gives: all have the same RopeRecord.
  std::shared_ptr<finchkv::capi::Turners> turners = std::make_shared<finchkv::capi::Turners>();
};

struct fkv_device {
  std::shared_ptr<finchkv::capi::OpenDevice> open;
};

struct fkv_fetch {
  std::shared_ptr<finchkv::cache_store::Store> store;
  std::unique_ptr<finchkv::cache_store::EntryStream> stream;
  std::shared_ptr<finchkv::capi::OpenDevice> gpu;  // where layers go; null: they stay on the host
  std::shared_ptr<finchkv::capi::Turners> turners = std::make_shared<finchkv::capi::Turners>();
};

struct fkv_answer {
  finchkv::engine::Asked asked;
  std::weak_ptr<finchkv::cache_store::Store> store;  // where the entry is; an answer keeps no closed store open
  std::string text;
};

namespace finchkv::capi {

[[nodiscard]] Result<kernels::DeviceChoice> device_of(fkv_str device);  // "cpu", "cuda", "auto"
[[nodiscard]] Result<int> thread_count(std::uint32_t threads);
[[nodiscard]] cache_store::CacheId id_of(const fkv_id& id);
[[nodiscard]] fkv_id id_out(const cache_store::CacheId& id);
[[nodiscard]] fkv_entry_info info_out(const cache_store::EntryInfo& info);

}  // namespace finchkv::capi
