// Device::place_chunk by copies and rotations, one after the other: what it means, for devices and shapes that have
// nothing faster.
#pragma once

#include "kernels/device.h"

namespace finchkv::kernels {

void place_chunk_in_steps(Device& device, const RopeRecord& rope, const ChunkRows& c);

}  // namespace finchkv::kernels
