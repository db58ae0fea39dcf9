// How many keys every two layers' sets share, summed over queries.
//
//   n[q, i, j] = |set(i, q) intersected with set(j, q)|,  i <= j;  sums[i, j] = sum over q of n, squares[i, j] of n^2
//
// The overlap of the matrix is sums / (k * queries); sums and squares give its standard error. All are whole numbers.
//
// CPU twin: src/analysis/pairs.rs (`intersections`, the form by lists), src/analysis/overlap.rs. Launches:
// src/model/ops/cuda/overlap.rs.
//
// Shapes: sets [layers, queries, k] u32, rows ascending, 0xffffffff after the last; chosen [count] u32, the queries that
// take part; sums and squares [gridDim.x, pairs] u64, 0 before, one slice per block, to be added up outside; pairs in
// the order (0,0), (0,1), ..., (1,1), ...
//
// A block takes every gridDim.x-th query. One layer's set becomes bits in shared memory (RANGE keys at a time), and
// each warp looks up the keys of another layer in them. 512 threads; shared memory: bits and one count per pair,
// 64 KiB + 4 * pairs (97 KiB at 128 layers).
#include "device.cuh"

namespace overlap {

constexpr int THREADS = 512;
constexpr uint32_t RANGE = 1u << 19;

__device__ __forceinline__ void pairs(const uint32_t* sets, const uint32_t* chosen, int count, int layers, int queries, int k,
                                      uint32_t keys, unsigned long long* sums, unsigned long long* squares) {
  DYNAMIC_SHARED(shared);
  uint32_t* bits = reinterpret_cast<uint32_t*>(shared);
  uint32_t* counts = bits + RANGE / 32;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int all = layers * (layers + 1) / 2;
  for (uint32_t i = thread; i < RANGE / 32; i += THREADS) bits[i] = 0;

  for (int at = blockIdx.x; at < count; at += gridDim.x) {
    const uint32_t* first = sets + static_cast<long long>(chosen[at]) * k;
    const long long layer = static_cast<long long>(queries) * k;
    for (int i = thread; i < all; i += THREADS) counts[i] = 0;
    for (uint32_t base = 0; base < keys; base += RANGE) {
      int pair = 0;
      for (int i = 0; i < layers; ++i) {
        const uint32_t* own = first + i * layer;
        __syncthreads();
        for (int c = thread; c < k; c += THREADS) {
          const uint32_t key = own[c] - base;  // of smaller keys and of the padding: beyond the range
          if (key < RANGE && own[c] < keys) atomicOr(&bits[key / 32], 1u << key % 32);
        }
        __syncthreads();
        for (int j = i + warp; j < layers; j += THREADS / 32) {
          const uint32_t* other = first + j * layer;
          uint32_t common = 0;
          for (int c = lane; c < k; c += 32) {
            const uint32_t key = other[c] - base;
            if (key < RANGE && other[c] < keys) common += bits[key / 32] >> key % 32 & 1u;
          }
#pragma unroll
          for (int by = 16; by > 0; by /= 2) common += __shfl_xor_sync(~0u, common, by);
          if (lane == 0) counts[pair + j - i] += common;
        }
        __syncthreads();
        for (int c = thread; c < k; c += THREADS) {
          const uint32_t key = own[c] - base;
          if (key < RANGE && own[c] < keys) bits[key / 32] = 0;
        }
        pair += layers - i;
      }
    }
    __syncthreads();
    for (int i = thread; i < all; i += THREADS) {
      const unsigned long long n = counts[i];
      const long long place = static_cast<long long>(blockIdx.x) * all + i;
      sums[place] += n;
      squares[place] += n * n;
    }
    __syncthreads();
  }
}

}  // namespace overlap

extern "C" __global__ void __launch_bounds__(overlap::THREADS)
    overlap_pairs(const uint32_t* sets, const uint32_t* chosen, int count, int layers, int queries, int k, uint32_t keys,
                  unsigned long long* sums, unsigned long long* squares) {
  overlap::pairs(sets, chosen, count, layers, queries, k, keys, sums, squares);
}
