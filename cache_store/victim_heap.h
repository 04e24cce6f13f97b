// VictimHeap: numbered things by ascending rank, any of which can be taken out again in O(log n).
//
// Internal to cache_store's ledger. Not thread-safe. A thing is in at most one heap of those that share one Places
// (which outlives them); Places must have a place for its number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace finchkv::cache_store {

class VictimHeap {
 public:
  /// Where in its heap each thing stands; kNowhere for those that are in none.
  using Places = std::deque<std::uint32_t>;
  static constexpr std::uint32_t kNowhere = 0xFFFFFFFFU;

  explicit VictimHeap(Places& places) : places_(&places) {}

  [[nodiscard]] bool empty() const { return nodes_.empty(); }
  [[nodiscard]] std::uint32_t lowest() const { return nodes_.front().thing; }
  [[nodiscard]] std::uint64_t lowest_rank() const { return nodes_.front().rank; }

  void insert(std::uint32_t thing, std::uint64_t rank);
  void remove(std::uint32_t thing);

 private:
  struct Node {
    std::uint64_t rank;
    std::uint32_t thing;
  };
  void place(std::size_t at, const Node& node) {
    nodes_[at] = node;
    (*places_)[node.thing] = static_cast<std::uint32_t>(at);
  }
  void sift_up(std::size_t at, const Node& node);
  void sift_down(std::size_t at, const Node& node);

  std::vector<Node> nodes_;  // 4 children a node: half as deep as with 2, and siblings share a cache line
  Places* places_;
};

}  // namespace finchkv::cache_store
