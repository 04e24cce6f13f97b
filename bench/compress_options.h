// What bench_compress is asked for.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "bench/compress_common.h"
#include "compressor/batch_reader.h"

namespace finchkv::bench {

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
  std::int64_t documents = 0, rows = compressor::BatchOptions{}.rows;
  bool mixed = false;
};

inline NumericClass class_of(const std::string& compute) {
  return compute == "fp8" ? NumericClass::kFp8 : NumericClass::kFast;
}

inline constexpr char kAbout[] =
    "Compression, decoding and reload at a large model's shape on a GPU, with random weights made there; prints one\n"
    "JSON object. Shapes: llama-3.1-8b, llama-3.2-1b, and llama-3.1-70b-per-gpu, what one of eight GPUs holds that "
    "share\n"
    "a 70B model: all 80 layers, of every matrix an eighth (8 of 64 heads, 1 of 8 KV heads, 3584 of 28672 inner "
    "values),\n"
    "the table of tokens and the output head whole, without the exchange between them.";

/// Ends the program where there is nothing to run: --help, or a flag or value that is wrong.
inline Options parse(int argc, char** argv) {
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
  app.add_option("--attention", o.attention,
                 "Attention where our kernel for Hopper does not serve: cuDNN's, or our other kernels'")
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

}  // namespace finchkv::bench
