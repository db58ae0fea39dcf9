// What a layer does row by row between its matrix products, in bf16: norms, rotation, the gate of an MLP.
//
//   norm    y[r, c] = bf16((x[r, c] - m) / sqrt(mean over c of (x[r, c] - m)^2 + eps)) * w[c] + b[c]
//           m = 0 (RMS), or the row's mean where there is a bias; rounded after the quotient, as the reference does
//   rotate  of every head: pair (a, b) of row r becomes (a cos - b sin, b cos + a sin), position r % positions; pairs are
//           (2j, 2j + 1) or (j, j + half) of the `2 half` columns from `offset`; all other columns are copied
//   swiglu  y = gate / (1 + e^-gate) * up
//   choose  ids[r] = the k experts of highest p[r, e] + bias[e], best first, ties to the lowest e
//
// CPU twins: src/model/ops/rms_norm.rs, rope.rs, swiglu.rs; `choose` of src/model/moe.rs. Launches:
// src/model/ops/cuda/rows.rs.
//
// Shapes: x [rows, width] or [rows, heads, dim] bf16, `apart` elements from row to row; w, b [width] bf16; cos, sin
// [positions, half] f32; y bf16, without gaps. Widths, offsets and distances are multiples of 8, half of 4 (of 8 where
// pairs are half apart), so that every access is of 16 bytes. `norm`: one warp per row, 8 rows per block. `rotate` and
// `swiglu`: one thread per 8 elements, 256 per block. All are bound by memory; sums and products are in f32.
// p [rows, experts] and bias [experts] f32, experts up to 512; ids [rows, k] u32. `choose`: one warp per row.
#include "device.cuh"

namespace rows {

constexpr int THREADS = 256;

struct Eight {
  float value[8];
};

__device__ __forceinline__ Eight load(const uint16_t* from) {
  const uint4 raw = *reinterpret_cast<const uint4*>(from);
  const uint32_t pairs[4] = {raw.x, raw.y, raw.z, raw.w};
  Eight eight;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    eight.value[2 * i] = device::low_bf16(pairs[i]);
    eight.value[2 * i + 1] = device::high_bf16(pairs[i]);
  }
  return eight;
}

__device__ __forceinline__ void store(uint16_t* to, const Eight& eight) {
  uint4 raw;
  raw.x = device::pack_bf16(eight.value[0], eight.value[1]);
  raw.y = device::pack_bf16(eight.value[2], eight.value[3]);
  raw.z = device::pack_bf16(eight.value[4], eight.value[5]);
  raw.w = device::pack_bf16(eight.value[6], eight.value[7]);
  *reinterpret_cast<uint4*>(to) = raw;
}

// As bf16 holds it.
__device__ __forceinline__ float rounded(float x) { return __uint_as_float(uint32_t(device::to_bf16(x)) << 16); }

__device__ __forceinline__ float of_warp(float sum) {
#pragma unroll
  for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(~0u, sum, by);
  return sum;
}

__device__ __forceinline__ void norm(const uint16_t* x, const uint16_t* w, const uint16_t* bias, uint16_t* y, float eps,
                                     int rows, int width, long long apart) {
  const int lane = threadIdx.x % 32, row = int(blockIdx.x) * (THREADS / 32) + int(threadIdx.x) / 32;
  if (row >= rows) return;  // a whole warp
  const uint16_t* from = x + row * apart;
  uint16_t* to = y + static_cast<long long>(row) * width;
  float mean = 0.f;
  if (bias) {
    for (int c = 8 * lane; c < width; c += 256) {
      const Eight eight = load(from + c);
#pragma unroll
      for (int i = 0; i < 8; ++i) mean += eight.value[i];
    }
    mean = of_warp(mean) / float(width);
  }
  float squares = 0.f;
  for (int c = 8 * lane; c < width; c += 256) {
    const Eight eight = load(from + c);
#pragma unroll
    for (int i = 0; i < 8; ++i) squares += (eight.value[i] - mean) * (eight.value[i] - mean);
  }
  const float scale = 1.f / sqrtf(of_warp(squares) / float(width) + eps);
  for (int c = 8 * lane; c < width; c += 256) {
    Eight eight = load(from + c);
    const Eight weight = load(w + c);
#pragma unroll
    for (int i = 0; i < 8; ++i) eight.value[i] = rounded((eight.value[i] - mean) * scale) * weight.value[i];
    if (bias) {
      const Eight more = load(bias + c);
#pragma unroll
      for (int i = 0; i < 8; ++i) eight.value[i] = rounded(eight.value[i]) + more.value[i];
    }
    store(to + c, eight);
  }
}

__device__ __forceinline__ void rotate(const uint16_t* x, const float* cos, const float* sin, uint16_t* y, int rows,
                                       int heads, int dim, int offset, int half, int interleaved, int positions,
                                       long long apart) {
  const int per_row = heads * dim / 8;
  const long long at = static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x;
  if (at >= static_cast<long long>(rows) * per_row) return;
  const int row = int(at / per_row), chunk = int(at % per_row);
  const int column = 8 * chunk % dim - offset;  // within the rotated part
  const uint16_t* from = x + row * apart + 8 * chunk;
  Eight eight = load(from);
  if (column >= 0 && column < 2 * half) {
    const long long table = static_cast<long long>(row % positions) * half;
    if (interleaved) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float c = __ldg(cos + table + column / 2 + i), s = __ldg(sin + table + column / 2 + i);
        const float a = eight.value[2 * i], b = eight.value[2 * i + 1];
        eight.value[2 * i] = a * c - b * s;
        eight.value[2 * i + 1] = b * c + a * s;
      }
    } else {
      const bool second = column >= half;
      const int first_column = second ? column - half : column;
      const Eight other = load(second ? from - half : from + half);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float c = __ldg(cos + table + first_column + i), s = __ldg(sin + table + first_column + i);
        eight.value[i] = second ? eight.value[i] * c + other.value[i] * s : eight.value[i] * c - other.value[i] * s;
      }
    }
  }
  store(y + 8 * at, eight);
}

__device__ __forceinline__ void swiglu(const uint16_t* gate, const uint16_t* up, uint16_t* y, long long count) {
  const long long at = 8 * (static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x);
  if (at >= count) return;
  Eight a = load(gate + at);
  const Eight b = load(up + at);
#pragma unroll
  for (int i = 0; i < 8; ++i) a.value[i] = a.value[i] / (1.f + expf(-a.value[i])) * b.value[i];
  store(y + at, a);
}

constexpr int MOST = 512;  // experts

__device__ __forceinline__ void choose(const float* p, const float* bias, uint32_t* ids, int rows, int experts, int k) {
  const int lane = threadIdx.x % 32, row = int(blockIdx.x) * (THREADS / 32) + int(threadIdx.x) / 32;
  if (row >= rows) return;  // a whole warp
  float worth[MOST / 32];  // of experts lane, lane + 32, ...
#pragma unroll
  for (int i = 0; i < MOST / 32; ++i) {
    const int e = lane + 32 * i;
    worth[i] = e < experts ? p[static_cast<long long>(row) * experts + e] + __ldg(bias + e) : -INFINITY;
  }
  for (int place = 0; place < k; ++place) {
    float best = -INFINITY;
    int which = MOST;
#pragma unroll
    for (int i = 0; i < MOST / 32; ++i)
      if (worth[i] > best) best = worth[i], which = lane + 32 * i;
#pragma unroll
    for (int by = 16; by > 0; by /= 2) {
      const float other = __shfl_xor_sync(~0u, best, by);
      const int other_which = __shfl_xor_sync(~0u, which, by);
      if (other > best || (other == best && other_which < which)) best = other, which = other_which;
    }
    if (lane == 0) ids[static_cast<long long>(row) * k + place] = uint32_t(min(which, experts - 1));
#pragma unroll
    for (int i = 0; i < MOST / 32; ++i)
      if (lane + 32 * i == which) worth[i] = -INFINITY;
  }
}

}  // namespace rows

extern "C" __global__ void __launch_bounds__(rows::THREADS)
    rows_norm(const uint16_t* x, const uint16_t* w, const uint16_t* bias, uint16_t* y, float eps, int rows, int width,
              long long apart) {
  rows::norm(x, w, bias, y, eps, rows, width, apart);
}

extern "C" __global__ void __launch_bounds__(rows::THREADS)
    rows_rotate(const uint16_t* x, const float* cos, const float* sin, uint16_t* y, int rows, int heads, int dim, int offset,
                int half, int interleaved, int positions, long long apart) {
  rows::rotate(x, cos, sin, y, rows, heads, dim, offset, half, interleaved, positions, apart);
}

extern "C" __global__ void __launch_bounds__(rows::THREADS)
    rows_swiglu(const uint16_t* gate, const uint16_t* up, uint16_t* y, long long count) {
  rows::swiglu(gate, up, y, count);
}

extern "C" __global__ void __launch_bounds__(rows::THREADS)
    rows_choose(const float* p, const float* bias, uint32_t* ids, int rows, int experts, int k) {
  rows::choose(p, bias, ids, rows, experts, k);
}
