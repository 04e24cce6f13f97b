// KeptMap: where in the document each layer's kept entries lie, as a picture of layers by stretches of the document.
//
// A cell is the share of its stretch's tokens that its layer kept (per KV head where heads choose for themselves), from
// 0 to 1. Drawing shades a cell against the average share, because at 64x every share is small. Pure, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace finchkv::cli {

/// Origins of all layers as Store::read_origins gives them, [n_layers][rows * n_kept].
using LayerOrigins = std::vector<std::vector<std::uint32_t>>;

struct KeptMap {
  std::uint64_t doc_tokens = 0;
  std::size_t columns = 0;
  double average = 0;                      ///< share of all tokens kept, over all layers
  std::vector<std::vector<double>> cells;  ///< [n_layers][columns]
  std::vector<double> all_layers;          ///< [columns], the mean over layers

  /// First token of a column; first_token(columns) is doc_tokens.
  [[nodiscard]] std::uint64_t first_token(std::size_t column) const;
};

/// At most `columns` stretches, one token each where the document is shorter.
/// corrupt when an origin lies past the document; invalid_argument for no document, no columns or no rows.
[[nodiscard]] Result<KeptMap> make_kept_map(const LayerOrigins& origins, std::uint32_t rows, std::uint64_t doc_tokens,
                                            std::size_t columns);

/// How dark a cell is: 0 nothing kept, then 1 to 4 against the average. Where most tokens are kept, by quarters.
inline constexpr int kShades = 5;
[[nodiscard]] int shade_of(double share, double average);
/// What the shades mean, "below half", ... for legends: 1 to 4.
[[nodiscard]] std::string shade_meaning(int shade, double average);

/// For each token how many (layer, row) lists hold it: [doc_tokens].
[[nodiscard]] Result<std::vector<std::uint32_t>> count_kept(const LayerOrigins& origins, std::uint64_t doc_tokens);

/// The step of a scale: 1, 2 or 5 times a power of ten, so that at most `most` steps fit into the document.
[[nodiscard]] std::uint64_t round_step(std::uint64_t doc_tokens, std::uint64_t most);

struct MapStyle {
  std::size_t width = 80;  ///< of the whole picture, labels included
  bool ascii = false;
};
/// The picture as lines of text, with a row for all layers, a scale and a legend.
[[nodiscard]] std::size_t map_columns(const MapStyle& style, std::size_t n_layers);
[[nodiscard]] std::string draw_kept_map(const KeptMap& map, const MapStyle& style);

}  // namespace finchkv::cli
