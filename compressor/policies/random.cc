// random: a seeded uniform choice per layer and chunk. Ignores the prompt; the floor for all others.
#include <algorithm>
#include <vector>

#include "compressor/policies/policies.h"

namespace finchkv::compressor {
namespace {

// splitmix64 (Steele, Lea & Flood 2014): the same choice on every machine.
std::uint64_t next(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15ULL;
  std::uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

class Random final : public Policy {
 public:
  std::string_view name() const override { return "random"; }
  bool uses_prompt() const override { return false; }
  bool uses_seed() const override { return true; }
  Status choose(const SelectionStep& step, const kernels::Tensor& indices) const override {
    std::uint64_t state = step.seed;
    for (const std::int64_t part : {step.layer, step.chunk_index})
      state = next(state) ^ static_cast<std::uint64_t>(part);
    // Selection sampling (Knuth, TAOCP 3.4.2, algorithm S): ascending without a sort.
    std::vector<std::int32_t> chosen;
    std::int64_t need = step.keep;
    for (std::int64_t j = 0; j < step.candidates && need > 0; ++j) {
      const double u = static_cast<double>(next(state) >> 11) * 0x1p-53;
      if (u * static_cast<double>(step.candidates - j) >= static_cast<double>(need)) continue;
      chosen.push_back(static_cast<std::int32_t>(j));
      --need;
    }
    step.device.upload(chosen.data(), indices);
    return Status::ok();
  }
};

}  // namespace

const Policy& random_policy() {
  static const Random policy;
  return policy;
}

}  // namespace finchkv::compressor
