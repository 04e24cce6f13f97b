// Turns: keys on their way out to another engine, turned on the GPU by the tables of a KeyTurner.
//
// The last one's tables stay on the GPU: all layers of a set want the same. Not thread-safe, as Device is not.
#pragma once

#include <memory>

#include "base/key_turner.h"
#include "kernels/cuda/runtime.h"
#include "kernels/tensor.h"

namespace finchkv::kernels::cuda {

class Turns {
 public:
  /// As Device::turn().
  void turn(Runtime& rt, const std::shared_ptr<const KeyTurner>& how, const Tensor& x, const Tensor& y);

 private:
  bool send(Runtime& rt, const std::shared_ptr<const KeyTurner>& how);

  std::shared_ptr<const KeyTurner> last_;  // held: another one must not come to its address
  std::shared_ptr<void> cos_, sin_;        // f32 [longest, pairs] on the GPU
};

}  // namespace finchkv::kernels::cuda
