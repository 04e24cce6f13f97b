// What is said of a store's settings, in JSON and for people.
#pragma once

#include "cache_store/store.h"
#include "cli/entry_text.h"
#include "cli/output.h"

namespace finchkv::cli {

[[nodiscard]] Json settings_json(const cache_store::StoreSettings& settings);
[[nodiscard]] Figures settings_figures(const cache_store::StoreSettings& settings);

}  // namespace finchkv::cli
