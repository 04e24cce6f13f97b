// The steps of obtaining one entry, for what obtains one (ask.cc) and many (obtain_many.cc). Private to engine/.
#pragma once

#include "engine/ask.h"

namespace finchkv::engine {

/// Whether this model on this device is the one that the request's ids promise. invalid_argument.
[[nodiscard]] Status check_model(const Prepared& prepared, const model::Model& model, const kernels::Device& device);

/// Ok with out.hit on a hit, ok without on a miss; `replace` then says whether what is there is to be replaced.
[[nodiscard]] Status look_up(const Prepared& prepared, cache_store::Store& store, bool& replace, Obtained& out);

/// Stores what was read in out.ms.compress and fills in the rest of `out` but the set. `store` may be null: nothing is
/// stored then, and nobody has said whether it could be.
[[nodiscard]] Status keep(const Prepared& prepared, cache_store::Store* store, bool replace, const KvSet& set,
                          Obtained& out);

}  // namespace finchkv::engine
