// LayerStream: an EntryStream over an EntryReader. Layers are read ahead, half a layer at a time, by a pool's threads
// and by the caller, who never waits for a layer that nobody has begun, nor, unless many threads help, while there is
// any half to begin.
//
// Internal to cache_store. Used from one thread at a time; the pool's threads may outlive it and share what they need.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "cache_store/entry_reader.h"
#include "cache_store/read_pool.h"
#include "cache_store/store.h"

namespace finchkv::cache_store {

/// Makes a source for one more thread. Thread-safe.
using OpenSource = std::function<Result<std::unique_ptr<BlockSource>>()>;

/// `source` is the caller's own. Entries below a MiB are read by the caller alone. `pool` may be null.
[[nodiscard]] std::unique_ptr<EntryStream> make_layer_stream(EntryInfo info, EntryReader reader,
                                                             std::unique_ptr<BlockSource> source,
                                                             OpenSource open_source, ReadPool* pool,
                                                             StreamOptions options);

}  // namespace finchkv::cache_store
