// Attention over the selected keys of every query, in the latent (absorbed) form; and the same for grouped heads.
//
//   s[i, h, c] = scale * (q_latent[i, h] . c_kv[j] + q_rope[i, h] . k_rope[j]),   j = topk[i, c], c < count(i)
//   mixed[i, h] = sum over c of softmax_c(s[i, h, c]) * c_kv[j]
//
// with q_latent = q_nope W_k and the output W_v mixed left to two batched matrix products outside. Grouped heads: key
// and value of head h / group in place of c_kv, nothing rotated apart. count(i) = min(k, visible(i)).
//
// CPU twin: src/model/ops/sparse.rs (`sparse_latent`). Launches: src/model/ops/cuda/sparse.rs.
//
// Shapes (bf16, innermost last, strides of tokens and heads in elements; widths multiples of 8):
//   q_latent [rows, heads, latent]   q_rope [rows, heads, rope]   c_kv [keys, latent]   k_rope [keys, rope]
//   grouped: q [rows, heads, d], k and v [keys, groups, d], `key_head` elements from group to group: 2 d where a key and
//   its value lie side by side
//   topk [rows, k] u32              mixed [rows, heads, latent] bf16
//   parts (splits > 1): [splits, rows, heads, latent] f32 and [splits, rows, heads, 2] f32 (maximum, sum)
//
// One block per (query, share of its keys, MG * 16 heads): block (x, y, z). MG * NG warps. Scores: warp (m, n) has 16
// heads and 1 / NG of the NK keys of a tile; output: every warp has all heads and its own part of the latent, so that
// each value is read from shared memory once. Probabilities, maxima and fades go through shared memory. Of the queries,
// HELD steps stay in registers where the sums leave room. The next tile is gathered by asynchronous copies while this
// one is computed with: two stages. Softmax is online, in powers of 2; a sum is reduced over warps once, at the end.
//
// What bounds it is shared memory, at 128 bytes a cycle: counted from the loads, a tile of 64 keys takes 5056 cycles
// with 64 heads (3456 for scores, 1024 for output, 576 for the gather) and 3008 with up to 32 (1664, 768, 576). 40 % of
// 2048 bf16 products a cycle would be a tile in 5440: nearly all of what this form can do with 64 heads. On sm_90a blocks
// of more than 32 heads have wgmma: sparse_wgmma.cuh.
//
// A NaN of a query or of a selected key or value is one in the output: maxima pass it over, its power of 2 does not.
//
//   name                     MG x NG  NK   threads  shared memory     use
//   sparse_mla_l512_wgmma    4 x 2    64   256      224.5 KiB         more than 32 heads, sm_90a
//   sparse_mla_l512_m4       4 x 2    64   256      226 KiB           64 heads and more, other GPUs that have it
//   sparse_mla_l512_m2       2 x 4    64   256      185 KiB           17 to 32 heads, sm_90
//   sparse_mla_l512_m1       1 x 4    32   128      94 KiB            the rest, and every GPU of 99 KiB
//   sparse_mla_l128_m1       1 x 4    32   128      32 KiB            small latents
//   sparse_gqa_d128_m1       1 x 4    32   128      39 KiB            grouped heads
//   sparse_gqa_d64_m1        1 x 4    32   128      21 KiB
//
// `sparse_merge` joins the parts: sum of parts * 2^(their maximum - the maximum of all), divided by the sum of sums.
#include "device.cuh"

namespace sparse {

struct Operands {
  const uint16_t *q, *q_rope, *k, *k_rope, *v;
  const uint32_t* topk;
  uint16_t* mixed;
  float *parts, *sums;
  float scale;  // times log2(e)
  int rows, heads, groups, latent, rope, key_head, topk_width, first, keys;
  long long q_token, q_head, q_rope_token, q_rope_head, out_token, out_head;
};

// LATENT, ROPE: widths rounded up to 64 together, to 16 x NG each. GROUPED: values are not the keys.
template <int MG, int NG, int NK, int LATENT, int ROPE, bool GROUPED>
__device__ __forceinline__ void attend(const Operands& o) {
  constexpr int HEADS = 16 * MG, THREADS = 32 * MG * NG;
  constexpr int CHUNKS = (LATENT + ROPE) / 8, V_CHUNKS = LATENT / 8;  // of 16 bytes
  constexpr int STEPS = CHUNKS / 2;                                   // of 16 elements
  constexpr int S_TILES = NK / NG / 8, O_TILES = LATENT / (MG * NG) / 8;
  constexpr int P_STRIDE = NK + 8;
  constexpr int HELD = MG < 4 && LATENT == 512 ? 20 : 0;  // steps of the queries
  constexpr int STAGE = NK * (CHUNKS + (GROUPED ? V_CHUNKS : 0));
  static_assert(CHUNKS % 8 == 0 && V_CHUNKS % 8 == 0, "rows are whole groups of 8 chunks");
  static_assert(STEPS % 2 == 0 && S_TILES >= 1 && O_TILES % 2 == 0 && NK % 16 == 0, "whole fragments");

  DYNAMIC_SHARED(shared);
  uint4* queries = reinterpret_cast<uint4*>(shared);
  uint4* stages = queries + HEADS * CHUNKS;
  uint16_t* p_shared = reinterpret_cast<uint16_t*>(stages + 2 * STAGE);
  float* maxima = reinterpret_cast<float*>(p_shared + HEADS * P_STRIDE);  // [HEADS][NG]
  float* sums = maxima + HEADS * NG;                                      // [HEADS][NG], in the end
  float* fades = sums;                                                    // [HEADS], before

  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, g = lane / 4, t = lane % 4;
  const int m = warp / NG, n = warp % NG;
  const long long row = blockIdx.x;
  const int per_group = o.heads / o.groups, blocks_per_group = (per_group + HEADS - 1) / HEADS;
  const int group = int(blockIdx.z) / blocks_per_group;
  const int head0 = group * per_group + int(blockIdx.z) % blocks_per_group * HEADS;
  const int heads = min(HEADS, (group + 1) * per_group - head0);

  const int count = min(o.topk_width, min(o.keys, o.first + int(row)));
  const int tiles = (count + NK - 1) / NK;
  const int share = (tiles + int(gridDim.y) - 1) / int(gridDim.y);
  const int begin = int(blockIdx.y) * share, end = min(tiles, begin + share);
  const uint32_t* topk = o.topk + row * o.topk_width;

  auto fetch = [&](int tile) {
    if (tile < end) {
      uint4* stage = stages + (tile - begin) % 2 * STAGE;
#pragma unroll 4
      for (int at = thread; at < NK * CHUNKS; at += THREADS) {
        const int c = at / CHUNKS, chunk = at % CHUNKS, key = tile * NK + c;
        const bool rotated = chunk >= V_CHUNKS;
        const int column = 8 * (rotated ? chunk - V_CHUNKS : chunk), width = rotated ? o.rope : o.latent;
        const bool there = key < count && column < width;
        const uint16_t* from = rotated ? o.k_rope : o.k;
        const int apart = GROUPED ? o.key_head : width;
        if (there) from += (static_cast<long long>(__ldg(topk + key)) * o.groups + group) * apart + column;
        device::copy16(stage + device::swizzled(c, chunk, CHUNKS), from, there);
      }
      if (GROUPED) {
#pragma unroll 4
        for (int at = thread; at < NK * V_CHUNKS; at += THREADS) {
          const int c = at / V_CHUNKS, chunk = at % V_CHUNKS, key = tile * NK + c;
          const bool there = key < count && 8 * chunk < o.latent;
          const uint16_t* from = o.v;
          if (there) from += (static_cast<long long>(__ldg(topk + key)) * o.groups + group) * o.key_head + 8 * chunk;
          device::copy16(stage + NK * CHUNKS + device::swizzled(c, chunk, V_CHUNKS), from, there);
        }
      }
    }
    device::copies_commit();
  };

  for (int at = thread; at < HEADS * CHUNKS; at += THREADS) {
    const int h = at / CHUNKS, chunk = at % CHUNKS;
    const bool rotated = chunk >= V_CHUNKS;
    const int column = 8 * (rotated ? chunk - V_CHUNKS : chunk);
    const bool there = h < heads && column < (rotated ? o.rope : o.latent);
    const uint16_t* from = rotated ? o.q_rope : o.q;
    if (there)
      from += rotated ? row * o.q_rope_token + (head0 + h) * o.q_rope_head + column
                      : row * o.q_token + (head0 + h) * o.q_head + column;
    device::copy16(queries + device::swizzled(h, chunk, CHUNKS), from, there);
  }
  fetch(begin);

  float out[MG][O_TILES][4] = {};
  uint32_t held[HELD ? HELD : 1][4];  // of this warp's heads
  auto load_query = [&](uint32_t (&a)[4], int step) {
    device::load_matrices(a, queries + device::swizzled(16 * m + lane % 16, 2 * step + lane / 16, CHUNKS));
  };
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f};  // of rows g and g + 8

  for (int tile = begin; tile < end; ++tile) {
    device::copies_wait<0>();
    __syncthreads();  // the tile has come for all, and all have left the other stage
    fetch(tile + 1);
    const uint4* stage = stages + (tile - begin) % 2 * STAGE;

    float s[S_TILES][4] = {};
    auto multiply = [&](const uint32_t (&a0)[4], const uint32_t (&a1)[4], int step) {
#pragma unroll
      for (int tile_n = 0; tile_n < S_TILES; ++tile_n) {
        uint32_t b[4];
        const int key = n * (NK / NG) + 8 * tile_n + lane % 8;
        device::load_matrices(b, stage + device::swizzled(key, 2 * step + lane / 8, CHUNKS));
        device::multiply_bf16(s[tile_n], a0, b[0], b[1]);
        device::multiply_bf16(s[tile_n], a1, b[2], b[3]);
      }
    };
    if (HELD && tile == begin) {
#pragma unroll
      for (int step = 0; step < HELD; ++step) load_query(held[step], step);
    }
#pragma unroll
    for (int step = 0; step < HELD; step += 2) multiply(held[step], held[step + 1], step);
#pragma unroll 2
    for (int step = HELD; step < STEPS; step += 2) {
      uint32_t a[2][4];
      load_query(a[0], step);
      load_query(a[1], step + 1);
      multiply(a[0], a[1], step);
    }

    float high[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int tile_n = 0; tile_n < S_TILES; ++tile_n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = tile * NK + n * (NK / NG) + 8 * tile_n + 2 * t + i % 2;
        s[tile_n][i] = key < count ? s[tile_n][i] * o.scale : -INFINITY;
        high[i / 2] = fmaxf(high[i / 2], s[tile_n][i]);
      }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      high[r] = fmaxf(high[r], __shfl_xor_sync(~0u, high[r], 1));
      high[r] = fmaxf(high[r], __shfl_xor_sync(~0u, high[r], 2));
      if (t == 0) maxima[(16 * m + g + 8 * r) * NG + n] = high[r];
    }
    __syncthreads();  // maxima are there

    float fade[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      // The first key of a tile is always there, so that the maximum over all warps is finite.
      float now = top[r];
#pragma unroll
      for (int i = 0; i < NG; ++i) now = fmaxf(now, maxima[(16 * m + g + 8 * r) * NG + i]);
      fade[r] = exp2f(top[r] - now);
      top[r] = now;
      sum[r] *= fade[r];
      if (n == 0 && t == 0) fades[16 * m + g + 8 * r] = fade[r];
    }
#pragma unroll
    for (int tile_n = 0; tile_n < S_TILES; ++tile_n)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float p0 = exp2f(s[tile_n][2 * r] - top[r]), p1 = exp2f(s[tile_n][2 * r + 1] - top[r]);
        sum[r] += p0 + p1;
        const int column = n * (NK / NG) + 8 * tile_n + 2 * t;
        *reinterpret_cast<uint32_t*>(p_shared + (16 * m + g + 8 * r) * P_STRIDE + column) = device::pack_bf16(p0, p1);
      }
    __syncthreads();  // probabilities are there

#pragma unroll
    for (int mm = 0; mm < MG; ++mm) {
      const float faded[2] = {fades[16 * mm + g], fades[16 * mm + g + 8]};
#pragma unroll
      for (int i = 0; i < O_TILES; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) out[mm][i][j] *= faded[j / 2];
    }
    const uint4* values = GROUPED ? stage + NK * CHUNKS : stage;
    constexpr int VALUE_CHUNKS = GROUPED ? V_CHUNKS : CHUNKS;
#pragma unroll(MG < 4 ? NK / 16 : 1)
    for (int step = 0; step < NK / 16; ++step) {
      uint32_t a[MG][4];
#pragma unroll
      for (int mm = 0; mm < MG; ++mm)
        device::load_matrices(a[mm], p_shared + (16 * mm + lane % 16) * P_STRIDE + 16 * step + 8 * (lane / 16));
#pragma unroll
      for (int i = 0; i < O_TILES; i += 2) {
        uint32_t b[4];
        const int chunk = warp * O_TILES + i + lane / 16;
        device::load_matrices_transposed(b, values + device::swizzled(16 * step + lane % 16, chunk, VALUE_CHUNKS));
#pragma unroll
        for (int mm = 0; mm < MG; ++mm) {
          device::multiply_bf16(out[mm][i], a[mm], b[0], b[1]);
          device::multiply_bf16(out[mm][i + 1], a[mm], b[2], b[3]);
        }
      }
    }
  }

  __syncthreads();  // nobody reads fades any more
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    if (t == 0) sums[(16 * m + g + 8 * r) * NG + n] = sum[r];
  }
  __syncthreads();
  const long long first_place = (static_cast<long long>(blockIdx.y) * o.rows + row) * o.heads + head0;
  auto sum_of = [&](int h) {
    float whole = 0.f;
#pragma unroll
    for (int i = 0; i < NG; ++i) whole += sums[h * NG + i];
    return whole;
  };
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int h = 16 * m + g + 8 * r;
    if (o.parts && n == 0 && t == 0 && h < heads) {
      o.sums[2 * (first_place + h)] = top[r];
      o.sums[2 * (first_place + h) + 1] = sum_of(h);
    }
  }
#pragma unroll
  for (int half = 0; half < 2 * MG; ++half) {
    const int mm = half / 2, r = half % 2, h = 16 * mm + g + 8 * r;
    if (h >= heads) continue;
    const float whole = sum_of(h), share_of = whole > 0.f ? 1.f / whole : 0.f;
#pragma unroll
    for (int i = 0; i < O_TILES; ++i) {
      const int column = 8 * (warp * O_TILES + i) + 2 * t;
      if (column >= o.latent) continue;
      const float a = out[mm][i][2 * r], b = out[mm][i][2 * r + 1];
      if (o.parts) {
        *reinterpret_cast<float2*>(o.parts + (first_place + h) * o.latent + column) = make_float2(a, b);
      } else {
        uint16_t* to = o.mixed + row * o.out_token + (head0 + h) * o.out_head + column;
        *reinterpret_cast<uint32_t*>(to) = device::pack_bf16(a * share_of, b * share_of);
      }
    }
  }
}

// One block per (query, head): joins its parts. A part without keys has the maximum -inf and counts nothing.
__device__ __forceinline__ void merge(const float* parts, const float* sums, uint16_t* mixed, int splits, int rows, int heads,
                                      int latent, long long out_token, long long out_head) {
  const long long row = blockIdx.x, head = blockIdx.y, all = static_cast<long long>(rows) * heads;
  const long long place = row * heads + head;
  float top = -INFINITY, sum = 0.f;
  for (int i = 0; i < splits; ++i) top = fmaxf(top, sums[2 * (i * all + place)]);
  for (int i = 0; i < splits; ++i) sum += sums[2 * (i * all + place) + 1] * exp2f(sums[2 * (i * all + place)] - top);
  for (int column = threadIdx.x; column < latent; column += blockDim.x) {
    float value = 0.f;
    for (int i = 0; i < splits; ++i)
      value += parts[(i * all + place) * latent + column] * exp2f(sums[2 * (i * all + place)] - top);
    mixed[row * out_token + head * out_head + column] = device::to_bf16(value / sum);
  }
}

}  // namespace sparse

#include "sparse_wgmma.cuh"

#define SPARSE_KERNEL(NAME, THREADS, ...)                                                                             \
  extern "C" __global__ void __launch_bounds__(THREADS, 1) NAME(                                                      \
      const uint16_t* q, const uint16_t* q_rope, const uint16_t* k, const uint16_t* k_rope, const uint16_t* v,        \
      const uint32_t* topk, uint16_t* mixed, float* parts, float* sums, float scale, int rows, int heads, int groups, \
      int latent, int rope, int key_head, int topk_width, int first, int keys, long long q_token, long long q_head,   \
      long long q_rope_token, long long q_rope_head, long long out_token, long long out_head) {                       \
    sparse::__VA_ARGS__({q, q_rope, k, k_rope, v, topk, mixed, parts, sums, scale, rows, heads, groups, latent, rope, \
                         key_head, topk_width, first, keys, q_token, q_head, q_rope_token, q_rope_head, out_token,    \
                         out_head});                                                                                  \
  }
#define SPARSE(NAME, MG, NG, NK, LATENT, ROPE, GROUPED) \
  SPARSE_KERNEL(NAME, 32 * MG * NG, attend<MG, NG, NK, LATENT, ROPE, GROUPED>)

SPARSE(sparse_mla_l512_m4, 4, 2, 64, 512, 64, false)
SPARSE(sparse_mla_l512_m2, 2, 4, 64, 512, 64, false)
SPARSE(sparse_mla_l512_m1, 1, 4, 32, 512, 64, false)
SPARSE(sparse_mla_l128_m1, 1, 4, 32, 128, 64, false)
SPARSE(sparse_gqa_d128_m1, 1, 4, 32, 128, 0, true)
SPARSE(sparse_gqa_d64_m1, 1, 4, 32, 64, 0, true)
#ifdef INDEXSCOPE_WGMMA
SPARSE_KERNEL(sparse_mla_l512_wgmma, sparse::WGMMA_THREADS, attend_wgmma)
#endif

extern "C" __global__ void sparse_merge(const float* parts, const float* sums, uint16_t* mixed, int splits, int rows,
                                        int heads, int latent, long long out_token, long long out_head) {
  sparse::merge(parts, sums, mixed, splits, rows, heads, latent, out_token, out_head);
}
