// Prefill, compression and decoding of a GGUF model on the CPU.
//
// usage: bench_cpu --model FILE.gguf [--threads N] [--compute bf16|f32] [Google Benchmark's flags]
// Token ids are synthetic, the same as bench/peers_cpu.py gives its peers. tokens_per_second counts document tokens.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "compressor/reader.h"
#include "model/decode_context.h"
#include "model/model.h"

namespace {

using finchkv::model::DecodeContext;
using finchkv::model::LogitRows;
using finchkv::model::Model;
using finchkv::model::TokenId;

std::unique_ptr<Model> g_model;

std::vector<TokenId> ids(std::int64_t n) {
  std::vector<TokenId> out;
  for (std::int64_t i = 0; i < n; ++i) out.push_back(static_cast<TokenId>((i * 7919) % 40000 + 100));
  return out;
}

template <typename T>
T value_or_exit(finchkv::Result<T> result) {
  if (!result.is_ok()) {
    std::fprintf(stderr, "bench_cpu: %s\n", result.status().message().c_str());
    std::exit(1);
  }
  return *std::move(result);
}

void prefill(benchmark::State& state) {
  const auto tokens = ids(state.range(0));
  for (auto _ : state) {
    DecodeContext context = value_or_exit(DecodeContext::create(*g_model->transformer(), state.range(0)));
    benchmark::DoNotOptimize(value_or_exit(g_model->transformer()->forward(tokens, context, LogitRows::kLast)));
  }
  state.counters["tokens_per_second"] =
      benchmark::Counter(static_cast<double>(state.range(0)), benchmark::Counter::kIsIterationInvariantRate);
}

finchkv::KvSet compress(std::int64_t tokens, std::int64_t chunk, std::int64_t keep, const std::string& policy) {
  const auto document = ids(tokens);
  const auto prompt = ids(22);
  finchkv::compressor::ReadRequest request;
  request.document = document;
  request.prompt = prompt;
  request.policy = policy;
  request.keep = keep;
  request.chunk = chunk;
  const auto plan = value_or_exit(finchkv::compressor::resolve_plan(request, g_model->config()));
  return value_or_exit(finchkv::compressor::read_document(plan, *g_model->transformer())).set;
}

void compress_document(benchmark::State& state, const std::string& policy) {
  for (auto _ : state) benchmark::DoNotOptimize(compress(state.range(0), state.range(1), state.range(2), policy));
  state.counters["tokens_per_second"] =
      benchmark::Counter(static_cast<double>(state.range(0)), benchmark::Counter::kIsIterationInvariantRate);
}

void decode_step(benchmark::State& state) {
  const std::int64_t kept = state.range(0);
  const finchkv::KvSet set = compress(kept * 2, 512, kept, "finch");
  const TokenId id = 5;
  DecodeContext context = value_or_exit(DecodeContext::from_set(*g_model->transformer(), set, 1));
  for (auto _ : state) {
    state.PauseTiming();
    context = value_or_exit(DecodeContext::from_set(*g_model->transformer(), set, 1));
    state.ResumeTiming();
    benchmark::DoNotOptimize(value_or_exit(g_model->transformer()->forward({&id, 1}, context, LogitRows::kLast)));
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  std::string path;
  finchkv::kernels::CpuOptions options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--model") path = argv[i + 1];
    if (flag == "--threads") options.threads = std::atoi(argv[i + 1]);
    if (flag == "--compute" && std::string(argv[i + 1]) == "f32")
      options.numeric_class = finchkv::kernels::NumericClass::kReference;
  }
  if (path.empty()) {
    std::fprintf(stderr, "bench_cpu: name a model with --model FILE.gguf\n");
    return 2;
  }
  std::shared_ptr<finchkv::kernels::Device> device = value_or_exit(finchkv::kernels::make_cpu_device(options));
  benchmark::AddCustomContext("device", device->description());
  g_model = value_or_exit(Model::open(path, {}));
  if (const auto status = g_model->load_weights(device); !status.is_ok()) {
    std::fprintf(stderr, "bench_cpu: %s\n", status.message().c_str());
    return 1;
  }
  benchmark::RegisterBenchmark("prefill", prefill)->Arg(2048)->Unit(benchmark::kMillisecond)->UseRealTime();
  for (const char* policy : {"finch-span", "finch"}) {
    benchmark::RegisterBenchmark((std::string("compress/") + policy).c_str(),
                                 [policy](benchmark::State& s) { compress_document(s, policy); })
        ->Args({4096, 512, 128})
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  }
  benchmark::RegisterBenchmark("decode_step", decode_step)
      ->Arg(128)
      ->Arg(2048)
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime();
  benchmark::RunSpecifiedBenchmarks();
  g_model.reset();
  return 0;
}
