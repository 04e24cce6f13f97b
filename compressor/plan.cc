#include "compressor/plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "compressor/reader.h"

namespace finchkv::compressor {
namespace {

Result<std::int64_t> resolve_budget(const ReadRequest& r, const Policy& policy) {
  const auto n = static_cast<std::int64_t>(r.document.size());
  if (r.keep && r.ratio) return Status::invalid_argument("keep and ratio were both given; give one");
  if (r.keep && *r.keep < 1) return Status::invalid_argument(fmt::format("keep is {}; it must be 1 or more", *r.keep));
  const double ratio = r.ratio.value_or(kDefaultRatio);
  if (!(ratio >= 1) || !std::isfinite(ratio))
    return Status::invalid_argument(fmt::format("ratio is {}; it must be 1 or more", ratio));
  if (policy.keeps_everything()) return n;
  if (r.keep) return std::min(*r.keep, n);
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::ceil(static_cast<double>(n) / ratio)), 1, n);
}

}  // namespace

std::int64_t Plan::keep_after(std::int64_t seen) const {
  const auto n = static_cast<std::int64_t>(document.size());
  // 128 bits: budget * seen passes 64 for documents of some billion tokens.
  const auto product =
      static_cast<unsigned __int128>(static_cast<std::uint64_t>(budget)) * static_cast<std::uint64_t>(seen);
  return static_cast<std::int64_t>((product + static_cast<std::uint64_t>(n) - 1) / static_cast<std::uint64_t>(n));
}

Result<Plan> resolve_plan(const ReadRequest& r, const model::ModelConfig& config) {
  Plan plan;
  if (r.document.empty()) return Status::invalid_argument("the document is empty; there is nothing to read");
  if (r.document.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {  // origins are 32-bit
    return Status::invalid_argument(fmt::format("the document has {} tokens; at most {} can be read as one",
                                                r.document.size(), std::numeric_limits<std::int32_t>::max()));
  }
  FINCHKV_ASSIGN_OR_RETURN(plan.reader, find_reader(r.reader));
  FINCHKV_ASSIGN_OR_RETURN(plan.policy, find_policy(r.policy));
  if (plan.policy->uses_prompt() && r.prompt.empty()) {
    return Status::invalid_argument(
        fmt::format("the prompt is empty; the policy {} needs at least one prompt token", plan.policy->name()));
  }
  plan.document = r.document;
  if (plan.policy->uses_prompt()) plan.prompt = r.prompt;
  if (plan.policy->uses_seed()) plan.seed = r.seed;
  FINCHKV_ASSIGN_OR_RETURN(plan.budget, resolve_budget(r, *plan.policy));

  const auto n = static_cast<std::int64_t>(r.document.size());
  const auto prompt = static_cast<std::int64_t>(plan.prompt.size());
  std::int64_t window = config.context_length;
  const char* window_name = "context window";
  if (config.sliding_window > 0 && config.sliding_window < window) {
    window = config.sliding_window;
    window_name = "sliding window";
  }
  if (r.chunk && *r.chunk < 1)
    return Status::invalid_argument(fmt::format("chunk is {}; it must be 1 or more", *r.chunk));
  // A document that fits as a whole leaves room for any chunk; else what the kept entries and the prompt leave.
  const std::int64_t fits = n + prompt <= window ? n : window - prompt - plan.budget;
  std::int64_t chunk = r.chunk ? *r.chunk : std::max<std::int64_t>(1, std::min(kDefaultChunk, fits));
  if (plan.reader->one_pass() || plan.policy->one_pass()) chunk = n;
  plan.chunk = std::min(chunk, n);

  // Candidates are document tokens, so there are never more than n of them, however large keep and chunk are.
  const std::int64_t reading = std::min(plan.budget + plan.chunk, n) + prompt;
  if (reading > window) {
    return Status::invalid_argument(
        fmt::format("reading needs keep {} + chunk {} + prompt {} = {} positions, but the model's {} is {}: lower "
                    "keep, chunk or the prompt",
                    plan.budget, plan.chunk, prompt, plan.budget + plan.chunk + prompt, window_name, window));
  }
  if (r.answer_tokens < 0)
    return Status::invalid_argument(fmt::format("max-tokens is {}; it must be 1 or more", r.answer_tokens));
  const auto asked = static_cast<std::int64_t>(r.prompt.size());
  // Unsigned: max-tokens may be as large as a signed number can be.
  const std::uint64_t answering = static_cast<std::uint64_t>(plan.budget) + static_cast<std::uint64_t>(asked) +
                                  static_cast<std::uint64_t>(r.answer_tokens);
  if (answering > static_cast<std::uint64_t>(window)) {
    return Status::invalid_argument(
        fmt::format("answering needs keep {} + prompt {} + max-tokens {} = {} positions, but the model's {} is {}: "
                    "lower keep or max-tokens",
                    plan.budget, asked, r.answer_tokens, answering, window_name, window));
  }
  return plan;
}

}  // namespace finchkv::compressor
