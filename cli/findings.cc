#include "cli/findings.h"

#include <fmt/format.h>

namespace finchkv::cli {

Status Findings::end() {
  if (json_) print_json({{"ok", wrong_ == 0}, {"findings", list_}});
  if (wrong_ == 0) return Status::ok();
  return {StatusCode::kInternal, fmt::format("doctor: {} of {} checks failed", wrong_, list_.size())};
}

void Findings::add(std::string_view what, const std::string& text, bool ok) {
  list_.push_back({{"check", what}, {"ok", ok}, {"text", text}});
  wrong_ += ok ? 0 : 1;
  if (json_) return;
  print(fmt::format("{}  {}  {}\n", ok ? "ok   " : "WRONG", pad(std::string(what), 12), printable(text, true)));
}

}  // namespace finchkv::cli
