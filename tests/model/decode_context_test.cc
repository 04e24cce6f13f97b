// DecodeContext: a KvSet at its place, against a plain context that keeps everything in double.
#include "model/decode_context.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/golden.h"

namespace finchkv::model {
namespace {

using kernels::Tensor;

// Entries of one layer: keys before RoPE, and the position of each.
struct PlainLayer {
  std::vector<std::vector<float>> keys, values;  // [n][KV * D]
  std::vector<std::int64_t> positions;
};

// Attention as the formula has it, every key rotated anew for every query. Also what a test makes sets from.
class PlainContext final : public AttentionContext {
 public:
  explicit PlainContext(const ModelConfig& config)
      : layers(static_cast<std::size_t>(config.n_layers)), config_(config) {}

  Status attend(std::int64_t index, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) override {
    PlainLayer& layer = layers[static_cast<std::size_t>(index)];
    const std::int64_t n = q.dim(0), heads = q.dim(1), d = q.dim(2), kv = k.dim(1);
    const std::int64_t first = index == 0 ? (next_ += n) - n : next_ - n;
    for (std::int64_t r = 0; r < n; ++r) {
      layer.keys.emplace_back();
      layer.values.emplace_back();
      for (std::int64_t g = 0; g < kv; ++g) {
        const float* key = k.data<float>() + r * k.stride(0) + g * k.stride(1);
        const float* value = v.data<float>() + r * v.stride(0) + g * v.stride(1);
        layer.keys.back().insert(layer.keys.back().end(), key, key + d);
        layer.values.back().insert(layer.values.back().end(), value, value + d);
      }
      layer.positions.push_back(first + r);
    }
    for (std::int64_t r = 0; r < n; ++r) {
      const std::size_t seen = layer.keys.size() - static_cast<std::size_t>(n - r - 1);
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t g = h / (heads / kv);
        const auto query = rotated(q.data<float>() + r * q.stride(0) + h * q.stride(1), first + r);
        std::vector<double> p(seen);
        double total = 0;
        for (std::size_t j = 0; j < seen; ++j) {
          const auto key = rotated(layer.keys[j].data() + g * d, layer.positions[j]);
          for (std::size_t i = 0; i < key.size(); ++i) p[j] += query[i] * key[i];
          total += p[j] = std::exp(p[j] / std::sqrt(static_cast<double>(d)));
        }
        for (std::int64_t i = 0; i < d; ++i) {
          double sum = 0;
          for (std::size_t j = 0; j < seen; ++j)
            sum += p[j] / total * static_cast<double>(layer.values[j][static_cast<std::size_t>(g * d + i)]);
          out.data<float>()[r * out.stride(0) + h * out.stride(1) + i] = static_cast<float>(sum);
        }
      }
    }
    return Status::ok();
  }
  void start_at(std::int64_t position) { next_ = position; }

  std::vector<PlainLayer> layers;

 private:
  [[nodiscard]] std::vector<double> rotated(const float* x, std::int64_t position) const {
    const auto d = static_cast<std::size_t>(config_.head_dim);
    std::vector<double> out(x, x + d);
    const std::size_t half = config_.rope.inv_freq.size();
    for (std::size_t i = 0; i < half; ++i) {
      const std::size_t a = config_.rope.interleaved ? 2 * i : i, b = config_.rope.interleaved ? 2 * i + 1 : i + half;
      const auto angle = static_cast<double>(static_cast<float>(position) * config_.rope.inv_freq[i]);
      out[a] = static_cast<double>(x[a]) * std::cos(angle) - static_cast<double>(x[b]) * std::sin(angle);
      out[b] = static_cast<double>(x[b]) * std::cos(angle) + static_cast<double>(x[a]) * std::sin(angle);
    }
    return out;
  }
  const ModelConfig& config_;
  std::int64_t next_ = 0;
};

// An f32 set of the entries `chosen` [layer] of a plain context. `key` changes a key on its way in.
KvSet make_set(const PlainContext& from, const ModelConfig& c, const std::vector<std::vector<std::size_t>>& chosen,
               std::uint64_t doc_tokens) {
  KvSet set;
  const auto kv = static_cast<std::size_t>(c.n_kv_heads), d = static_cast<std::size_t>(c.head_dim);
  set.shape = {static_cast<std::uint32_t>(c.n_layers), static_cast<std::uint32_t>(kv), static_cast<std::uint32_t>(d),
               1};
  set.rope = c.rope;
  set.doc_tokens = doc_tokens;
  for (std::size_t l = 0; l < chosen.size(); ++l) {
    const std::size_t n = chosen[l].size();
    auto numbers = std::make_shared<std::vector<float>>(2 * kv * n * d);
    auto origins = std::make_shared<std::vector<std::uint32_t>>();
    for (std::size_t i = 0; i < n; ++i) {
      origins->push_back(static_cast<std::uint32_t>(chosen[l][i]));
      for (std::size_t g = 0; g < kv; ++g) {
        const PlainLayer& layer = from.layers[l];
        std::copy_n(layer.keys[chosen[l][i]].data() + g * d, d, numbers->data() + (g * n + i) * d);
        std::copy_n(layer.values[chosen[l][i]].data() + g * d, d, numbers->data() + ((kv + g) * n + i) * d);
      }
    }
    KvLayer view;
    view.n_kept = static_cast<std::uint32_t>(n);
    view.keys = std::as_bytes(std::span(*numbers)).first(kv * n * d * 4);
    view.values = std::as_bytes(std::span(*numbers)).subspan(kv * n * d * 4);
    view.origins = *origins;
    set.layers.push_back(view);
    set.memory.push_back(numbers);
    set.memory.push_back(origins);
  }
  set.next_position = set.max_kept();
  return set;
}

class DecodeContextTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    model_ = testing::load_model(testing::data_path(std::string(GetParam()) + "/model.gguf"),
                                 kernels::NumericClass::kReference);
    ASSERT_NE(model_, nullptr);
    for (int i = 0; i < 60; ++i) document.push_back(3 + i * 37 % 300);
    plain = std::make_unique<PlainContext>(model_->config());
    ASSERT_TRUE(transformer().forward(document, *plain, LogitRows::kNone).is_ok());
  }
  Transformer& transformer() { return *model_->transformer(); }

  std::vector<float> logits(AttentionContext& context, std::span<const TokenId> tokens) {
    auto result = transformer().forward(tokens, context, LogitRows::kLast);
    EXPECT_TRUE(result.is_ok()) << result.status().to_string();
    return result.is_ok() ? *std::move(result) : std::vector<float>();
  }
  [[nodiscard]] static std::vector<std::size_t> every(std::size_t step, std::size_t count) {
    std::vector<std::size_t> out;
    for (std::size_t i = 0; i < count; ++i) out.push_back(i * step);
    return out;
  }
  // The plain context that holds what a set with these entries means: each layer's at the end of the longest.
  PlainContext at_their_place(const std::vector<std::vector<std::size_t>>& chosen) {
    std::size_t base = 0;
    for (const auto& c : chosen) base = std::max(base, c.size());
    PlainContext out(model_->config());
    for (std::size_t l = 0; l < chosen.size(); ++l) {
      for (std::size_t i = 0; i < chosen[l].size(); ++i) {
        out.layers[l].keys.push_back(plain->layers[l].keys[chosen[l][i]]);
        out.layers[l].values.push_back(plain->layers[l].values[chosen[l][i]]);
        out.layers[l].positions.push_back(static_cast<std::int64_t>(base - chosen[l].size() + i));
      }
    }
    out.start_at(static_cast<std::int64_t>(base));
    return out;
  }

  std::unique_ptr<Model> model_;
  std::vector<TokenId> document;
  std::vector<TokenId> prompt = {7, 250, 31, 90, 12, 13};
  std::unique_ptr<PlainContext> plain;
};

TEST_P(DecodeContextTest, OnePassAgreesWithPlainAttention) {
  auto context = DecodeContext::create(transformer(), 60);
  ASSERT_TRUE(context.is_ok());
  PlainContext again(model_->config());
  EXPECT_LT(testing::largest_difference(logits(*context, document), logits(again, document)), 2e-4F);
  EXPECT_EQ(context->appended(), 60);
  EXPECT_EQ(context->position(), 60);
  EXPECT_EQ(context->room(), 0);
}

TEST_P(DecodeContextTest, StepwiseEqualsOnePass) {
  auto whole = DecodeContext::create(transformer(), 60);
  const auto at_once = logits(*whole, document);
  for (const std::size_t step : {1U, 7U}) {
    auto context = DecodeContext::create(transformer(), 60);
    std::vector<float> last;
    for (std::size_t i = 0; i < document.size(); i += step)
      last = logits(*context, std::span(document).subspan(i, std::min(step, document.size() - i)));
    EXPECT_LT(testing::largest_difference(last, at_once), 2e-4F) << "steps of " << step;
  }
}

TEST_P(DecodeContextTest, ASetOfEverythingIsTheDocument) {
  const auto all = every(1, 60);
  const KvSet set = make_set(*plain, model_->config(), {all, all, all}, 60);
  auto context = DecodeContext::from_set(transformer(), set, 6);
  ASSERT_TRUE(context.is_ok()) << context.status().to_string();
  EXPECT_EQ(context->position(), 60);
  EXPECT_EQ(context->room(), 6);
  auto whole = DecodeContext::create(transformer(), 66);
  static_cast<void>(logits(*whole, document));
  EXPECT_LT(testing::largest_difference(logits(*context, prompt), logits(*whole, prompt)), 2e-4F);
}

TEST_P(DecodeContextTest, KeptEntriesMoveTogether) {
  const auto some = every(3, 20);
  const KvSet set = make_set(*plain, model_->config(), {some, some, some}, 60);
  auto context = DecodeContext::from_set(transformer(), set, 10);
  ASSERT_TRUE(context.is_ok()) << context.status().to_string();
  PlainContext want = at_their_place({some, some, some});
  EXPECT_LT(testing::largest_difference(logits(*context, prompt), logits(want, prompt)), 2e-4F);
  for (const TokenId id : {9, 10}) {
    EXPECT_LT(testing::largest_difference(logits(*context, {&id, 1}), logits(want, {&id, 1})), 2e-4F);
  }
}

TEST_P(DecodeContextTest, ShorterLayersSitAtTheEndOfTheLongest) {
  for (const auto& chosen :
       {std::vector{every(5, 10), every(2, 25), every(1, 3)}, std::vector{every(2, 30), every(1, 0), every(7, 8)}}) {
    const KvSet set = make_set(*plain, model_->config(), chosen, 60);
    auto context = DecodeContext::from_set(transformer(), set, 8);
    ASSERT_TRUE(context.is_ok()) << context.status().to_string();
    EXPECT_EQ(context->position(), static_cast<std::int64_t>(set.max_kept()));
    PlainContext want = at_their_place(chosen);
    EXPECT_LT(testing::largest_difference(logits(*context, prompt), logits(want, prompt)), 2e-4F);
    const TokenId next = 44;
    EXPECT_LT(testing::largest_difference(logits(*context, {&next, 1}), logits(want, {&next, 1})), 2e-4F);
  }
}

TEST_P(DecodeContextTest, NarrowSetsAreTheSameNumbersWidened) {
  const auto some = every(2, 30);
  const KvSet set = make_set(*plain, model_->config(), {some, some, some}, 60);
  auto exact_context = DecodeContext::from_set(transformer(), set, 6);
  const auto exact = logits(*exact_context, prompt);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const auto narrow = convert_kvset(set, dtype);
    ASSERT_TRUE(narrow.is_ok());
    const auto widened = convert_kvset(*narrow, DType::kF32);
    ASSERT_TRUE(widened.is_ok());
    auto context = DecodeContext::from_set(transformer(), *narrow, 6);
    ASSERT_TRUE(context.is_ok()) << context.status().to_string();
    auto wide_context = DecodeContext::from_set(transformer(), *widened, 6);
    const auto got = logits(*context, prompt);
    EXPECT_EQ(got, logits(*wide_context, prompt)) << dtype_name(dtype);
    EXPECT_LT(testing::largest_difference(got, exact), 0.1F) << dtype_name(dtype);
    EXPECT_NE(got, exact) << dtype_name(dtype) << " rounds";
  }
}

// Rotated keys go back as they are, whatever the position says.
TEST_P(DecodeContextTest, RotatedSetsGoBackVerbatim) {
  const auto all = every(1, 20);
  KvSet set = make_set(*plain, model_->config(), {all, all, all}, 60);
  auto moved = DecodeContext::from_set(transformer(), set, 6);
  const auto want = logits(*moved, prompt);
  // The same keys, rotated here to 0..19 by the host's own code.
  KvSet turned = set;
  turned.key_form = KeyForm::kRotated;
  for (std::size_t l = 0; l < turned.layers.size(); ++l) {
    auto keys = std::make_shared<std::vector<float>>(set.layers[l].keys.size() / 4);
    std::memcpy(keys->data(), set.layers[l].keys.data(), set.layers[l].keys.size());
    const auto d = static_cast<std::size_t>(set.shape.head_dim);
    const std::size_t half = set.rope.inv_freq.size();
    for (std::size_t e = 0; e < keys->size() / d; ++e) {
      float* key = keys->data() + e * d;
      for (std::size_t i = 0; i < half; ++i) {
        const std::size_t a = set.rope.interleaved ? 2 * i : i, b = set.rope.interleaved ? 2 * i + 1 : i + half;
        const float angle = static_cast<float>(e % 20) * set.rope.inv_freq[i];
        const float x = key[a], y = key[b];
        key[a] = x * std::cos(angle) - y * std::sin(angle);
        key[b] = y * std::cos(angle) + x * std::sin(angle);
      }
    }
    turned.layers[l].keys = std::as_bytes(std::span(*keys));
    turned.memory.push_back(keys);
  }
  auto context = DecodeContext::from_set(transformer(), turned, 6);
  ASSERT_TRUE(context.is_ok()) << context.status().to_string();
  EXPECT_LT(testing::largest_difference(logits(*context, prompt), want), 2e-4F);
  turned.next_position = 100;  // evicted entries leave a gap
  EXPECT_EQ(DecodeContext::from_set(transformer(), turned, 6)->position(), 100);
}

TEST_P(DecodeContextTest, SetsOfAnotherModelAreRefused) {
  const auto some = every(2, 10);
  const KvSet good = make_set(*plain, model_->config(), {some, some, some}, 60);
  ASSERT_TRUE(DecodeContext::from_set(transformer(), good, 1).is_ok());
  const auto refused = [&](const KvSet& set) {
    const auto made = DecodeContext::from_set(transformer(), set, 1);
    EXPECT_EQ(made.status().code(), StatusCode::kInvalidArgument) << made.status().to_string();
    return made.status().message();
  };
  KvSet fewer = make_set(*plain, model_->config(), {some, some}, 60);
  fewer.shape.n_layers = 2;
  EXPECT_NE(refused(fewer).find("2 layers"), std::string::npos);
  KvSet heads = good;  // the same bytes under another shape
  heads.shape.n_kv_heads *= 2;
  heads.shape.head_dim /= 2;
  refused(heads);
  KvSet theta = good;
  theta.rope.theta += 1;
  refused(theta);
  KvSet freq = good;
  freq.rope.inv_freq[1] *= 1.5F;
  refused(freq);
  KvSet pairs = good;
  pairs.rope.interleaved = !pairs.rope.interleaved;
  refused(pairs);
  KvSet form = good;
  form.key_form = KeyForm::kNone;
  refused(form);
  KvSet position = good;
  position.next_position += 1;
  EXPECT_NE(refused(position).find("11"), std::string::npos);
  for (const std::uint64_t far : {std::uint64_t{1} << 40, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    KvSet rotated = good;  // a file may say anything
    rotated.key_form = KeyForm::kRotated;
    rotated.next_position = far;
    EXPECT_NE(refused(rotated).find("context window"), std::string::npos);
  }
  KvSet broken = good;
  broken.layers[1].values = broken.layers[1].values.first(8);
  refused(broken);
}

TEST_P(DecodeContextTest, AFullCacheSaysSo) {
  auto context = DecodeContext::create(transformer(), 8);
  ASSERT_TRUE(context.is_ok());
  static_cast<void>(logits(*context, std::span(document).first(6)));
  EXPECT_EQ(context->room(), 2);
  const auto result = transformer().forward(std::span(document).first(3), *context, LogitRows::kNone);
  EXPECT_EQ(result.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(result.status().message().find("2 more"), std::string::npos) << result.status().message();
  EXPECT_EQ(context->room(), 2) << "nothing was taken";
}

INSTANTIATE_TEST_SUITE_P(Tiny, DecodeContextTest, ::testing::Values("tiny-llama", "tiny-qwen2", "tiny-qwen3"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace finchkv::model
