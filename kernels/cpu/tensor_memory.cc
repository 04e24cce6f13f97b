#include "kernels/cpu/tensor_memory.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "base/kvset.h"

namespace finchkv::kernels::cpu {
namespace {

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

// A number in a file of its own; nothing where there is no such file, or another word in it ("max").
std::optional<std::size_t> number_in(const char* path) {
  std::ifstream file(path);
  std::size_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

std::size_t available_in_system() {
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line)) {
    std::size_t kib = 0;
    if (std::sscanf(line.c_str(), "MemAvailable: %zu kB", &kib) == 1) return kib * 1024;
  }
  return kNoLimit;
}

// The page cache counts as used there although it goes when memory is short: the figure is on the careful side.
std::size_t left_in_control_group() {
  const auto most = number_in("/sys/fs/cgroup/memory.max");
  const auto used = number_in("/sys/fs/cgroup/memory.current");
  if (!most || !used) return kNoLimit;
  return *most - std::min(*used, *most);
}

}  // namespace

TensorMemory::TensorMemory(std::size_t limit) : limit_(limit == 0 ? kNoLimit : limit) {}

Result<std::shared_ptr<void>> TensorMemory::take(std::size_t bytes) {
  if (const std::size_t taken = taken_->load(); bytes > limit_ - std::min(taken, limit_)) {
    return Status::resource_exhausted(fmt::format(
        "no memory for a tensor of {} bytes; {} of the {} that tensors may take are taken", bytes, taken, limit_));
  }
  auto data = allocate_shared_bytes(bytes);
  if (!data) return Status::resource_exhausted(fmt::format("no memory for a tensor of {} bytes", bytes));
  *taken_ += bytes;
  auto* const address = data.get();
  return std::shared_ptr<void>(address, [data = std::move(data), taken = taken_, bytes](void*) mutable {
    data.reset();
    *taken -= bytes;
  });
}

std::size_t TensorMemory::free_bytes() const {
  const std::size_t left = limit_ - std::min(taken_->load(), limit_);
  return std::min({left, available_in_system(), left_in_control_group()});
}

}  // namespace finchkv::kernels::cpu
