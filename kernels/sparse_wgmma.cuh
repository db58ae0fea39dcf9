// Attention over a latent on sm_90a, for blocks of 64 heads. Maths, shapes and twin: sparse_mla.cu.
//
// One block per (query, share of its keys, 64 heads) of two warpgroups. Queries and keys lie in panels of 64 elements
// (wgmma.cuh): 8 of the latent, 1 of the rotated part, 64 rows each. Per tile of 64 keys, of which two are in shared memory:
//
//   warpgroup 0   64 x 64 scores = queries x keys, both K-major; softmax in registers; probabilities go to a panel
//   both          64 x 256 of the output each += probabilities x their half of the latent, the same panels N-major
//   both          fill the stage, with the tile after the next, where they alone have read it last: 32 keys as soon as
//                 the products over them are complete, while those over the others are under way; then the others,
//                 while warpgroup 0 has its next scores under way
//
// Probabilities are powers of 2 of the distance to a reference that moves only to a score more than 2^SLACK above it:
// sums seldom fade, and what is divided in the end is the same.
//
// What bounds it, per tile of 64 keys and counted, not measured: tensor cores have 1152 cycles of scores and 1024 of
// output at 2048 products a cycle. The operands of scores are 4 KiB per 32 cycles, all that shared memory gives, and the
// keys that come take 576 cycles of it: about 1400 for the scores. With about 400 of softmax and three waits for all
// threads it is some 2900 cycles, where 40 % of the ceiling are 5440. Keys are 73,728 bytes from the L2 cache: 2600 cycles
// if that gives a multiprocessor 28 bytes a cycle, which is assumed. So the gather is next; it is the same for any number
// of heads: with up to 32, half of the rows here would be empty, and mma.sync's 3008 cycles are as near to it.
#pragma once

#include "wgmma.cuh"

#ifdef INDEXSCOPE_WGMMA

namespace sparse {

constexpr int BLOCK = 64;               // heads of a block, keys of a tile, elements of a panel's row
constexpr int LINE = 128;               // bytes of a panel's row
constexpr int PANEL = BLOCK * LINE;     // bytes
constexpr int LATENT_PANELS = 8, PANELS = LATENT_PANELS + 1;
constexpr int OWN_PANELS = LATENT_PANELS / 2;  // of the latent, of one warpgroup
constexpr int WGMMA_THREADS = 256;
constexpr float SLACK = 8.f;

// Needs 3 * PANELS * PANEL + PANEL + 2 * BLOCK * 4 bytes of shared memory.
__device__ __forceinline__ void attend_wgmma(const Operands& o) {
  DYNAMIC_SHARED(shared);
  unsigned char* queries = shared;
  unsigned char* stages = queries + PANELS * PANEL;
  unsigned char* probabilities = stages + 2 * PANELS * PANEL;
  float* fades = reinterpret_cast<float*>(probabilities + PANEL);  // [BLOCK]
  float* sums = fades + BLOCK;                                     // [BLOCK]

  const int thread = threadIdx.x, lane = thread % 32, g = lane / 4, t = lane % 4;
  const int warp = __shfl_sync(~0u, thread / 32, 0), group = warp / 4, v = warp % 4;  // the same in all lanes
  const long long row = blockIdx.x;
  const int head0 = int(blockIdx.z) * BLOCK, heads = min(BLOCK, o.heads - head0);

  const int count = min(o.topk_width, min(o.keys, o.first + int(row)));
  const int tiles = (count + BLOCK - 1) / BLOCK;
  const int share = (tiles + int(gridDim.y) - 1) / int(gridDim.y);
  const int begin = int(blockIdx.y) * share, end = min(tiles, begin + share);
  const uint32_t* topk = o.topk + row * o.topk_width;

  // Chunk `chunk` of 16 bytes of row `at` of a panel.
  auto place = [](unsigned char* panel, int at, int chunk) { return panel + 16 * device::swizzled(at, chunk, 8); };

  for (int at = thread; at < BLOCK * PANELS * 8; at += WGMMA_THREADS) {
    const int h = at / (PANELS * 8), panel = at / 8 % PANELS, chunk = at % 8;
    const bool rotated = panel == LATENT_PANELS;
    const int column = 8 * chunk + (rotated ? 0 : BLOCK * panel);
    const bool there = h < heads && column < (rotated ? o.rope : o.latent);
    const uint16_t* from = rotated ? o.q_rope : o.q;
    if (there)
      from += rotated ? row * o.q_rope_token + (head0 + h) * o.q_rope_head + column
                      : row * o.q_token + (head0 + h) * o.q_head + column;
    device::copy16(place(queries + panel * PANEL, h, chunk), from, there);
  }

  // Of a tile, warp v of either warpgroup fetches keys 4i + v, i in 0..16: of the latent its warpgroup's half, one key at
  // a time; of the rotated part every other four keys. Lane i holds which key that is, and 0 beyond the last.
  auto keys_of = [&](int tile) {
    const int at = tile * BLOCK + 4 * (lane % 16) + v;
    return at < count ? __ldg(topk + at) : 0u;
  };
  const int chunk = lane % 8, column = BLOCK * OWN_PANELS * group + 8 * lane;
  const bool inside = column < o.latent, inside_rotated = 8 * chunk < o.rope;
  auto fetch = [&](int tile, int half, uint32_t keys) {
    if (tile < end) {
      unsigned char* stage = stages + (tile - begin) % 2 * (PANELS * PANEL);
      unsigned char* panel = stage + (OWN_PANELS * group + lane / 8) * PANEL;
      const int left = count - tile * BLOCK - v;
#pragma unroll
      for (int i = 8 * half; i < 8 * half + 8; ++i) {
        const uint64_t j = __shfl_sync(~0u, keys, i);
        device::copy16(place(panel, 4 * (i % 2) + v, chunk) + i / 2 * 8 * LINE, o.k + column + j * uint32_t(o.latent),
                       inside && 4 * i < left);
      }
      const int i = 8 * half + 4 * group + lane / 8;
      const uint64_t j = __shfl_sync(~0u, keys, i);
      device::copy16(place(stage + LATENT_PANELS * PANEL, 4 * i + v, chunk), o.k_rope + 8 * chunk + j * uint32_t(o.rope),
                     inside_rotated && 4 * i < left);
    }
    device::copies_commit();
  };
  uint32_t keys = keys_of(begin), next = keys_of(begin + 1);  // of the tile, and of the one after it
  fetch(begin, 0, keys);
  fetch(begin, 1, keys);
  fetch(begin + 1, 0, next);

  const uint64_t q = device::tile_at(queries), p = device::tile_at(probabilities), all_keys = device::tile_at(stages);
  const uint64_t all_values = device::columns_at(stages + OWN_PANELS * group * PANEL, PANEL);
  float out[128] = {};
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f};  // of heads 16v + g and 16v + g + 8, of warpgroup 0

  auto arrive = [&] {
    device::copies_wait<1>();
    device::writes_to_products();
    __syncthreads();  // the tile has come for all, and all have left the probabilities
  };
  arrive();
#pragma unroll 1
  for (int tile = begin; tile < end; ++tile) {
    const uint32_t stage = uint32_t((tile - begin) % 2) * (PANELS * PANEL / 16);
    keys = next;
    next = keys_of(tile + 2);
    if (group == 1) {
      fetch(tile + 1, 1, keys);
    } else {
      float s[32];
      device::products_fence();
#pragma unroll
      for (int i = 0; i < PANELS * 4; ++i) {
        const int at = (i / 4 * PANEL + i % 4 * 32) / 16;
        device::start_product(s, q + at, all_keys + stage + at, i > 0);
      }
      device::products_commit();
      fetch(tile + 1, 1, keys);
      device::products_wait<0>(s);

      const int left = count - tile * BLOCK - 2 * t;
#pragma unroll
      for (int i = 0; i < 32; ++i) s[i] *= o.scale;
      if (left < BLOCK) {
#pragma unroll
        for (int i = 0; i < 32; ++i)
          if (i / 4 * 8 + i % 2 >= left) s[i] = -INFINITY;
      }
      float high[2] = {-INFINITY, -INFINITY};
#pragma unroll
      for (int i = 0; i < 32; ++i) high[i / 2 % 2] = fmaxf(high[i / 2 % 2], s[i]);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        high[r] = fmaxf(high[r], __shfl_xor_sync(~0u, high[r], 1));
        high[r] = fmaxf(high[r], __shfl_xor_sync(~0u, high[r], 2));
        // The first key of a tile is always there, so that the first maximum is finite.
        const float now = high[r] > top[r] + SLACK ? high[r] : top[r];
        const float fade = device::power_of_2(top[r] - now);
        top[r] = now;
        sum[r] *= fade;
        if (t == 0) fades[16 * v + g + 8 * r] = fade;
      }
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const float p0 = device::power_of_2(s[4 * n + 2 * r] - top[r]);
          const float p1 = device::power_of_2(s[4 * n + 2 * r + 1] - top[r]);
          sum[r] += p0 + p1;
          device::store_pair(place(probabilities, 16 * v + g + 8 * r, n) + 4 * t, device::pack_bf16(p0, p1));
        }
      device::writes_to_products();
    }
    __syncthreads();  // probabilities and fades are there

    const float fade[2] = {fades[16 * v + g], fades[16 * v + g + 8]};
    if (__any_sync(~0u, fade[0] != 1.f || fade[1] != 1.f)) {
#pragma unroll
      for (int i = 0; i < 128; ++i) out[i] *= fade[i / 2 % 2];
    }
    device::products_fence();
#pragma unroll
    for (int i = 0; i < BLOCK / 16; ++i) {
      device::start_product_of_columns(out, p + i * 32 / 16, all_values + stage + i * 16 * LINE / 16);
      if (i % 2) device::products_commit();
    }
    device::products_wait<1>();
    device::warpgroup_barrier(group);  // the other warps have read the first 32 keys, too
    fetch(tile + 2, 0, next);
    device::products_wait<0>(out);
    arrive();
  }

  if (group == 0) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
      sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
      if (t == 0) sums[16 * v + g + 8 * r] = sum[r];
    }
  }
  __syncthreads();
  const long long first_place = (static_cast<long long>(blockIdx.y) * o.rows + row) * o.heads + head0;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int h = 16 * v + g + 8 * r;
    if (h >= heads) continue;
    const float whole = sums[h], share_of = 1.f / whole;
    if (o.parts && group == 0 && t == 0) {
      o.sums[2 * (first_place + h)] = top[r];
      o.sums[2 * (first_place + h) + 1] = whole;
    }
#pragma unroll
    for (int n = 0; n < 32; ++n) {
      const int at = BLOCK * OWN_PANELS * group + 8 * n + 2 * t;
      if (at >= o.latent) continue;
      const float a = out[4 * n + 2 * r], b = out[4 * n + 2 * r + 1];
      if (o.parts) {
        *reinterpret_cast<float2*>(o.parts + (first_place + h) * o.latent + at) = make_float2(a, b);
      } else {
        uint16_t* to = o.mixed + row * o.out_token + (head0 + h) * o.out_head + at;
        *reinterpret_cast<uint32_t*>(to) = device::pack_bf16(a * share_of, b * share_of);
      }
    }
  }
}

}  // namespace sparse

#endif  // INDEXSCOPE_WGMMA
