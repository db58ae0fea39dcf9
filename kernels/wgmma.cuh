// Products of a warpgroup on sm_90a: operands in shared memory, sums in registers, both under way while threads go on.
//
// A tile of an operand is rows of 128 bytes (64 bf16 or 128 e4m3 along k), one after the other, from an address that
// 1024 divides; the 16-byte chunk c of row r lies where chunk c ^ (r & 7) would ("128-byte swizzle, K-major").
// A product takes 32 bytes of k of 64 rows of A and 128 rows of B; the next 32 bytes begin 32 bytes further on.
// Sums (PTX ISA, "register fragments for wgmma"): warp v of the warpgroup has rows 16v.. of A; lane 4g + t has
//   c[4n], c[4n + 1] row g, columns 8n + 2t, 8n + 2t + 1          c[4n + 2], c[4n + 3] row g + 8, the same columns
#pragma once

#include "device.cuh"

// Defined where these products are: in code for sm_90a, and in emulation.
#if defined(INDEXSCOPE_EMULATE) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define INDEXSCOPE_WGMMA

namespace device {

// Describes a tile in shared memory: rows in groups of 8, 1024 bytes apart, 128-byte swizzle.
// Adding n / 16 moves it by n bytes.
__device__ __forceinline__ uint64_t tile_at(const void* start) {
  return uint64_t((shared_address(start) & 0x3ffffu) >> 4) | uint64_t(1) << 16 | uint64_t(1024 >> 4) << 32 |
         uint64_t(1) << 62;
}

#ifndef INDEXSCOPE_EMULATE

// Shows this thread's finished copies to the tensor cores; before the barrier that tells others of them.
__device__ __forceinline__ void copies_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Orders this thread's accesses to sums before products that begin after it.
__device__ __forceinline__ void products_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes a group of products.
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

#define INDEXSCOPE_8(c, i) \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define INDEXSCOPE_64(c)                                                                                   \
  INDEXSCOPE_8(c, 0), INDEXSCOPE_8(c, 8), INDEXSCOPE_8(c, 16), INDEXSCOPE_8(c, 24), INDEXSCOPE_8(c, 32), \
      INDEXSCOPE_8(c, 40), INDEXSCOPE_8(c, 48), INDEXSCOPE_8(c, 56)
#define INDEXSCOPE_NAMES                                                     \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,"  \
  "%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37," \
  "%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55," \
  "%56,%57,%58,%59,%60,%61,%62,%63}"

// Waits until at most `PENDING` groups of products are under way. `c` are sums that are then complete.
template <int PENDING>
__device__ __forceinline__ void products_wait(float (&c)[64]) {
  asm volatile("wgmma.wait_group.sync.aligned %64;" : INDEXSCOPE_64(c) : "n"(PENDING) : "memory");
}

// Starts c (+)= a b over 32 bytes of k. `accumulate` is known when compiling.
template <bool FP8>
__device__ __forceinline__ void start_product(float (&c)[64], uint64_t a, uint64_t b, bool accumulate) {
  if (FP8) {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 " INDEXSCOPE_NAMES ", %64, %65, p, 1, 1;}"
                 : INDEXSCOPE_64(c)
                 : "l"(a), "l"(b), "r"(int(accumulate)));
  } else {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " INDEXSCOPE_NAMES ", %64, %65, p, 1, 1, 0, 0;}"
                 : INDEXSCOPE_64(c)
                 : "l"(a), "l"(b), "r"(int(accumulate)));
  }
}

#undef INDEXSCOPE_8
#undef INDEXSCOPE_64
#undef INDEXSCOPE_NAMES

#endif  // INDEXSCOPE_EMULATE

}  // namespace device

#endif  // INDEXSCOPE_WGMMA
