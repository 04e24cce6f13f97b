#include "base/status.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

namespace finchkv {
namespace {

constexpr StatusCode kCodes[] = {
    StatusCode::kOk,          StatusCode::kInvalidArgument,  StatusCode::kNotFound,
    StatusCode::kCorrupt,     StatusCode::kUnavailable,      StatusCode::kResourceExhausted,
    StatusCode::kInternal,    StatusCode::kDeadlineExceeded, StatusCode::kPermissionDenied,
    StatusCode::kUnsupported,
};

Result<int> half(int v) {
  if (v % 2 != 0) return Status::invalid_argument("odd");
  return v / 2;
}

Result<int> quarter(int v) {
  FINCHKV_ASSIGN_OR_RETURN(const int once, half(v));
  FINCHKV_ASSIGN_OR_RETURN(const int twice, half(once));
  return twice;
}

Status check(int v, int& passed) {
  FINCHKV_RETURN_IF_ERROR(half(v).status());
  ++passed;
  return Status::ok();
}

TEST(Status, OkByDefault) {
  const Status s;
  EXPECT_TRUE(s.is_ok());
  EXPECT_EQ(s.code(), StatusCode::kOk);
  EXPECT_EQ(s.to_string(), "ok");
}

TEST(Status, EveryCodeHasItsOwnName) {
  std::set<std::string_view> names;
  for (const StatusCode c : kCodes) names.insert(status_code_name(c));
  EXPECT_EQ(names.size(), std::size(kCodes));
  EXPECT_FALSE(names.contains("unknown"));
  EXPECT_EQ(status_code_name(static_cast<StatusCode>(99)), "unknown");
}

TEST(Status, FactoriesSayTheirCode) {
  EXPECT_EQ(Status::invalid_argument("m").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Status::not_found("m").code(), StatusCode::kNotFound);
  EXPECT_EQ(Status::corrupt("m").code(), StatusCode::kCorrupt);
  EXPECT_EQ(Status::unavailable("m").code(), StatusCode::kUnavailable);
  EXPECT_EQ(Status::resource_exhausted("m").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Status::deadline_exceeded("m").code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Status::permission_denied("m").code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(Status::unsupported("m").code(), StatusCode::kUnsupported);
  EXPECT_EQ(Status::internal("m").code(), StatusCode::kInternal);
  EXPECT_EQ(Status::not_found("no entry starts with 3fa9").to_string(), "not_found: no entry starts with 3fa9");
}

TEST(Result, HoldsAValueOrAStatus) {
  const Result<int> good = half(4);
  ASSERT_TRUE(good.is_ok());
  EXPECT_EQ(*good, 2);
  const Result<int> bad = half(3);
  EXPECT_FALSE(bad.is_ok());
  EXPECT_EQ(bad.status().message(), "odd");
}

TEST(Result, MovesItsValueOut) {
  Result<std::unique_ptr<int>> r(std::make_unique<int>(5));
  const std::unique_ptr<int> taken = *std::move(r);
  EXPECT_EQ(*taken, 5);
}

TEST(Macros, LeaveWithTheFirstFailure) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(6).status().code(), StatusCode::kInvalidArgument) << "the second step fails";
  EXPECT_EQ(quarter(5).status().code(), StatusCode::kInvalidArgument);
  int passed = 0;
  EXPECT_TRUE(check(2, passed).is_ok());
  EXPECT_FALSE(check(1, passed).is_ok());
  EXPECT_EQ(passed, 1);
}

}  // namespace
}  // namespace finchkv
