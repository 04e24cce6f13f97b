#include "kernels/device.h"

namespace finchkv::kernels {

Result<std::unique_ptr<Device>> open_device(const DeviceOptions& options) {
  const CpuOptions cpu{.numeric_class = options.numeric_class, .threads = options.threads};
  if (options.choice == DeviceChoice::kCpu) return make_cpu_device(cpu);
  auto gpu = make_cuda_device(
      {.numeric_class = options.numeric_class, .ordinal = options.ordinal, .threads = options.threads});
  const StatusCode code = gpu.status().code();
  const bool absent = code == StatusCode::kUnavailable || code == StatusCode::kUnsupported;
  if (options.choice == DeviceChoice::kAuto && !gpu.is_ok() && absent) return make_cpu_device(cpu);
  return gpu;
}

}  // namespace finchkv::kernels
