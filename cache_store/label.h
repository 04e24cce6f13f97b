// Labels of sealed entries: encrypted under the entry's data key, since they hold what people call their documents.
//
// Internal to cache_store. Pure functions, thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "cache_store/codec.h"

namespace finchkv::cache_store {

[[nodiscard]] Result<std::string> seal_label(std::string_view label, const EntryHead& head, std::string_view tenant,
                                             const KeyRing* keys);
/// An empty label without the key: an entry without its name can still be listed and removed. corrupt when it does not
/// authenticate.
[[nodiscard]] Result<std::string> open_label(std::string_view sealed, const EntryHead& head, std::string_view tenant,
                                             const KeyRing* keys);

}  // namespace finchkv::cache_store
