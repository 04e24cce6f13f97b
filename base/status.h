// Status and Result<T>: how functions of finchkv say that they failed.
//
// No exception crosses a module's public interface. A function that can fail returns Status, or Result<T> where
// it has something to give. Both carry a code and one sentence that names the file, key or argument and what to do.
// Value types; safe to copy between threads. Stack traces and nesting are left out on purpose.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace finchkv {

enum class StatusCode : int {
  kOk = 0,
  kInvalidArgument = 1,
  kNotFound = 2,
  kCorrupt = 3,
  kUnavailable = 4,
  kResourceExhausted = 5,
  kDeadlineExceeded = 6,
  kPermissionDenied = 7,
  kUnsupported = 8,
  kInternal = 9,
};

/// The code's name as scripts and JSON see it: "invalid_argument", "not_found", ...
[[nodiscard]] std::string_view status_code_name(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status ok() { return {}; }
  static Status invalid_argument(std::string m) { return {StatusCode::kInvalidArgument, std::move(m)}; }
  static Status not_found(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
  static Status corrupt(std::string m) { return {StatusCode::kCorrupt, std::move(m)}; }
  static Status unavailable(std::string m) { return {StatusCode::kUnavailable, std::move(m)}; }
  static Status resource_exhausted(std::string m) { return {StatusCode::kResourceExhausted, std::move(m)}; }
  static Status deadline_exceeded(std::string m) { return {StatusCode::kDeadlineExceeded, std::move(m)}; }
  static Status permission_denied(std::string m) { return {StatusCode::kPermissionDenied, std::move(m)}; }
  static Status unsupported(std::string m) { return {StatusCode::kUnsupported, std::move(m)}; }
  static Status internal(std::string m) { return {StatusCode::kInternal, std::move(m)}; }

  [[nodiscard]] bool is_ok() const { return code_ == StatusCode::kOk; }
  [[nodiscard]] StatusCode code() const { return code_; }
  [[nodiscard]] const std::string& message() const { return message_; }
  /// "not_found: no entry starts with 3fa9" for logs; "ok" otherwise.
  [[nodiscard]] std::string to_string() const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

/// A value, or the Status that says why there is none. Reading the value of a failed Result is a bug (assert).
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor): `return value;`
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor): `return Status::...;`
    assert(!status_.is_ok() && "a Result without a value needs a failed Status");
  }

  [[nodiscard]] bool is_ok() const { return value_.has_value(); }
  [[nodiscard]] const Status& status() const { return status_; }

  T& operator*() & {
    assert(value_);
    return *value_;
  }
  const T& operator*() const& {
    assert(value_);
    return *value_;
  }
  T&& operator*() && {
    assert(value_);
    return std::move(*value_);
  }
  T* operator->() {
    assert(value_);
    return &*value_;
  }
  const T* operator->() const {
    assert(value_);
    return &*value_;
  }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace finchkv

/// Leaves the calling function with the Status of `expr` when that failed.
#define FINCHKV_RETURN_IF_ERROR(expr)                     \
  do {                                                    \
    ::finchkv::Status finchkv_status_ = (expr);           \
    if (!finchkv_status_.is_ok()) return finchkv_status_; \
  } while (false)

#define FINCHKV_CONCAT_INNER_(a, b) a##b
#define FINCHKV_CONCAT_(a, b) FINCHKV_CONCAT_INNER_(a, b)
/// FINCHKV_ASSIGN_OR_RETURN(auto x, may_fail()): the value of a Result, or leave with its Status.
#define FINCHKV_ASSIGN_OR_RETURN(lhs, expr) \
  FINCHKV_ASSIGN_OR_RETURN_IMPL_(FINCHKV_CONCAT_(finchkv_result_, __LINE__), lhs, expr)
#define FINCHKV_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                   \
  if (!tmp.is_ok()) return tmp.status();               \
  lhs = *std::move(tmp)
