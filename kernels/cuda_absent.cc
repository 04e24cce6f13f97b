// make_cuda_device() of a build without CUDA.
#include "kernels/device.h"

namespace finchkv::kernels {

Result<std::unique_ptr<Device>> make_cuda_device(const CudaOptions&) {
  return Status::unsupported("this finchkv was built without CUDA; use the device cpu, or auto");
}

int cuda_device_count() { return 0; }

}  // namespace finchkv::kernels
