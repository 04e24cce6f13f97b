// streaming: the first min(4, K) tokens and the most recent ones (Xiao et al., "Efficient Streaming Language Models
// with Attention Sinks", ICLR 2024). Ignores the prompt.
#include <algorithm>
#include <numeric>

#include "compressor/policies/policies.h"

namespace finchkv::compressor {
namespace {

constexpr std::int64_t kSinks = 4;

class Streaming final : public Policy {
 public:
  std::string_view name() const override { return "streaming"; }
  bool uses_prompt() const override { return false; }
  std::map<std::string, std::int64_t> parameters() const override { return {{"sinks", kSinks}}; }
  Status choose(const SelectionStep& step, const kernels::Tensor& indices) const override {
    // Sinks are told by their origin: with tiny budgets an early step may keep fewer than four entries.
    std::vector<std::int32_t> origins(static_cast<std::size_t>(step.candidates));
    step.device.download(step.origins, origins.data());
    const std::int64_t wanted = std::min({kSinks, step.budget, step.keep});
    const auto sinks = std::count_if(origins.begin(), origins.end(), [&](std::int32_t o) { return o < wanted; });
    std::vector<std::int32_t> chosen(static_cast<std::size_t>(step.keep));
    std::iota(chosen.begin(), chosen.begin() + sinks, 0);
    std::iota(chosen.begin() + sinks, chosen.end(), static_cast<std::int32_t>(step.candidates - step.keep + sinks));
    step.device.upload(chosen.data(), indices);
    return Status::ok();
  }
};

}  // namespace

const Policy& streaming_policy() {
  static const Streaming policy;
  return policy;
}

}  // namespace finchkv::compressor
