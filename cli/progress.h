// Progress of a reading on standard error: a bar on a terminal, a few plain lines elsewhere, nothing when quiet.
#pragma once

#include <chrono>
#include <cstdint>

namespace finchkv::cli {

class ReadingProgress {
 public:
  explicit ReadingProgress(bool quiet);
  ~ReadingProgress() { finish(); }
  ReadingProgress(const ReadingProgress&) = delete;
  ReadingProgress& operator=(const ReadingProgress&) = delete;

  void update(std::int64_t read, std::int64_t total);
  /// Takes the bar off the screen.
  void finish();

 private:
  void draw_bar(std::int64_t read, std::int64_t total, double seconds);
  void print_line(std::int64_t read, std::int64_t total, double seconds);

  bool quiet_;
  bool terminal_;
  bool drawn_ = false;
  std::int64_t quarters_told_ = 0;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_line_;
};

}  // namespace finchkv::cli
