// The policies that there are, for the registry alone.
#pragma once

#include "compressor/policy.h"

namespace finchkv::compressor {

const Policy& finch_policy();
const Policy& finch_head_policy();
const Policy& finch_span_policy();
const Policy& full_policy();
const Policy& streaming_policy();
const Policy& random_policy();
const Policy& snapkv_policy();

}  // namespace finchkv::compressor
