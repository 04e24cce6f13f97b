#include "engine/worker_pool.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

namespace finchkv::engine {

Result<std::unique_ptr<WorkerPool>> WorkerPool::open(const model::Model& model,
                                                     std::vector<std::shared_ptr<kernels::Device>> devices,
                                                     const WorkerOptions& options) {
  if (devices.empty()) return Status::invalid_argument("there is no device to run the model on");
  std::vector<std::optional<Result<std::unique_ptr<model::Transformer>>>> replicas(devices.size());
  {
    std::vector<std::jthread> loading;
    for (std::size_t i = 0; i < devices.size(); ++i) {
      loading.emplace_back([&, i] { replicas[i].emplace(model.replica(std::move(devices[i]))); });
    }
  }
  std::vector<std::unique_ptr<Worker>> workers;
  for (auto& replica : replicas) {
    FINCHKV_RETURN_IF_ERROR(replica->status());
    workers.push_back(std::make_unique<Worker>(**std::move(replica), &model.tokenizer(), options));
  }
  return std::unique_ptr<WorkerPool>(new WorkerPool(std::move(workers)));
}

// Two callers at the same moment may choose the same one; the next job evens that out.
Worker& WorkerPool::least_busy() {
  return **std::min_element(workers_.begin(), workers_.end(), [](const auto& a, const auto& b) {
    return a->outstanding_tokens() < b->outstanding_tokens();
  });
}

void WorkerPool::stop() {
  for (const auto& worker : workers_) worker->stop();
}

}  // namespace finchkv::engine
