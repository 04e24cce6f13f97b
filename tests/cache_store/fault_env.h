// An Env around a FaultFs, for RocksDbOptions::env.
//
// Its clock does not wait: after a failed flush RocksDB sleeps for a second before it tries again, and rounds of
// failures would be all sleep. Left out: threads, which are the real ones.
#pragma once

#include <algorithm>
#include <memory>

#include <rocksdb/env.h>
#include <rocksdb/system_clock.h>

#include "tests/cache_store/fault_fs.h"

namespace finchkv::cache_store::testing {

class FaultEnv : public rocksdb::EnvWrapper {
 public:
  explicit FaultEnv(const std::shared_ptr<FaultFs>& fs) : EnvWrapper(rocksdb::NewCompositeEnv(fs)) {
    file_system_ = fs;
    system_clock_ = std::make_shared<Clock>(target()->GetSystemClock());
  }
  const char* Name() const override { return "FaultEnv"; }

 private:
  class Clock : public rocksdb::SystemClockWrapper {
   public:
    using SystemClockWrapper::SystemClockWrapper;
    const char* Name() const override { return "FaultEnvClock"; }
    void SleepForMicroseconds(int micros) override { SystemClockWrapper::SleepForMicroseconds(std::min(micros, 1000)); }
  };
};

}  // namespace finchkv::cache_store::testing
