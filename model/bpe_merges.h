// The merging of byte-level BPE: a table of pairs, and the merging of one word.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace finchkv::model {

/// A token id; at or above the vocabulary's size a string that only merges know.
using BpeSymbol = std::int32_t;

struct BpeMerge {
  std::int32_t rank = -1;  ///< -1: the pair does not merge
  BpeSymbol result = 0;
};

/// Pair of symbols -> merge. A hash table with open addressing: a pair is looked up for every byte of a text. Immutable
/// once filled, thread-safe then.
class MergeTable {
 public:
  void reserve(std::size_t pairs);  ///< before the first insert: room for that many
  /// Keeps the first of equal pairs.
  void insert(BpeSymbol left, BpeSymbol right, BpeMerge merge);
  [[nodiscard]] BpeMerge find(BpeSymbol left, BpeSymbol right) const;
  [[nodiscard]] bool empty() const { return slots_.empty(); }

 private:
  struct Slot {
    std::uint64_t pair = 0;
    BpeMerge merge;
  };
  static std::uint64_t key(BpeSymbol left, BpeSymbol right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
  }
  [[nodiscard]] std::size_t slot_of(std::uint64_t pair) const;  ///< its own, or the free one where it belongs

  std::vector<Slot> slots_;  // a power of two; rank -1 marks a free one
  int shift_ = 64;
};

/// Merges words one after the other, in O(n log n) of a word's bytes. Holds scratch memory: one per thread and call.
class WordMerger {
 public:
  explicit WordMerger(const MergeTable& merges) : merges_(merges) {}

  /// Calls emit(symbol) for what remains of the symbols, in order.
  template <typename Emit>
  void merge(std::span<const BpeSymbol> symbols, Emit emit) {
    run(symbols);
    for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = nodes_[static_cast<std::size_t>(i)].next)
      emit(nodes_[static_cast<std::size_t>(i)].symbol);
  }

 private:
  struct Node {
    BpeSymbol symbol = 0;  // -1: merged into the one before
    std::int32_t prev = -1;
    std::int32_t next = -1;
  };
  struct Candidate {
    std::int32_t rank = 0;
    std::int32_t left = 0;  // node
    BpeSymbol left_symbol = 0;
    BpeSymbol right_symbol = 0;
    BpeSymbol result = 0;
  };
  struct Later {  // heap order: the lowest rank on top, of equals the leftmost
    bool operator()(const Candidate& a, const Candidate& b) const {
      return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
    }
  };
  void run(std::span<const BpeSymbol> symbols);
  void propose(std::int32_t left);

  const MergeTable& merges_;
  std::vector<Node> nodes_;
  std::vector<Candidate> heap_;
};

}  // namespace finchkv::model
