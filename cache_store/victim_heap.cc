#include "cache_store/victim_heap.h"

#include <algorithm>
#include <cassert>

namespace finchkv::cache_store {
namespace {

constexpr std::size_t kChildren = 4;

}  // namespace

void VictimHeap::insert(std::uint32_t thing, std::uint64_t rank) {
  assert((*places_)[thing] == kNowhere);
  nodes_.emplace_back();
  sift_up(nodes_.size() - 1, {rank, thing});
}

void VictimHeap::remove(std::uint32_t thing) {
  const std::size_t at = (*places_)[thing];
  assert(at < nodes_.size() && nodes_[at].thing == thing);
  (*places_)[thing] = kNowhere;
  const Node last = nodes_.back();
  nodes_.pop_back();
  if (at == nodes_.size()) return;
  if (at > 0 && last.rank < nodes_[(at - 1) / kChildren].rank) {
    sift_up(at, last);
  } else {
    sift_down(at, last);
  }
}

void VictimHeap::sift_up(std::size_t at, const Node& node) {
  while (at > 0) {
    const std::size_t parent = (at - 1) / kChildren;
    if (nodes_[parent].rank <= node.rank) break;
    place(at, nodes_[parent]);
    at = parent;
  }
  place(at, node);
}

void VictimHeap::sift_down(std::size_t at, const Node& node) {
  for (;;) {
    const std::size_t first = kChildren * at + 1;
    if (first >= nodes_.size()) break;
    const std::size_t end = std::min(first + kChildren, nodes_.size());
    std::size_t lowest = first;
    for (std::size_t child = first + 1; child < end; ++child) {
      if (nodes_[child].rank < nodes_[lowest].rank) lowest = child;
    }
    if (node.rank <= nodes_[lowest].rank) break;
    place(at, nodes_[lowest]);
    at = lowest;
  }
  place(at, node);
}

}  // namespace finchkv::cache_store
