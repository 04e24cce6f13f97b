// Several documents together, and documents of lengths that were not seen before.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/compress_common.h"
#include "bench/compress_options.h"
#include "compressor/batch_reader.h"
#include "compressor/reader.h"
#include "kernels/cuda/cuda_device.h"

namespace finchkv::bench {

/// Seconds of reading all plans together, sets on the host included: the first time, then the median of `repeat`.
inline std::pair<double, double> seconds_together(const std::vector<compressor::Plan>& plans, Transformer& model,
                                                  const Options& o) {
  const auto once = [&] {
    const auto start = clock_type::now();
    compressor::read_documents(plans, model, {.rows = o.rows},
                               [](std::size_t, const Result<compressor::ReadResult>& r) { ok_or_exit(r.status()); });
    return seconds_since(start);
  };
  const double first = once();
  std::vector<double> seconds;
  for (std::int64_t i = 0; i < std::max<std::int64_t>(1, o.repeat); ++i) seconds.push_back(once());
  std::sort(seconds.begin(), seconds.end());
  return {first, seconds[seconds.size() / 2]};
}

/// One long document, then its tokens as many documents together.
inline void compare_documents(const Options& o, Transformer& model, nlohmann::ordered_json& report) {
  const std::int64_t all = std::max<std::int64_t>(1, o.documents * o.doc), vocab = model.config().vocab;
  const auto tokens = ids(all, vocab), prompt = ids(o.prompt, vocab);
  const auto plan_of = [&](std::int64_t first, std::int64_t n) {
    compressor::ReadRequest request;
    request.document = std::span(tokens).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n));
    request.prompt = prompt;
    request.policy = o.policy;
    request.keep = std::max<std::int64_t>(1, o.keep * n / all);
    request.chunk = o.chunk;
    return value_or_exit(compressor::resolve_plan(request, model.config()));
  };
  std::vector<compressor::Plan> many;
  for (std::int64_t i = 0, first = 0; i < o.documents; ++i) {
    const std::int64_t n = o.mixed ? (2 * i + 1) * o.doc / o.documents : o.doc;
    if (n == 0) continue;
    many.push_back(plan_of(first, n));
    first += n;
  }
  std::int64_t read = 0;
  for (const auto& plan : many) read += static_cast<std::int64_t>(plan.document.size());
  namespace cuda = kernels::cuda;
  const auto rate = [](std::int64_t n, double seconds) { return static_cast<double>(n) / seconds; };
  report["documents"] = many.size();
  report["rows"] = o.rows;
  const auto [first_alone, alone] = seconds_together({plan_of(0, all)}, model, o);
  report["first_one_document_s"] = first_alone;  // plans are made
  report["one_document_s"] = alone;
  report["one_document_tokens_per_s"] = rate(all, alone);
  cuda::reset_peak(model.device());
  const auto before = cuda::peak_bytes(model.device());
  const auto [first, together] = seconds_together(many, model, o);
  report["first_together_s"] = first;
  report["together_s"] = together;
  report["together_tokens_per_s"] = rate(read, together);
  report["together_over_one"] = rate(read, together) / rate(all, alone);
  report["one_after_the_other_s"] = [&] {
    const auto start = clock_type::now();
    for (const auto& plan : many) static_cast<void>(value_or_exit(compressor::read_document(plan, model)));
    return seconds_since(start);
  }();
  report["peak_above_gb"] = static_cast<double>(cuda::peak_bytes(model.device()) - before) / 1e9;
}

/// Seconds from the start to the last pass's end.
inline double read_seconds(Transformer& model, const compressor::Plan& plan, KvSet& set) {
  const auto start = clock_type::now();
  double on_device = 0;
  set = value_or_exit(compressor::read_document(plan, model, [&](std::int64_t read, std::int64_t total) {
          if (read == total) on_device = seconds_since(start);  // every pass ends with a wait
          return true;
        })).set;
  return on_device;
}

/// Documents of lengths not seen before, each read twice.
inline nlohmann::ordered_json read_lengths(const Options& o, Transformer& model, compressor::ReadRequest request) {
  auto all = nlohmann::ordered_json::array();
  for (const std::int64_t length : o.lengths) {
    const auto document = ids(length, model.config().vocab);
    request.document = document;
    const auto plan = value_or_exit(compressor::resolve_plan(request, model.config()));
    KvSet set;
    const double first = read_seconds(model, plan, set), again = read_seconds(model, plan, set);
    all.push_back(
        {{"doc_tokens", length}, {"first_s", first}, {"again_s", again}, {"first_over_again", first / again}});
  }
  return all;
}

}  // namespace finchkv::bench
