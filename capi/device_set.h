// Sets on a device: opened devices, the layers of sets on a GPU, and how they get there.
//
// Internal to capi/. A Device takes one caller at a time: whoever uses one holds its mutex. Tensors outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/kvset.h"
#include "base/status.h"
#include "kernels/device.h"

struct fkv_kvset;

namespace finchkv::capi {

struct OpenDevice {
  std::mutex mutex;
  std::unique_ptr<kernels::Device> device;
  bool on_gpu = false;
  std::uint32_t ordinal = 0;  // of a GPU
};

struct DeviceLayer {
  kernels::Tensor keys;    // [n_kv_heads, n_kept, head_dim] of the set's dtype
  kernels::Tensor values;  // the same
};

/// Where the tensors of a set on a GPU are; its own layers have none then.
struct DeviceLayers {
  std::shared_ptr<OpenDevice> device;
  std::vector<DeviceLayer> layers;  // [n_layers]
};

struct SetOnDevice {
  KvSet set;  // origins on the host, no keys and values
  std::shared_ptr<const DeviceLayers> there;
};

/// Brings layers to a GPU, in order. `frame` is the set without layers and memory; `layout` how its `n_layers` layers
/// come: in its dtype, or in q8 or q4. Returns when they are there. What `layer` says when it fails is returned.
[[nodiscard]] Result<SetOnDevice> bring(KvSet frame, DType layout,
                                        const std::function<Result<OwnedLayer>(std::uint32_t layer)>& layer,
                                        const std::shared_ptr<OpenDevice>& device);

/// invalid_argument for a set whose numbers are on a GPU. `what` wants them on the host.
[[nodiscard]] Status must_be_on_host(const fkv_kvset& set, std::string_view what);

}  // namespace finchkv::capi
