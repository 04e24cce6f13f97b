// Each member gets its own rows of a pass, and a failure of its own leaves the others going.
#include "model/ragged_context.h"

#include <gtest/gtest.h>

#include "tests/golden.h"

namespace finchkv::model {
namespace {

using kernels::Tensor;

// Remembers the rows that it was given, by their place in the pass.
class Recorder final : public AttentionContext {
 public:
  Status attend(std::int64_t, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) override {
    for (const Tensor* t : {&q, &k, &v, &out}) {
      EXPECT_EQ(t->dim(0), q.dim(0));
      firsts.push_back(*t->data<float>());
    }
    rows.push_back(q.dim(0));
    return failure;
  }
  std::vector<std::int64_t> rows;
  std::vector<float> firsts;
  Status failure = Status::ok();
};

class RaggedContextTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // Row i is i everywhere.
    all = *device->empty(kernels::ElementType::kF32, {7, 1, 2});
    std::vector<float> values;
    for (int i = 0; i < 7; ++i) values.insert(values.end(), 2, static_cast<float>(i));
    device->upload(values.data(), all);
  }
  Status pass(RaggedContext& ragged, std::int64_t rows = 7) {
    const Tensor t = all.slice(0, 0, rows);
    return ragged.attend(0, t, t, t, t);
  }
  std::shared_ptr<kernels::Device> device = testing::cpu(kernels::NumericClass::kReference, 1);
  Tensor all;
  Recorder a, b, c;
};

TEST_F(RaggedContextTest, MembersGetTheirRows) {
  RaggedContext ragged({{&a, 2}, {&b, 1}, {&c, 4}});
  EXPECT_FALSE(ragged.touched());
  ASSERT_TRUE(pass(ragged).is_ok());
  EXPECT_TRUE(ragged.touched());
  EXPECT_EQ(a.rows, std::vector<std::int64_t>{2});
  EXPECT_EQ(b.rows, std::vector<std::int64_t>{1});
  EXPECT_EQ(c.rows, std::vector<std::int64_t>{4});
  EXPECT_EQ(a.firsts, std::vector<float>(4, 0));
  EXPECT_EQ(b.firsts, std::vector<float>(4, 2));
  EXPECT_EQ(c.firsts, std::vector<float>(4, 3));
}

TEST_F(RaggedContextTest, AFailureIsTheMembersOwn) {
  b.failure = Status::internal("broken");
  RaggedContext ragged({{&a, 2}, {&b, 1}, {&c, 4}});
  ASSERT_TRUE(pass(ragged).is_ok());
  ASSERT_TRUE(pass(ragged).is_ok());  // the next layer
  EXPECT_EQ(ragged.members()[1].failure.message(), "broken");
  EXPECT_TRUE(ragged.members()[2].failure.is_ok());
  EXPECT_EQ(b.rows.size(), 1U) << "it is left out from then on";
  EXPECT_EQ(c.rows.size(), 2U);
  EXPECT_EQ(c.firsts.back(), 3) << "in its own place";
}

TEST_F(RaggedContextTest, NoMemoryFailsThePass) {
  a.failure = Status::resource_exhausted("full");
  RaggedContext ragged({{&a, 2}, {&b, 5}});
  EXPECT_EQ(pass(ragged).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(b.rows.empty());
}

TEST_F(RaggedContextTest, AnotherNumberOfRowsIsAnError) {
  RaggedContext ragged({{&a, 2}, {&b, 3}});
  EXPECT_EQ(pass(ragged).code(), StatusCode::kInternal);
  EXPECT_EQ(pass(ragged, 4).code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace finchkv::model
