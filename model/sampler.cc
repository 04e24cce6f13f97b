#include "model/sampler.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace finchkv::model {

Status SamplerOptions::validate() const {
  if (!(temperature >= 0) || !std::isfinite(temperature))
    return Status::invalid_argument(fmt::format("temperature is {}; it must be 0 (greedy) or more", temperature));
  if (!(top_p > 0) || top_p > 1)
    return Status::invalid_argument(fmt::format("top-p is {}; it must be above 0 and at most 1", top_p));
  return Status::ok();
}

// splitmix64 (Steele, Lea & Flood 2014).
double Sampler::uniform() {
  state_ += 0x9e3779b97f4a7c15ULL;
  std::uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

TokenId Sampler::next(std::span<const float> logits) {
  const auto best = static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (options_.temperature == 0.0F) return static_cast<TokenId>(best);
  const double most = static_cast<double>(logits[best]);
  order_.clear();
  double total = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double p = std::exp((static_cast<double>(logits[i]) - most) / static_cast<double>(options_.temperature));
    order_.emplace_back(static_cast<float>(p), static_cast<TokenId>(i));
    total += p;
  }
  std::sort(order_.begin(), order_.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  double nucleus = 0;
  std::size_t size = 0;
  while (size < order_.size() && (size == 0 || nucleus < static_cast<double>(options_.top_p) * total))
    nucleus += static_cast<double>(order_[size++].first);
  double draw = uniform() * nucleus;
  for (std::size_t i = 0; i < size; ++i) {
    draw -= static_cast<double>(order_[i].first);
    if (draw < 0) return order_[i].second;
  }
  return order_[size - 1].second;
}

double log_probability(std::span<const float> logits, TokenId id) {
  const double most = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double total = 0;
  for (const float x : logits) total += std::exp(static_cast<double>(x) - most);
  return static_cast<double>(logits[static_cast<std::size_t>(id)]) - most - std::log(total);
}

}  // namespace finchkv::model
