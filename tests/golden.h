// Reading reference results: tests/data/NAME/golden.json and tensors.safetensors (scripts/import_golden.py makes them).
#pragma once

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "kernels/device.h"
#include "model/model.h"
#include "tests/test_data.h"

namespace finchkv::testing {

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

struct Golden {
  nlohmann::json json;
  std::map<std::string, std::vector<float>> arrays;
};

inline Golden load_golden(const std::string& name) {
  Golden g;
  g.json = nlohmann::json::parse(read_file(data_path(name + "/golden.json")));
  const std::string raw = read_file(data_path(name + "/tensors.safetensors"));
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, raw.data(), sizeof(header_bytes));
  const auto header = nlohmann::json::parse(raw.substr(8, header_bytes));
  for (const auto& [key, entry] : header.items()) {
    const std::size_t begin = entry["data_offsets"][0];
    const std::size_t end = entry["data_offsets"][1];
    std::vector<float>& values = g.arrays[key];
    values.resize((end - begin) / sizeof(float));
    std::memcpy(values.data(), raw.data() + 8 + header_bytes + begin, end - begin);
  }
  return g;
}

inline std::shared_ptr<kernels::Device> cpu(kernels::NumericClass numeric, int threads = 2) {
  kernels::CpuOptions options;
  options.numeric_class = numeric;
  options.threads = threads;
  auto device = kernels::make_cpu_device(options);
  return device.is_ok() ? std::shared_ptr<kernels::Device>(*std::move(device)) : nullptr;
}

/// The device that tests run on by this name, "cpu" or "cuda"; nullptr where there is no such processor.
inline std::shared_ptr<kernels::Device> device_named(const std::string& kind, kernels::NumericClass numeric) {
  if (kind == "cpu") return cpu(numeric);
  auto device = kernels::make_cuda_device({.numeric_class = numeric, .ordinal = 0, .threads = 2});
  return device.is_ok() ? std::shared_ptr<kernels::Device>(*std::move(device)) : nullptr;
}

/// A model with its weights on `device`; nullptr (and a message) when it does not load.
inline std::unique_ptr<model::Model> load_model(const std::string& path, std::shared_ptr<kernels::Device> device) {
  auto opened = model::Model::open(path, {});
  if (!opened.is_ok()) {
    std::fprintf(stderr, "%s\n", opened.status().to_string().c_str());
    return nullptr;
  }
  const Status loaded = (*opened)->load_weights(std::move(device));
  if (!loaded.is_ok()) {
    std::fprintf(stderr, "%s\n", loaded.to_string().c_str());
    return nullptr;
  }
  return *std::move(opened);
}

/// The same on a CPU device.
inline std::unique_ptr<model::Model> load_model(const std::string& path, kernels::NumericClass numeric,
                                                int threads = 2) {
  return load_model(path, cpu(numeric, threads));
}

inline float largest_difference(std::span<const float> a, std::span<const float> b) {
  float most = a.size() == b.size() ? 0.0F : INFINITY;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i)
    most = std::isnan(a[i]) ? INFINITY : std::max(most, std::abs(a[i] - b[i]));
  return most;
}

/// Kept origins of a set as [layer][row][entry].
inline std::vector<std::vector<std::vector<std::uint32_t>>> origins_of(const KvSet& set) {
  std::vector<std::vector<std::vector<std::uint32_t>>> out;
  for (const KvLayer& layer : set.layers) {
    auto& rows = out.emplace_back();
    for (std::uint32_t r = 0; r < set.shape.origin_rows; ++r) {
      const auto row = layer.origins.subspan(std::size_t{r} * layer.n_kept, layer.n_kept);
      rows.emplace_back(row.begin(), row.end());
    }
  }
  return out;
}

/// Names of tests over devices: "cpu", "cuda".
inline std::string device_test_name(const std::string& device, const std::string& rest = "") {
  std::string name = device + (rest.empty() ? "" : "_" + rest);
  for (char& c : name) {
    if (c == '-') c = '_';
  }
  return name;
}

}  // namespace finchkv::testing

/// The device of this name, or a test that is skipped with a sentence.
#define FINCHKV_REQUIRE_DEVICE(var, kind, numeric)                  \
  const auto var = ::finchkv::testing::device_named(kind, numeric); \
  if (var == nullptr) GTEST_SKIP() << "there is no usable NVIDIA GPU here"
