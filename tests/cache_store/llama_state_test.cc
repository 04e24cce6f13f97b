#include "cache_store/llama_state.h"

#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "tests/cache_store/sets.h"

namespace finchkv::cache_store {
namespace {

using testing::make_document;
using testing::make_set;

// A state as this file's own few lines write it, from llama.cpp's source: what write_llama_state must give.
class Bytes {
 public:
  template <typename Number>
  Bytes& put(Number value) {
    const auto* p = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), p, p + sizeof(value));
    return *this;
  }
  [[nodiscard]] const std::vector<std::byte>& get() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

LlamaModelShape shape_of(const KvSet& set) {
  return {.n_layers = set.shape.n_layers,
          .n_kv_heads = set.shape.n_kv_heads,
          .head_dim = set.shape.head_dim,
          .rope = set.rope};
}

float f32_at(std::span<const std::byte> bytes, std::size_t index) {
  float value = 0;
  std::memcpy(&value, bytes.data() + index * sizeof(value), sizeof(value));
  return value;
}

// One layer of two heads of two dimensions with three entries, by hand.
KvSet small_set() {
  KvSet set;
  set.shape = {.n_layers = 1, .n_kv_heads = 2, .head_dim = 2, .origin_rows = 1};
  set.doc_tokens = 9;
  set.next_position = 3;
  set.rope.rotary_dims = 2;
  set.rope.inv_freq = {0.5F};
  set.rope.interleaved = true;
  auto numbers = std::make_shared<std::vector<float>>();
  for (int i = 0; i < 24; ++i) numbers->push_back(static_cast<float>(i));
  auto origins = std::make_shared<std::vector<std::uint32_t>>(std::vector<std::uint32_t>{1, 4, 7});
  const auto bytes = std::as_bytes(std::span<const float>(*numbers));
  set.layers.push_back({3, bytes.first(48), bytes.subspan(48), *origins});
  set.memory = {numbers, origins};
  return set;
}

std::vector<std::byte> expected_small(std::uint64_t base, bool transposed) {
  Bytes b;
  b.put(std::uint32_t{0xaf143cd8}).put(std::int32_t{0});
  b.put(std::uint32_t{1}).put(std::uint32_t{3});
  for (std::uint64_t i = 0; i < 3; ++i) {
    b.put(static_cast<std::int32_t>(base + i)).put(std::uint32_t{1}).put(std::int32_t{0});
  }
  b.put(std::uint32_t{transposed ? 1U : 0U}).put(std::uint32_t{1});
  b.put(std::int32_t{0}).put(std::uint64_t{16});  // f32, two heads of two
  for (std::size_t i = 0; i < 3; ++i) {
    const float angle = static_cast<float>(base + i) * 0.5F;
    const auto c = static_cast<float>(std::cos(static_cast<double>(angle)));
    const auto s = static_cast<float>(std::sin(static_cast<double>(angle)));
    for (std::size_t h = 0; h < 2; ++h) {
      const auto x = static_cast<float>(h * 6 + i * 2), y = x + 1;
      b.put(x * c - y * s).put(x * s + y * c);
    }
  }
  b.put(std::int32_t{0});
  if (transposed) {
    b.put(std::uint32_t{4}).put(std::uint32_t{4});
    for (const int first : {12, 13, 18, 19}) {  // [head * dimension][entry]
      for (int i = 0; i < 3; ++i) b.put(static_cast<float>(first + 2 * i));
    }
  } else {
    b.put(std::uint64_t{16});
    for (int i = 0; i < 3; ++i) {
      for (const int first : {12, 13, 18, 19}) b.put(static_cast<float>(first + 2 * i));
    }
  }
  return b.get();
}

TEST(LlamaState, BytesAreLlamaCpps) {
  const KvSet set = small_set();
  for (const bool transposed : {false, true}) {
    for (const std::uint64_t base : {0U, 6U}) {
      const LlamaStateOptions options{.dtype = DType::kF32, .transposed_values = transposed, .base_position = base};
      const auto state = write_llama_state(set, std::nullopt, options);
      ASSERT_TRUE(state.is_ok()) << state.status().message();
      const auto expected = expected_small(base, transposed);
      ASSERT_EQ(state->size, expected.size());
      EXPECT_EQ(std::memcmp(state->memory.get(), expected.data(), expected.size()), 0) << transposed << base;
      EXPECT_EQ(llama_next_position(set, options), base + 3);
    }
  }
}

TEST(LlamaState, FileHasTheTokensInFront) {
  const std::vector<std::int32_t> tokens = {5, 6, 7};
  const auto data = write_llama_state(small_set(), std::nullopt, {});
  const auto file = write_llama_state(small_set(), tokens, {});
  ASSERT_TRUE(data.is_ok() && file.is_ok());
  const auto front = Bytes().put(std::uint32_t{0x67677371}).put(std::uint32_t{3}).put(std::uint32_t{3});
  const auto bytes = file->bytes();
  EXPECT_EQ(std::memcmp(bytes.data(), front.get().data(), 12), 0);
  EXPECT_EQ(std::memcmp(bytes.data(), kLlamaFileMagic.data(), 4), 0);
  EXPECT_EQ(std::memcmp(bytes.data() + 12, tokens.data(), 12), 0);
  ASSERT_EQ(bytes.size() - 24, data->size - 8);
  EXPECT_EQ(std::memcmp(bytes.data() + 24, data->memory.get() + 8, data->size - 8), 0);
}

TEST(LlamaState, WhatIsReadGoesBackAsItWas) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const bool transposed : {false, true}) {
      for (const std::uint32_t streams : {1U, 3U}) {
        const KvSet set = make_set({.layers = 3, .heads = 2, .dim = 6, .kept = 7, .origins_per_head = true}, 3);
        LlamaStateOptions options{.dtype = dtype, .transposed_values = transposed, .streams = streams};
        options.base_position = 11;
        std::vector<std::int32_t> tokens = make_document(18, 4);
        const auto state = write_llama_state(set, tokens, options);
        ASSERT_TRUE(state.is_ok()) << state.status().message();
        const auto read = read_llama_state(state->bytes(), shape_of(set));
        ASSERT_TRUE(read.is_ok()) << read.status().message();
        EXPECT_EQ(read->tokens, tokens);
        EXPECT_EQ(read->set.dtype, dtype);
        EXPECT_EQ(read->set.key_form, KeyForm::kRotated);
        EXPECT_EQ(read->set.next_position, 18U);
        EXPECT_EQ(read->set.layers[2].origins.front(), 11U);
        options.base_position = 0;  // it stays where it is
        const auto again = write_llama_state(read->set, tokens, options);
        ASSERT_TRUE(again.is_ok()) << again.status().message();
        ASSERT_EQ(again->size, state->size);
        EXPECT_EQ(std::memcmp(again->memory.get(), state->memory.get(), state->size), 0);
      }
    }
  }
}

TEST(LlamaState, CellsInAnyOrderComeOutByPosition) {
  const KvSet set = small_set();
  const auto state = write_llama_state(set, std::nullopt, {.dtype = DType::kF32});
  std::vector<std::byte> bytes(state->bytes().begin(), state->bytes().end());
  const std::int32_t positions[] = {5, 1, 3};
  for (std::size_t i = 0; i < 3; ++i) std::memcpy(bytes.data() + 16 + 12 * i, &positions[i], 4);
  const auto read = read_llama_state(bytes, shape_of(set));
  ASSERT_TRUE(read.is_ok()) << read.status().message();
  EXPECT_EQ(read->set.next_position, 6U);
  EXPECT_TRUE(read->tokens.empty());
  EXPECT_EQ(std::vector<std::uint32_t>(read->set.layers[0].origins.begin(), read->set.layers[0].origins.end()),
            (std::vector<std::uint32_t>{1, 3, 5}));
  // Entry 0 is cell 1, entry 1 cell 2, entry 2 cell 0; the second head's first dimension of the values says which.
  EXPECT_EQ(f32_at(read->set.layers[0].values, 6), 20);
  EXPECT_EQ(f32_at(read->set.layers[0].values, 8), 22);
  EXPECT_EQ(f32_at(read->set.layers[0].values, 10), 18);
}

TEST(LlamaState, KeysInAnotherOrder) {
  KvSet set = make_set({.layers = 1, .heads = 1, .dim = 4, .kept = 1, .doc_tokens = 4}, 1);
  set.rope.interleaved = false;
  const auto as_stored = write_llama_state(set, std::nullopt, {.dtype = DType::kF32});
  const auto turned = write_llama_state(set, std::nullopt, {.dtype = DType::kF32, .order = PairOrder::kInterleaved});
  const std::size_t keys = 8 + 8 + 12 + 8 + 12;
  const auto a = as_stored->bytes().subspan(keys), b = turned->bytes().subspan(keys);
  for (const auto& [from, to] : {std::pair{0, 0}, {2, 1}, {1, 2}, {3, 3}}) {
    EXPECT_EQ(f32_at(a, static_cast<std::size_t>(from)), f32_at(b, static_cast<std::size_t>(to)));
  }
}

TEST(LlamaState, SlotTokens) {
  const std::vector<std::int32_t> document = {10, 11, 12, 13, 14, 15, 16, 17, 18};
  const KvSet set = small_set();
  const auto reversed = llama_slot_tokens(set, document, {});
  ASSERT_TRUE(reversed.is_ok());
  EXPECT_EQ(*reversed, (std::vector<std::int32_t>{17, 14, 11}));
  const auto moved = llama_slot_tokens(set, document, {.base_position = 6});  // ends where the document does
  ASSERT_TRUE(moved.is_ok());
  EXPECT_EQ(*moved, document);
  EXPECT_FALSE(llama_slot_tokens(set, document, {.base_position = 2}).is_ok());
  EXPECT_FALSE(llama_slot_tokens(set, std::span(document).first(8), {}).is_ok());
}

void expect_refused(const Status& status, StatusCode code, std::string_view words) {
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_NE(status.message().find(words), std::string::npos) << status.message();
}

TEST(LlamaState, SetsThatDoNotFitACacheAreRefused) {
  KvSet set = make_set({.layers = 3, .kept = 5}, 1);
  const KvSet shorter = make_set({.layers = 3, .kept = 4}, 2);
  set.layers[2] = shorter.layers[2];
  expect_refused(write_llama_state(set, std::nullopt, {}).status(), StatusCode::kInvalidArgument,
                 "layer 2 keeps 4 entries and layer 0 keeps 5");
  set = small_set();
  expect_refused(write_llama_state(set, std::vector<std::int32_t>{1, 2}, {}).status(), StatusCode::kInvalidArgument,
                 "3 of them, 2 were given");
  expect_refused(write_llama_state(set, std::nullopt, {.streams = 0}).status(), StatusCode::kInvalidArgument,
                 "streams");
  expect_refused(write_llama_state(set, std::nullopt, {.base_position = 1ULL << 40U}).status(),
                 StatusCode::kInvalidArgument, "past");
  expect_refused(write_llama_state(set, std::nullopt, {.base_position = ~0ULL}).status(), StatusCode::kInvalidArgument,
                 "past");
  set.key_form = KeyForm::kRotated;
  expect_refused(write_llama_state(set, std::nullopt, {.base_position = 4}).status(), StatusCode::kInvalidArgument,
                 "cannot be moved");
  set.next_position = 2;
  expect_refused(write_llama_state(set, std::nullopt, {}).status(), StatusCode::kInvalidArgument,
                 "position 2 behind 3");
}

TEST(LlamaState, WhatF16CannotHoldIsRefused) {
  KvSet set = small_set();
  auto numbers = std::make_shared<std::vector<float>>(12, 70000.0F);
  set.layers[0].values = std::as_bytes(std::span<const float>(*numbers));
  expect_refused(write_llama_state(set, std::nullopt, {}).status(), StatusCode::kInvalidArgument, "layer 0, values");
  EXPECT_TRUE(write_llama_state(set, std::nullopt, {.dtype = DType::kBF16}).is_ok());
}

TEST(LlamaState, AnotherModelsStateIsRefusedByTheDifference) {
  const KvSet set = make_set({.layers = 2, .heads = 2, .dim = 8}, 1);
  const auto state = write_llama_state(set, std::nullopt, {});
  auto shape = shape_of(set);
  shape.n_layers = 3;
  expect_refused(read_llama_state(state->bytes(), shape).status(), StatusCode::kInvalidArgument,
                 "the state has 2 layers, the model has 3");
  shape = shape_of(set);
  shape.n_kv_heads = 4;
  expect_refused(read_llama_state(state->bytes(), shape).status(), StatusCode::kInvalidArgument,
                 "16 numbers wide in the state, 32 in the model");
  shape.head_dim = 0;
  EXPECT_FALSE(read_llama_state(state->bytes(), shape).is_ok());
  expect_refused(read_llama_state(state->bytes(), shape_of(set), std::vector<std::int32_t>{1, 2}).status(),
                 StatusCode::kInvalidArgument, "up to position 4 and 2 tokens");
}

TEST(LlamaState, EveryCutAndEveryChangedNumberIsNoticedOrHarmless) {
  const KvSet set = make_set({.layers = 2, .heads = 1, .dim = 2, .kept = 2, .doc_tokens = 4}, 1);
  for (const bool transposed : {false, true}) {
    const auto state =
        write_llama_state(set, std::vector<std::int32_t>{3, 4}, {.transposed_values = transposed, .streams = 2});
    ASSERT_TRUE(state.is_ok());
    std::vector<std::byte> bytes(state->bytes().begin(), state->bytes().end());
    for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
      EXPECT_EQ(read_llama_state(std::span(bytes).first(cut), shape_of(set)).status().code(), StatusCode::kCorrupt);
    }
    bytes.push_back(std::byte{0});
    expect_refused(read_llama_state(bytes, shape_of(set)).status(), StatusCode::kCorrupt, "1 bytes follow");
    bytes.pop_back();
    for (std::size_t at = 0; at + 4 <= bytes.size(); ++at) {
      for (const std::uint32_t number : {0U, 0xffffffffU, 0x7fffffffU, 0x80000000U, 3U}) {
        auto changed = bytes;
        std::memcpy(changed.data() + at, &number, 4);
        const auto read = read_llama_state(changed, shape_of(set));
        if (read.is_ok()) {
          EXPECT_TRUE(read->set.validate().is_ok());
        }
      }
    }
  }
}

TEST(LlamaState, WhatIsLeftOutIsRefusedByName) {
  const KvSet set = small_set();
  const auto file = write_llama_state(set, std::vector<std::int32_t>{1, 2, 3}, {.dtype = DType::kF32});
  const auto with = [&](std::size_t at, std::uint32_t number) {
    std::vector<std::byte> bytes(file->bytes().begin(), file->bytes().end());
    std::memcpy(bytes.data() + at, &number, 4);
    return read_llama_state(bytes, shape_of(set)).status();
  };
  expect_refused(with(0, 7), StatusCode::kCorrupt, "begins neither");
  expect_refused(with(4, 2), StatusCode::kUnsupported, "version 2");
  expect_refused(with(16, 0xfffffff0U), StatusCode::kCorrupt, "not negative");
  expect_refused(with(24, 0), StatusCode::kCorrupt, "0 streams");
  expect_refused(with(28, 0), StatusCode::kInvalidArgument, "empty");
  expect_refused(with(32, 1), StatusCode::kCorrupt, "two of its cells are at position 1");
  expect_refused(with(36, 2), StatusCode::kCorrupt, "of 2 sequences");
  expect_refused(with(56, 100), StatusCode::kCorrupt, "up to position 100 and 3 tokens");
  expect_refused(with(68, 2), StatusCode::kCorrupt, "rows (0) or transposed (1)");
  expect_refused(with(76, 8), StatusCode::kUnsupported, "ggml's type 8");
}

// The list as llama-server packs it: a mark, a version, the ids with their number, and that of the images among them.
TEST(LlamaState, LlamaServersListOfTokensIsUnpacked) {
  const KvSet set = small_set();
  const std::vector<std::int32_t> ids = {5, 6, 7};
  const auto plain = write_llama_state(set, ids, {.dtype = DType::kF32});
  ASSERT_TRUE(plain.is_ok());
  const auto packed = [&](const std::vector<std::int32_t>& list) {
    Bytes b;
    b.put(std::uint32_t{0x67677371}).put(std::uint32_t{3}).put(static_cast<std::uint32_t>(list.size()));
    for (const std::int32_t word : list) b.put(word);
    std::vector<std::byte> bytes = b.get();
    const auto rest = plain->bytes().subspan(24);
    bytes.insert(bytes.end(), rest.begin(), rest.end());
    return bytes;
  };
  const auto read = read_llama_state(packed({-1, 1, 3, 5, 6, 7, 0}), shape_of(set));
  ASSERT_TRUE(read.is_ok()) << read.status().message();
  EXPECT_EQ(read->tokens, ids);
  // A token that was drawn last and not read has no cell.
  const auto drawn = read_llama_state(packed({-1, 1, 4, 5, 6, 7, 8, 0}), shape_of(set));
  ASSERT_TRUE(drawn.is_ok()) << drawn.status().message();
  EXPECT_EQ(drawn->tokens, ids);

  const auto refusal = [&](const std::vector<std::int32_t>& list) {
    return read_llama_state(packed(list), shape_of(set)).status();
  };
  expect_refused(refusal({-1}), StatusCode::kCorrupt, "version of llama-server's token list");
  expect_refused(refusal({-1, 2, 3, 5, 6, 7, 0}), StatusCode::kUnsupported, "version 2; this program knows 1");
  expect_refused(refusal({-1, 1}), StatusCode::kCorrupt, "the number of llama-server's tokens");
  expect_refused(refusal({-1, 1, 0x7fffffff, 5, 6, 7, 0}), StatusCode::kCorrupt, "8589934588 bytes are needed");
  expect_refused(refusal({-1, 1, 3, 5, 6, 7}), StatusCode::kCorrupt, "the number of images");
  expect_refused(refusal({-1, 1, 3, 5, 6, -1, 1, 2, 0}), StatusCode::kUnsupported, "1 images or sounds");
  expect_refused(refusal({-1, 1, 3, 5, 6, 7, 0, 0}), StatusCode::kCorrupt, "4 bytes follow the end of llama-server's");
  expect_refused(refusal({-1, 1, 3, 5, -1, 7, 0}), StatusCode::kCorrupt, "token 1 of it is -1");
  expect_refused(refusal({-1, 1, 2, 5, 6, 0}), StatusCode::kCorrupt, "up to position 2 and 2 tokens");
}

}  // namespace
}  // namespace finchkv::cache_store
