// Where tests find their data: files in tests/data, and the real small model when it is on this machine.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace finchkv::testing {

/// $FINCHKV_TEST_DATA, for tests that run on another machine than they were built on, or the checkout's tests/data.
inline std::string data_path(const std::string& name) {
  const char* named = std::getenv("FINCHKV_TEST_DATA");
  return std::string(named == nullptr ? FINCHKV_TEST_DATA : named) + "/" + name;
}

/// SmolLM2-135M-Instruct (Q4_1), from $FINCHKV_SMOLLM2 or where scripts/quickstart puts it.
inline std::optional<std::string> smollm2_path() {
  if (const char* named = std::getenv("FINCHKV_SMOLLM2"); named != nullptr && std::filesystem::exists(named))
    return named;
  const std::string usual = std::string(FINCHKV_TEST_DATA) + "/../../.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (std::filesystem::exists(usual)) return usual;
  return std::nullopt;
}

}  // namespace finchkv::testing

#define FINCHKV_REQUIRE_SMOLLM2(var)                                                                         \
  const auto var##_optional = ::finchkv::testing::smollm2_path();                                            \
  if (!var##_optional) GTEST_SKIP() << "SmolLM2 is not here: run scripts/quickstart or set FINCHKV_SMOLLM2"; \
  const std::string& var = *var##_optional
