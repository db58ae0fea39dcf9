// Products of a warpgroup on sm_90a: operands in shared memory, sums in registers, both under way while threads go on.
//
// A panel is rows of 128 bytes (64 bf16 or 128 e4m3), one after the other, from an address that 1024 divides; the 16-byte
// chunk c of row r lies where chunk c ^ (r & 7) would ("128-byte swizzle"). As an operand it is read in one of two ways
// (PTX ISA 9.7.15.5.1.2, "shared memory matrix layout", with its "strides" and "canonical layouts"):
//   K-major   rows are rows of A or columns of B, and k goes along them: a product takes 32 bytes of k, the next 32 begin
//             32 bytes further on. Stride: from 8 rows to the next 8, 1024 bytes. Leading offset: not used, 1.
//   N-major   rows are k, and the columns of B go along them: a product takes 16 rows, the next 16 begin 2048 bytes
//             further on. Stride: from 8 rows of k to the next 8, 1024 bytes. Leading offset: from 64 columns to the
//             next 64, which is from panel to panel. bf16 only.
// Sums (9.7.15.5.1.1, "register fragments"): warp v of the warpgroup has rows 16v.. of A; lane 4g + t has
//   c[4n], c[4n + 1] row g, columns 8n + 2t, 8n + 2t + 1          c[4n + 2], c[4n + 3] row g + 8, the same columns
#pragma once

#include "device.cuh"

// Defined where these products are: in code for sm_90a, and in emulation.
#if defined(INDEXSCOPE_EMULATE) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define INDEXSCOPE_WGMMA

namespace device {

// Describes a K-major panel. Adding n / 16 moves it by n bytes.
__device__ __forceinline__ uint64_t tile_at(const void* start) {
  return uint64_t((shared_address(start) & 0x3ffffu) >> 4) | uint64_t(1) << 16 | uint64_t(1024 >> 4) << 32 |
         uint64_t(1) << 62;
}

// Describes N-major panels, each `panel` bytes behind the one before.
__device__ __forceinline__ uint64_t columns_at(const void* start, uint32_t panel) {
  return uint64_t((shared_address(start) & 0x3ffffu) >> 4) | uint64_t(panel >> 4) << 16 | uint64_t(1024 >> 4) << 32 |
         uint64_t(1) << 62;
}

#ifndef INDEXSCOPE_EMULATE

// Shows this thread's finished copies and stores to the tensor cores; before the barrier that tells others of them.
__device__ __forceinline__ void writes_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Waits for the four warps of warpgroup `group`: each waits for its own part of a product only.
__device__ __forceinline__ void warpgroup_barrier(int group) { asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory"); }

// Orders this thread's accesses to sums before products that begin after it.
__device__ __forceinline__ void products_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes a group of products.
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Stores two bf16 that products will read.
__device__ __forceinline__ void store_pair(void* to, uint32_t pair) { *static_cast<uint32_t*>(to) = pair; }

// Waits until at most `PENDING` groups of products are under way; of their sums nothing is known to be complete.
template <int PENDING>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

#define INDEXSCOPE_8(c, i) \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define INDEXSCOPE_32_FROM(c, i) INDEXSCOPE_8(c, i), INDEXSCOPE_8(c, i + 8), INDEXSCOPE_8(c, i + 16), INDEXSCOPE_8(c, i + 24)
#define INDEXSCOPE_32(c) INDEXSCOPE_32_FROM(c, 0)
#define INDEXSCOPE_64(c) INDEXSCOPE_32(c), INDEXSCOPE_32_FROM(c, 32)
#define INDEXSCOPE_128(c) INDEXSCOPE_64(c), INDEXSCOPE_32_FROM(c, 64), INDEXSCOPE_32_FROM(c, 96)
#define INDEXSCOPE_NAMES_32 \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define INDEXSCOPE_NAMES_64 \
  INDEXSCOPE_NAMES_32 \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47" \
  ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define INDEXSCOPE_NAMES_128 \
  INDEXSCOPE_NAMES_64 \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79" \
  ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95" \
  ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111" \
  ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

// Waits until at most `PENDING` groups of products are under way. `c` are sums that are then complete.
#define INDEXSCOPE_WAIT(N)                                                                             \
  template <int PENDING>                                                                               \
  __device__ __forceinline__ void products_wait(float (&c)[N]) {                                       \
    asm volatile("wgmma.wait_group.sync.aligned %" #N ";" : INDEXSCOPE_##N(c) : "n"(PENDING) : "memory"); \
  }
INDEXSCOPE_WAIT(32)
INDEXSCOPE_WAIT(64)
INDEXSCOPE_WAIT(128)

// Starts c (+)= a b over 32 bytes of k, for 128 columns. `accumulate` is known when compiling.
template <bool FP8>
__device__ __forceinline__ void start_product(float (&c)[64], uint64_t a, uint64_t b, bool accumulate) {
  if (FP8) {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" INDEXSCOPE_NAMES_64 "}, %64, %65, p, 1, 1;}"
                 : INDEXSCOPE_64(c)
                 : "l"(a), "l"(b), "r"(int(accumulate)));
  } else {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" INDEXSCOPE_NAMES_64 "}, %64, %65, p, 1, 1, 0, 0;}"
                 : INDEXSCOPE_64(c)
                 : "l"(a), "l"(b), "r"(int(accumulate)));
  }
}

// The same in bf16 for 64 columns.
__device__ __forceinline__ void start_product(float (&c)[32], uint64_t a, uint64_t b, bool accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %34, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" INDEXSCOPE_NAMES_32 "}, %32, %33, p, 1, 1, 0, 0;}"
               : INDEXSCOPE_32(c)
               : "l"(a), "l"(b), "r"(int(accumulate)));
}

// Starts c += a b over 16 bf16 of k, for 256 columns of N-major panels: the last 1 says so.
__device__ __forceinline__ void start_product_of_columns(float (&c)[128], uint64_t a, uint64_t b) {
  asm volatile("{.reg .pred p; setp.eq.b32 p, 0, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" INDEXSCOPE_NAMES_128 "}, %128, %129, p, 1, 1, 0, 1;}"
               : INDEXSCOPE_128(c)
               : "l"(a), "l"(b));
}

#undef INDEXSCOPE_8
#undef INDEXSCOPE_32_FROM
#undef INDEXSCOPE_32
#undef INDEXSCOPE_64
#undef INDEXSCOPE_128
#undef INDEXSCOPE_NAMES_32
#undef INDEXSCOPE_NAMES_64
#undef INDEXSCOPE_NAMES_128
#undef INDEXSCOPE_WAIT

#endif  // INDEXSCOPE_EMULATE

}  // namespace device

#endif  // INDEXSCOPE_WGMMA
