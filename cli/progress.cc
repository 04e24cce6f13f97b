#include "cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include <fmt/format.h>

#include "cli/output.h"

namespace finchkv::cli {
namespace {

constexpr auto kBetweenLines = std::chrono::seconds(2);

struct Pace {
  double tokens_per_s = 0;
  std::string left;
};

Pace pace_of(std::int64_t read, std::int64_t total, double seconds) {
  Pace pace;
  if (seconds <= 0 || read <= 0) return pace;
  pace.tokens_per_s = static_cast<double>(read) / seconds;
  pace.left = format_ms(static_cast<double>(total - read) / pace.tokens_per_s * 1000);
  return pace;
}

std::string bar(std::int64_t read, std::int64_t total) {
  constexpr std::int64_t kCells = 24;
  const std::int64_t full = total > 0 ? std::min(kCells, read * kCells / total) : 0;
  const bool utf8 = locale_is_utf8();
  std::string cells;
  for (std::int64_t i = 0; i < kCells; ++i) cells += i < full ? (utf8 ? "█" : "#") : (utf8 ? "░" : ".");
  return cells;
}

}  // namespace

ReadingProgress::ReadingProgress(bool quiet)
    : quiet_(quiet),
      terminal_(is_terminal(STDERR_FILENO)),
      start_(std::chrono::steady_clock::now()),
      last_line_(start_) {}

void ReadingProgress::update(std::int64_t read, std::int64_t total) {
  if (quiet_) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  if (terminal_) {
    draw_bar(read, total, seconds);
  } else {
    print_line(read, total, seconds);
  }
}

void ReadingProgress::draw_bar(std::int64_t read, std::int64_t total, double seconds) {
  const Pace pace = pace_of(read, total, seconds);
  const std::string line = fmt::format("reading {} {}/{} tokens, {:.0f} tokens/s, {} left", bar(read, total),
                                       format_count(static_cast<std::uint64_t>(read)),
                                       format_count(static_cast<std::uint64_t>(total)), pace.tokens_per_s, pace.left);
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void ReadingProgress::print_line(std::int64_t read, std::int64_t total, double seconds) {
  const auto now = std::chrono::steady_clock::now();
  const std::int64_t quarters = total > 0 ? read * 4 / total : 0;
  // The end has a line of its own: the summary.
  if (quarters <= quarters_told_ || quarters >= 4 || now - last_line_ < kBetweenLines) return;
  quarters_told_ = quarters;
  last_line_ = now;
  const Pace pace = pace_of(read, total, seconds);
  print_note(fmt::format("read {} of {} tokens ({:.0f} tokens/s, {} left)", read, total, pace.tokens_per_s, pace.left));
}

void ReadingProgress::finish() {
  if (!drawn_) return;
  std::fprintf(stderr, "\r\033[K");
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace finchkv::cli
