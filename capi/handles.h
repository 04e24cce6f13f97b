// What the C ABI's opaque types hold.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
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
  finchkv::Status status;
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
  bool writes = false;
};

struct fkv_model {
  std::mutex mutex;  // one call at a time
  std::unique_ptr<finchkv::model::Model> model;
  finchkv::kernels::NumericClass numeric = finchkv::kernels::NumericClass::kFast;
  finchkv::kernels::DeviceChoice device = finchkv::kernels::DeviceChoice::kAuto;
  int threads = 0;

  /// Loads the weights at the first call. The mutex is held.
  [[nodiscard]] finchkv::Status weights();
};

struct fkv_entry {
  finchkv::cache_store::EntryInfo info;
};

struct fkv_listing {
  finchkv::cache_store::EntryPage page;
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
  std::shared_ptr<finchkv::cache_store::EntryStream> stream;
  std::shared_ptr<finchkv::capi::OpenDevice> gpu;  // where layers go; null: they stay on the host
  std::shared_ptr<finchkv::capi::Turners> turners = std::make_shared<finchkv::capi::Turners>();
};

struct fkv_answer {
  finchkv::engine::Asked asked;
  std::shared_ptr<finchkv::cache_store::Store> store;  // where the entry is; null without one
  std::string text;
};

namespace finchkv::capi {

[[nodiscard]] Result<kernels::DeviceChoice> device_of(fkv_str device);  // "cpu", "cuda", "auto"
[[nodiscard]] Result<int> thread_count(std::uint32_t threads);
[[nodiscard]] cache_store::CacheId id_of(const fkv_id& id);
[[nodiscard]] fkv_id id_out(const cache_store::CacheId& id);
[[nodiscard]] fkv_entry_info info_out(const cache_store::EntryInfo& info);

}  // namespace finchkv::capi
