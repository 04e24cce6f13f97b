// The EntryStream that stores hand out: layers as they are read, with the host kept open and the entry's id in errors.
//
// Internal to cache_store. Used from one thread at a time.
#pragma once

#include <functional>
#include <memory>

#include "base/status.h"
#include "cache_store/store.h"

namespace finchkv::cache_store {

/// Makes the stream again from what is under its id now, after not_found or corrupt.
using RestartStream = std::function<Result<std::unique_ptr<EntryStream>>(const Status& why)>;

/// Where a replacing put or a removal may take blocks from under a reader, `layers` says not_found, and the stream is
/// begun again unless something of it was handed out already. So it is where blocks turn out to be damaged: there may
/// be a sound entry behind.
[[nodiscard]] std::unique_ptr<EntryStream> make_entry_stream(std::shared_ptr<StoreHost> host,
                                                             std::unique_ptr<EntryStream> layers,
                                                             RestartStream restart);

}  // namespace finchkv::cache_store
