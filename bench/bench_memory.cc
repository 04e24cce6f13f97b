// Peak memory of compressing a long document, above what the process holds after loading the model.
//
// usage: bench_memory MODEL.gguf [TOKENS=32768] [CHUNK=512] [KEEP=1024] [bf16|f32]      prints one JSON object, MB =
// 10^6 bytes The peak is the kernel's high-water mark (VmHWM), reset after loading.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "compressor/reader.h"
#include "model/model.h"

namespace {

// A field of /proc/self/status in MB.
double memory_mb(const std::string& field) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::strtod(line.c_str() + field.size() + 1, nullptr) * 1024 / 1e6;
  }
  return 0;
}

int fail(const finchkv::Status& status) {
  std::fprintf(stderr, "bench_memory: %s\n", status.message().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_memory MODEL.gguf [TOKENS] [CHUNK] [KEEP] [bf16|f32]\n");
    return 2;
  }
  const auto number = [&](int i, long long otherwise) { return argc > i ? std::atoll(argv[i]) : otherwise; };
  const std::int64_t tokens = number(2, 32768), chunk = number(3, 512), keep = number(4, 1024);
  const bool f32 = argc > 5 && std::string(argv[5]) == "f32";

  finchkv::kernels::CpuOptions options;
  options.numeric_class = f32 ? finchkv::kernels::NumericClass::kReference : finchkv::kernels::NumericClass::kFast;
  auto device = finchkv::kernels::make_cpu_device(options);
  if (!device.is_ok()) return fail(device.status());
  auto model = finchkv::model::Model::open(argv[1], {});
  if (!model.is_ok()) return fail(model.status());
  if (const auto status = (*model)->load_weights(std::shared_ptr<finchkv::kernels::Device>(*std::move(device)));
      !status.is_ok())
    return fail(status);
  const double loaded = memory_mb("VmRSS");
  std::ofstream("/proc/self/clear_refs") << 5;

  std::vector<finchkv::model::TokenId> document, prompt;
  for (std::int64_t i = 0; i < tokens; ++i)
    document.push_back(static_cast<finchkv::model::TokenId>((i * 7919) % 40000 + 100));
  prompt.assign(document.begin(), document.begin() + 22);
  finchkv::compressor::ReadRequest request;
  request.document = document;
  request.prompt = prompt;
  request.keep = keep;
  request.chunk = chunk;
  const auto plan = finchkv::compressor::resolve_plan(request, (*model)->config());
  if (!plan.is_ok()) return fail(plan.status());
  const auto read = finchkv::compressor::read_document(*plan, *(*model)->transformer());
  if (!read.is_ok()) return fail(read.status());
  const double peak = memory_mb("VmHWM");
  std::printf(
      "{\"tokens\": %lld, \"chunk\": %lld, \"keep\": %lld, \"compute\": \"%s\", \"loaded_mb\": %.1f, \"peak_mb\": "
      "%.1f, \"above_mb\": %.1f, \"kept_set_mb\": %.1f}\n",
      static_cast<long long>(tokens), static_cast<long long>(chunk), static_cast<long long>(keep), f32 ? "f32" : "bf16",
      loaded, peak, peak - loaded, static_cast<double>(read->set.tensor_bytes()) / 1e6);
  return 0;
}
