// doctor's look at a store: is it whole, has it room, and is it configured for where it lies?
#pragma once

#include "cli/findings.h"
#include "cli/store_access.h"

namespace finchkv::cli {

/// With `deep` every entry is read whole, else a sample.
void check_store(Findings& findings, const StoreOptions& options, bool deep);

}  // namespace finchkv::cli
