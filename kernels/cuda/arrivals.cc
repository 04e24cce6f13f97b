#include "kernels/cuda/arrivals.h"

#include <algorithm>
#include <utility>

namespace finchkv::kernels::cuda {
namespace {

// Large enough that the bus never waits for the calls, small enough that the last piece is soon expanded.
constexpr std::size_t kSlotBytes = std::size_t{4} << 20;

}  // namespace

Result<std::unique_ptr<Arrivals>> Arrivals::create(Runtime& rt, int ordinal) {
  std::unique_ptr<Arrivals> arrivals(new Arrivals(rt));
  arrivals->memory_ = std::make_shared<PinnedMemory>(ordinal);
  FINCHKV_ASSIGN_OR_RETURN(arrivals->stream_, make_stream());
  for (Slot& slot : arrivals->slots_) {
    FINCHKV_ASSIGN_OR_RETURN(slot.copied, make_event());
    FINCHKV_ASSIGN_OR_RETURN(slot.used, make_event());
  }
  return arrivals;
}

Arrivals::~Arrivals() { settle(); }

void Arrivals::settle() {
  if (stream_.get() != nullptr) rt_.check(cudaStreamSynchronize(stream_.get()), "a copy to the GPU");
  for (Slot& slot : slots_) slot.owner.reset();
  memory_->trim();
}

void Arrivals::let_go() {
  for (Slot& slot : slots_) {
    if (slot.owner != nullptr && cudaEventQuery(slot.copied.get()) == cudaSuccess) slot.owner.reset();
  }
}

// Null, with the failure kept, where there is no memory for it.
Arrivals::Slot* Arrivals::next_slot(std::size_t bytes) {
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % slots_.size();
  rt_.check(cudaEventSynchronize(slot.copied.get()), "waiting for a copy");
  slot.owner.reset();
  if (slot.bytes >= bytes) return &slot;
  slot.bytes = 0;
  slot.memory = rt_.scratch(std::max(bytes, kSlotBytes));
  if (slot.memory == nullptr) return nullptr;
  slot.bytes = std::max(bytes, kSlotBytes);
  rt_.check(cudaEventRecord(slot.used.get(), rt_.stream()), "GPU memory for what arrives");
  return &slot;
}

void Arrivals::bring(Slot& slot, std::span<const std::byte> bytes, const std::shared_ptr<const void>& owner) {
  rt_.check(cudaStreamWaitEvent(stream_.get(), slot.used.get(), 0), "ordering a copy");
  if (memory_->holds(bytes)) {
    slot.owner = owner;
    rt_.check(cudaMemcpyAsync(slot.memory.get(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream_.get()),
              "a copy to the GPU");
  } else {
    rt_.upload(bytes.data(), slot.memory.get(), bytes.size(), stream_.get());
  }
  rt_.check(cudaEventRecord(slot.copied.get(), stream_.get()), "a copy to the GPU");
  rt_.check(cudaStreamWaitEvent(rt_.stream(), slot.copied.get(), 0), "ordering a copy");
}

void Arrivals::load(const StoredTensor& from, const RopeTableView& table, std::int64_t first_position,
                    const Tensor& y) {
  if (from.bytes.empty()) return;
  const std::int64_t heads = y.dim(0);
  const std::size_t head_bytes = from.bytes.size() / static_cast<std::size_t>(heads);
  const auto at_once = static_cast<std::int64_t>(std::max<std::size_t>(1, kSlotBytes / head_bytes));
  for (std::int64_t head = 0; head < heads && !rt_.failed(); head += at_once) {
    const std::int64_t count = std::min(at_once, heads - head);
    const auto bytes =
        from.bytes.subspan(static_cast<std::size_t>(head) * head_bytes, static_cast<std::size_t>(count) * head_bytes);
    let_go();
    Slot* const slot = next_slot(bytes.size());
    if (slot == nullptr) return;
    bring(*slot, bytes, from.owner);
    const StoredView view{static_cast<const std::uint8_t*>(slot->memory.get()), static_cast<std::int64_t>(head_bytes),
                          from.layout, from.axis, is_quantised(from.layout) && from.decoded == DType::kBF16};
    expand(rt_, view, table, first_position, y.slice(0, head, count));
    rt_.check(cudaEventRecord(slot->used.get(), rt_.stream()), "expanding stored entries");
  }
}

}  // namespace finchkv::kernels::cuda
