#include "kernels/cuda/arrivals.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/stored_bytes.h"

namespace finchkv::kernels::cuda {
namespace {

// Large enough that the bus never waits for the calls, small enough that the last piece is soon expanded.
constexpr std::size_t kSlotBytes = std::size_t{4} << 20;

// Of one head.
std::size_t head_part(const StoredTensor& from, std::int64_t tokens, std::int64_t dim) {
  return stored_bytes(from.layout, from.axis, {1, static_cast<std::uint64_t>(tokens), static_cast<std::uint64_t>(dim)});
}

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
    // Not being there yet counts as a failure of the call.
    if (slot.owner != nullptr && succeeded(cudaEventQuery(slot.copied.get()))) slot.owner.reset();
  }
}

// Null, with the failure kept, where there is no memory for it.
Arrivals::Slot* Arrivals::next_slot() {
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % slots_.size();
  rt_.check(cudaEventSynchronize(slot.copied.get()), "waiting for a copy");
  slot.owner.reset();
  if (slot.memory != nullptr) return &slot;
  slot.memory = rt_.scratch(kSlotBytes);
  if (slot.memory == nullptr) return nullptr;
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
  const std::int64_t heads = y.dim(0), tokens = y.dim(1), dim = y.dim(2);
  const std::size_t head_bytes = from.bytes.size() / static_cast<std::size_t>(heads);
  std::int64_t heads_at_once = 1, tokens_at_once = tokens;
  if (head_bytes <= kSlotBytes) {
    heads_at_once = static_cast<std::int64_t>(kSlotBytes / head_bytes);
  } else {
    // Every layout lies in tiles of kQuantGroup tokens or fewer: what is between multiples of that is laid out as a
    // head of its own.
    constexpr auto kTile = static_cast<std::int64_t>(kQuantGroup);
    tokens_at_once = static_cast<std::int64_t>(kSlotBytes / head_part(from, kTile, dim)) * kTile;
    if (tokens_at_once == 0) {
      return rt_.keep(Status::unsupported(fmt::format("heads of {} dimensions cannot be brought to a GPU", dim)));
    }
  }
  for (std::int64_t head = 0; head < heads; head += heads_at_once) {
    for (std::int64_t token = 0; token < tokens && !rt_.failed(); token += tokens_at_once) {
      const std::int64_t n_heads = std::min(heads_at_once, heads - head);
      const std::int64_t n_tokens = std::min(tokens_at_once, tokens - token);
      const std::size_t at = static_cast<std::size_t>(head) * head_bytes + head_part(from, token, dim);
      const std::size_t each = head_part(from, n_tokens, dim);
      const auto bytes = from.bytes.subspan(at, static_cast<std::size_t>(n_heads) * each);
      let_go();
      Slot* const slot = next_slot();
      if (slot == nullptr) return;
      bring(*slot, bytes, from.owner);
      const StoredView view{static_cast<const std::uint8_t*>(slot->memory.get()), static_cast<std::int64_t>(each),
                            from.layout, from.axis, is_quantised(from.layout) && from.decoded == DType::kBF16};
      expand(rt_, view, table, first_position + token, y.slice(0, head, n_heads).slice(1, token, n_tokens));
      rt_.check(cudaEventRecord(slot->used.get(), rt_.stream()), "expanding stored entries");
    }
  }
}

}  // namespace finchkv::kernels::cuda
