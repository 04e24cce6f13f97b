#include <limits>
#include <utility>

#include "capi/guard.h"
#include "capi/handles.h"

using namespace finchkv;        // NOLINT(google-build-using-namespace): the definitions below are extern "C"
using namespace finchkv::capi;  // NOLINT(google-build-using-namespace)

namespace finchkv::capi {

Result<kernels::DeviceChoice> device_of(fkv_str device) {
  FINCHKV_ASSIGN_OR_RETURN(const std::string name, name_of(device, "device"));
  if (name.empty() || name == "auto") return kernels::DeviceChoice::kAuto;
  if (name == "cpu") return kernels::DeviceChoice::kCpu;
  if (name == "cuda") return kernels::DeviceChoice::kCuda;
  return Status::invalid_argument(fmt::format("there is no device '{}': name cpu, cuda or auto", name));
}

Result<int> thread_count(std::uint32_t threads) {
  constexpr std::uint32_t kMost = 4096;
  if (threads > kMost) return Status::invalid_argument(fmt::format("threads is {}; {} at most", threads, kMost));
  return static_cast<int>(threads);
}

}  // namespace finchkv::capi

extern "C" {

fkv_code fkv_device_open(const fkv_device_options* options, fkv_device** device, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(device, "device"));
    *device = nullptr;
    FINCHKV_ASSIGN_OR_RETURN(const fkv_device_options o, read_struct(options, "fkv_device_options"));
    kernels::DeviceOptions how;
    FINCHKV_ASSIGN_OR_RETURN(how.choice, device_of(o.device));
    FINCHKV_ASSIGN_OR_RETURN(how.threads, thread_count(o.threads));
    how.numeric_class = kernels::NumericClass::kReference;  // it multiplies nothing, and needs no cuBLAS for that
    how.ordinal = static_cast<int>(std::min<std::uint32_t>(o.ordinal, std::numeric_limits<int>::max()));
    auto opened = std::make_shared<OpenDevice>();
    FINCHKV_ASSIGN_OR_RETURN(opened->device, kernels::open_device(how));
    opened->on_gpu = opened->device->kind() == "cuda";
    opened->ordinal = opened->on_gpu ? o.ordinal : 0;
    *device = new fkv_device{std::move(opened)};
    return Status::ok();
  });
}

void fkv_device_close(fkv_device* device) { delete device; }

fkv_code fkv_kvset_to_device(const fkv_kvset* set, fkv_device* device, fkv_kvset** there, fkv_error** error) {
  return guard(error, [&]() -> Status {
    FINCHKV_RETURN_IF_ERROR(must_be_given(set, "set"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(device, "device"));
    FINCHKV_RETURN_IF_ERROR(must_be_given(there, "there"));
    *there = nullptr;
    FINCHKV_RETURN_IF_ERROR(must_be_on_host(*set, "fkv_kvset_to_device"));
    if (!device->open->on_gpu) {
      *there = new fkv_kvset(*set);
      return Status::ok();
    }
    KvSet frame = set->set;
    frame.layers.clear();
    frame.memory.clear();
    // One owner for all views: what the set itself holds.
    const auto memory = std::make_shared<const std::vector<std::shared_ptr<const void>>>(set->set.memory);
    FINCHKV_ASSIGN_OR_RETURN(SetOnDevice made, bring(
                                                   std::move(frame), set->set.dtype,
                                                   [&](std::uint32_t l) -> Result<OwnedLayer> {
                                                     return OwnedLayer{set->set.layers[l], memory};
                                                   },
                                                   device->open));
    *there = new fkv_kvset{std::move(made.set), std::move(made.there), set->turners};
    return Status::ok();
  });
}

}  // extern "C"
