#include "model/bpe_merges.h"

#include <algorithm>
#include <bit>

namespace finchkv::model {

void MergeTable::reserve(std::size_t pairs) {
  const std::size_t slots = std::bit_ceil(pairs * 2 + 2);  // at most half full, so that a probe ends soon
  slots_.assign(slots, Slot{});
  shift_ = 64 - std::countr_zero(slots);
}

std::size_t MergeTable::slot_of(std::uint64_t pair) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = static_cast<std::size_t>((pair ^ (pair >> 29)) * 0x9E3779B97F4A7C15U >> shift_);
  while (slots_[i].merge.rank >= 0 && slots_[i].pair != pair) i = (i + 1) & mask;
  return i;
}

void MergeTable::insert(BpeSymbol left, BpeSymbol right, BpeMerge merge) {
  Slot& slot = slots_[slot_of(key(left, right))];
  if (slot.merge.rank >= 0) return;
  slot = {key(left, right), merge};
}

BpeMerge MergeTable::find(BpeSymbol left, BpeSymbol right) const {
  return slots_.empty() ? BpeMerge{} : slots_[slot_of(key(left, right))].merge;
}

void WordMerger::propose(std::int32_t left) {
  if (left < 0) return;
  const Node& a = nodes_[static_cast<std::size_t>(left)];
  if (a.next < 0) return;
  const Node& b = nodes_[static_cast<std::size_t>(a.next)];
  const BpeMerge merge = merges_.find(a.symbol, b.symbol);
  if (merge.rank < 0) return;
  heap_.push_back({merge.rank, left, a.symbol, b.symbol, merge.result});
  std::push_heap(heap_.begin(), heap_.end(), Later{});
}

void WordMerger::run(std::span<const BpeSymbol> symbols) {
  nodes_.clear();
  heap_.clear();
  const auto n = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t i = 0; i < n; ++i)
    nodes_.push_back({symbols[static_cast<std::size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1});
  for (std::int32_t i = 0; i + 1 < n; ++i) propose(i);

  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), Later{});
    const Candidate best = heap_.back();
    heap_.pop_back();
    Node& left = nodes_[static_cast<std::size_t>(best.left)];
    if (left.symbol != best.left_symbol || left.next < 0) continue;  // overtaken by another merge
    Node& right = nodes_[static_cast<std::size_t>(left.next)];
    if (right.symbol != best.right_symbol) continue;
    left.symbol = best.result;
    right.symbol = -1;
    left.next = right.next;
    if (right.next >= 0) nodes_[static_cast<std::size_t>(right.next)].prev = best.left;
    propose(left.prev);
    propose(best.left);
  }
}

}  // namespace finchkv::model
