// An entry from a store to the GPU.
#pragma once

#include <filesystem>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "bench/compress_common.h"
#include "bench/compress_options.h"
#include "cache_store/rocksdb_store.h"

namespace finchkv::bench {

inline cache_store::PutRequest put_of(const Options& o, const KvSet& set, DType storage) {
  cache_store::PutRequest put;
  put.set = set;
  put.identity.document_hash = sha256({});
  put.identity.prompt_hash = sha256({});
  put.identity.doc_tokens = static_cast<std::uint64_t>(o.doc);
  put.identity.prompt_tokens = static_cast<std::uint64_t>(o.prompt);
  put.identity.reader = "chunks";
  put.identity.policy = o.policy;
  put.identity.keep = static_cast<std::uint64_t>(o.keep);
  put.identity.storage = storage;
  return put;
}

inline DecodeContext reload(const Transformer& model, cache_store::Store& store, const cache_store::CacheId& id) {
  namespace cs = cache_store;
  const auto entry =
      value_or_exit(store.stream(id, {.form = cs::LayerForm::kStored, .memory = model.device().host_memory()}));
  const cs::EntryInfo& info = entry->info();
  const model::SetFrame frame{info.shape, info.decoded, info.identity.storage, info.key_form, info.next_position,
                              info.rope,  info.n_kept};
  return value_or_exit(DecodeContext::from_layers(
      model, frame, [&](std::uint32_t l) { return entry->take(l); }, 256));
}

/// From a store whose files are in the page cache, in several storage types: reading and checking alone, and on to the
/// device, verified.
inline nlohmann::ordered_json reload_from_store(const Options& o, Transformer& model, const KvSet& set,
                                                const std::vector<TokenId>& prompt) {
  if (std::filesystem::exists(o.store)) {
    ok_or_exit(Status::invalid_argument(o.store + " is there: name a new folder"));
  }
  const auto host = value_or_exit(cache_store::open_rocksdb_store(o.store, {.read_threads = o.read_threads}));
  const auto view = value_or_exit(host->view({}));
  constexpr std::int64_t kTimes = 9;
  Device& device = model.device();
  nlohmann::ordered_json report;
  for (const DType storage : {DType::kBF16, DType::kQ8, DType::kQ4}) {
    const auto info = value_or_exit(view->put(put_of(o, set, storage)));
    nlohmann::ordered_json one;
    const auto begun = clock_type::now();
    static_cast<void>(reload(model, *view, info.id));
    one["first_s"] = seconds_since(begun);  // memory is page-locked
    one["read_s"] = median_seconds(device, kTimes, [&] {
      const auto entry = value_or_exit(
          view->stream(info.id, {.form = cache_store::LayerForm::kStored, .memory = device.host_memory()}));
      for (std::uint32_t l = 0; l < info.shape.n_layers; ++l) static_cast<void>(value_or_exit(entry->take(l)));
    });
    const double whole = median_seconds(device, kTimes, [&] { static_cast<void>(reload(model, *view, info.id)); });
    one["stored_bytes"] = info.stored_bytes;
    one["to_device_s"] = whole;
    one["gb_per_s"] = static_cast<double>(info.stored_bytes) / whole / 1e9;
    one["hit_to_first_token_s"] = median_seconds(device, kTimes, [&] {
      DecodeContext context = reload(model, *view, info.id);
      static_cast<void>(value_or_exit(model.forward(prompt, context, LogitRows::kLast)));
    });
    report[std::string(dtype_name(storage))] = std::move(one);
  }
  return report;
}

}  // namespace finchkv::bench
