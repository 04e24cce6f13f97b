#include "cli/html_page.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "cli/html_style.h"
#include "cli/output.h"
#include "model/utf8.h"

namespace finchkv::cli {
namespace {

constexpr char kPageEnd[] = "</main></body></html>\n";
/// An imported entry may claim any number of tokens; a cell for each of more than these makes no page.
constexpr std::uint64_t kMostCells = 200'000;
constexpr int kMarks = 6;  ///< classes k1..k6 of the style sheet

/// How strongly a token is marked: by the share of all lists that hold it. The square root keeps the few-layer tokens,
/// which are most of them, visible beside those that every layer kept.
int mark_of(std::uint32_t count, std::uint64_t lists) {
  if (count == 0) return 0;
  const double share = static_cast<double>(count) / static_cast<double>(lists);
  int mark = 1;
  constexpr std::array<double, kMarks - 1> kSteps = {0.03, 0.08, 0.18, 0.35, 0.6};
  for (const double step : kSteps) mark += share > step ? 1 : 0;
  return mark;
}

/// Tokens may end inside a character; they are joined until whole characters stand there.
struct Piece {
  std::string text;
  std::uint64_t first = 0;
  std::uint64_t tokens = 0;
  std::uint32_t count = 0;  ///< the largest of its tokens
};

bool ends_inside_character(std::string_view text) {
  // At most three bytes of an unfinished character can stand at the end.
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0U) == 0x80U) continue;
    const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC2 ? 2 : 1;
    return length > back;
  }
  return false;
}

std::vector<Piece> join_tokens(const std::vector<std::string>& texts, const std::vector<std::uint32_t>& counts) {
  constexpr std::uint64_t kLongest = 8;  // no character has more bytes: damaged text is not joined for ever
  std::vector<Piece> pieces;
  bool open = false;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (!open) pieces.push_back({"", i, 0, 0});
    Piece& piece = pieces.back();
    piece.text += texts[i];
    ++piece.tokens;
    piece.count = std::max(piece.count, counts[i]);
    open = ends_inside_character(piece.text) && piece.tokens < kLongest;
  }
  return pieces;
}

std::string marked_text(const std::vector<Piece>& pieces, std::uint64_t lists) {
  std::string out;
  for (const Piece& piece : pieces) {
    const int mark = mark_of(piece.count, lists);
    if (mark == 0) {
      out += escape_html(piece.text);
      continue;
    }
    const std::string where = piece.tokens == 1
                                  ? fmt::format("token {}", piece.first)
                                  : fmt::format("tokens {}-{}", piece.first, piece.first + piece.tokens - 1);
    out += fmt::format("<mark class=k{} title=\"{}: in {} of {}\">{}</mark>", mark, where, piece.count, lists,
                       escape_html(piece.text));
  }
  return out;
}

/// A document without its text: a row of cells for each stretch of tokens.
std::string marked_positions(const std::vector<std::uint32_t>& counts, std::uint64_t lists) {
  constexpr std::size_t kRow = 50;
  std::string out;
  for (std::size_t row = 0; row < counts.size(); row += kRow) {
    out += fmt::format("<div class=row><span class=at>{}</span>", row);
    for (std::size_t i = row; i < std::min(counts.size(), row + kRow); ++i) {
      const int mark = mark_of(counts[i], lists);
      out += mark == 0 ? std::string("<i></i>")
                       : fmt::format("<i class=k{} title=\"token {}: in {} of {}\"></i>", mark, i, counts[i], lists);
    }
    out += "</div>\n";
  }
  return out;
}

std::string map_svg(const KeptMap& map) {
  constexpr std::size_t kRowHeight = 10;
  std::string out = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Kept entries: document from "
      "left to right, layers from top to bottom\" shape-rendering=\"crispEdges\">",
      map.columns, map.cells.size() * kRowHeight);
  for (std::size_t layer = 0; layer < map.cells.size(); ++layer) {
    const auto& cells = map.cells[layer];
    for (std::size_t c = 0; c < cells.size();) {
      const int shade = shade_of(cells[c], map.average);
      std::size_t end = c + 1;
      while (end < cells.size() && shade_of(cells[end], map.average) == shade) ++end;
      if (shade > 0) {
        out += fmt::format("<rect class=s{} x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>", shade, c,
                           layer * kRowHeight, end - c, kRowHeight - 1);
      }
      c = end;
    }
  }
  return out + "</svg>";
}

/// Over the map: how much of each stretch is kept, all layers together.
std::string profile_svg(const KeptMap& map) {
  constexpr double kHeight = 48;
  const double top = *std::max_element(map.all_layers.begin(), map.all_layers.end());
  std::string out = fmt::format(
      "<svg class=profile viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" aria-hidden=\"true\" "
      "shape-rendering=\"crispEdges\">",
      map.columns, kHeight);
  for (std::size_t c = 0; c < map.columns; ++c) {
    const double height = top > 0 ? map.all_layers[c] / top * kHeight : 0;
    if (height <= 0) continue;
    out += fmt::format("<rect x=\"{}\" y=\"{:.1f}\" width=\"1\" height=\"{:.1f}\"/>", c, kHeight - height, height);
  }
  return out + "</svg>";
}

std::string map_section(const KeptMap& map) {
  const std::size_t layers = map.cells.size();
  std::string out = "<section><h2>Where the kept entries lie</h2>\n<div class=map>";
  out += "<div class=corner>all layers</div>" + profile_svg(map);
  out += "<div class=layers>";
  // A label every few layers, the first and the last always.
  const std::size_t step = layers <= 12 ? 1 : layers <= 40 ? 5 : 10;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const bool near_end = layer + step / 2 + 1 > layers && layer + 1 != layers;
    const bool shown = (layer % step == 0 && !(near_end && step > 1)) || layer + 1 == layers;
    out += shown ? fmt::format("<span>{}{}</span>", layer == 0 ? "layer " : "", layer) : std::string("<span></span>");
  }
  out += fmt::format("</div><div class=cells style=\"height:{}px\">{}</div>",
                     std::clamp<std::size_t>(layers * 11, 66, 640), map_svg(map));
  out += "<div></div><div class=scale>";
  const std::uint64_t ticks = round_step(map.doc_tokens, 6);
  for (std::uint64_t tick = 0; tick * 10 < map.doc_tokens * 9; tick += ticks) {
    out += fmt::format("<span style=\"left:{:.2f}%\">{}</span>",
                       100 * static_cast<double>(tick) / static_cast<double>(map.doc_tokens), format_count(tick));
  }
  out += fmt::format("<span style=\"left:100%\">{}</span>", format_count(map.doc_tokens));
  out += "</div></div>\n<p class=legend>";
  for (int shade = 1; shade < kShades; ++shade) {
    out += fmt::format(
        "<span class=key><svg viewBox=\"0 0 1 1\"><rect class=s{} width=\"1\" height=\"1\"/></svg>{}"
        "</span>",
        shade, escape_html(shade_meaning(shade, map.average)));
  }
  out += fmt::format(
      "</p>\n<p class=note>From left to right the document's {} tokens, from top to bottom the model's {} "
      "layers. On average {:.1f}% of a stretch is kept.</p></section>\n",
      format_count(map.doc_tokens), layers, map.average * 100);
  return out;
}

std::string text_legend(std::uint64_t lists, std::uint32_t rows) {
  std::string out = "<p class=legend><span class=key>kept by few</span>";
  for (int mark = 1; mark <= kMarks; ++mark) out += fmt::format("<mark class=\"k{} swatch\">&nbsp;</mark>", mark);
  out += fmt::format("<span class=key>kept by all {} {}</span></p>\n", lists,
                     rows > 1 ? "(layer, KV head) pairs" : "layers");
  return out;
}

std::string figures_section(const Figures& figures) {
  std::string out = "<section><h2>Figures</h2>\n<table>";
  for (const auto& [name, value] : figures) {
    out += fmt::format("<tr><th scope=row>{}</th><td>{}</td></tr>\n", escape_html(name), escape_html(value));
  }
  return out + "</table></section>\n";
}

std::string header(const PageInput& in) {
  const double ratio = in.kept == 0 ? 0 : static_cast<double>(in.doc_tokens) / static_cast<double>(in.kept);
  const auto figure = [](const std::string& value, std::string_view what) {
    return fmt::format("<div><b>{}</b><span>{}</span></div>", value, what);
  };
  return fmt::format("<header><p class=brand>finchkv</p><h1>{}</h1>\n<div class=big>{}{}{}{}</div></header>\n",
                     escape_html(in.title), figure(format_count(in.doc_tokens), "tokens read"),
                     figure(format_count(in.kept), "kept in each layer"), figure(format_ratio(ratio), "smaller"),
                     figure(format_count(in.origins.size()), in.origins.size() == 1 ? "layer" : "layers"));
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (const char c : printable(text)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

Result<std::string> make_html_page(const PageInput& in) {
  constexpr std::size_t kColumns = 160;
  FINCHKV_ASSIGN_OR_RETURN(const KeptMap map, make_kept_map(in.origins, in.rows, in.doc_tokens, kColumns));
  const std::uint64_t lists = in.origins.size() * in.rows;
  std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>{} - finchkv</title>\n<style>{}</style></head>\n"
      "<body><main>\n",
      escape_html(in.title), kPageStyle);
  page += header(in);
  page += map_section(map);
  const bool has_text = in.token_texts && in.token_texts->size() == in.doc_tokens;
  page += "<section><h2>The document</h2>\n";
  if (!has_text && in.doc_tokens > kMostCells) {
    page += fmt::format(
        "<p class=note>{}</p><p class=note>A cell for each of {} tokens would be too much for a page; the map above "
        "has "
        "them all.</p>",
        escape_html(in.why_no_text), format_count(in.doc_tokens));
    return page + "</section>\n" + figures_section(in.figures) + kPageEnd;
  }
  page += text_legend(lists, in.rows);
  FINCHKV_ASSIGN_OR_RETURN(const std::vector<std::uint32_t> counts, count_kept(in.origins, in.doc_tokens));
  if (has_text) {
    page += fmt::format("<div class=text dir=auto>{}</div>", marked_text(join_tokens(*in.token_texts, counts), lists));
  } else {
    page += fmt::format("<p class=note>{}</p><div class=positions>{}</div>", escape_html(in.why_no_text),
                        marked_positions(counts, lists));
  }
  return page + "</section>\n" + figures_section(in.figures) + kPageEnd;
}

}  // namespace finchkv::cli
