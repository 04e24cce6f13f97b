// Compression, decoding and reload at a large model's shape on a GPU, with random weights made there.
//
// usage: bench_compress [--shape llama-3.1-8b] [--doc 32768] [--chunk 4096] [--keep 2048] [--prompt 64]
//                       [--policy finch] [--compute bf16|fp8] [--attention cudnn|own] [--repeat 3] [--store DIR]
//                       [--read-threads 15]
// Prints one JSON object. `gemm_s` and `attention_s` are what this run's own product calls (SwiGLU with them) and
// attention calls of the same shapes take alone, with every layer's weights in turn; `floor_s` is the matrix work at
// the rate of a large product of this run. Run it beside the peer script and compare ratios. With --store the set also
// goes into a store in DIR, a folder that is made and removed, and from there to the device, verified.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "cache_store/rocksdb_store.h"
#include "compressor/reader.h"
#include "kernels/cuda/cuda_device.h"
#include "model/decode_batch.h"
#include "model/decode_context.h"
#include "model/transformer.h"
#include "model/weights.h"

namespace {

using finchkv::kernels::Device;
using finchkv::kernels::ElementType;
using finchkv::kernels::Tensor;
using finchkv::model::DecodeContext;
using finchkv::model::LogitRows;
using finchkv::model::ModelConfig;
using finchkv::model::TokenId;
using finchkv::model::Transformer;
using clock_type = std::chrono::steady_clock;

template <typename T>
T value_or_exit(finchkv::Result<T> result) {
  if (!result.is_ok()) {
    std::fprintf(stderr, "bench_compress: %s\n", result.status().message().c_str());
    std::exit(1);
  }
  return *std::move(result);
}
void ok_or_exit(const finchkv::Status& status) {
  if (status.is_ok()) return;
  std::fprintf(stderr, "bench_compress: %s\n", status.message().c_str());
  std::exit(1);
}

struct Options {
  std::string shape = "llama-3.1-8b";
  std::string policy = "finch";
  std::string compute = "bf16";
  std::string attention = "cudnn";
  std::string store;
  std::int64_t doc = 32768, chunk = 4096, keep = 2048, prompt = 64, repeat = 3;
  std::optional<std::size_t> read_threads;
};

ModelConfig config_of(const std::string& shape) {
  struct Dims {
    std::int64_t layers, hidden, heads, kv_heads, head_dim, ffn;
  };
  // 70b-per-gpu is an eighth of every matrix: what one of eight GPUs multiplies.
  const std::map<std::string, Dims> shapes = {{"llama-3.2-1b", {16, 2048, 32, 8, 64, 8192}},
                                              {"llama-3.1-8b", {32, 4096, 32, 8, 128, 14336}},
                                              {"llama-3.1-70b-per-gpu", {80, 8192, 8, 1, 128, 3584}}};
  const auto found = shapes.find(shape);
  if (found == shapes.end()) {
    std::fprintf(stderr, "bench_compress: there is no shape '%s'\n", shape.c_str());
    std::exit(2);
  }
  const Dims& d = found->second;
  ModelConfig c;
  c.architecture = "llama";
  c.name = shape;
  c.n_layers = d.layers;
  c.hidden = d.hidden;
  c.n_heads = d.heads;
  c.n_kv_heads = d.kv_heads;
  c.head_dim = d.head_dim;
  c.ffn = d.ffn;
  c.vocab = 128256;
  c.context_length = 131072;
  c.rope.theta = 500000.0F;
  c.rope.rotary_dims = static_cast<std::uint32_t>(d.head_dim);
  c.rope.interleaved = true;
  for (std::int64_t i = 0; i < d.head_dim / 2; ++i) {
    c.rope.inv_freq.push_back(
        static_cast<float>(std::pow(500000.0, -2.0 * static_cast<double>(i) / static_cast<double>(d.head_dim))));
  }
  return c;
}

finchkv::model::Weights random_weights(Device& device, const ModelConfig& c) {
  namespace cuda = finchkv::kernels::cuda;
  std::uint64_t seed = 1;
  using finchkv::kernels::LinearUse;
  const auto matrix = [&](std::int64_t in, std::int64_t out, bool gated, LinearUse use = LinearUse::kEveryRow) {
    return value_or_exit(cuda::random_linear(device, in, out, gated, use, seed++, 0.02F));
  };
  const auto ones = [&](std::int64_t n) {
    Tensor t = value_or_exit(device.empty(ElementType::kF32, {n}));
    const std::vector<float> values(static_cast<std::size_t>(n), 1.0F);
    device.upload(values.data(), t);
    return t;
  };
  finchkv::model::Weights w;
  for (std::int64_t l = 0; l < c.n_layers; ++l) {
    finchkv::model::LayerWeights& layer = w.layers.emplace_back();
    layer.attention_norm = ones(c.hidden);
    layer.ffn_norm = ones(c.hidden);
    layer.qkv = matrix(c.hidden, (c.n_heads + 2 * c.n_kv_heads) * c.head_dim, false);
    layer.output = matrix(c.n_heads * c.head_dim, c.hidden, false);
    layer.gate_up = matrix(c.hidden, c.ffn, true);
    layer.down = matrix(c.ffn, c.hidden, false);
  }
  w.output_norm = ones(c.hidden);
  w.head = matrix(c.hidden, c.vocab, false, LinearUse::kFewRows);
  w.embedding = value_or_exit(cuda::random_tensor(device, device.kv_type(), c.vocab, c.hidden, seed++, 0.02F));
  return w;
}

double seconds_since(clock_type::time_point start) {
  return std::chrono::duration<double>(clock_type::now() - start).count();
}

/// Median seconds of `work`, each time waited for, after one run that does not count.
double median_seconds(Device& device, std::int64_t repeat, const std::function<void()>& work) {
  work();
  ok_or_exit(device.synchronize());
  std::vector<double> seconds;
  for (std::int64_t i = 0; i < repeat; ++i) {
    const auto start = clock_type::now();
    work();
    ok_or_exit(device.synchronize());
    seconds.push_back(seconds_since(start));
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

std::vector<TokenId> ids(std::int64_t n, std::int64_t vocab) {
  std::vector<TokenId> out;
  for (std::int64_t i = 0; i < n; ++i) out.push_back(static_cast<TokenId>((i * 7919 + 13) % (vocab - 200) + 100));
  return out;
}

/// Rows and keys of every chunk's pass.
struct Pass {
  std::int64_t rows, keys;
};
std::vector<Pass> passes_of(const Options& o) {
  std::vector<Pass> all;
  std::int64_t kept = 0;
  for (std::int64_t at = 0; at < o.doc; at += o.chunk) {
    const std::int64_t size = std::min(o.chunk, o.doc - at);
    all.push_back({size + o.prompt, kept + size + o.prompt});
    kept = std::min(kept + size, (o.keep * (at + size) + o.doc - 1) / o.doc);
  }
  return all;
}

/// FLOPs of the products and of causal attention; the last layer's rows stop after attention.
double work_of(const ModelConfig& c, const std::vector<Pass>& passes) {
  double flops = 0;
  for (const Pass& p : passes) {
    const auto rows = static_cast<double>(p.rows);
    const auto qkv = static_cast<double>(c.hidden * (c.n_heads + 2 * c.n_kv_heads) * c.head_dim);
    const auto rest = static_cast<double>(c.n_heads * c.head_dim * c.hidden + 3 * c.hidden * c.ffn);
    flops += 2 * rows * (qkv * static_cast<double>(c.n_layers) + rest * static_cast<double>(c.n_layers - 1));
    const double seen = rows * static_cast<double>(p.keys - p.rows) + rows * (rows + 1) / 2;
    flops += 4 * seen * static_cast<double>(c.n_heads * c.head_dim * c.n_layers);
  }
  return flops;
}

/// The products of all passes alone, with every layer's weights in turn.
double gemm_seconds(const Transformer& model, const std::vector<Pass>& passes) {
  Device& dev = model.device();
  const ModelConfig& c = model.config();
  const std::int64_t most = std::max_element(passes.begin(), passes.end(), [](const Pass& a, const Pass& b) {
                              return a.rows < b.rows;
                            })->rows;
  namespace cuda = finchkv::kernels::cuda;
  const ElementType a = dev.kv_type();
  const std::int64_t qkv_width = (c.n_heads + 2 * c.n_kv_heads) * c.head_dim;
  const Tensor hidden = value_or_exit(cuda::random_tensor(dev, a, most, c.hidden, 91, 1.0F));
  const Tensor attended = value_or_exit(cuda::random_tensor(dev, a, most, c.n_heads * c.head_dim, 92, 1.0F));
  const Tensor inner = value_or_exit(cuda::random_tensor(dev, a, most, c.ffn, 93, 1.0F));
  const Tensor residual = value_or_exit(cuda::random_tensor(dev, ElementType::kF32, most, c.hidden, 94, 1.0F));
  const Tensor qkv = value_or_exit(dev.empty(ElementType::kF32, {most, qkv_width}));
  return median_seconds(dev, 3, [&] {
    for (const Pass& p : passes) {
      const auto rows = [&](const Tensor& t) { return t.slice(0, 0, p.rows); };
      for (const auto& layer : model.weights().layers) {
        dev.linear(*layer.qkv, rows(hidden), rows(qkv), false);
        if (&layer == &model.weights().layers.back()) break;
        dev.linear(*layer.output, rows(attended), rows(residual), true);
        dev.linear_swiglu(*layer.gate_up, rows(hidden), rows(inner));
        dev.linear(*layer.down, rows(inner), rows(residual), true);
      }
    }
  });
}

double attention_seconds(const Transformer& model, const std::vector<Pass>& passes) {
  Device& dev = model.device();
  const ModelConfig& c = model.config();
  namespace cuda = finchkv::kernels::cuda;
  const ElementType a = dev.kv_type();
  std::int64_t rows = 0, keys = 0;
  for (const Pass& p : passes) {
    rows = std::max(rows, p.rows);
    keys = std::max(keys, p.keys);
  }
  const std::int64_t d = c.head_dim;
  const Tensor q = value_or_exit(cuda::random_tensor(dev, a, rows, c.n_heads * d, 81, 1.0F)).split_last(c.n_heads, d);
  const Tensor k = value_or_exit(cuda::random_tensor(dev, a, c.n_kv_heads, keys * d, 82, 1.0F)).split_last(keys, d);
  const Tensor v = value_or_exit(cuda::random_tensor(dev, a, c.n_kv_heads, keys * d, 83, 1.0F)).split_last(keys, d);
  const Tensor out = value_or_exit(dev.empty(a, {rows, c.n_heads, d}));
  const Tensor lse = value_or_exit(dev.empty(ElementType::kF32, {rows, c.n_heads}));
  return median_seconds(dev, 3, [&] {
    for (const Pass& p : passes) {
      for (std::int64_t l = 0; l < c.n_layers; ++l) {
        dev.attention(q.slice(0, 0, p.rows), k.slice(1, 0, p.keys), v.slice(1, 0, p.keys), model.attention_scale(),
                      out.slice(0, 0, p.rows), lse.slice(0, 0, p.rows));
      }
    }
  });
}

/// FLOP/s of an 8192^3 product in this run.
double product_rate(Device& device) {
  namespace cuda = finchkv::kernels::cuda;
  constexpr std::int64_t kSide = 8192;
  const auto w = value_or_exit(
      cuda::random_linear(device, kSide, kSide, false, finchkv::kernels::LinearUse::kEveryRow, 71, 0.02F));
  const Tensor x = value_or_exit(cuda::random_tensor(device, device.kv_type(), kSide, kSide, 72, 1.0F));
  const Tensor y = value_or_exit(device.empty(ElementType::kF32, {kSide, kSide}));
  constexpr int kTimes = 20;
  const double seconds = median_seconds(device, 3, [&] {
    for (int i = 0; i < kTimes; ++i) device.linear(*w, x, y, false);
  });
  return 2.0 * kSide * kSide * kSide * kTimes / seconds;
}

finchkv::cache_store::PutRequest put_of(const Options& o, const finchkv::KvSet& set, finchkv::DType storage) {
  finchkv::cache_store::PutRequest put;
  put.set = set;
  put.identity.document_hash = finchkv::sha256({});
  put.identity.prompt_hash = finchkv::sha256({});
  put.identity.doc_tokens = static_cast<std::uint64_t>(o.doc);
  put.identity.prompt_tokens = static_cast<std::uint64_t>(o.prompt);
  put.identity.reader = "chunks";
  put.identity.policy = o.policy;
  put.identity.keep = static_cast<std::uint64_t>(o.keep);
  put.identity.storage = storage;
  return put;
}

DecodeContext reload(const Transformer& model, finchkv::cache_store::Store& store,
                     const finchkv::cache_store::CacheId& id) {
  namespace cs = finchkv::cache_store;
  const auto entry =
      value_or_exit(store.stream(id, {.form = cs::LayerForm::kStored, .memory = model.device().host_memory()}));
  const cs::EntryInfo& info = entry->info();
  const finchkv::model::SetFrame frame{
      info.shape, info.decoded, info.identity.storage, info.key_form, info.next_position, info.rope, info.n_kept};
  return value_or_exit(DecodeContext::from_layers(
      model, frame, [&](std::uint32_t l) { return entry->take(l); }, 256));
}

/// From a store whose files are in the page cache, in several storage types: reading and checking alone, and on to the
/// device, verified.
nlohmann::ordered_json reload_from_store(const Options& o, Transformer& model, const finchkv::KvSet& set,
                                         const std::vector<TokenId>& prompt) {
  if (std::filesystem::exists(o.store)) {
    ok_or_exit(finchkv::Status::invalid_argument(o.store + " is there: name a new folder"));
  }
  const auto host = value_or_exit(finchkv::cache_store::open_rocksdb_store(o.store, {.read_threads = o.read_threads}));
  const auto view = value_or_exit(host->view({}));
  constexpr std::int64_t kTimes = 9;
  Device& device = model.device();
  nlohmann::ordered_json report;
  for (const finchkv::DType storage : {finchkv::DType::kBF16, finchkv::DType::kQ8, finchkv::DType::kQ4}) {
    const auto info = value_or_exit(view->put(put_of(o, set, storage)));
    nlohmann::ordered_json one;
    const auto begun = clock_type::now();
    static_cast<void>(reload(model, *view, info.id));
    one["first_s"] = seconds_since(begun);  // memory is page-locked
    one["read_s"] = median_seconds(device, kTimes, [&] {
      const auto entry = value_or_exit(
          view->stream(info.id, {.form = finchkv::cache_store::LayerForm::kStored, .memory = device.host_memory()}));
      for (std::uint32_t l = 0; l < info.shape.n_layers; ++l) static_cast<void>(value_or_exit(entry->take(l)));
    });
    const double whole = median_seconds(device, kTimes, [&] { static_cast<void>(reload(model, *view, info.id)); });
    one["stored_bytes"] = info.stored_bytes;
    one["to_device_s"] = whole;
    one["gb_per_s"] = static_cast<double>(info.stored_bytes) / whole / 1e9;
    one["hit_to_first_token_s"] = median_seconds(device, kTimes, [&] {
      DecodeContext context = reload(model, *view, info.id);
      static_cast<void>(value_or_exit(model.forward(prompt, context, LogitRows::kLast)));
    });
    report[std::string(finchkv::dtype_name(storage))] = std::move(one);
  }
  return report;
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--shape") o.shape = value;
    if (flag == "--policy") o.policy = value;
    if (flag == "--compute") o.compute = value;
    if (flag == "--attention") o.attention = value;
    if (flag == "--store") o.store = value;
    if (flag == "--read-threads") o.read_threads = static_cast<std::size_t>(std::atoll(value.c_str()));
    if (flag == "--doc") o.doc = std::atoll(value.c_str());
    if (flag == "--chunk") o.chunk = std::atoll(value.c_str());
    if (flag == "--keep") o.keep = std::atoll(value.c_str());
    if (flag == "--prompt") o.prompt = std::atoll(value.c_str());
    if (flag == "--repeat") o.repeat = std::atoll(value.c_str());
  }
  return o;
}

}  // namespace

int main(int argc, char** argv) {
  const Options o = parse(argc, argv);
  const ModelConfig config = config_of(o.shape);
  const std::shared_ptr<Device> device = value_or_exit(
      finchkv::kernels::make_cuda_device({.eight_bits = o.compute == "fp8", .cudnn = o.attention != "own"}));
  namespace cuda = finchkv::kernels::cuda;
  nlohmann::ordered_json report;
  report["device"] = device->description();
  report["shape"] = o.shape;
  report["policy"] = o.policy;
  report["doc_tokens"] = o.doc;
  report["chunk"] = o.chunk;
  report["keep"] = o.keep;
  report["prompt_tokens"] = o.prompt;
  const double rate = product_rate(*device);
  const auto model = value_or_exit(Transformer::create(config, random_weights(*device, config), device));
  ok_or_exit(device->synchronize());

  const auto document = ids(o.doc, config.vocab), prompt = ids(o.prompt, config.vocab);
  finchkv::compressor::ReadRequest request;
  request.document = document;
  request.prompt = prompt;
  request.policy = o.policy;
  request.keep = o.keep;
  request.chunk = o.chunk;
  const auto plan = value_or_exit(finchkv::compressor::resolve_plan(request, config));
  finchkv::KvSet set;
  std::vector<double> compress, whole;
  cuda::reset_peak(*device);
  const auto weight_bytes = cuda::peak_bytes(*device);
  for (std::int64_t i = 0; i <= o.repeat; ++i) {
    const auto start = clock_type::now();
    double on_device = 0;
    set = value_or_exit(finchkv::compressor::read_document(plan, *model, [&](std::int64_t read, std::int64_t total) {
            if (read == total) on_device = seconds_since(start);  // every pass ends with a wait
            return true;
          })).set;
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
  report["decode_step_s"] = median_seconds(*device, 50, [&] {
    static_cast<void>(value_or_exit(model->forward({&id, 1}, context, LogitRows::kLast)));
  });
  constexpr int kClients = 16;
  std::vector<DecodeContext> clients;
  std::vector<DecodeContext*> members;
  for (int i = 0; i < kClients; ++i) clients.push_back(value_or_exit(DecodeContext::from_set(*model, set, 64)));
  for (DecodeContext& client : clients) members.push_back(&client);
  const std::vector<TokenId> steps(kClients, id);
  report["decode_step_of_16_s"] = median_seconds(*device, 20, [&] {
    finchkv::model::DecodeBatch batch(*model, members);
    static_cast<void>(value_or_exit(model->forward(steps, batch, LogitRows::kAll)));
  });
  report["tokens_per_s_of_16_over_1"] =
      kClients * report["decode_step_s"].get<double>() / report["decode_step_of_16_s"].get<double>();
  std::printf("%s\n", report.dump(1).c_str());
  return 0;
}
