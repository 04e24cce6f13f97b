// The Recording of devices that do not record: it keeps the work and calls it.
#pragma once

#include <functional>
#include <utility>

#include "kernels/device.h"

namespace finchkv::kernels {

class RepeatedCalls final : public Recording {
 public:
  explicit RepeatedCalls(std::function<void()> work) : work_(std::move(work)) {}
  void run() override { work_(); }

 private:
  std::function<void()> work_;
};

}  // namespace finchkv::kernels
