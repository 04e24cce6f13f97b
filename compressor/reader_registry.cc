#include <fmt/format.h>

#include "compressor/reader.h"
#include "compressor/readers/readers.h"

namespace finchkv::compressor {

std::vector<const Reader*> all_readers() { return {&chunk_reader(), &whole_reader()}; }

Result<const Reader*> find_reader(std::string_view name) {
  std::string names;
  for (const Reader* r : all_readers()) {
    if (r->name() == name) return r;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", r->name());
  }
  return Status::invalid_argument(fmt::format("there is no way of reading '{}'; the ways are {}", name, names));
}

}  // namespace finchkv::compressor
