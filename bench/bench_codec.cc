// How fast one core turns KV tensors into their stored form and back: quantised layouts, conversions, origins, zstd.
//
// usage: bench_codec [Google Benchmark's flags]
// Rates count the tensor's bytes in memory (bf16 where nothing else is said), whatever is written: what a reload or a
// put of that much cache costs. `plain_copy` is memcpy of the same tensor, the floor.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/dtype_ops.h"
#include "base/quantised.h"
#include "cache_store/block_compression.h"
#include "cache_store/origin_codec.h"

namespace {

namespace cache_store = finchkv::cache_store;
using finchkv::all_elements_finite;
using finchkv::convert_elements;
using finchkv::convert_from_f32;
using finchkv::dequantise;
using finchkv::DType;
using finchkv::dtype_name;
using finchkv::dtype_ops_tables;
using finchkv::DTypeOps;
using finchkv::element_bytes;
using finchkv::GroupAxis;
using finchkv::is_quantised;
using finchkv::quantise;
using finchkv::quantised_bytes;
using finchkv::QuantisedShape;
using finchkv::Status;

constexpr std::uint64_t kHeads = 8;

void stop(const Status& status) {
  if (status.is_ok()) return;
  std::fprintf(stderr, "bench_codec: %s\n", status.message().c_str());
  std::exit(1);
}

// Numbers spread like keys and values: normal, a scale per channel.
std::vector<std::byte> tensor(DType dtype, const QuantisedShape& shape) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.1F, 1.0F);
  std::vector<float> wide(shape.heads * shape.tokens * shape.channels);
  for (std::size_t i = 0; i < wide.size(); ++i) {
    wide[i] = normal(random) * static_cast<float>(1 + i % shape.channels % 7);
  }
  std::vector<std::byte> out(wide.size() * element_bytes(dtype));
  convert_from_f32(dtype, wide.data(), out.data(), wide.size());
  return out;
}

void set_rate(benchmark::State& state, std::size_t bytes) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

struct Case {
  DType dtype;
  DType layout;
  GroupAxis axis;
};

void encode(benchmark::State& state, Case one) {
  const QuantisedShape shape{kHeads, static_cast<std::uint64_t>(state.range(1)),
                             static_cast<std::uint64_t>(state.range(0))};
  const auto in = tensor(one.dtype, shape);
  std::vector<std::byte> out(*quantised_bytes(one.layout, one.axis, shape));
  for (auto _ : state) {
    stop(quantise(one.layout, one.axis, shape, one.dtype, in, out));
    benchmark::DoNotOptimize(out.data());
  }
  set_rate(state, in.size());
}

void decode(benchmark::State& state, Case one) {
  const QuantisedShape shape{kHeads, static_cast<std::uint64_t>(state.range(1)),
                             static_cast<std::uint64_t>(state.range(0))};
  auto numbers = tensor(one.dtype, shape);
  std::vector<std::byte> stored(*quantised_bytes(one.layout, one.axis, shape));
  stop(quantise(one.layout, one.axis, shape, one.dtype, numbers, stored));
  for (auto _ : state) {
    stop(dequantise(one.layout, one.axis, shape, stored, one.dtype, numbers));
    benchmark::DoNotOptimize(numbers.data());
  }
  set_rate(state, numbers.size());
}

// One head at a time through the loops of one instruction set.
void transcode(benchmark::State& state, const DTypeOps* ops, bool decoding, int layout, int axis) {
  const DType stored_as = layout == finchkv::kLayoutQ8 ? DType::kQ8 : DType::kQ4;
  const GroupAxis group_axis = axis == finchkv::kAxisTokens ? GroupAxis::kTokens : GroupAxis::kChannels;
  const QuantisedShape shape{1, 512, 128};
  auto numbers = tensor(DType::kBF16, shape);
  std::vector<std::byte> stored(*quantised_bytes(stored_as, group_axis, shape));
  const auto encode_head = ops->encode[finchkv::kElementBF16][layout][axis];
  const auto decode_head = ops->decode[finchkv::kElementBF16][layout][axis];
  encode_head(numbers.data(), shape.tokens, shape.channels, stored.data());
  for (auto _ : state) {
    if (decoding) {
      decode_head(stored.data(), shape.tokens, shape.channels, numbers.data());
    } else {
      encode_head(numbers.data(), shape.tokens, shape.channels, stored.data());
    }
    benchmark::ClobberMemory();
  }
  set_rate(state, numbers.size());
}

void plain_copy(benchmark::State& state) {
  const auto in = tensor(
      DType::kBF16, {kHeads, static_cast<std::uint64_t>(state.range(1)), static_cast<std::uint64_t>(state.range(0))});
  std::vector<std::byte> out(in.size());
  for (auto _ : state) {
    std::memcpy(out.data(), in.data(), in.size());
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
  }
  set_rate(state, in.size());
}

void convert(benchmark::State& state, DType from, DType to) {
  const auto in = tensor(from, {kHeads, 512, 128});
  const std::size_t count = in.size() / element_bytes(from);
  std::vector<std::byte> out(count * element_bytes(to));
  for (auto _ : state) {
    convert_elements(from, in.data(), to, out.data(), count);
    benchmark::DoNotOptimize(out.data());
  }
  set_rate(state, count * 2);
}

void finite(benchmark::State& state, DType dtype) {
  const auto in = tensor(dtype, {kHeads, 512, 128});
  for (auto _ : state) benchmark::DoNotOptimize(all_elements_finite(dtype, in));
  set_rate(state, in.size());
}

// `ratio` document tokens for every kept one, chosen at random; 1 keeps everything. items_per_second counts origins.
std::vector<std::uint32_t> origins(std::int64_t rows, std::int64_t kept, std::int64_t ratio) {
  std::mt19937 random(3);
  std::vector<std::uint32_t> out;
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t wanted = kept;
    for (std::int64_t token = 0; wanted > 0; ++token) {
      if (static_cast<std::int64_t>(random()) % (kept * ratio - token) >= wanted) continue;
      out.push_back(static_cast<std::uint32_t>(token));
      --wanted;
    }
  }
  return out;
}

void origins_round(benchmark::State& state, bool decoding) {
  const std::int64_t kept = 4096;
  const auto list = origins(kHeads, kept, state.range(0));
  const auto limit = static_cast<std::uint64_t>(kept * state.range(0));
  auto stored = cache_store::encode_origins(list, kHeads, limit);
  stop(stored.status());
  std::vector<std::uint32_t> out(list.size());
  for (auto _ : state) {
    if (decoding) {
      stop(cache_store::decode_origins(*stored, kHeads, limit, out));
    } else {
      stored = cache_store::encode_origins(list, kHeads, limit);
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(list.size()));
  state.counters["bytes_per_origin"] = static_cast<double>(stored->size()) / static_cast<double>(list.size());
}

// A block of keys; rates count its bytes before zstd. Where it does not shrink, encoding is the time it takes to see
// so.
void zstd_round(benchmark::State& state, DType layout, bool decoding) {
  const QuantisedShape shape{kHeads, 1024, 128};
  const auto numbers = tensor(DType::kBF16, shape);
  std::vector<std::byte> block = numbers;
  if (is_quantised(layout)) {
    block.resize(*quantised_bytes(layout, GroupAxis::kTokens, shape));
    stop(quantise(layout, GroupAxis::kTokens, shape, DType::kBF16, numbers, block));
  }
  const int level = static_cast<int>(state.range(0));
  auto stored = cache_store::compress_block(block, level);
  if (decoding && !stored) return state.SkipWithError("the block does not shrink");
  for (auto _ : state) {
    if (decoding) {
      stop(cache_store::decompress_block(*stored, block));
    } else {
      stored = cache_store::compress_block(block, level);
    }
    benchmark::ClobberMemory();
  }
  set_rate(state, block.size());
  state.counters["ratio"] = stored ? static_cast<double>(stored->size()) / static_cast<double>(block.size()) : 1.0;
}

std::string name_of(const char* verb, const Case& one) {
  return std::string(verb) + "/" + std::string(dtype_name(one.layout)) +
         (one.axis == GroupAxis::kTokens ? "/keys/" : "/values/") + std::string(dtype_name(one.dtype));
}

void register_all() {
  benchmark::RegisterBenchmark("plain_copy", plain_copy)->ArgsProduct({{128}, {64, 4096}})->ArgNames({"dim", "kept"});
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    for (const DType layout : {DType::kQ8, DType::kQ4}) {
      for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
        const Case one{dtype, layout, axis};
        const std::vector<std::int64_t> kept =
            dtype == DType::kBF16 ? std::vector<std::int64_t>{64, 512, 4096} : std::vector<std::int64_t>{512};
        benchmark::RegisterBenchmark(name_of("encode", one).c_str(), encode, one)
            ->ArgsProduct({{64, 128}, kept})
            ->ArgNames({"dim", "kept"});
        benchmark::RegisterBenchmark(name_of("decode", one).c_str(), decode, one)
            ->ArgsProduct({{64, 128}, kept})
            ->ArgNames({"dim", "kept"});
      }
    }
  }
  int count = 0;
  const DTypeOps* const* tables = dtype_ops_tables(&count);
  for (int i = 0; i < count; ++i) {
    for (const bool decoding : {false, true}) {
      for (const int layout : {finchkv::kLayoutQ8, finchkv::kLayoutQ4}) {
        for (const int axis : {finchkv::kAxisTokens, finchkv::kAxisChannels}) {
          const std::string name = std::string("loops/") + tables[i]->name + (decoding ? "/decode" : "/encode") +
                                   (layout == finchkv::kLayoutQ8 ? "/q8" : "/q4") +
                                   (axis == finchkv::kAxisTokens ? "/keys" : "/values");
          benchmark::RegisterBenchmark(name.c_str(), transcode, tables[i], decoding, layout, axis);
        }
      }
    }
  }
  benchmark::RegisterBenchmark("convert/f32_to_bf16", convert, DType::kF32, DType::kBF16);
  benchmark::RegisterBenchmark("convert/bf16_to_f32", convert, DType::kBF16, DType::kF32);
  benchmark::RegisterBenchmark("convert/f32_to_f16", convert, DType::kF32, DType::kF16);
  benchmark::RegisterBenchmark("convert/f16_to_bf16", convert, DType::kF16, DType::kBF16);
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    benchmark::RegisterBenchmark(("all_finite/" + std::string(dtype_name(dtype))).c_str(), finite, dtype);
  }
  for (const bool decoding : {false, true}) {
    const std::string verb = decoding ? "decode" : "encode";
    benchmark::RegisterBenchmark((verb + "/origins").c_str(), origins_round, decoding)
        ->ArgsProduct({{1, 16, 1000}})
        ->ArgNames({"ratio"});
    for (const DType layout : {DType::kBF16, DType::kQ8, DType::kQ4}) {
      if (decoding && is_quantised(layout)) continue;  // these numbers do not shrink once quantised
      benchmark::RegisterBenchmark((verb + "/zstd/" + std::string(dtype_name(layout))).c_str(), zstd_round, layout,
                                   decoding)
          ->ArgsProduct({{1, 3}})
          ->ArgNames({"level"});
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  register_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
