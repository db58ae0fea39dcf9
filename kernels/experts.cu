// The chosen experts of a few tokens, straight from where their weights lie: two launches for all of them.
//
//   h[s, n] = silu(gate[e] . x[t]) * (up[e] . x[t]),    slot s = t k + i, e = ids[s]
//   y[t, n] = sum over i < k of w[t, i] * (down[ids[t k + i]][n] . h[t k + i])
//
// CPU twin: `one_by_one` of src/model/moe.rs. Launches: src/model/ops/cuda/experts.rs.
//
// Shapes (bf16 unless said): x [tokens, hidden], w [tokens, k], h [tokens k, width], y [tokens, hidden]; ids [tokens, k]
// u32; table [3, experts] u64: where gate and up [width, hidden] and down [hidden, width] of each expert begin, at
// multiples of 16 bytes; hidden and width are multiples of 8.
//
// One warp per sum, 8 per block: block (x, y) has 8 columns of slot (gate) or token (down) y. Bound by reading the weights
// once per slot: for as many slots as there are experts at most; beyond, experts are shared and products of matrices win.
#include "device.cuh"

namespace experts {

constexpr int THREADS = 256;

// A lane's part of the product of two rows.
__device__ __forceinline__ float part(const uint16_t* a, const uint16_t* b, int width, int lane) {
  float sum = 0.f;
#pragma unroll 4
  for (int c = 8 * lane; c < width; c += 256) {
    const uint4 p = __ldg(reinterpret_cast<const uint4*>(a + c)), q = __ldg(reinterpret_cast<const uint4*>(b + c));
    const uint32_t ps[4] = {p.x, p.y, p.z, p.w}, qs[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      sum += device::low_bf16(ps[i]) * device::low_bf16(qs[i]) + device::high_bf16(ps[i]) * device::high_bf16(qs[i]);
  }
  return sum;
}

__device__ __forceinline__ float of_warp(float sum) {
#pragma unroll
  for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(~0u, sum, by);
  return sum;
}

__device__ __forceinline__ const uint16_t* weight(const unsigned long long* table, int kind, int experts, uint32_t e) {
  return reinterpret_cast<const uint16_t*>(table[kind * experts + int(e)]);
}

__device__ __forceinline__ void gate(const uint16_t* x, const uint32_t* ids, const unsigned long long* table, uint16_t* h,
                                     int k, int experts, int hidden, int width) {
  const int lane = threadIdx.x % 32, slot = blockIdx.y;
  const int column = int(blockIdx.x) * (THREADS / 32) + int(threadIdx.x) / 32;
  if (column >= width) return;  // a whole warp
  const uint32_t e = ids[slot];
  const uint16_t* token = x + static_cast<long long>(slot / k) * hidden;
  const long long row = static_cast<long long>(column) * hidden;
  const float g = of_warp(part(weight(table, 0, experts, e) + row, token, hidden, lane));
  const float u = of_warp(part(weight(table, 1, experts, e) + row, token, hidden, lane));
  if (lane == 0) h[static_cast<long long>(slot) * width + column] = device::to_bf16(g / (1.f + expf(-g)) * u);
}

__device__ __forceinline__ void down(const uint16_t* h, const uint32_t* ids, const uint16_t* w,
                                     const unsigned long long* table, uint16_t* y, int k, int experts, int hidden,
                                     int width) {
  const int lane = threadIdx.x % 32, token = blockIdx.y;
  const int column = int(blockIdx.x) * (THREADS / 32) + int(threadIdx.x) / 32;
  if (column >= hidden) return;  // a whole warp
  float sum = 0.f;
  for (int i = 0; i < k; ++i) {
    const long long slot = static_cast<long long>(token) * k + i;
    const uint16_t* row = weight(table, 2, experts, ids[slot]) + static_cast<long long>(column) * width;
    sum += device::low_bf16(w[slot]) * part(row, h + slot * width, width, lane);
  }
  sum = of_warp(sum);
  if (lane == 0) y[static_cast<long long>(token) * hidden + column] = device::to_bf16(sum);
}

}  // namespace experts

extern "C" __global__ void __launch_bounds__(experts::THREADS)
    experts_gate(const uint16_t* x, const uint32_t* ids, const unsigned long long* table, uint16_t* h, int k, int experts,
                 int hidden, int width) {
  experts::gate(x, ids, table, h, k, experts, hidden, width);
}

extern "C" __global__ void __launch_bounds__(experts::THREADS)
    experts_down(const uint16_t* h, const uint32_t* ids, const uint16_t* w, const unsigned long long* table, uint16_t* y,
                 int k, int experts, int hidden, int width) {
  experts::down(h, ids, w, table, y, k, experts, hidden, width);
}
