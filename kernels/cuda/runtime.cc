#include "kernels/cuda/runtime.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include <fmt/format.h>

#include "kernels/cuda/ops.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr std::size_t kSlotBytes = std::size_t{4} << 20;
constexpr std::size_t kTaskBytes = std::size_t{256} << 10;  // of a copy on the host that several threads share

}  // namespace

Result<std::unique_ptr<Runtime>> Runtime::create(int ordinal, ThreadPool& pool, std::size_t memory_limit) {
  std::unique_ptr<Runtime> runtime(new Runtime(pool));
  if (memory_limit > 0) runtime->memory_limit_ = memory_limit;
  FINCHKV_RETURN_IF_ERROR(runtime->init(ordinal));
  return runtime;
}

Status Runtime::init(int ordinal) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (!succeeded(error) || count == 0) {
    return Status::unavailable(fmt::format("there is no usable NVIDIA GPU here ({}); use the device cpu, or auto",
                                           error == cudaSuccess ? "none was found" : cudaGetErrorString(error)));
  }
  if (ordinal < 0 || ordinal >= count) {
    return Status::invalid_argument(fmt::format("there is no GPU {}; this machine has {}", ordinal, count));
  }
  ordinal_ = ordinal;
  FINCHKV_RETURN_IF_ERROR(cuda_status(cudaSetDevice(ordinal), "choosing the GPU"));
  cudaDeviceProp properties{};
  FINCHKV_RETURN_IF_ERROR(cuda_status(cudaGetDeviceProperties(&properties, ordinal), "asking what the GPU is"));
  name_ = properties.name;
  processors_ = properties.multiProcessorCount;
  capability_ = 10 * properties.major + properties.minor;
  shared_bytes_ = properties.sharedMemPerBlockOptin;
  FINCHKV_RETURN_IF_ERROR(cuda_status(cudaDeviceGetDefaultMemPool(&memory_, ordinal), "the GPU's memory pool"));
  // Memory that is given back stays in the pool: asking the driver again takes milliseconds.
  std::uint64_t keep = std::numeric_limits<std::uint64_t>::max();
  FINCHKV_RETURN_IF_ERROR(
      cuda_status(cudaMemPoolSetAttribute(memory_, cudaMemPoolAttrReleaseThreshold, &keep), "the GPU's memory pool"));
  FINCHKV_ASSIGN_OR_RETURN(Stream stream, make_stream());
  stream_ = std::make_shared<Stream>(std::move(stream));
  FINCHKV_ASSIGN_OR_RETURN(aside_, make_stream());
  early_launches_ = kernels_can_wait();
  for (StagingSlot& slot : slots_) {
    FINCHKV_ASSIGN_OR_RETURN(slot.memory, make_pinned(kSlotBytes));
    FINCHKV_ASSIGN_OR_RETURN(slot.free, make_event());
  }
  return Status::ok();
}

Runtime::~Runtime() {
  if (stream_) static_cast<void>(succeeded(cudaStreamSynchronize(stream_->get())));
}

void Runtime::enter() { check(cudaSetDevice(ordinal_), "choosing the GPU"); }

Status Runtime::within_limit(std::size_t bytes) const {
  const std::size_t taken = taken_->load();
  if (bytes <= memory_limit_ - std::min(taken, memory_limit_)) return Status::ok();
  return Status::resource_exhausted(
      fmt::format("no GPU memory for {} bytes more; {} of the {} that may be used are", bytes, taken, memory_limit_));
}

Result<std::shared_ptr<void>> Runtime::allocate(std::size_t bytes) {
  enter();
  FINCHKV_RETURN_IF_ERROR(within_limit(bytes));
  void* memory = nullptr;
  const cudaError_t error = cudaMallocAsync(&memory, std::max<std::size_t>(bytes, 1), stream());
  if (error == cudaErrorMemoryAllocation) {
    std::size_t free = 0, total = 0;
    static_cast<void>(succeeded(error));
    static_cast<void>(succeeded(cudaMemGetInfo(&free, &total)));
    return Status::resource_exhausted(
        fmt::format("no GPU memory for {} bytes more; {} of {} are free", bytes, free, total));
  }
  FINCHKV_RETURN_IF_ERROR(cuda_status(error, "taking GPU memory"));
  return own(memory, bytes);
}

std::shared_ptr<void> Runtime::own(void* memory, std::size_t bytes) const {
  *taken_ += bytes;
  return std::shared_ptr<void>(memory, [stream = stream_, ordinal = ordinal_, taken = taken_, bytes](void* p) {
    *taken -= bytes;
    int current = ordinal;
    static_cast<void>(succeeded(cudaGetDevice(&current)));
    if (current != ordinal) static_cast<void>(succeeded(cudaSetDevice(ordinal)));
    static_cast<void>(succeeded(cudaFreeAsync(p, stream->get())));  // fails where the driver is gone
    if (current != ordinal) static_cast<void>(succeeded(cudaSetDevice(current)));
  });
}

std::shared_ptr<void> Runtime::scratch(std::size_t bytes) {
  if (capture_) return captured_scratch(bytes);
  auto memory = allocate(bytes);
  if (memory.is_ok()) return *std::move(memory);
  keep(memory.status());
  return nullptr;
}

// Recorded launches follow one another, so a piece that was given back is free for the next one.
std::shared_ptr<void> Runtime::captured_scratch(std::size_t bytes) {
  CaptureMemory::Pieces& pieces = *capture_->pieces();
  std::size_t at = 0;
  while (at < pieces.size() && (pieces[at].taken || pieces[at].bytes < bytes)) ++at;
  if (at == pieces.size()) {
    void* memory = nullptr;
    Status taken = within_limit(bytes);
    if (taken.is_ok()) {
      taken = cuda_status(cudaMallocAsync(&memory, std::max<std::size_t>(bytes, 1), aside_.get()), "a recorded step");
    }
    if (!taken.is_ok()) {
      keep(std::move(taken));
      return nullptr;
    }
    pieces.push_back({own(memory, bytes), bytes, false});
  }
  pieces[at].taken = true;
  return {pieces[at].memory.get(), [all = capture_->pieces(), at](void*) { (*all)[at].taken = false; }};
}

bool Runtime::begin_capture() {
  // Other threads may go on with what cannot be recorded, on streams of their own.
  if (!succeeded(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal))) return false;
  capture_ = std::make_unique<CaptureMemory>();
  return true;
}

Runtime::Captured Runtime::end_capture() {
  Captured captured;
  captured.memory = std::move(*std::exchange(capture_, nullptr));
  const bool ended = succeeded(cudaStreamEndCapture(stream(), &captured.graph));
  const bool ready = succeeded(cudaStreamSynchronize(aside_.get()));
  // It began without a failure, so what failed since is the recording's.
  const bool failed = !std::exchange(failure_, Status::ok()).is_ok();
  if (ended && ready && !failed) return captured;
  if (captured.graph != nullptr) static_cast<void>(succeeded(cudaGraphDestroy(captured.graph)));
  captured.graph = nullptr;
  return captured;
}

Runtime::StagingSlot& Runtime::next_slot() {
  StagingSlot& slot = slots_[slot_];
  slot_ = (slot_ + 1) % slots_.size();
  check(cudaEventSynchronize(slot.free.get()), "waiting for a copy");
  return slot;
}

// One thread copies 10 GB/s or so, a fifth of what the bus takes.
void Runtime::copy_on_host(void* to, const void* from, std::size_t bytes) {
  if (bytes <= kTaskBytes) {
    std::memcpy(to, from, bytes);
    return;
  }
  const auto tasks = static_cast<std::int64_t>((bytes + kTaskBytes - 1) / kTaskBytes);
  pool_.run(tasks, [&](std::int64_t i, int) {
    const std::size_t at = static_cast<std::size_t>(i) * kTaskBytes;
    std::memcpy(static_cast<std::byte*>(to) + at, static_cast<const std::byte*>(from) + at,
                std::min(kTaskBytes, bytes - at));
  });
}

void Runtime::upload(const void* host, void* device, std::size_t bytes, cudaStream_t on) {
  const auto* from = static_cast<const std::byte*>(host);
  auto* to = static_cast<std::byte*>(device);
  for (std::size_t at = 0; at < bytes && !failed(); at += kSlotBytes) {
    const std::size_t piece = std::min(kSlotBytes, bytes - at);
    StagingSlot& slot = next_slot();
    copy_on_host(slot.memory.get(), from + at, piece);
    check(cudaMemcpyAsync(to + at, slot.memory.get(), piece, cudaMemcpyHostToDevice, on), "a copy to the GPU");
    check(cudaEventRecord(slot.free.get(), on), "a copy to the GPU");
  }
}

void Runtime::download(const void* device, void* host, std::size_t bytes) {
  const auto* from = static_cast<const std::byte*>(device);
  auto* to = static_cast<std::byte*>(host);
  // Pieces are copied out of page-locked memory while the next ones are under way.
  const std::size_t pieces = (bytes + kSlotBytes - 1) / kSlotBytes;
  const std::size_t ahead = slots_.size();
  for (std::size_t i = 0; i < pieces + ahead && !failed(); ++i) {
    StagingSlot& slot = slots_[i % ahead];
    if (i >= ahead && i - ahead < pieces) {
      const std::size_t at = (i - ahead) * kSlotBytes;
      check(cudaEventSynchronize(slot.free.get()), "a copy from the GPU");
      copy_on_host(to + at, slot.memory.get(), std::min(kSlotBytes, bytes - at));
    }
    if (i >= pieces) continue;
    const std::size_t at = i * kSlotBytes;
    if (i < ahead) check(cudaEventSynchronize(slot.free.get()), "waiting for a copy");
    check(cudaMemcpyAsync(slot.memory.get(), from + at, std::min(kSlotBytes, bytes - at), cudaMemcpyDeviceToHost,
                          stream()),
          "a copy from the GPU");
    check(cudaEventRecord(slot.free.get(), stream()), "a copy from the GPU");
  }
}

void Runtime::check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) keep(cuda_status(error, what));
}

void Runtime::keep(Status failure) {
  if (failure_.is_ok()) failure_ = std::move(failure);
}

Status Runtime::synchronize() {
  enter();
  check(cudaStreamSynchronize(stream()), "the work on the GPU");
  return take_failure();
}

Status Runtime::take_failure() { return std::exchange(failure_, Status::ok()); }

std::size_t Runtime::free_bytes() {
  enter();
  std::size_t free = 0, total = 0;
  static_cast<void>(succeeded(cudaMemGetInfo(&free, &total)));
  std::uint64_t reserved = 0, used = 0;  // what the pool holds back for the next allocation is free too
  static_cast<void>(succeeded(cudaMemPoolGetAttribute(memory_, cudaMemPoolAttrReservedMemCurrent, &reserved)));
  static_cast<void>(succeeded(cudaMemPoolGetAttribute(memory_, cudaMemPoolAttrUsedMemCurrent, &used)));
  const std::size_t there = free + (reserved > used ? reserved - used : 0);
  return std::min(there, memory_limit_ - std::min(taken_->load(), memory_limit_));
}

std::size_t Runtime::peak_bytes() const {
  std::uint64_t bytes = 0;
  static_cast<void>(succeeded(cudaMemPoolGetAttribute(memory_, cudaMemPoolAttrUsedMemHigh, &bytes)));
  return bytes;
}

void Runtime::reset_peak() {
  std::uint64_t zero = 0;
  static_cast<void>(succeeded(cudaMemPoolSetAttribute(memory_, cudaMemPoolAttrUsedMemHigh, &zero)));
}

}  // namespace finchkv::kernels::cuda

namespace finchkv::kernels {

int cuda_device_count() {
  int count = 0;
  return cuda::succeeded(cudaGetDeviceCount(&count)) ? count : 0;
}

}  // namespace finchkv::kernels
