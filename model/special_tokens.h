// SpecialTokens: finding a vocabulary's special tokens in text before the rest is tokenized.
//
// As llama.cpp does it: the longest token is looked for first, everywhere, then the next; equally long ones by id.
// User-defined tokens count anywhere; control tokens only wholly inside a range that parses them. Immutable,
// thread-safe; owns its texts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/tokenizer.h"

namespace finchkv::model {

class SpecialTokens {
 public:
  struct Entry {
    std::string text;  ///< empty ones are ignored
    TokenId id = 0;
    bool anywhere = false;  ///< user-defined: a token in plain text as well
  };
  /// Bytes [begin, end) of a text in which control tokens count. Ranges come in order and do not overlap.
  struct Range {
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  /// A special token (id >= 0) or text between (id = -1).
  struct Piece {
    std::string_view text;
    TokenId id = -1;
  };

  SpecialTokens() = default;
  explicit SpecialTokens(std::vector<Entry> entries);

  /// The text as pieces in order; none is empty.
  [[nodiscard]] std::vector<Piece> split(std::string_view text, std::span<const Range> parsed) const;

 private:
  struct Match {
    std::size_t begin = 0;
    std::uint32_t rank = 0;  // place among entries_
  };
  [[nodiscard]] std::vector<Match> find_all(std::string_view text, std::span<const Range> parsed) const;

  std::vector<Entry> entries_;  // longest first
  // A trie: children by node << 8 | byte, and the entry that ends at a node (-1: none). Node 0 is the root, whose
  // children have a table of their own because most bytes of a text end there.
  std::unordered_map<std::uint64_t, std::uint32_t> children_;
  std::array<std::uint32_t, 256> root_{};
  std::vector<std::int64_t> ends_{-1};
};

}  // namespace finchkv::model
