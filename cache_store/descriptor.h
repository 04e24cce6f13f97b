// Descriptor: the one owner of a file descriptor. Internal to cache_store; belongs to one thread at a time.
#pragma once

#include <unistd.h>

namespace finchkv::cache_store {

class Descriptor {
 public:
  /// Takes what open() and its like return, failures included.
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  [[nodiscard]] int get() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

}  // namespace finchkv::cache_store
