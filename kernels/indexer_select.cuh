// The exact top-k of rows of scores. Maths, shapes and twin: indexer_topk.cu.
//
// The k-th highest score is found by a radix select: three counts, over 11 + 11 + 10 bits of the order of the score, from
// the top. So that a long row is not read for each, a sample, evenly spaced, first gives a score that the k-th is hardly
// ever below; the row's keys from there on go to shared memory, and where they are k or more and fit, the counts are
// over them. Otherwise (the sample misled, many keys are equal) they are over the row: the sample decides about time
// only. A last pass writes what is above the k-th score, and of its equals the first.
//
// Work per key and pass over the row, of two: 4 bytes from the L2 cache, 13 instructions of a thread.
#pragma once

#include "device.cuh"

namespace indexer {

constexpr int SELECT_THREADS = 512;
constexpr int BINS = 2048;
constexpr int KEPT = 8192;  // keys that shared memory takes
constexpr int EACH = 16;    // keys of a thread at once: four loads under way

// An integer of the same order as the score; -0 equals 0, NaN comes last.
__device__ __forceinline__ uint32_t order(float score) {
  if (!(score == score)) return 0u;
  const uint32_t bits = __float_as_uint(score + 0.f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The score that has this order, if it is no NaN.
__device__ __forceinline__ float score_of(uint32_t order) {
  return __uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order);
}

// Sum over the threads before this one; `sums` has room for one value per warp, and `total` gets the sum over all.
__device__ __forceinline__ uint32_t scan(uint32_t value, uint32_t* sums, uint32_t& total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t upto = value;
#pragma unroll
  for (int by = 1; by < 32; by *= 2) {
    const uint32_t before = __shfl_up_sync(~0u, upto, by);
    if (lane >= by) upto += before;
  }
  __syncthreads();  // readers of the last scan have left
  if (lane == 31) sums[warp] = upto;
  __syncthreads();
  uint32_t earlier = 0;
  total = 0;
#pragma unroll
  for (int i = 0; i < SELECT_THREADS / 32; ++i) {
    if (i < warp) earlier += sums[i];
    total += sums[i];
  }
  return earlier + upto - value;
}

struct Found {
  uint32_t digit, wanted;
};

// Finds the bin that holds the `wanted`-th highest of what was counted, and which of the bin's members it is.
__device__ __forceinline__ void find(const uint32_t* bins, uint32_t wanted, uint32_t* sums, Found* found) {
  constexpr int OWN = BINS / SELECT_THREADS;
  const int high = BINS - 1 - int(threadIdx.x) * OWN;  // the first thread has the highest bins
  uint32_t own = 0, total;
#pragma unroll
  for (int i = 0; i < OWN; ++i) own += bins[high - i];
  uint32_t above = scan(own, sums, total);
  if (above < wanted && wanted <= above + own) {
    for (int i = 0; i < OWN; ++i) {
      const uint32_t members = bins[high - i];
      if (wanted <= above + members) {
        *found = {uint32_t(high - i), wanted - above};
        break;
      }
      above += members;
    }
  }
  __syncthreads();
}

struct Row {
  const float* scores;
  int keys;
};

// The scores of four keys from `at`, a multiple of 4; where it is beyond the row, of others. Without a branch, so that
// loads do not wait for one another.
__device__ __forceinline__ void load(float* scores, Row row, int at) {
  const float4 four = *reinterpret_cast<const float4*>(row.scores + (at < row.keys ? at : 0));
  scores[0] = four.x, scores[1] = four.y, scores[2] = four.z, scores[3] = four.w;
}

// Which key the thread's i-th of EACH is, where its first is `at`.
__device__ __forceinline__ int key_of(int at, int i) { return at + i / 4 * 4 * SELECT_THREADS + i % 4; }

// Calls `f(scores, there, first key)` for EACH of the row's keys at a time, in no order; all threads equally often.
template <class F>
__device__ __forceinline__ void each(Row row, F f) {
  for (int base = 0; base < row.keys; base += EACH * SELECT_THREADS) {
    const int at = base + 4 * int(threadIdx.x);
    float scores[EACH];
    bool there[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i += 4) load(scores + i, row, at + i * SELECT_THREADS);
#pragma unroll
    for (int i = 0; i < EACH; ++i) there[i] = key_of(at, i) < row.keys;
    f(scores, there, at);
  }
}

struct Limit {
  uint32_t order;   // of the k-th
  uint32_t equals;  // how many of those equal to it are among the k
};

// The `wanted`-th highest of what `all(f)` calls `f(order)` for.
template <class All>
__device__ __forceinline__ Limit limit_of(All all, uint32_t wanted, uint32_t* bins, uint32_t* sums, Found* found) {
  uint32_t above = 0;  // the bits found so far
#pragma unroll 1
  for (int pass = 0; pass < 3; ++pass) {
    const int low = pass == 0 ? 21 : pass == 1 ? 10 : 0, high = pass == 0 ? 32 : pass == 1 ? 21 : 10;
    const uint32_t mask = (1u << (high - low)) - 1u;
    for (int i = threadIdx.x; i < BINS; i += SELECT_THREADS) bins[i] = 0;
    __syncthreads();
    all([&](uint32_t key) {
      if (pass == 0 || key >> high == above) atomicAdd(&bins[key >> low & mask], 1u);
    });
    __syncthreads();
    find(bins, wanted, sums, found);
    above = above << (high - low) | found->digit;
    wanted = found->wanted;
  }
  return {above, wanted};
}

// Writes the k keys: all with `above(score)`, and of those with `at_limit(score)` the first `equals`.
template <class Above, class AtLimit>
__device__ __forceinline__ void write(Row row, int k, uint32_t equals, uint32_t* sums, uint32_t* out, Above above, AtLimit at_limit) {
  // Counts of both travel in the halves of one integer.
  uint32_t above_before = 0, equal_before = 0;
  for (int base = 0; base < row.keys; base += EACH * SELECT_THREADS) {
    const int begin = base + EACH * int(threadIdx.x);
    float scores[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i += 4) load(scores + i, row, begin + i);
    uint32_t higher = 0, equal = 0;  // a bit per key
#pragma unroll
    for (int i = 0; i < EACH; ++i)
      if (begin + i < row.keys) {
        higher |= above(scores[i]) ? 1u << i : 0u;
        equal |= at_limit(scores[i]) ? 1u << i : 0u;
      }
    uint32_t total;
    const uint32_t before = scan(__popc(higher) | __popc(equal) << 16, sums, total);
    uint32_t above_here = above_before + (before & 0xffffu), equal_here = equal_before + (before >> 16);
    for (uint32_t left = higher | equal; left; left &= left - 1u) {
      const int i = __ffs(int(left)) - 1;
      const bool is_equal = equal >> i & 1u;
      if (!is_equal || equal_here < equals) out[above_here + min(equal_here, equals)] = begin + i;
      if (is_equal) ++equal_here;
      else ++above_here;
    }
    above_before += total & 0xffffu;
    equal_before += total >> 16;
    if (above_before + min(equal_before, equals) >= uint32_t(k)) break;
  }
}

__device__ __forceinline__ void select(const float* scores, uint32_t width, int first, int keys, int k, uint32_t* topk) {
  DYNAMIC_SHARED(shared);
  uint32_t* bins = reinterpret_cast<uint32_t*>(shared);
  uint32_t* kept = bins + BINS;
  uint32_t* sums = kept + KEPT;
  uint32_t* counter = sums + SELECT_THREADS / 32;
  Found* found = reinterpret_cast<Found*>(counter + 1);

  const Row row = {scores + static_cast<long long>(blockIdx.x) * width, min(keys, first + int(blockIdx.x))};
  uint32_t* out = topk + static_cast<long long>(blockIdx.x) * k;
  if (row.keys <= k) {
    for (int i = threadIdx.x; i < k; i += SELECT_THREADS) out[i] = i < row.keys ? uint32_t(i) : ~0u;
    return;
  }

  uint32_t candidates = 0;
  auto all_kept = [&](auto f) {
    for (uint32_t i = threadIdx.x; i < candidates; i += SELECT_THREADS) f(kept[i]);
  };
  auto all = [&](auto f) {
    each(row, [&](const float* scores, const bool* there, int) {
#pragma unroll
      for (int i = 0; i < EACH; ++i)
        if (there[i]) f(order(scores[i]));
    });
  };

  // From which score on keys are kept: that of the sample's key of a rank which the k-th's is hardly ever beyond.
  float from = -INFINITY;
  if (row.keys > KEPT) {
    const uint32_t fours = uint32_t(row.keys) / 4;
    float sample[KEPT / SELECT_THREADS];
#pragma unroll
    for (uint32_t i = 0; i < KEPT / SELECT_THREADS; i += 4)
      load(sample + i, row, (threadIdx.x + i / 4 * SELECT_THREADS) * fours / (KEPT / 4) * 4);
#pragma unroll
    for (uint32_t i = 0; i < KEPT / SELECT_THREADS; ++i) kept[threadIdx.x + i * SELECT_THREADS] = order(sample[i]);
    const float expected = float(k) * KEPT / float(row.keys), rank = expected + 6.f * sqrtf(expected) + 8.f;
    candidates = KEPT;
    if (rank < KEPT) from = score_of(limit_of(all_kept, uint32_t(rank), bins, sums, found).order);
  }
  if (threadIdx.x == 0) *counter = 0;
  __syncthreads();  // nobody reads the sample any more
  each(row, [&](const float* scores, const bool* there, int at) {
    uint32_t mine = 0;  // a bit per key
#pragma unroll
    for (int i = 0; i < EACH; ++i) mine |= there[i] && scores[i] >= from ? 1u << i : 0u;
    const int lane = threadIdx.x % 32;
    uint32_t upto = __popc(mine);
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
      const uint32_t before = __shfl_up_sync(~0u, upto, by);
      if (lane >= by) upto += before;
    }
    uint32_t place = lane == 31 ? atomicAdd(counter, upto) : 0u;
    place = __shfl_sync(~0u, place, 31) + upto - __popc(mine);
    for (; mine && place < KEPT; mine &= mine - 1u, ++place)
      kept[place] = order(row.scores[key_of(at, __ffs(int(mine)) - 1)]);
  });
  __syncthreads();
  candidates = *counter;
  const bool right = uint32_t(k) <= candidates && candidates <= KEPT;
  const Limit limit = right ? limit_of(all_kept, k, bins, sums, found) : limit_of(all, k, bins, sums, found);

  if (limit.order) {
    const float value = score_of(limit.order);
    write(row, k, limit.equals, sums, out, [=](float s) { return s > value; }, [=](float s) { return s == value; });
  } else {
    // Fewer than k are no NaN.
    write(row, k, limit.equals, sums, out, [](float s) { return s == s; }, [](float s) { return !(s == s); });
  }
}

}  // namespace indexer
