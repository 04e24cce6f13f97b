// The chunk loop of policy finch as the formulas have it, in double and without any of the kernels: what tests of the
// reader compare with. Also the bytes of a KvSet, for tests that want two sets to be the same.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "base/kvset.h"
#include "model/transformer.h"

namespace finchkv::testing {

class PlainFinch final : public model::AttentionContext {
 public:
  struct Layer {
    std::vector<std::vector<float>> keys, values;  // [kept][KV * D], keys before RoPE
    std::vector<std::uint32_t> origins;
  };

  PlainFinch(const model::ModelConfig& config, std::int64_t prompt, std::int64_t budget, std::int64_t document)
      : layers(static_cast<std::size_t>(config.n_layers)),
        config_(config),
        prompt_(prompt),
        budget_(budget),
        document_(document) {}

  /// Reads everything; the layers then hold what was kept.
  Status read(model::Transformer& model, std::span<const model::TokenId> document,
              std::span<const model::TokenId> prompt, std::size_t chunk) {
    for (std::size_t start = 0; start < document.size(); start += chunk) {
      const auto part = document.subspan(start, std::min(chunk, document.size() - start));
      std::vector<model::TokenId> tokens(part.begin(), part.end());
      tokens.insert(tokens.end(), prompt.begin(), prompt.end());
      start_ = static_cast<std::int64_t>(start);
      const auto ran = model.forward(tokens, *this, model::LogitRows::kNone);
      if (!ran.is_ok()) return ran.status();
    }
    return Status::ok();
  }

  Status attend(std::int64_t index, const kernels::Tensor& q, const kernels::Tensor& k, const kernels::Tensor& v,
                const kernels::Tensor& out) override {
    Layer& layer = layers[static_cast<std::size_t>(index)];
    const std::int64_t rows = q.dim(0), heads = q.dim(1), d = q.dim(2), kv = k.dim(1);
    const auto kept = static_cast<std::int64_t>(layer.keys.size());
    const std::int64_t total = kept + rows, candidates = total - prompt_;
    largest_position = std::max(largest_position, total - 1);
    for (std::int64_t r = 0; r < rows; ++r) {
      layer.keys.push_back(row_of(k, r));
      layer.values.push_back(row_of(v, r));
      if (r < rows - prompt_) layer.origins.push_back(static_cast<std::uint32_t>(start_ + r));
    }
    std::vector<std::vector<double>> turned;  // every key at its place
    for (std::int64_t j = 0; j < total; ++j) {
      turned.emplace_back();
      for (std::int64_t g = 0; g < kv; ++g) {
        const auto one = rotated(layer.keys[static_cast<std::size_t>(j)].data() + g * d, j);
        turned.back().insert(turned.back().end(), one.begin(), one.end());
      }
    }
    std::vector<double> score(static_cast<std::size_t>(candidates));
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t seen = kept + r + 1;
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t at = h / (heads / kv) * d;
        const auto query = rotated(q.data<float>() + r * q.stride(0) + h * q.stride(1), kept + r);
        std::vector<double> p;
        for (std::int64_t j = 0; j < seen; ++j)
          p.push_back(
              std::inner_product(query.begin(), query.end(), turned[static_cast<std::size_t>(j)].begin() + at, 0.0) /
              std::sqrt(static_cast<double>(d)));
        const double most = *std::max_element(p.begin(), p.end());
        double sum = 0;
        for (double& x : p) sum += x = std::exp(x - most);
        for (std::int64_t i = 0; i < d; ++i) {
          double mixed = 0;
          for (std::size_t j = 0; j < p.size(); ++j)
            mixed += p[j] / sum * static_cast<double>(layer.values[j][static_cast<std::size_t>(at + i)]);
          out.data<float>()[r * out.stride(0) + h * out.stride(1) + i] = static_cast<float>(mixed);
        }
        if (r < rows - prompt_) continue;
        const double weight = static_cast<double>(seen) / static_cast<double>(total);
        for (std::size_t j = 0; j < score.size(); ++j) score[j] += weight * p[j] / sum;
      }
    }
    select(layer, score, start_ + rows - prompt_);
    return Status::ok();
  }

  std::vector<Layer> layers;
  std::int64_t largest_position = 0;
  double smallest_gap = 1;  ///< (last kept - first dropped) / last kept

 private:
  static std::vector<float> row_of(const kernels::Tensor& t, std::int64_t r) {
    std::vector<float> out;
    for (std::int64_t g = 0; g < t.dim(1); ++g) {
      const float* from = t.data<float>() + r * t.stride(0) + g * t.stride(1);
      out.insert(out.end(), from, from + t.dim(2));
    }
    return out;
  }
  [[nodiscard]] std::vector<double> rotated(const float* x, std::int64_t position) const {
    std::vector<double> out(x, x + config_.head_dim);
    const std::size_t half = config_.rope.inv_freq.size();
    for (std::size_t i = 0; i < half; ++i) {
      const std::size_t a = config_.rope.interleaved ? 2 * i : i, b = config_.rope.interleaved ? 2 * i + 1 : i + half;
      const auto angle = static_cast<double>(static_cast<float>(position) * config_.rope.inv_freq[i]);
      out[a] = static_cast<double>(x[a]) * std::cos(angle) - static_cast<double>(x[b]) * std::sin(angle);
      out[b] = static_cast<double>(x[b]) * std::cos(angle) + static_cast<double>(x[a]) * std::sin(angle);
    }
    return out;
  }
  void select(Layer& layer, const std::vector<double>& score, std::int64_t seen) {
    const auto wanted = static_cast<std::size_t>((budget_ * seen + document_ - 1) / document_);
    const std::size_t keep = std::min(score.size(), wanted);
    std::vector<std::size_t> order(score.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return score[a] > score[b]; });
    if (keep < order.size()) {
      const double last = score[order[keep - 1]];
      smallest_gap = std::min(smallest_gap, (last - score[order[keep]]) / last);
    }
    order.resize(keep);
    std::sort(order.begin(), order.end());
    Layer chosen;
    for (const std::size_t j : order) {
      chosen.keys.push_back(layer.keys[j]);
      chosen.values.push_back(layer.values[j]);
      chosen.origins.push_back(layer.origins[j]);
    }
    layer = std::move(chosen);
  }

  const model::ModelConfig& config_;
  std::int64_t prompt_, budget_, document_;
  std::int64_t start_ = 0;
};

/// Everything of a set that its reader decides, in one string.
inline std::string bytes_of(const KvSet& set) {
  std::string out;
  const auto add = [&out](std::span<const std::byte> bytes) {
    out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    out += '|';
  };
  for (const KvLayer& layer : set.layers) {
    out += std::to_string(layer.n_kept) + ":";
    add(layer.keys);
    add(layer.values);
    add(std::as_bytes(layer.origins));
  }
  return out + std::to_string(set.next_position) + "," + std::to_string(set.doc_tokens);
}

}  // namespace finchkv::testing
