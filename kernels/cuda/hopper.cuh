// Hopper's warpgroup products (wgmma), bulk tensor copies (TMA) and the barriers in shared memory that they report to.
//
// Only code for sm_90a has them: FINCHKV_HOPPER says whether the code at hand is that.
//
// Tiles in shared memory are columns of 64 bf16 (128 bytes) beside each other, each [rows][64] with the hardware's
// 128-byte swizzle, as a TMA box of 64 x rows writes it; every tile starts on 1024 bytes.
#pragma once

#include <cuda.h>

#include <cstdint>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FINCHKV_HOPPER 1
#else
#define FINCHKV_HOPPER 0
#endif

namespace finchkv::kernels::cuda {

#if FINCHKV_HOPPER

__device__ __forceinline__ std::uint32_t shared_address(const void* at) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(at));
}

// --- barriers: a phase ends when `arrivals` threads arrived and all expected bytes came

__device__ __forceinline__ void init_barrier(std::uint64_t* barrier, std::uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
/// After the barriers' setup, by the thread that did it: the copy engine sees them too.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}
__device__ __forceinline__ void expect_bytes(std::uint64_t* barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier)) : "memory");
}
/// Waits until the phase of this parity has ended; on a fresh barrier parity 1 counts as ended.
__device__ __forceinline__ void wait_barrier(std::uint64_t* barrier, std::uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

/// 64 x rows of a tensor map's box into shared memory, told to `barrier`.
__device__ __forceinline__ void load_box(const CUtensorMap& map, void* to, std::uint64_t* barrier, std::int32_t column,
                                         std::int32_t row, std::int32_t plane) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];\n" ::
          "r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row), "r"(plane)
      : "memory");
}

// --- registers a thread may use from here on; all four warps of a group call it
template <int kCount>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kCount));
}

// --- products of a group of 128 threads. c is a 64 x N result: warp w holds rows 16 w .., lane l of it rows quad and
// quad + 8 (quad = l / 4): c[4 j + i] row quad + i / 2 * 8, column 8 j + l % 4 * 2 + i % 2.

/// How a product finds a swizzled tile. Rows of 128 bytes are the inner dimension's 64 steps.
__device__ __forceinline__ std::uint64_t tile_descriptor(const void* tile) {
  constexpr std::uint64_t kGroupBytes = 1024, kSwizzle128 = 1;
  return (shared_address(tile) & 0x3FFFFU) >> 4 | std::uint64_t{1} << 16 | kGroupBytes >> 4 << 32 | kSwizzle128 << 62;
}
/// The same where rows are steps of the inner dimension; `column_bytes` from one column of 64 to the next.
__device__ __forceinline__ std::uint64_t transposed_descriptor(const void* tile, std::uint32_t column_bytes) {
  constexpr std::uint64_t kGroupBytes = 1024, kSwizzle128 = 1;
  return (shared_address(tile) & 0x3FFFFU) >> 4 | std::uint64_t{column_bytes >> 4} << 16 | kGroupBytes >> 4 << 32 |
         kSwizzle128 << 62;
}

/// Before the first product after registers of it were written.
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
/// Waits until at most kOpen committed groups are under way.
template <int kOpen>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kOpen) : "memory");
}
/// Keeps the compiler from moving uses of these registers across a wait.
template <int N>
__device__ __forceinline__ void pin(float (&c)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// A result's registers, as an instruction names them and as C++ does.
// clang-format off
#define FINCHKV_NAMES_32                                                                                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "                              \
  "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FINCHKV_NAMES_64                                                                                               \
  FINCHKV_NAMES_32 ", "                                                                                                \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, "                              \
  "%49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define FINCHKV_REGISTERS_32(c)                                                                                        \
  "+f"((c)[0]), "+f"((c)[1]), "+f"((c)[2]), "+f"((c)[3]), "+f"((c)[4]), "+f"((c)[5]), "+f"((c)[6]),                    \
  "+f"((c)[7]), "+f"((c)[8]), "+f"((c)[9]), "+f"((c)[10]), "+f"((c)[11]), "+f"((c)[12]),                               \
  "+f"((c)[13]), "+f"((c)[14]), "+f"((c)[15]), "+f"((c)[16]), "+f"((c)[17]), "+f"((c)[18]),                            \
  "+f"((c)[19]), "+f"((c)[20]), "+f"((c)[21]), "+f"((c)[22]), "+f"((c)[23]), "+f"((c)[24]),                            \
  "+f"((c)[25]), "+f"((c)[26]), "+f"((c)[27]), "+f"((c)[28]), "+f"((c)[29]), "+f"((c)[30]),                            \
  "+f"((c)[31])
#define FINCHKV_REGISTERS_64(c)                                                                                        \
  FINCHKV_REGISTERS_32(c),                                                                                             \
  "+f"((c)[32]), "+f"((c)[33]), "+f"((c)[34]), "+f"((c)[35]), "+f"((c)[36]), "+f"((c)[37]),                            \
  "+f"((c)[38]), "+f"((c)[39]), "+f"((c)[40]), "+f"((c)[41]), "+f"((c)[42]), "+f"((c)[43]),                            \
  "+f"((c)[44]), "+f"((c)[45]), "+f"((c)[46]), "+f"((c)[47]), "+f"((c)[48]), "+f"((c)[49]),                            \
  "+f"((c)[50]), "+f"((c)[51]), "+f"((c)[52]), "+f"((c)[53]), "+f"((c)[54]), "+f"((c)[55]),                            \
  "+f"((c)[56]), "+f"((c)[57]), "+f"((c)[58]), "+f"((c)[59]), "+f"((c)[60]), "+f"((c)[61]),                            \
  "+f"((c)[62]), "+f"((c)[63])
// clang-format on

/// c = a b^T, or c += where `adds`: a 64 x 16, b 128 x 16, both in shared memory.
__device__ __forceinline__ void multiply(float (&c)[64], std::uint64_t a, std::uint64_t b, int adds) {
  asm volatile(
      "{\n.reg .pred adds;\n"
      "setp.ne.b32 adds, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" FINCHKV_NAMES_64 "}, %64, %65, adds, 1, 1, 0, 0;\n}\n"
      : FINCHKV_REGISTERS_64(c)
      : "l"(a), "l"(b), "r"(adds));
}
/// c += a b: a 64 x 16 in registers, b 16 x 128 in shared memory.
__device__ __forceinline__ void multiply_transposed(float (&c)[64], const std::uint32_t (&a)[4], std::uint64_t b) {
  asm volatile(
      "{\n.reg .pred adds;\n"
      "setp.eq.b32 adds, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" FINCHKV_NAMES_64
      "}, {%64, %65, %66, %67}, %68, adds, 1, 1, 1;\n}\n"
      : FINCHKV_REGISTERS_64(c)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
/// The same of b 16 x 64.
__device__ __forceinline__ void multiply_transposed(float (&c)[32], const std::uint32_t (&a)[4], std::uint64_t b) {
  asm volatile(
      "{\n.reg .pred adds;\n"
      "setp.eq.b32 adds, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" FINCHKV_NAMES_32
      "}, {%32, %33, %34, %35}, %36, adds, 1, 1, 1;\n}\n"
      : FINCHKV_REGISTERS_32(c)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef FINCHKV_NAMES_32
#undef FINCHKV_NAMES_64
#undef FINCHKV_REGISTERS_32
#undef FINCHKV_REGISTERS_64

#endif

}  // namespace finchkv::kernels::cuda
