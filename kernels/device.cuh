// What all kernels share: asynchronous copies, matrix fragments, matrix products, number formats.
//
// Every wrapper has two forms: PTX for nvcc, and plain C++ for kernels/emulate, which runs the same kernels on a CPU.
//
// Fragments (PTX ISA, "matrix fragments for mma"): lane = 4·g + t, g in 0..8, t in 0..4. Of a 16 × 8 product over
// 32 bytes of k, a lane holds
//   A: a[0] row g, bytes 4t..4t+4     a[1] row g + 8, the same bytes     a[2] = a[0] + 16 bytes     a[3] = a[1] + 16 bytes
//   B: b[0] column g, bytes 4t..4t+4  b[1] = b[0] + 16 bytes
//   C: c[0], c[1] row g, columns 2t, 2t + 1                              c[2], c[3] row g + 8, the same columns
// 32 bytes are 16 bf16 or 32 e4m3: in bytes, both products have the same layout.
#pragma once

#ifdef INDEXSCOPE_EMULATE
#include "emulate/cuda.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

namespace device {

// Rows of 128 bytes or more: the 16-byte chunk `chunk` of row `row` lies at the place that this returns. Eight rows
// of one chunk, or eight chunks of one row, then hit different banks.
__device__ __forceinline__ int swizzled(int row, int chunk, int chunks_per_row) {
  return row * chunks_per_row + (chunk ^ (row & 7));
}

__device__ __forceinline__ float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_bf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// Rounds to the nearest bf16, ties to even; NaN stays NaN.
__device__ __forceinline__ uint16_t to_bf16(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#ifndef INDEXSCOPE_EMULATE
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return uint32_t(to_bf16(low)) | uint32_t(to_bf16(high)) << 16;
#endif
}

// The value of an e4m3 code. Its 7 low bits, moved to the top of an f32's, are 2^120 times too small, subnormals too.
__device__ __forceinline__ float from_e4m3(uint32_t code) {
  const uint32_t sign = (code & 0x80u) << 24;
  if ((code & 0x7fu) == 0x7fu) return __uint_as_float(sign | 0x7fc00000u);
  return __uint_as_float(sign | __float_as_uint(__uint_as_float((code & 0x7fu) << 20) * 0x1p120f));
}

// The nearest e4m3 code, ties to even; beyond ±448 the largest; NaN stays NaN.
__device__ __forceinline__ uint32_t to_e4m3(float x) {
  const uint32_t sign = (__float_as_uint(x) >> 24) & 0x80u;
  if (!(x == x)) return sign | 0x7fu;
  const float magnitude = fminf(fabsf(x), 448.f);  // of a NaN it would be 448
  // Below 2^-6 codes are 2^-9 apart; above, 3 bits of mantissa remain.
  if (magnitude < 0x1p-6f) return sign | uint32_t(rintf(magnitude * 0x1p9f));
  const uint32_t bits = __float_as_uint(magnitude);
  const uint32_t rounded = bits + 0x7ffffu + ((bits >> 20) & 1u);
  return sign | ((rounded >> 20) - (120u << 3));
}

// 2^x to the precision of the special function unit; 0 below 2^-126, NaN of NaN.
__device__ __forceinline__ float power_of_2(float x) {
#ifndef INDEXSCOPE_EMULATE
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

// x where it is above 0, NaN where it is NaN, else 0: one instruction, as fmaxf, which would make a NaN 0.
__device__ __forceinline__ float relu(float x) {
#ifndef INDEXSCOPE_EMULATE
  float y;
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(x));
  return y;
#else
  return x == x ? fmaxf(x, 0.f) : x;
#endif
}

#ifndef INDEXSCOPE_EMULATE

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Starts a copy of 16 bytes to shared memory; zeros where not `take`.
__device__ __forceinline__ void copy16(void* to, const void* from, bool take) {
  const int bytes = take ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes));
}

// Closes a group of copies.
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `PENDING` groups of this thread's copies are under way.
template <int PENDING>
__device__ __forceinline__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Loads four 8 × 16-byte matrices; lane 8m + r gives the address of row r of matrix m.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// The same, each matrix of 8 × 8 two-byte elements transposed.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// c += a b over 16 bf16.
__device__ __forceinline__ void multiply_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two e4m3 of the low (or high) half of `codes` as f16, 2^-8 times their value: exact, as every e4m3 is an f16, but for
// NaN, which becomes ±480: whose codes have one has a NaN for a scale, too (`fp8_quantise_rows`).
__device__ __forceinline__ uint32_t widen_e4m3(uint32_t codes, bool high) {
  const uint32_t two = high ? codes >> 16 : codes & 0xffffu;
  const uint32_t spread = (two & 0xffu) | (two & 0xff00u) << 8;
  return (spread & 0x00800080u) << 8 | (spread & 0x007f007fu) << 7;
}

// c += a b over 32 e4m3; before sm_89 through f16, with the same sums.
__device__ __forceinline__ void multiply_e4m3(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  // The four bytes of a register become k = 2t, 2t+1, 2t+8, 2t+9 of a 16-wide product, in a and b alike.
  float wide[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t low = a[2 * half], high = a[2 * half + 1], b = half ? b1 : b0;
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(wide[0]), "+f"(wide[1]), "+f"(wide[2]), "+f"(wide[3])
                 : "r"(widen_e4m3(low, false)), "r"(widen_e4m3(high, false)), "r"(widen_e4m3(low, true)),
                   "r"(widen_e4m3(high, true)), "r"(widen_e4m3(b, false)), "r"(widen_e4m3(b, true)));
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) c[i] += wide[i] * 0x1p16f;
#endif
}

#endif  // INDEXSCOPE_EMULATE

}  // namespace device
