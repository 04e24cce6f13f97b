#include "model/special_tokens.h"

#include <algorithm>
#include <map>
#include <utility>

namespace finchkv::model {

SpecialTokens::SpecialTokens(std::vector<Entry> entries) : entries_(std::move(entries)) {
  std::erase_if(entries_, [](const Entry& e) { return e.text.empty(); });
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    return a.text.size() != b.text.size() ? a.text.size() > b.text.size() : a.id < b.id;
  });
  for (std::size_t rank = 0; rank < entries_.size(); ++rank) {
    std::uint32_t node = 0;
    for (const char c : entries_[rank].text) {
      const auto byte = static_cast<std::uint8_t>(c);
      const auto fresh = static_cast<std::uint32_t>(ends_.size());
      std::uint32_t& child = node == 0 ? root_[byte] : children_[(static_cast<std::uint64_t>(node) << 8) | byte];
      if (child == 0) {
        child = fresh;
        ends_.push_back(-1);
      }
      node = child;
    }
    if (ends_[node] < 0) ends_[node] = static_cast<std::int64_t>(rank);  // of two equal texts the lower id
  }
}

std::vector<SpecialTokens::Match> SpecialTokens::find_all(std::string_view text, std::span<const Range> parsed) const {
  std::vector<Match> matches;
  auto range = parsed.begin();
  for (std::size_t begin = 0; begin < text.size(); ++begin) {
    while (range != parsed.end() && range->end <= begin) ++range;
    const std::size_t parsed_end = range != parsed.end() && range->begin <= begin ? range->end : 0;
    std::uint32_t node = root_[static_cast<std::uint8_t>(text[begin])];
    for (std::size_t pos = begin + 1; node != 0; ++pos) {
      if (const std::int64_t rank = ends_[node]; rank >= 0) {
        if (entries_[static_cast<std::size_t>(rank)].anywhere || pos <= parsed_end)
          matches.push_back({begin, static_cast<std::uint32_t>(rank)});
      }
      if (pos == text.size()) break;
      const auto child = children_.find((static_cast<std::uint64_t>(node) << 8) | static_cast<std::uint8_t>(text[pos]));
      node = child == children_.end() ? 0 : child->second;
    }
  }
  return matches;
}

std::vector<SpecialTokens::Piece> SpecialTokens::split(std::string_view text, std::span<const Range> parsed) const {
  std::vector<Match> matches = find_all(text, parsed);
  std::sort(matches.begin(), matches.end(),
            [](const Match& a, const Match& b) { return a.rank != b.rank ? a.rank < b.rank : a.begin < b.begin; });
  std::map<std::size_t, Match> taken;  // by where they begin; no two overlap
  for (const Match& match : matches) {
    const std::size_t end = match.begin + entries_[match.rank].text.size();
    const auto after = taken.lower_bound(match.begin);
    if (after != taken.end() && after->first < end) continue;
    if (after != taken.begin()) {
      const Match& before = std::prev(after)->second;
      if (before.begin + entries_[before.rank].text.size() > match.begin) continue;
    }
    taken.emplace(match.begin, match);
  }

  std::vector<Piece> pieces;
  std::size_t pos = 0;
  for (const auto& [begin, match] : taken) {
    if (begin > pos) pieces.push_back({text.substr(pos, begin - pos), -1});
    const Entry& entry = entries_[match.rank];
    pieces.push_back({text.substr(begin, entry.text.size()), entry.id});
    pos = begin + entry.text.size();
  }
  if (pos < text.size()) pieces.push_back({text.substr(pos), -1});
  return pieces;
}

}  // namespace finchkv::model
