// FP8 (e4m3), both ways: weights with one scale per block become bf16 or f32; rows of bf16 become codes with one scale.
//
//   value[r, c] = e4m3(code[r, c]) * scale[r / block_rows, c / block_columns]
//   scale[r] = max over c of |x[r, c]| / 448 (1 where that is 0);  code[r, c] = nearest e4m3 of x[r, c] / scale[r]
//   A row with a NaN has one for its scale and for all of its codes.
//
// CPU twins: src/model/ops/fp8.rs; src/model/ops/cuda/check/fp8.rs states the second. Launches:
// src/model/ops/cuda/fp8.rs.
//
// Shapes: codes [rows, columns] u8, scales [ceil(rows / block_rows), ceil(columns / block_columns)] f32; x [rows, columns]
// bf16. `dequantise`: blocks (x, y) of 256 threads, 4 columns each; y counts rows. `quantise_rows`: one warp per row, 8
// rows per block. Both are bound by memory.
#include "device.cuh"

namespace fp8 {

template <class Store>
__device__ __forceinline__ void dequantise(const uint8_t* codes, const float* scales, long long rows, int columns,
                                           int block_rows, int block_columns, Store store) {
  const int per_row = (columns + block_columns - 1) / block_columns;
  const int column = 4 * (int(blockIdx.x) * int(blockDim.x) + int(threadIdx.x));
  for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
    const float* of_row = scales + row / block_rows * per_row;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int c = column + i;
      if (c < columns) store(row * columns + c, device::from_e4m3(codes[row * columns + c]) * __ldg(of_row + c / block_columns));
    }
  }
}

// The larger of two, NaN where one of them is.
__device__ __forceinline__ float larger(float a, float b) { return b > a || !(b == b) ? b : a; }

__device__ __forceinline__ void quantise_rows(const uint16_t* x, uint8_t* codes, float* scales, int rows, int columns) {
  const int lane = threadIdx.x % 32, row = int(blockIdx.x) * int(blockDim.x / 32) + int(threadIdx.x) / 32;
  if (row >= rows) return;  // a whole warp
  const uint16_t* from = x + static_cast<long long>(row) * columns;
  float top = 0.f;
  for (int c = lane; c < columns; c += 32) top = larger(top, fabsf(device::low_bf16(from[c])));
#pragma unroll
  for (int by = 16; by > 0; by /= 2) top = larger(top, __shfl_xor_sync(~0u, top, by));
  const float scale = top == 0.f ? 1.f : top / 448.f;
  for (int c = lane; c < columns; c += 32)
    codes[static_cast<long long>(row) * columns + c] = uint8_t(device::to_e4m3(device::low_bf16(from[c]) / scale));
  if (lane == 0) scales[row] = scale;
}

}  // namespace fp8

extern "C" __global__ void __launch_bounds__(256)
    fp8_dequantise_bf16(const uint8_t* codes, const float* scales, uint16_t* values, long long rows, int columns,
                        int block_rows, int block_columns) {
  fp8::dequantise(codes, scales, rows, columns, block_rows, block_columns,
                  [=](long long at, float value) { values[at] = device::to_bf16(value); });
}

extern "C" __global__ void __launch_bounds__(256)
    fp8_dequantise_f32(const uint8_t* codes, const float* scales, float* values, long long rows, int columns, int block_rows,
                       int block_columns) {
  fp8::dequantise(codes, scales, rows, columns, block_rows, block_columns, [=](long long at, float value) { values[at] = value; });
}

extern "C" __global__ void __launch_bounds__(256)
    fp8_quantise_rows(const uint16_t* x, uint8_t* codes, float* scales, int rows, int columns) {
  fp8::quantise_rows(x, codes, scales, rows, columns);
}
