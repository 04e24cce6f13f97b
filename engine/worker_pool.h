// WorkerPool: replicas of one model on several devices, each with a Worker; a job goes to the least busy one.
//
// Thread-safe. The jobs' rules are the worker's (engine/worker.h).
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/status.h"
#include "engine/worker.h"
#include "model/model.h"

namespace finchkv::engine {

class WorkerPool {
 public:
  /// Loads a replica onto every device, all at the same time; the model must outlive the pool, and its own transformer
  /// is not used. invalid_argument without devices; otherwise as Model::load_weights, whichever fails first in order.
  static Result<std::unique_ptr<WorkerPool>> open(const model::Model& model,
                                                  std::vector<std::shared_ptr<kernels::Device>> devices,
                                                  const WorkerOptions& options = {});

  void read(compressor::ReadJob job) { least_busy().read(std::move(job)); }
  void generate(GenerateJob job) { least_busy().generate(std::move(job)); }
  /// Ends all jobs with unavailable and waits for the threads.
  void stop();
  [[nodiscard]] std::size_t size() const { return workers_.size(); }
  [[nodiscard]] const std::vector<std::unique_ptr<Worker>>& workers() const { return workers_; }

 private:
  explicit WorkerPool(std::vector<std::unique_ptr<Worker>> workers) : workers_(std::move(workers)) {}
  Worker& least_busy();

  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace finchkv::engine
