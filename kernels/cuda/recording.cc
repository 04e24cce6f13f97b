#include "kernels/cuda/recording.h"

#include <utility>
#include <vector>

#include "kernels/recording.h"

namespace finchkv::kernels::cuda {
namespace {

using Graph = Owned<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;

class GraphRecording final : public Recording {
 public:
  GraphRecording(Runtime& rt, GraphExec graph, CaptureMemory memory)
      : rt_(rt), memory_(std::move(memory)), graph_(std::move(graph)) {}
  // What is still running reads the graph's memory.
  ~GraphRecording() override { static_cast<void>(succeeded(cudaStreamSynchronize(rt_.stream()))); }
  GraphRecording(const GraphRecording&) = delete;
  GraphRecording& operator=(const GraphRecording&) = delete;

  void run() override {
    rt_.enter();
    rt_.check(cudaGraphLaunch(graph_.get(), rt_.stream()), "starting a recorded step");
  }

 private:
  Runtime& rt_;
  CaptureMemory memory_;
  GraphExec graph_;
};

// Null where the work could not be recorded.
std::unique_ptr<Recording> try_record(Runtime& rt, const std::function<void()>& work) {
  rt.enter();
  if (rt.failed() || !rt.begin_capture()) return nullptr;
  try {
    work();
  } catch (...) {  // no memory on the host: the stream must not stay in recording
    const Graph dropped(rt.end_capture().graph);
    throw;
  }
  auto captured = rt.end_capture();
  const Graph graph(captured.graph);
  if (graph.get() == nullptr) return nullptr;
  cudaGraphExec_t made = nullptr;
  if (!succeeded(cudaGraphInstantiate(&made, graph.get(), 0))) return nullptr;
  return std::make_unique<GraphRecording>(rt, GraphExec(made), std::move(captured.memory));
}

}  // namespace

std::unique_ptr<Recording> record_graph(Runtime& rt, std::function<void()> work) {
  if (auto recording = try_record(rt, work)) return recording;
  return std::make_unique<RepeatedCalls>(std::move(work));
}

}  // namespace finchkv::kernels::cuda
