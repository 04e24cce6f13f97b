// The `finchkv` command: parses arguments, calls the engine and the store, prints.
//
// Nothing here is for other programs: what the C ABI or a daemon would need too lives in engine/ and below. Exit
// statuses are part of the interface: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 corrupt.
#pragma once

namespace finchkv::cli {

/// Runs one command line; what it returns is the exit status.
[[nodiscard]] int run(int argc, const char* const* argv);

}  // namespace finchkv::cli
