// The page of `show --html`: one self-contained file that shows what was kept of a document.
//
// No scripts, no addresses of other files, and a policy that forbids both: documents and labels are hostile until they
// are escaped. Pure function, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "cli/entry_text.h"
#include "cli/kept_map.h"

namespace finchkv::cli {

struct PageInput {
  std::string title;
  Figures figures;
  std::uint64_t doc_tokens = 0;
  std::uint64_t kept = 0;  ///< per layer
  std::uint32_t rows = 1;  ///< origin lists per layer
  LayerOrigins origins;
  /// The bytes of each document token, [doc_tokens]; without them the page shows positions and says `why_no_text`.
  std::optional<std::vector<std::string>> token_texts;
  std::string why_no_text;
};

/// corrupt when an origin lies past the document, invalid_argument for an empty one.
[[nodiscard]] Result<std::string> make_html_page(const PageInput& input);

/// Text for HTML, in elements and in quoted attributes; control characters and invalid UTF-8 become U+FFFD.
[[nodiscard]] std::string escape_html(std::string_view text);

}  // namespace finchkv::cli
