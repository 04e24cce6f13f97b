// The RoPE record of a model file: frequencies resolved once, when the model loads (linear, llama3, yarn).
#pragma once

#include "base/kvset.h"
#include "base/status.h"
#include "model/gguf.h"

namespace finchkv::model {

/// `prefix` is the architecture ("llama"). yarn: Peng et al. 2023 (arXiv:2309.00071) section 3.2; llama3: divisors from
/// the file's rope_freqs.weight. Scalings that depend on the length (dynamic, longrope) are unsupported, by name.
[[nodiscard]] Result<RopeRecord> rope_from_gguf(const GgufFile& file, const std::string& prefix, std::int64_t head_dim,
                                                bool interleaved);

}  // namespace finchkv::model
