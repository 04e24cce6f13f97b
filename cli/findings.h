// What doctor finds: good or wrong, as lines that are printed as they come, or as one JSON object at the end.
//
// Used from one thread.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "cli/output.h"

namespace finchkv::cli {

class Findings {
 public:
  explicit Findings(bool json) : json_(json), list_(Json::array()) {}

  void good(std::string_view what, const std::string& text) { add(what, text, true); }
  void bad(std::string_view what, const std::string& text) { add(what, text, false); }
  /// Failed when something was wrong.
  [[nodiscard]] Status end();

 private:
  void add(std::string_view what, const std::string& text, bool ok);

  bool json_;
  int wrong_ = 0;
  Json list_;
};

}  // namespace finchkv::cli
