// streaming: the first min(4, K) tokens and the most recent ones (Xiao et al., "Efficient Streaming Language Models
// with Attention Sinks", ICLR 2024). Ignores the prompt.
#include <algorithm>
#include <limits>

#include "compressor/policies/policies.h"

namespace finchkv::compressor {
namespace {

constexpr std::int64_t kSinks = 4;

class Streaming final : public Policy {
 public:
  std::string_view name() const override { return "streaming"; }
  bool uses_prompt() const override { return false; }
  std::map<std::string, std::int64_t> parameters() const override { return {{"sinks", kSinks}}; }
  Result<kernels::Tensor> score(const SelectionStep& step) const override {
    // Sinks are told by their origin: with tiny budgets an early step may keep fewer than four entries. The others
    // count by their place, which f32 holds exactly up to 2^24; beyond that neighbours tie, and ties go to the lower.
    std::vector<std::int32_t> origins(static_cast<std::size_t>(step.candidates));
    step.device.download(step.origins, origins.data());
    const std::int64_t sinks = std::min({kSinks, step.budget, step.keep});
    std::vector<float> scores(origins.size());
    for (std::size_t j = 0; j < origins.size(); ++j) {
      scores[j] = origins[j] < sinks ? std::numeric_limits<float>::max() : static_cast<float>(j);
    }
    return to_device(step, scores);
  }
};

}  // namespace

const Policy& streaming_policy() {
  static const Streaming policy;
  return policy;
}

}  // namespace finchkv::compressor
