// Where key-encryption keys come from: a file, or a command that prints them.
//
// Either gives 32 raw bytes, which are one key, or lines of 64 hex digits: the first is the current key, later ones are
// older. Empty lines and blanks at a line's end do not count. Nothing of a key ever stands in an error.
// Functions without state, thread-safe. What they read is wiped once the ring is made. Left out: watching a source for
// changes; whoever rotates loads again.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "base/status.h"
#include "cache_store/key_ring.h"

namespace finchkv::cache_store {

inline constexpr std::size_t kMaxKeySourceBytes = 16 << 10;  ///< some 250 keys

/// permission_denied for a file that its group or others may read or write; not_found; invalid_argument naming the line
/// that is no key.
[[nodiscard]] Result<KeyRing> load_key_file(const std::string& path);

/// Runs `command` through /bin/sh -c and reads its standard output. Standard input is empty and standard error is this
/// program's own. deadline_exceeded when it has not ended in time: it is killed then, with what it started and did not
/// detach. unavailable when it fails; invalid_argument when it prints too much or no keys. The command's text stands in
/// no error either, since it may hold a secret. It cannot ask on the terminal: it runs in a process group of its own.
[[nodiscard]] Result<KeyRing> load_key_command(const std::string& command,
                                               std::chrono::milliseconds limit = std::chrono::seconds(30));

/// Writes one new random key as a line of hex digits into a new file with mode 0600, durably, and gives its id.
/// invalid_argument when there is such a file: a key is never overwritten.
[[nodiscard]] Result<KeyId> generate_key_file(const std::string& path);

/// Puts a new random key in front of the keys in a file, durably, and gives its id: from then on it is the current one.
/// The file is replaced in one step, as lines of hex digits, and belongs to its owner alone. Errors as load_key_file.
[[nodiscard]] Result<KeyId> rotate_key_file(const std::string& path);

}  // namespace finchkv::cache_store
