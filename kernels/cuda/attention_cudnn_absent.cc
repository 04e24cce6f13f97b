// CudnnAttention of a build without cudnn-frontend's headers.
#include "kernels/cuda/attention_cudnn.h"

namespace finchkv::kernels::cuda {

struct CudnnAttention::Impl {
  std::string version;
};

CudnnAttention::CudnnAttention(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CudnnAttention::~CudnnAttention() = default;

Result<std::unique_ptr<CudnnAttention>> CudnnAttention::create(Runtime&) {
  return Status::unavailable("this finchkv was built without cudnn-frontend");
}

const std::string& CudnnAttention::version() const { return impl_->version; }

bool CudnnAttention::takes(const Tensor&, const Tensor&, const Tensor&, const Tensor&) const { return false; }

Status CudnnAttention::run(Runtime&, const Tensor&, const Tensor&, const Tensor&, float, const Tensor&, const Tensor&) {
  return Status::unsupported("this finchkv was built without cudnn-frontend");
}

}  // namespace finchkv::kernels::cuda
