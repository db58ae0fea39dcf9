// The lightning indexer: scores on tensor cores, then the exact top-k of every query row.
//
//   I[i, j] = sum over h of w[i, h] * relu(scale * q[i, h] . k[j]),   j visible to i: j < visible(i) = first + i
//   topk(i) = the k keys of highest I[i, .], ties to the lowest j, ascending
//
// CPU twin: src/model/ops/indexer.rs (`select`) and src/model/ops/topk.rs. Launches: src/model/ops/cuda/indexer.rs.
//
// Shapes, rows of queries being a block of the sequence, so that the matrix of scores never exists as a whole:
//   q      [rows, heads, dim]   bf16, or e4m3 with one f32 scale per (row, head)
//   k      [keys, dim]          bf16, or e4m3 with one f32 scale per key
//   w      [rows, heads]        f32
//   scores [rows, width]        f32, width >= keys, a multiple of 4; entries of invisible keys are not written or stale
//   topk   [rows, k]            u32, 0xffffffff after the last where fewer keys are visible
//
// `scores`: the matrix product is keys x (queries x heads). A warp holds its queries in registers for the whole kernel
// (64 columns: 64 / HEADS queries, all their heads) and sees 16 keys at a time; heads are columns of the product, so
// that the sum over heads is a sum inside a thread and over 4 lanes. Keys stream through shared memory, TILE at a time,
// STAGES deep, by asynchronous copies. 8 warps: side by side over queries (prefill), or all on the same queries and
// side by side over keys (decode). Block (x, y): queries, share y of the key tiles. 256 threads, at most 99 KiB of
// shared memory: one path for every GPU from sm_80 on. On sm_90a blocks of many queries have wgmma: indexer_wgmma.cuh.
//
// A NaN of a query, key or weight is one in the scores, and comes last in the selection. Indexers whose weights have one
// are refused when they are loaded; that of a hidden state is one in the attention's output, too.
//
// `select`: one block of 512 threads per row: indexer_select.cuh.
#include "device.cuh"

namespace indexer {

constexpr int TILE = 128;    // keys in shared memory at once, per stage
constexpr int COLUMNS = 64;  // columns (queries x heads) of one warp
constexpr int WARPS = 8;
constexpr int THREADS = 32 * WARPS;

struct Operands {
  const unsigned char* q;
  const unsigned char* k;
  const float* w;
  const float* q_scale;  // e4m3 only
  const float* k_scale;  // e4m3 only
  float* scores;
  float scale;
  int heads, dim_bytes;
  int rows, first, keys;
  uint32_t width;
};

template <bool FP8>
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if (FP8) device::multiply_e4m3(c, a, b0, b1);
  else device::multiply_bf16(c, a, b0, b1);
}

// HEADS: heads rounded up to 16, 32 or 64. STEPS: 32-byte steps along dim, rounded up to 4 or 8.
// SPLIT: warps share the queries and split the keys.
template <bool FP8, int HEADS, int STEPS, bool SPLIT>
__device__ __forceinline__ void scores(const Operands& o) {
  constexpr int STAGES = STEPS == 8 ? 3 : 4;
  constexpr int CHUNKS = 2 * STEPS;                // of 16 bytes, per key
  constexpr int PER_WARP = COLUMNS / HEADS;        // queries
  constexpr int TILES_N = COLUMNS / 8;             // 8-column tiles of a warp
  constexpr int PER_QUERY = HEADS / 8;             // of which belong to one query
  DYNAMIC_SHARED(shared);
  uint4* stages = reinterpret_cast<uint4*>(shared);

  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, g = lane / 4, t = lane % 4;
  const int block_rows = SPLIT ? PER_WARP : PER_WARP * WARPS;
  const int block_row = blockIdx.x * block_rows;
  const int row = block_row + (SPLIT ? 0 : warp * PER_WARP);

  // The block's share of the tiles that any of its queries sees.
  const int last = min(o.rows, block_row + block_rows) - 1;
  const int visible = min(o.keys, o.first + last);
  const int tiles = (visible + TILE - 1) / TILE;
  const int share = (tiles + int(gridDim.y) - 1) / int(gridDim.y);
  const int begin = int(blockIdx.y) * share, end = min(tiles, begin + share);
  if (begin >= end) return;

  uint32_t b[TILES_N][STEPS][2];
#pragma unroll
  for (int n = 0; n < TILES_N; ++n) {
    const int query = row + n / PER_QUERY;
    const int head = n % PER_QUERY * 8 + g;  // of the fragment of q
    const bool there = query < o.rows && head < o.heads;
    const uint32_t at = (uint32_t(query) * o.heads + head) * o.dim_bytes + 4 * t;
#pragma unroll
    for (int s = 0; s < STEPS; ++s)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int byte = 32 * s + 16 * half;
        const bool inside = there && byte < o.dim_bytes;
        b[n][s][half] = inside ? __ldg(reinterpret_cast<const uint32_t*>(o.q + (at + byte))) : 0u;
      }
  }
  // Weights wait in shared memory: registers are what this kernel is short of.
  float* w = reinterpret_cast<float*>(stages + STAGES * TILE * CHUNKS) + warp * COLUMNS;
  for (int column = lane; column < COLUMNS; column += 32) {
    const int query = row + column / HEADS, head = column % HEADS;
    float weight = 0.f;
    if (query < o.rows && head < o.heads) {
      const long long place = static_cast<long long>(query) * o.heads + head;
      weight = o.scale * __ldg(o.w + place);
      if (FP8) weight *= __ldg(o.q_scale + place);
    }
    w[column] = weight;
  }

  auto fetch = [&](int tile) {
    if (tile < end) {
      uint4* stage = stages + (tile - begin) % STAGES * (TILE * CHUNKS);
      constexpr int KEYS = THREADS / CHUNKS;  // that the block copies at once
      const int chunk = thread % CHUNKS;
#pragma unroll 2
      for (int key = thread / CHUNKS; key < TILE; key += KEYS) {
        const int global = tile * TILE + key;
        const bool there = global < o.keys && 16 * chunk < o.dim_bytes;
        const unsigned char* from = o.k + (there ? uint32_t(global) * o.dim_bytes + 16 * chunk : 0u);
        device::copy16(stage + device::swizzled(key, chunk, CHUNKS), from, there);
      }
    }
    device::copies_commit();
  };
#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) fetch(begin + s);

  for (int tile = begin; tile < end; ++tile) {
    device::copies_wait<STAGES - 2>();
    __syncthreads();  // the tile has come for all, and all have left the stage that is filled next
    fetch(tile + STAGES - 1);
    const uint4* stage = stages + (tile - begin) % STAGES * (TILE * CHUNKS);
#pragma unroll 1
    for (int m = SPLIT ? warp : 0; m < TILE / 16; m += SPLIT ? WARPS : 1) {
      const int key = tile * TILE + 16 * m;
      if (key >= visible) break;
      float c[TILES_N][4] = {};
#pragma unroll
      for (int s = 0; s < STEPS; ++s) {
        uint32_t a[4];
        device::load_matrices(a, stage + device::swizzled(16 * m + lane % 16, 2 * s + lane / 16, CHUNKS));
#pragma unroll
        for (int n = 0; n < TILES_N; ++n) multiply<FP8>(c[n], a, b[n][s][0], b[n][s][1]);
      }
      // Value 2q + r: query q, key g + 8r; a thread's part of the sum over heads.
      float v[2 * PER_WARP] = {};
#pragma unroll
      for (int n = 0; n < TILES_N; ++n) {
        const float2 weight = *reinterpret_cast<const float2*>(w + 8 * n + 2 * t);
#pragma unroll
        for (int i = 0; i < 4; ++i)
          v[2 * (n / PER_QUERY) + i / 2] += (i % 2 ? weight.y : weight.x) * device::relu(c[n][i]);
      }
      // Four lanes, each with a part of every value, become four lanes, each with the whole of a quarter of them.
      float half[PER_WARP];
#pragma unroll
      for (int p = 0; p < PER_WARP; ++p) {
        const float keep = t & 1 ? v[2 * p + 1] : v[2 * p], give = t & 1 ? v[2 * p] : v[2 * p + 1];
        half[p] = keep + __shfl_xor_sync(~0u, give, 1);
      }
      const int mine = key + g + 8 * (t & 1);
      const float k_scale = FP8 && mine < o.keys ? __ldg(o.k_scale + mine) : 1.f;
      if (PER_WARP == 1) {
        const float whole = half[0] + __shfl_xor_sync(~0u, half[0], 2);
        if (t < 2 && row < o.rows && mine < min(o.keys, o.first + row))
          o.scores[uint32_t(row) * o.width + mine] = whole * k_scale;
      } else {
#pragma unroll
        for (int p = 0; p < PER_WARP / 2; ++p) {
          const float keep = t & 2 ? half[2 * p + 1] : half[2 * p], give = t & 2 ? half[2 * p] : half[2 * p + 1];
          const float whole = keep + __shfl_xor_sync(~0u, give, 2);
          const int query = row + 2 * p + t / 2;
          if (query < o.rows && mine < min(o.keys, o.first + query))
            o.scores[uint32_t(query) * o.width + mine] = whole * k_scale;
        }
      }
    }
  }
}

}  // namespace indexer

#include "indexer_select.cuh"
#include "indexer_wgmma.cuh"

#define INDEXER_SCORES(NAME, ...)                                                                   \
  extern "C" __global__ void __launch_bounds__(indexer::THREADS, 1) NAME(                           \
      const unsigned char* q, const unsigned char* k, const float* w, const float* q_scale,         \
      const float* k_scale, float* scores, float scale, int heads, int dim_bytes, int rows,         \
      int first, int keys, unsigned width) {                                                        \
    indexer::__VA_ARGS__(                                                                           \
        {q, k, w, q_scale, k_scale, scores, scale, heads, dim_bytes, rows, first, keys, width});    \
  }

#define INDEXER_HEADS(NAME, FP8, STEPS, SPLIT)                   \
  INDEXER_SCORES(NAME##_h16, scores<FP8, 16, STEPS, SPLIT>)      \
  INDEXER_SCORES(NAME##_h32, scores<FP8, 32, STEPS, SPLIT>)      \
  INDEXER_SCORES(NAME##_h64, scores<FP8, 64, STEPS, SPLIT>)

INDEXER_HEADS(indexer_scores_bf16_d64, false, 4, false)
INDEXER_HEADS(indexer_scores_bf16_d128, false, 8, false)
INDEXER_HEADS(indexer_scores_fp8_d128, true, 4, false)
INDEXER_HEADS(indexer_scores_bf16_d64_split, false, 4, true)
INDEXER_HEADS(indexer_scores_bf16_d128_split, false, 8, true)
INDEXER_HEADS(indexer_scores_fp8_d128_split, true, 4, true)

#ifdef INDEXSCOPE_WGMMA
#define INDEXER_WGMMA(NAME, FP8, PANELS)                     \
  INDEXER_SCORES(NAME##_h16, scores_wgmma<FP8, 16, PANELS>)  \
  INDEXER_SCORES(NAME##_h32, scores_wgmma<FP8, 32, PANELS>)  \
  INDEXER_SCORES(NAME##_h64, scores_wgmma<FP8, 64, PANELS>)

INDEXER_WGMMA(indexer_scores_bf16_d64_wgmma, false, 1)
INDEXER_WGMMA(indexer_scores_bf16_d128_wgmma, false, 2)
INDEXER_WGMMA(indexer_scores_fp8_d128_wgmma, true, 1)
#endif

extern "C" __global__ void __launch_bounds__(indexer::SELECT_THREADS, 2)
    indexer_select(const float* scores, unsigned width, int first, int keys, int k, unsigned int* topk) {
  indexer::select(scores, width, first, keys, k, topk);
}
