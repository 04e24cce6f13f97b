#include "capi/device_set.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/stored_bytes.h"
#include "capi/handles.h"

namespace finchkv::capi {
namespace {

using kernels::Tensor;

// The layer's origins in memory of their own: what arrived goes when the device has it.
Status keep_origins(const KvLayer& from, KvSet& set) {
  const std::size_t bytes = from.origins.size_bytes();
  const std::shared_ptr<std::byte> memory = allocate_shared_bytes(bytes);
  if (memory == nullptr) {
    return Status::resource_exhausted(fmt::format("there is no memory for {} bytes of origins", bytes));
  }
  auto* const origins = reinterpret_cast<std::uint32_t*>(memory.get());
  std::copy(from.origins.begin(), from.origins.end(), origins);
  set.layers.push_back({from.n_kept, {}, {}, {origins, from.origins.size()}});
  set.memory.push_back(memory);
  return Status::ok();
}

Result<DeviceLayer> send(const OwnedLayer& from, const KvSet& set, DType layout, kernels::Device& device) {
  const std::int64_t heads = set.shape.n_kv_heads, n = from.views.n_kept, d = set.shape.head_dim;
  DeviceLayer layer;
  const auto send_one = [&](std::span<const std::byte> bytes, GroupAxis axis, Tensor& to) -> Status {
    if (bytes.size() != stored_bytes(layout, axis, {set.shape.n_kv_heads, from.views.n_kept, set.shape.head_dim})) {
      return Status::corrupt(fmt::format("a layer has {} bytes of {} for {} entries", bytes.size(),
                                         axis == GroupAxis::kTokens ? "keys" : "values", n));
    }
    FINCHKV_ASSIGN_OR_RETURN(to, device.empty(kernels::element_type(set.dtype), {heads, n, d}));
    if (n > 0) device.load({layout, axis, set.dtype, bytes, from.memory}, nullptr, 0, to);
    return Status::ok();
  };
  FINCHKV_RETURN_IF_ERROR(send_one(from.views.keys, GroupAxis::kTokens, layer.keys));
  FINCHKV_RETURN_IF_ERROR(send_one(from.views.values, GroupAxis::kChannels, layer.values));
  return layer;
}

}  // namespace

Result<SetOnDevice> bring(KvSet frame, DType layout,
                          const std::function<Result<OwnedLayer>(std::uint32_t layer)>& layer,
                          const std::shared_ptr<OpenDevice>& device) {
  SetOnDevice out{std::move(frame), nullptr};
  auto there = std::make_shared<DeviceLayers>();
  there->device = device;
  const auto send_all = [&]() -> Status {
    for (std::uint32_t l = 0; l < out.set.shape.n_layers; ++l) {
      FINCHKV_ASSIGN_OR_RETURN(const OwnedLayer from, layer(l));
      FINCHKV_RETURN_IF_ERROR(keep_origins(from.views, out.set));
      FINCHKV_ASSIGN_OR_RETURN(DeviceLayer sent, send(from, out.set, layout, *device->device));
      there->layers.push_back(std::move(sent));
    }
    return Status::ok();
  };
  const std::lock_guard lock(device->mutex);
  const Status sent = send_all();
  const Status arrived = device->device->synchronize();  // whatever was wrong: nothing reads the layers' memory now
  FINCHKV_RETURN_IF_ERROR(sent);
  FINCHKV_RETURN_IF_ERROR(arrived);
  out.there = std::move(there);
  return out;
}

Status must_be_on_host(const fkv_kvset& set, std::string_view what) {
  if (set.there == nullptr) return Status::ok();
  return Status::invalid_argument(
      fmt::format("{} reads a set's numbers on the host, and this set is on GPU {}: give it the set from before "
                  "fkv_kvset_to_device, or fetch the entry again",
                  what, set.there->device->ordinal));
}

}  // namespace finchkv::capi
