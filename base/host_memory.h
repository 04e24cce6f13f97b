// HostMemory: where large pieces of host memory come from, for whoever fills them on behalf of somebody else.
//
// A store reads an entry into memory that the entry's user chose, without knowing what that memory is good for: a GPU's
// is page-locked, so that the GPU fetches from it by itself. Thread-safe; pieces may outlive what they came from.
#pragma once

#include <cstddef>
#include <memory>

namespace finchkv {

class HostMemory {
 public:
  virtual ~HostMemory() = default;
  /// At least `bytes`, uninitialised, aligned to 64 bytes (to 4 KiB from 64 KiB on). nullptr when there is none left. A
  /// piece goes back, from any thread, when its last owner lets it go.
  [[nodiscard]] virtual std::shared_ptr<std::byte> take(std::size_t bytes) = 0;
};

}  // namespace finchkv
