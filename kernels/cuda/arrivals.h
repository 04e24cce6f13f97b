// Arrivals: stored entries on their way from host memory to a cache on the GPU.
//
// They go over the bus as they are stored, on a stream of their own, to slots of device memory, and are expanded from
// there to their places on the Runtime's stream: the bus works on the next piece meanwhile. A piece is some heads, or
// some tokens of one that is larger than a slot, so slots stay as small as they are. Page-locked memory of
// host_memory() is fetched by the GPU itself, and its owner is let go as soon as it has been; other memory is staged
// before load() returns. Not thread-safe, as Device is not.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/pinned_memory.h"
#include "kernels/cuda/runtime.h"

namespace finchkv::kernels::cuda {

class Arrivals {
 public:
  /// The Runtime must outlive it.
  static Result<std::unique_ptr<Arrivals>> create(Runtime& rt, int ordinal);
  ~Arrivals();
  Arrivals(const Arrivals&) = delete;
  Arrivals& operator=(const Arrivals&) = delete;

  [[nodiscard]] const std::shared_ptr<PinnedMemory>& host_memory() const { return memory_; }
  /// As Device::load(); `table` is empty where nothing is rotated.
  void load(const StoredTensor& from, const RopeTableView& table, std::int64_t first_position, const Tensor& y);
  /// Waits until nothing of the host's is being read any more, and lets go of all of it.
  void settle();

 private:
  struct Slot {
    std::shared_ptr<void> memory;  // null until it is first needed
    Event copied;                  // on our stream: it is full
    Event used;                    // on the Runtime's: it has been expanded, or made
    std::shared_ptr<const void> owner;
  };
  explicit Arrivals(Runtime& rt) : rt_(rt) {}
  Slot* next_slot();
  void bring(Slot& slot, std::span<const std::byte> bytes, const std::shared_ptr<const void>& owner);
  void let_go();

  Runtime& rt_;
  std::shared_ptr<PinnedMemory> memory_;
  Stream stream_;
  std::array<Slot, 8> slots_;
  std::size_t next_ = 0;
};

}  // namespace finchkv::kernels::cuda
