// random: a seeded uniform choice per layer and chunk. Ignores the prompt; the floor for all others.
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
  Result<kernels::Tensor> score(const SelectionStep& step) const override {
    std::uint64_t state = step.seed;
    for (const std::int64_t part : {step.layer, step.chunk_index})
      state = next(state) ^ static_cast<std::uint64_t>(part);
    // The k highest of independent uniform draws are a uniform choice of k.
    std::vector<float> scores(static_cast<std::size_t>(step.candidates));
    for (float& s : scores) s = static_cast<float>(next(state) >> 40) * 0x1p-24F;
    return to_device(step, scores);
  }
};

}  // namespace

const Policy& random_policy() {
  static const Random policy;
  return policy;
}

}  // namespace finchkv::compressor
