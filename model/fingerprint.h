// Fingerprints: which model and which weights an entry was made with.
//
// `model` is SHA-256 over the canonical config (with the RoPE record) and the tokenizer. `weights` is a SHA-256 tree
// over the bytes of the whole file: leaves of 4 MiB, then SHA-256 over the leaves' digests; a split file's parts are
// hashed in order as one. Hashing a file is slow, so digests may be remembered in a file of the user's under the file's
// device, inode, size, mtime and ctime: a file that changed in any of these is hashed again.
#pragma once

#include <span>
#include <string>

#include "base/digest.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "model/config.h"
#include "model/tokenizer.h"

namespace finchkv::model {

[[nodiscard]] Sha256 model_fingerprint(const ModelConfig& config, const Tokenizer& tokenizer);

/// `memory_path` names the file of remembered digests; empty: always hash. A damaged or unwritable memory is ignored.
[[nodiscard]] Result<Sha256> weights_fingerprint(std::span<const std::string> part_paths,
                                                 const std::string& memory_path, ThreadPool& pool);

}  // namespace finchkv::model
