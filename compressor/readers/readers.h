// The readers that there are, for the registry alone.
#pragma once

#include "compressor/reader.h"

namespace finchkv::compressor {

const Reader& chunk_reader();
const Reader& whole_reader();

}  // namespace finchkv::compressor
