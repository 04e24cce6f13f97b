// Runtime: one GPU, its stream, its memory, the way to it from host memory, and the first failure.
//
// Everything a Device does goes to one stream in the order of the calls, so memory that is given back may be used again
// by the next op at once. Tensors may outlive the Runtime: they share the stream. Not thread-safe, as Device is not.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/cuda/owners.h"

namespace finchkv::kernels::cuda {

/// Memory that recorded launches use between themselves: pieces that were given back are used again, and all of it
/// lives as long as the recording.
class CaptureMemory {
 public:
  struct Piece {
    std::shared_ptr<void> memory;
    std::size_t bytes = 0;
    bool taken = false;
  };
  using Pieces = std::vector<Piece>;

  [[nodiscard]] const std::shared_ptr<Pieces>& pieces() const { return pieces_; }

 private:
  std::shared_ptr<Pieces> pieces_ = std::make_shared<Pieces>();
};

class Runtime {
 public:
  /// `pool` copies to and from page-locked memory; it must outlive the Runtime.
  /// `memory_limit`: bytes that may be taken; 0: what the GPU has.
  static Result<std::unique_ptr<Runtime>> create(int ordinal, ThreadPool& pool, std::size_t memory_limit = 0);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  /// Makes this GPU the calling thread's current one. Every op starts with it.
  void enter();
  [[nodiscard]] cudaStream_t stream() const { return stream_->get(); }
  /// What outlives the Runtime and wants to be in its order.
  [[nodiscard]] const std::shared_ptr<Stream>& shared_stream() const { return stream_; }
  [[nodiscard]] int ordinal() const { return ordinal_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] int processors() const { return processors_; }
  [[nodiscard]] int compute_capability() const { return capability_; }  ///< 90 for 9.0
  [[nodiscard]] std::size_t shared_bytes_per_block() const { return shared_bytes_; }

  /// Device memory in stream order.
  [[nodiscard]] Result<std::shared_ptr<void>> allocate(std::size_t bytes);
  /// The same for working memory inside an op: null when there is none, with the failure kept.
  [[nodiscard]] std::shared_ptr<void> scratch(std::size_t bytes);

  /// `host` may be reused as soon as it returns.
  void upload(const void* host, void* device, std::size_t bytes) { upload(host, device, bytes, stream()); }
  /// The same in the order of another stream.
  void upload(const void* host, void* device, std::size_t bytes, cudaStream_t on);
  /// Complete when it returns.
  void download(const void* device, void* host, std::size_t bytes);

  /// Keeps the first failure until take_failure().
  void check(cudaError_t error, const char* what);
  void keep(Status failure);
  /// After a launch: keeps what the launch itself failed with.
  void launched(const char* kernel) { check(cudaGetLastError(), kernel); }
  [[nodiscard]] bool failed() const { return !failure_.is_ok(); }
  Status synchronize();
  [[nodiscard]] Status take_failure();  ///< the first since the last call of this or synchronize()

  [[nodiscard]] std::size_t free_bytes();  ///< not taken, or given back to the pool
  /// From here to end_capture() launches are recorded, and scratch() comes from memory that the recording keeps. False
  /// when that cannot be started; no failure is kept.
  [[nodiscard]] bool begin_capture();
  struct Captured {
    cudaGraph_t graph = nullptr;  ///< the caller's to destroy; null when something failed, which is forgotten
    CaptureMemory memory;
  };
  [[nodiscard]] Captured end_capture();
  /// Whether kernels may start before the one before them has ended.
  [[nodiscard]] bool early_launches() const { return early_launches_; }

  [[nodiscard]] std::size_t peak_bytes() const;  ///< the most memory that was in use at once
  void reset_peak();

 private:
  struct StagingSlot {
    Pinned memory;
    Event free;  // recorded after the copy that reads the slot
  };
  explicit Runtime(ThreadPool& pool) : pool_(pool) {}
  Status init(int ordinal);
  StagingSlot& next_slot();
  [[nodiscard]] std::shared_ptr<void> own(void* memory,
                                          std::size_t bytes) const;  // of the pool, given back in stream order
  [[nodiscard]] std::shared_ptr<void> captured_scratch(std::size_t bytes);
  [[nodiscard]] Status within_limit(std::size_t bytes) const;
  void copy_on_host(void* to, const void* from, std::size_t bytes);

  ThreadPool& pool_;
  int ordinal_ = 0;
  int processors_ = 0;
  int capability_ = 0;
  std::size_t shared_bytes_ = 0;
  std::size_t memory_limit_ = std::numeric_limits<std::size_t>::max();
  std::shared_ptr<std::atomic<std::size_t>> taken_ = std::make_shared<std::atomic<std::size_t>>(0);
  std::string name_;
  cudaMemPool_t memory_ = nullptr;  // the device's default pool
  std::shared_ptr<Stream> stream_;
  std::array<StagingSlot, 8> slots_;
  std::size_t slot_ = 0;
  bool early_launches_ = false;
  std::unique_ptr<CaptureMemory> capture_;  // while recording
  Stream aside_;                            // takes memory while the other stream records
  Status failure_;
};

}  // namespace finchkv::kernels::cuda
