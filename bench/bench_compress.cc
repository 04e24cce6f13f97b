// Compression, decoding and reload at a large model's shape on a GPU, with random weights made there.
//
// usage: bench_compress [--shape llama-3.1-8b] [--doc 32768] [--chunk 4096] [--keep 2048] [--prompt 64]
//                       [--policy finch] [--compute bf16|fp8] [--attention cudnn|own] [--repeat 3] [--store DIR]
//                       [--lengths 31000,30011] [--profile-after N] [--read-threads 15] [--help]
//        bench_compress --documents N [--doc L] [--mixed] [--rows 8192] ...
// Prints one JSON object. `gemm_s` and `attention_s` are what this run's own product calls (SwiGLU with them) and
// attention calls of the same shapes take alone, with every layer's weights in turn; `floor_s` is the matrix work at
// the rate of a large product of this run. Run it beside the peer script and compare ratios. With --store the set also
// goes into a store in DIR, a folder that is made and removed, and from there to the device, verified. --lengths reads
// documents of these lengths, each twice: what a length that was never seen costs. With --documents N, one document of
// N * L tokens is compared with N documents of L tokens read together (--mixed: of L / N to 2 L), each keeping its
// share of --keep, up to --rows rows in a pass; nothing else is measured then.
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

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "bench/compress_profile.h"
#include "cache_store/rocksdb_store.h"
#include "compressor/batch_reader.h"
#include "compressor/reader.h"
#include "kernels/cuda/cuda_device.h"
#include "model/decode_batch.h"
#include "model/decode_context.h"
#include "model/transformer.h"
#include "model/weights.h"

namespace {

using finchkv::kernels::Device;
using finchkv::kernels::ElementType;
using finchkv::kernels::NumericClass;
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
  std::vector<std::int64_t> lengths;
  std::int64_t doc = 32768, chunk = 4096, keep = 2048, prompt = 64, repeat = 3;
  std::int64_t profile_after = 0;  ///< 0: measure
  std::optional<std::size_t> read_threads;
  std::int64_t documents = 0, rows = finchkv::compressor::BatchOptions{}.rows;
  bool mixed = false;
};

NumericClass class_of(const std::string& compute) {
  return compute == "fp8" ? NumericClass::kFp8 : NumericClass::kFast;
}

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

/// Seconds of reading all plans together, sets on the host included: the first time, then the median of `repeat`.
std::pair<double, double> seconds_together(const std::vector<finchkv::compressor::Plan>& plans, Transformer& model,
                                           const Options& o) {
  const auto once = [&] {
    const auto start = clock_type::now();
    finchkv::compressor::read_documents(
        plans, model, {.rows = o.rows},
        [](std::size_t, const finchkv::Result<finchkv::compressor::ReadResult>& r) { ok_or_exit(r.status()); });
    return seconds_since(start);
  };
  const double first = once();
  std::vector<double> seconds;
  for (std::int64_t i = 0; i < std::max<std::int64_t>(1, o.repeat); ++i) seconds.push_back(once());
  std::sort(seconds.begin(), seconds.end());
  return {first, seconds[seconds.size() / 2]};
}

/// One long document, then its tokens as many documents together.
void compare_documents(const Options& o, Transformer& model, nlohmann::ordered_json& report) {
  const std::int64_t all = std::max<std::int64_t>(1, o.documents * o.doc), vocab = model.config().vocab;
  const auto tokens = ids(all, vocab), prompt = ids(o.prompt, vocab);
  const auto plan_of = [&](std::int64_t first, std::int64_t n) {
    finchkv::compressor::ReadRequest request;
    request.document = std::span(tokens).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n));
    request.prompt = prompt;
    request.policy = o.policy;
    request.keep = std::max<std::int64_t>(1, o.keep * n / all);
    request.chunk = o.chunk;
    return value_or_exit(finchkv::compressor::resolve_plan(request, model.config()));
  };
  std::vector<finchkv::compressor::Plan> many;
  for (std::int64_t i = 0, first = 0; i < o.documents; ++i) {
    const std::int64_t n = o.mixed ? (2 * i + 1) * o.doc / o.documents : o.doc;
    if (n == 0) continue;
    many.push_back(plan_of(first, n));
    first += n;
  }
  std::int64_t read = 0;
  for (const auto& plan : many) read += static_cast<std::int64_t>(plan.document.size());
  namespace cuda = finchkv::kernels::cuda;
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
    for (const auto& plan : many) static_cast<void>(value_or_exit(finchkv::compressor::read_document(plan, model)));
    return seconds_since(start);
  }();
  report["peak_above_gb"] = static_cast<double>(cuda::peak_bytes(model.device()) - before) / 1e9;
}

/// Seconds from the start to the last pass's end.
double read_seconds(Transformer& model, const finchkv::compressor::Plan& plan, finchkv::KvSet& set) {
  const auto start = clock_type::now();
  double on_device = 0;
  set = value_or_exit(finchkv::compressor::read_document(plan, model, [&](std::int64_t read, std::int64_t total) {
          if (read == total) on_device = seconds_since(start);  // every pass ends with a wait
          return true;
        })).set;
  return on_device;
}

/// Documents of lengths not seen before, each read twice.
nlohmann::ordered_json read_lengths(const Options& o, Transformer& model, finchkv::compressor::ReadRequest request) {
  auto all = nlohmann::ordered_json::array();
  for (const std::int64_t length : o.lengths) {
    const auto document = ids(length, model.config().vocab);
    request.document = document;
    const auto plan = value_or_exit(finchkv::compressor::resolve_plan(request, model.config()));
    finchkv::KvSet set;
    const double first = read_seconds(model, plan, set), again = read_seconds(model, plan, set);
    all.push_back(
        {{"doc_tokens", length}, {"first_s", first}, {"again_s", again}, {"first_over_again", first / again}});
  }
  return all;
}

constexpr char kAbout[] =
    "Compression, decoding and reload at a large model's shape on a GPU, with random weights made there; prints one\n"
    "JSON object. Shapes: llama-3.1-8b, llama-3.2-1b, and llama-3.1-70b-per-gpu, what one of eight GPUs holds that "
    "share\n"
    "a 70B model: all 80 layers, of every matrix an eighth (8 of 64 heads, 1 of 8 KV heads, 3584 of 28672 inner "
    "values),\n"
    "the table of tokens and the output head whole, without the exchange between them.";

/// Ends the program where there is nothing to run: --help, or a flag or value that is wrong.
Options parse(int argc, char** argv) {
  Options o;
  const auto& any = CLI::PositiveNumber;
  CLI::App app(kAbout, "bench_compress");
  app.get_formatter()->column_width(24);
  app.option_defaults()->always_capture_default();
  app.add_option("--shape", o.shape, "The model's shape")->type_name("NAME");
  app.add_option("--doc", o.doc, "Tokens of the document")->type_name("N")->check(any);
  app.add_option("--chunk", o.chunk, "Document tokens read at a time")->type_name("M")->check(any);
  app.add_option("--keep", o.keep, "Entries kept in every layer")->type_name("N")->check(any);
  app.add_option("--prompt", o.prompt, "Tokens of the prompt")->type_name("N")->check(any);
  app.add_option("--policy", o.policy, "How entries are chosen")->type_name("NAME");
  app.add_option("--compute", o.compute, "Arithmetic")->type_name("NAME")->check(CLI::IsMember({"bf16", "fp8"}));
  app.add_option("--attention", o.attention, "Whose attention: cuDNN's, or our own kernels alone")
      ->type_name("NAME")
      ->check(CLI::IsMember({"cudnn", "own"}));
  app.add_option("--repeat", o.repeat, "Compressions that are measured, after one that is not")
      ->type_name("N")
      ->check(any);
  app.add_option("--store", o.store, "Also reload from a store in this folder, which is made and removed")
      ->type_name("DIR");
  app.add_option("--documents", o.documents, "Compare one document with so many of --doc tokens read together")
      ->type_name("N")
      ->check(any);
  app.add_flag("--mixed", o.mixed, "Those documents have different lengths");
  app.add_option("--rows", o.rows, "Rows of a pass over several documents")->type_name("N")->check(any);
  app.add_option("--lengths", o.lengths, "Also documents of these lengths, each read twice")
      ->type_name("N,N,...")
      ->delimiter(',');
  app.add_option("--read-threads", o.read_threads,
                 "Threads that read from the store; the store's own choice if not given")
      ->type_name("N")
      ->check(any);
  app.add_option("--profile-after", o.profile_after,
                 "Only mark the chunk after so many others for a profiler (bench/compress_profile.h)")
      ->type_name("N")
      ->check(any);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : 2);
  }
  return o;
}

}  // namespace

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
