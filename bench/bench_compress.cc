// Compression, decoding and reload at a large model's shape on a GPU, with random weights made there.
//
// usage: bench_compress [--shape llama-3.1-8b] [--doc 32768] [--chunk 4096] [--keep 2048] [--prompt 64]
//                       [--policy finch] [--compute bf16|fp8] [--attention cudnn|own] [--repeat 3] [--store DIR]
//                       [--lengths 31000,30011] [--profile-after N] [--read-threads 15] [--help]
//        bench_compress --documents N [--doc L] [--mixed] [--rows 5120] ...
// Prints one JSON object. `gemm_s` and `attention_s` are what this run's own product calls (SwiGLU with them) and
// attention calls of the same shapes take alone, with every layer's weights in turn; `floor_s` is the matrix work at
// the rate of a large product of this run. Run it beside the peer script and compare ratios. With --store the set also
// goes into a store in DIR, a folder that is made and removed, and from there to the device, verified. --lengths reads
// documents of these lengths, each twice: what a length that was never seen costs. With --documents N, one document of
// N * L tokens is compared with N documents of L tokens read together (--mixed: of L / N to 2 L), each keeping its
// share of --keep, up to --rows rows in a pass; nothing else is measured then.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/compress_common.h"
#include "bench/compress_documents.h"
#include "bench/compress_floor.h"
#include "bench/compress_model.h"
#include "bench/compress_options.h"
#include "bench/compress_profile.h"
#include "bench/compress_reload.h"
#include "compressor/reader.h"
#include "kernels/cuda/cuda_device.h"
#include "model/decode_batch.h"

using namespace finchkv::bench;  // NOLINT(google-build-using-namespace): this program is its parts

int main(int argc, char** argv) {
  const Options o = parse(argc, argv);
  const ModelConfig config = config_of(o.shape);
  const std::shared_ptr<Device> device = value_or_exit(
      finchkv::kernels::make_cuda_device({.numeric_class = class_of(o.compute), .cudnn = o.attention != "own"}));
  namespace cuda = finchkv::kernels::cuda;
  nlohmann::ordered_json report;
  report["device"] = device->description();
  report["shape"] = o.shape;
  report["dimensions"] = finchkv::bench::dimensions_of(config);
  report["compute"] = o.compute;
  report["policy"] = o.policy;
  report["doc_tokens"] = o.doc;
  report["chunk"] = o.chunk;
  report["keep"] = o.keep;
  report["prompt_tokens"] = o.prompt;
  const double rate = product_rate(*device);
  const auto model = value_or_exit(Transformer::create(config, random_weights(*device, config), device));
  ok_or_exit(device->synchronize());
  if (o.documents > 0) {
    compare_documents(o, *model, report);
    std::printf("%s\n", report.dump(1).c_str());
    return 0;
  }

  const auto document = ids(o.doc, config.vocab), prompt = ids(o.prompt, config.vocab);
  finchkv::compressor::ReadRequest request;
  request.document = document;
  request.prompt = prompt;
  request.policy = o.policy;
  request.keep = o.keep;
  request.chunk = o.chunk;
  const auto plan = value_or_exit(finchkv::compressor::resolve_plan(request, config));
  if (o.profile_after > 0) {
    ok_or_exit(finchkv::bench::profile_chunk(*model, plan, o.profile_after));
    const Pass pass = passes_of(o)[static_cast<std::size_t>(o.profile_after)];
    report["profiled"] = {{"rows", pass.rows}, {"keys", pass.keys}};
    report["large_product_tflops"] = rate / 1e12;
    std::printf("%s\n", report.dump(1).c_str());
    return 0;
  }
  finchkv::KvSet set;
  std::vector<double> compress, whole;
  cuda::reset_peak(*device);
  const auto weight_bytes = cuda::peak_bytes(*device);
  for (std::int64_t i = 0; i <= o.repeat; ++i) {
    const auto start = clock_type::now();
    const double on_device = read_seconds(*model, plan, set);
    if (i == 0) {
      report["first_compress_s"] = on_device;  // plans are made
      continue;
    }
    compress.push_back(on_device);
    whole.push_back(seconds_since(start));
  }
  std::sort(compress.begin(), compress.end());
  std::sort(whole.begin(), whole.end());
  const double seconds = compress[compress.size() / 2];
  const auto passes = passes_of(o);
  const double work = work_of(config, passes);
  report["compress_s"] = seconds;
  report["compress_min_s"] = compress.front();
  report["compress_max_s"] = compress.back();
  report["with_read_out_s"] = whole[whole.size() / 2];
  report["tokens_per_s"] = static_cast<double>(o.doc) / seconds;
  report["tflops"] = work / seconds / 1e12;
  report["large_product_tflops"] = rate / 1e12;
  report["floor_s"] = work / rate;
  report["ratio_to_floor"] = seconds * rate / work;
  report["weights_gb"] = static_cast<double>(weight_bytes) / 1e9;
  report["peak_gb"] = static_cast<double>(cuda::peak_bytes(*device)) / 1e9;
  if (!o.lengths.empty()) report["lengths"] = read_lengths(o, *model, request);
  const double gemm = gemm_seconds(*model, passes), attention = attention_seconds(*model, passes);
  report["gemm_s"] = gemm;
  report["attention_s"] = attention;
  report["share_of_gemm_and_attention"] = (gemm + attention) / seconds;

  const double reload =
      median_seconds(*device, 3, [&] { static_cast<void>(value_or_exit(DecodeContext::from_set(*model, set, 256))); });
  report["set_bytes"] = set.layer_bytes(set.max_kept()) * 2 * set.layers.size();
  report["set_to_device_s"] = reload;
  report["set_to_device_gb_per_s"] = report["set_bytes"].get<double>() / reload / 1e9;
  if (!o.store.empty()) {
    report["store"] = reload_from_store(o, *model, set, prompt);
    std::filesystem::remove_all(o.store);
  }
  report["hit_to_first_token_s"] = median_seconds(*device, 3, [&] {
    DecodeContext context = value_or_exit(DecodeContext::from_set(*model, set, 256));
    static_cast<void>(value_or_exit(model->forward(prompt, context, LogitRows::kLast)));
  });
  DecodeContext context = value_or_exit(DecodeContext::from_set(*model, set, 256));
  const TokenId id = 5;
  // As when greedy answers are decoded: the likeliest tokens come back.
  finchkv::model::DecodeBatch alone(*model, {&context});
  report["decode_step_s"] = median_seconds(*device, 50, [&] {
    static_cast<void>(value_or_exit(model->step({&id, 1}, alone)));
  });
  constexpr int kClients = 16;
  std::vector<DecodeContext> clients;
  std::vector<DecodeContext*> members;
  clients.reserve(kClients);
  members.reserve(kClients);
  for (int i = 0; i < kClients; ++i) clients.push_back(value_or_exit(DecodeContext::from_set(*model, set, 64)));
  for (DecodeContext& client : clients) members.push_back(&client);
  const std::vector<TokenId> steps(kClients, id);
  finchkv::model::DecodeBatch batch(*model, members);
  report["decode_step_of_16_s"] =
      median_seconds(*device, 20, [&] { static_cast<void>(value_or_exit(model->step(steps, batch))); });
  report["decode_step_of_16_with_logits_s"] = median_seconds(
      *device, 20, [&] { static_cast<void>(value_or_exit(model->forward(steps, batch, LogitRows::kAll))); });
  report["tokens_per_s_of_16_over_1"] =
      kClients * report["decode_step_s"].get<double>() / report["decode_step_of_16_s"].get<double>();
  std::printf("%s\n", report.dump(1).c_str());
  return 0;
}
