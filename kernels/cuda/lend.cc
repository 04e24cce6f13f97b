#include "kernels/cuda/lend.h"

#include <bit>
#include <utility>

#include <fmt/format.h>

namespace finchkv::kernels::cuda {
namespace {

constexpr std::uint64_t kNoStream = 0;  // DLPack's numbers; 1 and 2 are also how the runtime names those streams
constexpr std::uint64_t kPerThread = 2;
static_assert(sizeof(std::uint64_t) >= sizeof(cudaStream_t));

cudaStream_t handle_of(std::uint64_t stream) { return std::bit_cast<cudaStream_t>(stream); }

/// Makes a GPU the calling thread's current one, and the one before again at its end.
class OnGpu {
 public:
  explicit OnGpu(int ordinal) {
    known_ = cudaGetDevice(&before_) == cudaSuccess;
    static_cast<void>(cudaSetDevice(ordinal));
  }
  ~OnGpu() {
    if (known_) static_cast<void>(cudaSetDevice(before_));
  }
  OnGpu(const OnGpu&) = delete;
  OnGpu& operator=(const OnGpu&) = delete;

 private:
  int before_ = 0;
  bool known_ = false;
};

/// A tensor that somebody reads on `reader`.
class Loan {
 public:
  Loan(Tensor tensor, const Runtime& rt, std::uint64_t reader, Event event)
      : tensor_(std::move(tensor)),
        ours_(rt.shared_stream()),
        ordinal_(rt.ordinal()),
        reader_(reader),
        event_(std::move(event)) {}
  ~Loan() {
    const OnGpu here(ordinal_);
    // The reader may have put work on its stream that has not run yet. Which thread's stream "the thread's" was cannot
    // be known here, so that one is treated as no stream.
    if (reader_ == kNoStream || reader_ == kPerThread || !after_reader()) static_cast<void>(cudaDeviceSynchronize());
    tensor_ = Tensor();
  }
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;

 private:
  // Our stream goes on, and uses the memory again, when the reader's has come here.
  bool after_reader() {
    const bool ordered = cudaEventRecord(event_.get(), handle_of(reader_)) == cudaSuccess &&
                         cudaStreamWaitEvent(ours_->get(), event_.get(), 0) == cudaSuccess;
    if (!ordered) static_cast<void>(cudaGetLastError());
    return ordered;
  }

  Tensor tensor_;
  std::shared_ptr<Stream> ours_;
  int ordinal_;
  std::uint64_t reader_;
  Event event_;
};

}  // namespace

Result<std::shared_ptr<const void>> lend(Runtime& rt, const Tensor& t, std::uint64_t stream) {
  FINCHKV_ASSIGN_OR_RETURN(Event event, make_event());
  if (stream == kNoStream) {
    FINCHKV_RETURN_IF_ERROR(rt.synchronize());
  } else {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    FINCHKV_RETURN_IF_ERROR(
        cuda_status(cudaStreamIsCapturing(handle_of(stream), &status), "asking the reader's stream"));
    if (status != cudaStreamCaptureStatusNone) {
      return Status::invalid_argument("the stream is being recorded into a graph: ask for tensors before that");
    }
    rt.check(cudaEventRecord(event.get(), rt.stream()), "ordering a tensor's reader");
    rt.check(cudaStreamWaitEvent(handle_of(stream), event.get(), 0), "ordering a tensor's reader");
    FINCHKV_RETURN_IF_ERROR(rt.take_failure());
  }
  return std::shared_ptr<const void>(std::make_shared<const Loan>(t, rt, stream, std::move(event)));
}

}  // namespace finchkv::kernels::cuda
