// Checking a packed entry that somebody else made, before a store takes it.
//
// Internal to cache_store. Pure, thread-safe.
#pragma once

#include "base/status.h"
#include "cache_store/codec.h"

namespace finchkv::cache_store {

/// Decodes the whole entry once, a layer at a time: what passes can be put, and read back by every finchkv of this
/// version. corrupt when head and blocks do not hold together, a block does not decode, a number is not finite, origins
/// do not ascend within the document, or the document's tokens are not what the identity says. `ids` is the tenant
/// whose key the identity's hashes were made with (the default tenant for a shared entry): the document of another
/// tenant's entry is refused.
[[nodiscard]] Status check_packed(const PackedEntry& packed, const Tenant& ids);

}  // namespace finchkv::cache_store
