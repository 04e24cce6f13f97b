#include "model/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include <fmt/format.h>

#include "model/dequant.h"

namespace finchkv::model {
namespace {

Status apply_yarn(const GgufFile& file, const std::string& prefix, std::vector<double>& freq, RopeRecord& rope) {
  const std::string scaling = prefix + ".rope.scaling.";
  const auto d = static_cast<double>(rope.rotary_dims);
  const double original = rope.original_context;
  if (original < 1)
    return Status::corrupt(fmt::format("{}: yarn scaling needs {}original_context_length", file.path(), scaling));
  if (file.get_f64(scaling + "yarn_ext_factor").value_or(1.0) != 1.0 ||
      file.get_f64(scaling + "yarn_attn_factor").value_or(1.0) != 1.0) {
    return Status::unsupported(
        fmt::format("{}: yarn with a changed extrapolation or attention factor is not supported", file.path()));
  }
  const double beta_fast = file.get_f64(scaling + "yarn_beta_fast").value_or(32.0);
  const double beta_slow = file.get_f64(scaling + "yarn_beta_slow").value_or(1.0);
  if (!(beta_fast > 0) || !(beta_slow > 0))
    return Status::corrupt(fmt::format("{}: yarn's betas must be positive", file.path()));
  // The dimension whose wave turns b times within the original context.
  const auto dimension = [&](double b) {
    return d * std::log(original / (2 * std::numbers::pi * b)) / (2 * std::log(static_cast<double>(rope.theta)));
  };
  const double low = std::max(std::floor(dimension(beta_fast)), 0.0);
  const double high = std::min(std::ceil(dimension(beta_slow)), d - 1);
  const double span = std::max(high - low, 1e-3);  // equal bounds: a step
  for (std::size_t i = 0; i < freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / span, 0.0, 1.0);
    freq[i] = freq[i] / static_cast<double>(rope.factor) * ramp + freq[i] * (1 - ramp);
  }
  rope.attention_factor = static_cast<float>(0.1 * std::log(static_cast<double>(rope.factor)) + 1.0);
  return Status::ok();
}

Status apply_divisors(const GgufFile& file, const GgufTensor& divisors, std::vector<double>& freq, RopeRecord& rope) {
  if (divisors.elements() != freq.size()) {
    return Status::corrupt(fmt::format("{}: rope_freqs.weight has {} numbers where the heads need {}", file.path(),
                                       divisors.elements(), freq.size()));
  }
  std::vector<float> values(freq.size());
  FINCHKV_RETURN_IF_ERROR(dequantize_rows(divisors, 0, divisors.rows(), values));
  for (std::size_t i = 0; i < freq.size(); ++i) {
    if (!(values[i] > 0) || !std::isfinite(values[i]))
      return Status::corrupt(
          fmt::format("{}: rope_freqs.weight[{}] is {}; it must be positive", file.path(), i, values[i]));
    freq[i] /= static_cast<double>(values[i]);
  }
  rope.scaling = "llama3";
  return Status::ok();
}

}  // namespace

Result<RopeRecord> rope_from_gguf(const GgufFile& file, const std::string& prefix, std::int64_t head_dim,
                                  bool interleaved) {
  RopeRecord rope;
  rope.interleaved = interleaved;
  rope.theta = static_cast<float>(file.get_f64(prefix + ".rope.freq_base").value_or(10000.0));
  const std::uint64_t dims =
      file.get_u64(prefix + ".rope.dimension_count").value_or(static_cast<std::uint64_t>(head_dim));
  if (!(rope.theta > 1) || !std::isfinite(rope.theta))
    return Status::corrupt(
        fmt::format("{}: {}.rope.freq_base is {}; it must be above 1", file.path(), prefix, rope.theta));
  if (dims == 0 || dims % 2 != 0 || dims > static_cast<std::uint64_t>(head_dim)) {
    return Status::corrupt(
        fmt::format("{}: {}.rope.dimension_count is {}; it must be even and at most the head's {} dimensions",
                    file.path(), prefix, dims, head_dim));
  }
  rope.rotary_dims = static_cast<std::uint32_t>(dims);
  std::vector<double> freq(rope.rotary_dims / 2);
  for (std::size_t i = 0; i < freq.size(); ++i)
    freq[i] = std::pow(static_cast<double>(rope.theta), -2.0 * static_cast<double>(i) / rope.rotary_dims);

  const std::string type(file.get_string(prefix + ".rope.scaling.type").value_or("none"));
  // Older files state a linear factor alone.
  const double factor =
      file.get_f64(prefix + ".rope.scaling.factor").value_or(file.get_f64(prefix + ".rope.scale_linear").value_or(1.0));
  rope.factor = static_cast<float>(factor);
  if (!(rope.factor > 0) || !std::isfinite(rope.factor))  // judged as f32: that is what it is used as
    return Status::corrupt(fmt::format("{}: the RoPE scaling factor is {}; it must be positive", file.path(), factor));
  const std::uint64_t original = file.get_u64(prefix + ".rope.scaling.original_context_length").value_or(0);
  if (original > std::numeric_limits<std::uint32_t>::max())
    return Status::corrupt(
        fmt::format("{}: {}.rope.scaling.original_context_length is {}", file.path(), prefix, original));
  rope.original_context = static_cast<std::uint32_t>(original);
  const bool older_linear = type == "none" && factor != 1.0 && !file.get_string(prefix + ".rope.scaling.type");
  if (type == "linear" || older_linear) {
    rope.scaling = "linear";
    for (double& f : freq) f /= factor;
  } else if (type == "yarn") {
    rope.scaling = "yarn";
    FINCHKV_RETURN_IF_ERROR(apply_yarn(file, prefix, freq, rope));
  } else if (type != "none" && type != "llama3") {
    return Status::unsupported(
        fmt::format("{}: RoPE scaling '{}' is not supported (none, linear, llama3 and yarn are)", file.path(), type));
  }
  for (const char* name : {"rope_factors_long.weight", "rope_factors_short.weight"}) {
    if (file.find_tensor(name) != nullptr)
      return Status::unsupported(fmt::format(
          "{}: RoPE scaling 'longrope' ({}) depends on the length and is not supported", file.path(), name));
  }
  const GgufTensor* divisors = file.find_tensor("rope_freqs.weight");
  if (type == "llama3" && divisors == nullptr) {
    return Status::corrupt(
        fmt::format("{}: RoPE scaling 'llama3' needs the tensor rope_freqs.weight, which is missing", file.path()));
  }
  if (divisors != nullptr) FINCHKV_RETURN_IF_ERROR(apply_divisors(file, *divisors, freq, rope));
  rope.inv_freq.assign(freq.begin(), freq.end());
  return rope;
}

}  // namespace finchkv::model
