// A store's report in Prometheus' text exposition format, version 0.0.4.
//
// Pure functions, thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "cache_store/store.h"

namespace finchkv::cli {

/// Metrics finchkv_store_*, each with its HELP and TYPE; `store` becomes a label of every one.
[[nodiscard]] std::string prometheus_text(const cache_store::StoreReport& report, std::string_view store);

/// A label's value: backslash, quote and newline escaped, what is not UTF-8 replaced.
[[nodiscard]] std::string prometheus_escape(std::string_view value);

}  // namespace finchkv::cli
