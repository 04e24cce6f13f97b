// Recordings as CUDA graphs: a decoding step's hundreds of launches become one.
#pragma once

#include <functional>
#include <memory>

#include "kernels/cuda/runtime.h"
#include "kernels/device.h"

namespace finchkv::kernels::cuda {

/// Records what `work` launches on the Runtime's stream. Where that cannot be recorded, the Recording calls `work`; a
/// failure of recording itself is nobody's. The Runtime must outlive the Recording.
[[nodiscard]] std::unique_ptr<Recording> record_graph(Runtime& rt, std::function<void()> work);

}  // namespace finchkv::kernels::cuda
