// The indexer's scores on sm_90a, for blocks of many query rows. Maths, shapes and twin: indexer_topk.cu.
//
// The same product, keys x (queries x heads), with the 512 columns of a block in shared memory for the whole kernel and keys
// streaming beside them, TILE at a time. Each of two warpgroups has 256 columns, in two halves of 128 with 64 sums per
// thread each: while the tensor cores fill one half's, threads reduce the other's. Per tile and warpgroup:
//
//   tensor cores   keys 0..63, half 1 | keys 64.., half 0 | keys 64.., half 1 | next tile, keys 0..63, half 0
//   threads        keys 0..63, half 0 | keys 0..63, half 1 | keys 64.., half 0 | keys 64.., half 1
//
// What bounds it, per multiprocessor and cycle (the figures are the architecture's, not measurements): tensor cores do
// 2048 bf16 or 4096 e4m3 products, so that a sum over 128 of them is due 16 or 32 times a cycle; 128 lanes then have 8
// or 4 instructions for it. It needs one maximum, one multiply-add, and its part of the sum over 4 lanes, of the
// addresses and of the copies: about 3. So tensor cores bound it where threads' work hides behind theirs, which two
// sets of sums per thread and two warpgroups are for. Shared memory gives 128 bytes a cycle: 32 bytes of k of 64 + 128
// rows in 64 cycles are 96. Keys come from the L2 cache at 8 bytes a cycle.
#pragma once

#include "wgmma.cuh"

#ifdef INDEXSCOPE_WGMMA

namespace indexer {

constexpr int HALF = 128;                     // columns of one product
constexpr int BLOCK_COLUMNS = COLUMNS * WARPS;
constexpr int LINE = 128;                     // bytes of a row of a panel

// HEADS: heads rounded up to 16, 32 or 64. PANELS: dim in panels of 128 bytes, rounded up to 1 or 2.
// Needs PANELS * LINE * (BLOCK_COLUMNS + STAGES * TILE) + 4 * BLOCK_COLUMNS bytes of shared memory.
template <bool FP8, int HEADS, int PANELS>
__device__ __forceinline__ void scores_wgmma(const Operands& o) {
  constexpr int STAGES = PANELS == 2 ? 3 : 4;
  constexpr int AHEAD = STAGES - 2;              // tiles; the last product of the tile before may still read its stage
  constexpr int PER_HALF = HALF / HEADS;         // queries
  constexpr int STAGE = PANELS * TILE * LINE;    // bytes
  constexpr int CHUNKS = PANELS * LINE / 16;     // of 16 bytes, per row
  DYNAMIC_SHARED(shared);
  unsigned char* columns = shared;
  unsigned char* stages = columns + PANELS * BLOCK_COLUMNS * LINE;

  const int thread = threadIdx.x, lane = thread % 32, g = lane / 4, t = lane % 4;
  const int warp = __shfl_sync(~0u, thread / 32, 0), group = warp / 4;  // the same in all lanes, and known to be
  const int block_row = blockIdx.x * (BLOCK_COLUMNS / HEADS);
  const int row = block_row + group * 2 * PER_HALF;

  // The block's share of the tiles that any of its queries sees.
  const int last = min(o.rows, block_row + BLOCK_COLUMNS / HEADS) - 1;
  const int visible = min(o.keys, o.first + last);
  const int tiles = (visible + TILE - 1) / TILE;
  const int share = (tiles + int(gridDim.y) - 1) / int(gridDim.y);
  const int begin = int(blockIdx.y) * share, end = min(tiles, begin + share);
  if (begin >= end) return;

  // Chunk `chunk` of row `at` of an operand of `rows` rows.
  auto place = [](unsigned char* operand, int rows, int at, int chunk) {
    return operand + (chunk / 8 * rows * LINE + 16 * device::swizzled(at, chunk % 8, 8));
  };
  constexpr int AT_ONCE = THREADS / CHUNKS;  // rows that the block copies at once
  const int chunk = thread % CHUNKS;
  const bool inside = 16 * chunk < o.dim_bytes;
#pragma unroll 4
  for (int column = thread / CHUNKS; column < BLOCK_COLUMNS; column += AT_ONCE) {
    const int query = block_row + column / HEADS, head = column % HEADS;
    const bool there = inside && query < o.rows && head < o.heads;
    const uint32_t at = there ? (uint32_t(query) * o.heads + head) * o.dim_bytes + 16 * chunk : 0u;
    device::copy16(place(columns, BLOCK_COLUMNS, column, chunk), o.q + at, there);
  }
  const int slot = thread / CHUNKS;
  auto fetch = [&](int tile) {
    if (tile < end) {
      unsigned char* to = place(stages + (tile - begin) % STAGES * STAGE, TILE, slot, chunk);
      const unsigned char* from = o.k + (uint32_t(tile * TILE + slot) * o.dim_bytes + 16 * chunk);
#pragma unroll
      for (int i = 0; i < TILE / AT_ONCE; ++i) {
        const bool there = inside && tile * TILE + slot + i * AT_ONCE < o.keys;
        device::copy16(to + i * AT_ONCE * LINE, there ? from + uint32_t(i * AT_ONCE) * o.dim_bytes : o.k, there);
      }
    }
    device::copies_commit();
  };
#pragma unroll
  for (int i = 0; i < AHEAD; ++i) fetch(begin + i);

  float* weights = reinterpret_cast<float*>(stages + STAGES * STAGE);
  for (int column = thread; column < BLOCK_COLUMNS; column += THREADS) {
    const int query = block_row + column / HEADS, head = column % HEADS;
    float weight = 0.f;
    if (query < o.rows && head < o.heads) {
      const long long at = static_cast<long long>(query) * o.heads + head;
      weight = o.scale * __ldg(o.w + at);
      if (FP8) weight *= __ldg(o.q_scale + at);
    }
    weights[column] = weight;
  }

  float2 w[2][HALF / 8];  // of columns 8n + 2t and 8n + 2t + 1 of both halves
  const uint64_t all_columns = device::tile_at(columns + group * 2 * HALF * LINE), all_stages = device::tile_at(stages);
  auto start = [&](float (&c)[64], int tile, int keys, int half) {
    const uint64_t a = all_stages + ((tile - begin) % STAGES * STAGE + keys * LINE) / 16;
    const uint64_t b = all_columns + half * HALF * LINE / 16;
    device::products_fence();
#pragma unroll
    for (int i = 0; i < PANELS * 4; ++i)
      device::start_product<FP8>(c, a + (i / 4 * TILE * LINE + i % 4 * 32) / 16,
                                 b + (i / 4 * BLOCK_COLUMNS * LINE + i % 4 * 32) / 16, i > 0);
  };
  // Waits for the sums of all but the newest group, and reduces them.
  auto finish = [&](float (&c)[64], int tile, int keys, int half) {
    const int mine = tile * TILE + keys + warp % 4 * 16 + g + 8 * (t & 1);
    const float k_scale = FP8 && mine < o.keys ? __ldg(o.k_scale + mine) : 1.f;
    device::products_wait<1>(c);
    // Value 2q + r: query q, key g + 8r; a thread's part of the sum over heads.
    float v[2 * PER_HALF] = {};
#pragma unroll
    for (int i = 0; i < 64; ++i)
      v[i / 4 / (HEADS / 8) * 2 + i / 2 % 2] += (i % 2 ? w[half][i / 4].y : w[half][i / 4].x) * device::relu(c[i]);
    // Four lanes, each with a part of every value, become four lanes, each with the whole of a quarter of them.
    float part[PER_HALF];
#pragma unroll
    for (int q = 0; q < PER_HALF; ++q) {
      const float keep = t & 1 ? v[2 * q + 1] : v[2 * q], give = t & 1 ? v[2 * q] : v[2 * q + 1];
      part[q] = keep + __shfl_xor_sync(~0u, give, 1);
    }
#pragma unroll
    for (int q = 0; q < PER_HALF; q += 2) {
      const float keep = t & 2 ? part[q + 1] : part[q], give = t & 2 ? part[q] : part[q + 1];
      const float whole = keep + __shfl_xor_sync(~0u, give, 2);
      const int query = row + half * PER_HALF + q + t / 2;
      if (query < o.rows && mine < min(o.keys, o.first + query))
        o.scores[uint32_t(query) * o.width + mine] = whole * k_scale;
    }
    __syncwarp();  // or ptxas mixes this with the next half's, and runs out of registers
  };
  auto arrive = [&] {
    device::copies_wait<AHEAD - 1>();
    device::writes_to_products();
    __syncthreads();  // the tile has come for all, and all have left the stage that is filled next
  };

  float even[64] = {}, odd[64] = {};  // sums of half 0 and of half 1
  arrive();
#pragma unroll
  for (int i = 0; i < 2 * HALF / 8; ++i)
    w[i / (HALF / 8)][i % (HALF / 8)] = *reinterpret_cast<const float2*>(weights + group * 2 * HALF + 8 * i + 2 * t);
  start(even, begin, 0, 0);
  device::products_commit();
#pragma unroll 1
  for (int tile = begin; tile < end; ++tile) {
    device::products_wait<0>(even);  // ptxas follows groups of products along a line, not around a loop
    start(odd, tile, 0, 1);
    device::products_commit();
    fetch(tile + AHEAD);
    finish(even, tile, 0, 0);
    start(even, tile, TILE / 2, 0);
    device::products_commit();
    finish(odd, tile, 0, 1);
    start(odd, tile, TILE / 2, 1);
    device::products_commit();
    finish(even, tile, TILE / 2, 0);
    arrive();
    start(even, tile + 1, 0, 0);  // after the last tile of whatever is there, for nobody: a branch would cost a wait
    device::products_commit();
    finish(odd, tile, TILE / 2, 1);
  }
  device::products_wait<0>(even);
}

}  // namespace indexer

#endif  // INDEXSCOPE_WGMMA
