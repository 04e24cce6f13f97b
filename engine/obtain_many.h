// obtain_many: the entries of many requests, found or read together, as engine::obtain does for one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "engine/ask.h"
#include "engine/worker_pool.h"

namespace finchkv::engine {

struct ObtainManyCalls {
  /// The workers, made when the first document must be read; they must outlive the call. A failure is told for every
  /// document that is not there.
  std::function<Result<WorkerPool*>()> workers;
  /// Each request's end, in no fixed order. Requests for the same entry are read once: the later ones are hits.
  std::function<void(std::size_t index, Result<Obtained> result)> done;
  /// Document tokens read so far, and of all documents that are not known to be there; may be null.
  std::function<void(std::int64_t read, std::int64_t total)> progress;
};

/// How much is under way for each worker: sets being read or waiting to be stored. Two are enough to keep a worker
/// busy with long documents; short ones share a pass, so many more are let through.
struct ObtainManyLimits {
  std::int64_t bytes = std::int64_t{2} << 30;  ///< of host memory; a document for each worker goes on whatever it takes
  std::size_t documents = 256;
};

/// Looks every request up, lets the workers read what is not there, many documents at once, and stores each as soon as
/// it has been read. One that fails leaves the others going. All calls and the store are used on the calling thread
/// alone, which returns when every request has ended. `store` null: nothing is looked up or stored. With a store,
/// Obtained::set has no layers: they are in the store. A document's ms.compress is its share of the passes that it was
/// in.
void obtain_many(std::span<const std::unique_ptr<Prepared>> requests, const model::Model& model,
                 cache_store::Store* store, const ObtainManyCalls& calls, const ObtainManyLimits& limits = {});

}  // namespace finchkv::engine
