#include "kernels/cuda/turns.h"

#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {

// False, with the failure kept, where there is no memory for the tables.
bool Turns::send(Runtime& rt, const std::shared_ptr<const KeyTurner>& how) {
  if (last_ == how) return true;
  last_ = nullptr;
  const auto table = [&rt](std::span<const float> host) {
    auto memory = rt.scratch(host.size_bytes());
    if (memory != nullptr) rt.upload(host.data(), memory.get(), host.size_bytes());
    return memory;
  };
  cos_ = table(how->cosines());
  sin_ = table(how->sines());
  if (cos_ == nullptr || sin_ == nullptr || rt.failed()) return false;
  last_ = how;
  return true;
}

void Turns::turn(Runtime& rt, const std::shared_ptr<const KeyTurner>& how, const Tensor& x, const Tensor& y) {
  TurnView view;
  view.pairs = static_cast<int>(how->pairs());
  view.from_interleaved = how->from_interleaved();
  view.to_interleaved = how->to_interleaved();
  if (how->rotates() && view.pairs > 0) {
    if (!send(rt, how)) return;
    view.cos = static_cast<const float*>(cos_.get());
    view.sin = static_cast<const float*>(sin_.get());
  }
  cuda::turn(rt, view, x, y);
}

}  // namespace finchkv::kernels::cuda
