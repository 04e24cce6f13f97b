// What every entry of the C ABI does at its border: catch everything, hand errors out, take structs of other sizes.
//
// Internal to capi/. Pure functions; no exception passes through guard().
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <limits>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "base/status.h"
#include "capi/finchkv.h"

namespace finchkv::capi {

/// Hands a failed status out; when there is no memory for a sentence, the code alone.
[[nodiscard]] fkv_code fail(const Status& status, fkv_error** error) noexcept;
[[nodiscard]] fkv_code fail_out_of_memory(fkv_error** error) noexcept;

/// Runs `work`, which returns a Status.
template <typename Work>
[[nodiscard]] fkv_code guard(fkv_error** error, const Work& work) noexcept {
  if (error != nullptr) *error = nullptr;
  try {
    const Status status = work();
    return status.is_ok() ? FKV_OK : fail(status, error);
  } catch (const std::bad_alloc&) {
    return fail_out_of_memory(error);
  } catch (const std::length_error&) {  // a container of more than there are addresses
    return fail_out_of_memory(error);
  } catch (const std::exception& e) {
    try {
      return fail(Status::internal(std::string("unexpected: ") + e.what()), error);
    } catch (...) {
      return fail_out_of_memory(error);
    }
  } catch (...) {
    return fail(Status(StatusCode::kInternal, "unexpected"), error);
  }
}

[[nodiscard]] inline Status must_be_given(const void* argument, std::string_view name) {
  return argument != nullptr ? Status::ok() : Status::invalid_argument(fmt::format("{} is NULL", name));
}

[[nodiscard]] inline Result<std::string_view> view_of(fkv_str text, std::string_view name) {
  if (text.size == 0) return std::string_view();
  if (text.data == nullptr) return Status::invalid_argument(fmt::format("{} has a size and no data", name));
  if (text.size > static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max())) {
    return Status::invalid_argument(fmt::format("{} has the size {}: more than there is memory", name, text.size));
  }
  return std::string_view(text.data, text.size);
}
/// A name or path: no NUL byte, which would end it for whoever opens it.
[[nodiscard]] inline Result<std::string> name_of(fkv_str text, std::string_view name) {
  FINCHKV_ASSIGN_OR_RETURN(const std::string_view view, view_of(text, name));
  constexpr std::size_t kMost = 1 << 16;  // past any path: a garbled size must not read the process's memory
  if (view.size() > kMost) {
    return Status::invalid_argument(fmt::format("{} has {} bytes; {} at most", name, view.size(), kMost));
  }
  if (view.find('\0') != std::string_view::npos) {
    return Status::invalid_argument(fmt::format("{} has a NUL byte in it", name));
  }
  return std::string(view);
}
/// The same of one that must be given.
[[nodiscard]] inline Result<std::string> named(fkv_str text, std::string_view name) {
  if (text.size == 0) return Status::invalid_argument(fmt::format("{} is not given", name));
  return name_of(text, name);
}
/// A flag that another thread may set.
[[nodiscard]] inline bool is_set(const volatile std::int32_t* flag) {
  return flag != nullptr && __atomic_load_n(flag, __ATOMIC_RELAXED) != 0;
}
/// `count` of the caller's numbers or structs.
template <typename T>
[[nodiscard]] Result<std::span<const T>> array_of(const T* items, std::size_t count, std::string_view name) {
  if (count == 0) return std::span<const T>();
  FINCHKV_RETURN_IF_ERROR(must_be_given(items, name));
  if (count > static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(T)) {
    return Status::invalid_argument(fmt::format("{} are {}: more than there is memory", name, count));
  }
  return std::span(items, count);
}
[[nodiscard]] inline fkv_str str_of(std::string_view text) { return {text.data(), text.size()}; }

inline constexpr std::size_t kMostStruct = 1 << 16;  // a garbled size must not touch the process's memory

/// The caller's struct as this library knows it (conventions in finchkv.h).
template <typename Struct>
[[nodiscard]] Result<Struct> read_struct(const Struct* given, std::string_view name) {
  FINCHKV_RETURN_IF_ERROR(must_be_given(given, name));
  const std::size_t size = given->struct_size;
  if (size < sizeof(std::size_t) || size > kMostStruct) {
    return Status::invalid_argument(fmt::format("{} has the struct_size {}: set it to sizeof({})", name, size, name));
  }
  Struct known{};
  std::memcpy(&known, given, std::min(size, sizeof(Struct)));
  if (size > sizeof(Struct)) {
    const std::span<const std::byte> rest(reinterpret_cast<const std::byte*>(given) + sizeof(Struct),
                                          size - sizeof(Struct));
    if (std::any_of(rest.begin(), rest.end(), [](std::byte b) { return b != std::byte{0}; })) {
      return Status::unsupported(fmt::format("{} asks for something that came after version {}", name, fkv_version()));
    }
  }
  known.struct_size = size;
  return known;
}

/// `value` into the caller's struct, as much as it has room for; what this library does not know of it becomes zero.
template <typename Struct>
[[nodiscard]] Status write_struct(const Struct& value, Struct* to, std::string_view name) {
  FINCHKV_RETURN_IF_ERROR(must_be_given(to, name));
  const std::size_t size = to->struct_size;
  if (size < sizeof(std::size_t) || size > kMostStruct) {
    return Status::invalid_argument(fmt::format("{} has the struct_size {}: set it to sizeof({})", name, size, name));
  }
  std::memcpy(to, &value, std::min(size, sizeof(Struct)));
  if (size > sizeof(Struct)) std::memset(reinterpret_cast<std::byte*>(to) + sizeof(Struct), 0, size - sizeof(Struct));
  to->struct_size = size;
  return Status::ok();
}

}  // namespace finchkv::capi
