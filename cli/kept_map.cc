#include "cli/kept_map.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <fmt/format.h>

namespace finchkv::cli {
namespace {

constexpr std::array<std::string_view, kShades> kBlocks = {" ", "░", "▒", "▓", "█"};
constexpr std::array<std::string_view, kShades> kAscii = {" ", ".", "-", "+", "#"};
/// Above this average, cells are shaded by quarters of all tokens: a multiple of the average says nothing there.
constexpr double kMostKept = 0.4;
constexpr std::size_t kSmallestWidth = 16;

std::size_t label_width(std::size_t n_layers) {
  const std::size_t last = n_layers == 0 ? 0 : n_layers - 1;
  return std::max<std::size_t>(3, std::to_string(last).size());  // "all" stands there too
}

std::string scale_line(const KeptMap& map, std::size_t indent) {
  // Round steps, so many that the numbers do not touch.
  const std::size_t number = std::to_string(map.doc_tokens).size() + 2;
  const std::size_t most = std::max<std::size_t>(1, map.columns / (number + 4));
  const std::uint64_t step = round_step(map.doc_tokens, most);
  std::string line(indent + map.columns + number, ' ');
  for (std::size_t column = 0; column < map.columns; ++column) {
    const std::uint64_t first = map.first_token(column);
    const std::uint64_t after = map.first_token(column + 1);
    const std::uint64_t tick = (first + step - 1) / step * step;
    if (tick >= after) continue;
    const std::string text = fmt::format("|{}", tick);
    line.replace(indent + column, text.size(), text);
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

std::string legend(const KeptMap& map, const std::array<std::string_view, kShades>& marks) {
  std::string text;
  for (int shade = 1; shade < kShades; ++shade) {
    if (!text.empty()) text += ", ";
    text += fmt::format("{} {}", marks[static_cast<std::size_t>(shade)], shade_meaning(shade, map.average));
  }
  return text;
}

}  // namespace

std::uint64_t KeptMap::first_token(std::size_t column) const {
  const auto product = static_cast<unsigned __int128>(doc_tokens) * column;
  return static_cast<std::uint64_t>(product / columns);
}

Result<KeptMap> make_kept_map(const LayerOrigins& origins, std::uint32_t rows, std::uint64_t doc_tokens,
                              std::size_t columns) {
  if (doc_tokens == 0 || columns == 0 || rows == 0 || origins.empty()) {
    return Status::invalid_argument("a map needs a document, layers and columns");
  }
  KeptMap map;
  map.doc_tokens = doc_tokens;
  map.columns = static_cast<std::size_t>(std::min<std::uint64_t>(columns, doc_tokens));
  map.all_layers.assign(map.columns, 0);
  const auto column_of = [&](std::uint32_t origin) {
    // first_token() rounds down, so the column of a token is found from above.
    auto column = static_cast<std::size_t>(static_cast<unsigned __int128>(origin) * map.columns / doc_tokens);
    if (column + 1 < map.columns && map.first_token(column + 1) <= origin) ++column;
    return column;
  };
  const auto n_layers = static_cast<double>(origins.size());
  double kept = 0;
  for (const auto& layer : origins) {
    std::vector<double> cells(map.columns, 0);
    for (const std::uint32_t origin : layer) {
      if (origin >= doc_tokens) {
        return Status::corrupt(
            fmt::format("an entry says it comes from token {}, but the document has {}", origin, doc_tokens));
      }
      cells[column_of(origin)] += 1;
    }
    kept += static_cast<double>(layer.size());
    for (std::size_t c = 0; c < map.columns; ++c) {
      const auto tokens = static_cast<double>(map.first_token(c + 1) - map.first_token(c));
      cells[c] /= tokens * rows;
      map.all_layers[c] += cells[c] / n_layers;
    }
    map.cells.push_back(std::move(cells));
  }
  map.average = kept / (n_layers * rows * static_cast<double>(doc_tokens));
  return map;
}

int shade_of(double share, double average) {
  if (share <= 0) return 0;
  if (average >= kMostKept) return share > 0.75 ? 4 : share > 0.5 ? 3 : share > 0.25 ? 2 : 1;
  const double times = share / average;
  return times >= 3 ? 4 : times >= 1.5 ? 3 : times >= 0.5 ? 2 : 1;
}

std::string shade_meaning(int shade, double average) {
  constexpr std::array<std::string_view, kShades> kTimes = {"nothing", "less than half the average",
                                                            "about the average", "1.5 to 3 times", "more"};
  constexpr std::array<std::string_view, kShades> kQuarters = {"nothing", "up to a quarter", "to a half",
                                                               "to three quarters", "more"};
  const auto i = static_cast<std::size_t>(std::clamp(shade, 0, kShades - 1));
  return std::string(average >= kMostKept ? kQuarters[i] : kTimes[i]);
}

Result<std::vector<std::uint32_t>> count_kept(const LayerOrigins& origins, std::uint64_t doc_tokens) {
  std::vector<std::uint32_t> counts(doc_tokens, 0);
  for (const auto& layer : origins) {
    for (const std::uint32_t origin : layer) {
      if (origin >= doc_tokens) {
        return Status::corrupt(
            fmt::format("an entry says it comes from token {}, but the document has {}", origin, doc_tokens));
      }
      ++counts[origin];
    }
  }
  return counts;
}

std::uint64_t round_step(std::uint64_t doc_tokens, std::uint64_t most) {
  std::uint64_t step = 1;
  for (int i = 0; doc_tokens / step > most; ++i) step = i % 3 == 1 ? step / 2 * 5 : step * 2;
  return step;
}

std::size_t map_columns(const MapStyle& style, std::size_t n_layers) {
  const std::size_t frame = label_width(n_layers) + 1 + 2;
  return std::max(style.width, frame + kSmallestWidth) - frame;
}

std::string draw_kept_map(const KeptMap& map, const MapStyle& style) {
  const auto& marks = style.ascii ? kAscii : kBlocks;
  const std::string_view side = style.ascii ? "|" : "│";
  const std::size_t indent = label_width(map.cells.size());
  std::string out;
  const auto draw_row = [&](const std::string& label, const std::vector<double>& cells) {
    out += fmt::format("{:>{}} {}", label, indent, side);
    for (const double share : cells) out += marks[static_cast<std::size_t>(shade_of(share, map.average))];
    out += side;
    out += '\n';
  };
  for (std::size_t layer = 0; layer < map.cells.size(); ++layer) draw_row(std::to_string(layer), map.cells[layer]);
  draw_row("all", map.all_layers);
  out += scale_line(map, indent + 2) + "\n";
  out += fmt::format("rows: layers; columns: {:.4g} document tokens each; on average {:.1f}% of the tokens are kept\n",
                     static_cast<double>(map.doc_tokens) / static_cast<double>(map.columns), map.average * 100);
  out += legend(map, marks) + "\n";
  return out;
}

}  // namespace finchkv::cli
