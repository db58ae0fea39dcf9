// Runs kernels/indexer_topk.cu thread by thread and compares it with loops over the definition.
#include <string>

#include "check.h"

#include "../indexer_topk.cu"

using namespace check;

namespace {

long cases = 0;

struct Shape {
  int heads, dim, queries, keys, k, splits;
};

// Scores by the definition, -inf where a key is invisible.
std::vector<float> definition(const Shape& s, const std::vector<float>& q, const std::vector<float>& k,
                              const std::vector<float>& w, float scale, const std::vector<float>* q_scale,
                              const std::vector<float>* k_scale) {
  std::vector<float> scores(size_t(s.queries) * s.keys, -INFINITY);
  for (int i = 0; i < s.queries; ++i)
    for (int j = 0; j <= s.keys - s.queries + i; ++j) {
      double sum = 0;
      for (int h = 0; h < s.heads; ++h) {
        double dot = 0;
        for (int d = 0; d < s.dim; ++d)
          dot += double(q[(size_t(i) * s.heads + h) * s.dim + d]) * k[size_t(j) * s.dim + d];
        double weight = w[size_t(i) * s.heads + h] * scale;
        if (q_scale) weight *= (*q_scale)[size_t(i) * s.heads + h] * (*k_scale)[j];
        sum += weight * std::max(dot, 0.0);
      }
      scores[size_t(i) * s.keys + j] = float(sum);
    }
  return scores;
}

// The k best of a row by sorting, ties to the lowest index, ascending.
std::vector<uint32_t> best(const float* row, int n, int k) {
  std::vector<uint32_t> at(n);
  for (int i = 0; i < n; ++i) at[i] = i;
  std::stable_sort(at.begin(), at.end(), [&](uint32_t a, uint32_t b) { return row[a] > row[b]; });
  at.resize(std::min(n, k));
  std::sort(at.begin(), at.end());
  at.resize(k, ~0u);
  return at;
}

constexpr size_t SELECT_SHARED = (indexer::BINS + indexer::KEPT + indexer::SELECT_THREADS / 32 + 4) * 4;

std::vector<uint32_t> select_rows(const std::vector<float>& scores, int width, int rows, int first, int keys, int k, unsigned seed) {
  std::vector<uint32_t> topk(size_t(rows) * k + 1, 0xdeadbeef);  // one more, which stays as it is
  emulate::launch(dim3(rows), dim3(indexer::SELECT_THREADS), SELECT_SHARED, seed,
                  [&] { indexer_select(scores.data(), width, first, keys, k, topk.data()); });
  expect(topk.back() == 0xdeadbeef, "the selection of %d rows, k %d, writes beyond its end", rows, k);
  topk.pop_back();
  return topk;
}

// How a kernel shares queries out, and what shared memory it asks for.
struct Tiling {
  int padded_heads, queries, shared;
  bool wgmma;
};

Tiling mma(int padded_heads, bool split, int stage_bytes) {
  const int per_warp = indexer::COLUMNS / padded_heads;
  return {padded_heads, split ? per_warp : per_warp * indexer::WARPS, stage_bytes + indexer::WARPS * indexer::COLUMNS * 4,
          false};
}

Tiling wgmma(int padded_heads, int panels, int stages) {
  const int columns = indexer::BLOCK_COLUMNS;
  return {padded_heads, columns / padded_heads,
          panels * indexer::LINE * (columns + stages * indexer::TILE) + 4 * columns, true};
}

// `exact`: operands on which every partial sum is exact, so that scores and sets are equal to the last bit.
template <class Kernel>
void scores_and_selection(const char* name, Kernel kernel, const Shape& s, bool fp8, Tiling tiling, unsigned seeds = 2,
                          bool exact = true) {
  Dyadic dyadic(s.queries * 7 + s.keys);
  Uniform uniform(s.queries * 5 + s.keys);
  std::function<float()> draw = [&] { return exact ? dyadic() : uniform(); };
  auto q = floats(size_t(s.queries) * s.heads * s.dim, draw), k = floats(size_t(s.keys) * s.dim, draw);
  auto w = floats(size_t(s.queries) * s.heads, draw);
  std::vector<float> q_scale(size_t(s.queries) * s.heads), k_scale(s.keys);
  for (auto& v : q_scale) v = 0.5f + 0.5f * float(dyadic.random() % 2);
  for (auto& v : k_scale) v = 0.5f + 0.5f * float(dyadic.random() % 2);
  std::vector<uint16_t> q16, k16;
  std::vector<uint8_t> q8, k8;
  if (fp8) q8 = e4m3(q), k8 = e4m3(k);
  else q16 = bf16(q), k16 = bf16(k);
  const auto want = definition(s, q, k, w, 0.5f, fp8 ? &q_scale : nullptr, fp8 ? &k_scale : nullptr);
  const int width = (s.keys + 3) / 4 * 4, first = s.keys - s.queries + 1;
  float largest = 0.f;
  for (float x : want)
    if (x > -INFINITY) largest = std::max(largest, fabsf(x));
  for (unsigned seed = 0; seed < seeds; ++seed) {
    std::vector<float> scores(size_t(s.queries) * width, NAN);
    auto [loads, conflicts] = emulate::launch(
        dim3((s.queries + tiling.queries - 1) / tiling.queries, s.splits), dim3(indexer::THREADS), tiling.shared, seed, [&] {
          kernel(fp8 ? q8.data() : raw(q16), fp8 ? k8.data() : raw(k16), w.data(), q_scale.data(), k_scale.data(),
                 scores.data(), 0.5f, s.heads, fp8 ? s.dim : 2 * s.dim, s.queries, first, s.keys, width);
        });
    if (tiling.wgmma) expect(emulate::block().products > 0 && loads == 0, "%s: no product of a warpgroup", name);
    else expect(loads > 0 && conflicts == 0, "%s: %ld of %ld matrix loads have bank conflicts", name, conflicts, loads);
    for (int i = 0; i < s.queries; ++i)
      for (int j = 0; j < s.keys; ++j) {
        const float got = scores[size_t(i) * width + j], right = want[size_t(i) * s.keys + j];
        const bool visible = j < first + i, near = exact ? got == right : fabsf(got - right) <= 1e-5f * largest;
        expect(visible ? near : got != got, "%s seed %u heads %d dim %d: score (%d, %d) is %g, not %g", name, seed, s.heads,
               s.dim, i, j, got, right);
      }
    ++cases;
    if (!exact) continue;
    const auto topk = select_rows(scores, width, s.queries, first, s.keys, s.k, seed);
    for (int i = 0; i < s.queries; ++i) {
      const auto row = best(&want[size_t(i) * s.keys], first + i, s.k);
      expect(std::equal(row.begin(), row.end(), &topk[size_t(i) * s.k]), "%s: the selection of row %d of %d x %d, k %d", name, i,
             s.queries, s.keys, s.k);
    }
  }
}

// A NaN in one number of a key and of a query is one in all of their scores, and in no other.
template <class Kernel>
void not_a_number(const char* name, Kernel kernel, Tiling tiling) {
  constexpr int HEADS = 32, DIM = 128, QUERIES = 3, KEYS = 140, SPOILT_KEY = 70, SPOILT_QUERY = 1;
  Dyadic draw(1);
  auto q = floats(QUERIES * HEADS * DIM, draw), k = floats(KEYS * DIM, draw), w = floats(QUERIES * HEADS, draw);
  auto q16 = bf16(q), k16 = bf16(k);
  for (float& x : w) x += 2.f;  // none is 0
  k16[SPOILT_KEY * DIM + 5] = q16[(SPOILT_QUERY * HEADS + 7) * DIM + 9] = 0x7fc0;
  std::vector<float> scores(QUERIES * KEYS, 0.f);
  emulate::launch(dim3(1), dim3(indexer::THREADS), tiling.shared, 0, [&] {
    kernel(raw(q16), raw(k16), w.data(), nullptr, nullptr, scores.data(), 1.f, HEADS, 2 * DIM, QUERIES, KEYS, KEYS, KEYS);
  });
  for (int i = 0; i < QUERIES; ++i)
    for (int j = 0; j < KEYS; ++j) {
      const float got = scores[i * KEYS + j];
      expect((got != got) == (i == SPOILT_QUERY || j == SPOILT_KEY), "%s: score (%d, %d) is %g", name, i, j, got);
    }
  ++cases;
}

// Products of a warpgroup: a block of its 32, 16 or 8 queries and a part of one, more tiles than stages, several
// shares, heads and dims that fill no panel; operands read early, late and by chance.
void warpgroups() {
  not_a_number("bf16 d128 h32 wgmma", indexer_scores_bf16_d128_wgmma_h32, wgmma(32, 2, 3));
  const Shape shapes[] = {{32, 128, 1, 1, 1, 1},   {20, 112, 17, 17, 4, 1}, {32, 128, 33, 1100, 64, 1},
                          {31, 128, 40, 700, 64, 3}, {32, 112, 5, 900, 200, 9}};
  for (auto s : shapes) {
    for (bool exact : {true, false}) {
      s.heads = (s.heads + 1) / 2;
      scores_and_selection("bf16 d128 h16 wgmma", indexer_scores_bf16_d128_wgmma_h16, s, false, wgmma(16, 2, 3), 3, exact);
      s.heads *= 2;
      scores_and_selection("bf16 d128 h32 wgmma", indexer_scores_bf16_d128_wgmma_h32, s, false, wgmma(32, 2, 3), 4, exact);
      auto narrow = s;
      narrow.dim /= 2;
      scores_and_selection("bf16 d64 h32 wgmma", indexer_scores_bf16_d64_wgmma_h32, narrow, false, wgmma(32, 1, 4), 3, exact);
      s.dim = (s.dim + 15) / 16 * 16;
      scores_and_selection("fp8 d128 h32 wgmma", indexer_scores_fp8_d128_wgmma_h32, s, true, wgmma(32, 1, 4), 4, exact);
      s.heads *= 2;
      scores_and_selection("bf16 d128 h64 wgmma", indexer_scores_bf16_d128_wgmma_h64, s, false, wgmma(64, 2, 3), 3, exact);
      scores_and_selection("fp8 d128 h64 wgmma", indexer_scores_fp8_d128_wgmma_h64, s, true, wgmma(64, 1, 4), 3, exact);
      s.heads /= 2;
    }
  }
}

// Selection alone, on rows that are hard for a radix select or for the sample before it.
void selection_of_hard_rows() {
  std::mt19937 random(5);
  for (int kind = 0; kind < 8; ++kind)
    for (auto [n, k] : {std::pair(5, 1), {5, 2048}, {2049, 1}, {2049, 2048}, {10011, 1}, {10011, 2048}, {10011, 9000}, {40003, 2048}}) {
      std::vector<float> row((n + 3) / 4 * 4, 1e30f);  // beyond the row: higher than all
      std::vector<bool> sampled(n);
      for (long long i = 0; i < indexer::KEPT / 4 && n > indexer::KEPT; ++i)
        for (int j = 0; j < 4; ++j) sampled[i * (n / 4) / (indexer::KEPT / 4) * 4 + j] = true;
      for (int i = 0; i < n; ++i) {
        const float u = float(random() >> 8) / 16777216.f;
        row[i] = kind == 0   ? 0.f                                        // all equal
                 : kind == 1 ? (random() % 2 ? 0.f : -0.f)                // equal zeros of both signs
                 : kind == 2 ? float(int(random() % 5) - 2)               // few values
                 : kind == 3 ? __uint_as_float(0x3f800000u | random() % 600)  // differ in the last bits only
                 : kind == 4 ? (u - 0.5f) * expf(20.f * u)                // many magnitudes and both signs
                 : kind == 5 ? -1.f - u                                   // all negative
                 : kind == 6 ? u + float(sampled[i])                      // the sample is too high
                             : u - float(sampled[i]);                     // the sample is too low
      }
      const auto topk = select_rows(row, int(row.size()), 1, n, n, k, kind % 4);
      expect(topk == best(row.data(), n, k), "selection of kind %d, n %d, k %d", kind, n, k);
      ++cases;
    }
}

}  // namespace

// With an argument, `wgmma`, `mma` or `selection`: that part alone.
int main(int count, char** arguments) {
  const std::string part = count > 1 ? arguments[1] : "";
  if (part.empty() || part == "wgmma") warpgroups();
  if (part.empty() || part == "selection") selection_of_hard_rows();
  if (!part.empty() && part != "mma") return report("indexer_topk", cases);
  constexpr int BF16_128 = 3 * 128 * 256, NARROW = 4 * 128 * 128;
  not_a_number("bf16 d128 h32", indexer_scores_bf16_d128_h32, mma(32, false, BF16_128));
  const Shape shapes[] = {{3, 24, 1, 1, 1, 1},   {16, 64, 9, 9, 4, 1},    {5, 32, 33, 130, 16, 2},
                          {16, 64, 18, 300, 64, 3}, {16, 56, 2, 700, 200, 4}};
  for (auto s : shapes) {
    scores_and_selection("bf16 d64 h16", indexer_scores_bf16_d64_h16, s, false, mma(16, false, NARROW));
    scores_and_selection("bf16 d64 h16 split", indexer_scores_bf16_d64_split_h16, s, false, mma(16, true, NARROW));
    s.dim = (s.dim + 15) / 16 * 16;
    scores_and_selection("fp8 d128 h16", indexer_scores_fp8_d128_h16, s, true, mma(16, false, NARROW));
    s.heads *= 2, s.dim *= 2;
    scores_and_selection("bf16 d128 h32", indexer_scores_bf16_d128_h32, s, false, mma(32, false, BF16_128));
    scores_and_selection("bf16 d128 h32 split", indexer_scores_bf16_d128_split_h32, s, false, mma(32, true, BF16_128));
    scores_and_selection("fp8 d128 h32", indexer_scores_fp8_d128_h32, s, true, mma(32, false, NARROW));
    s.heads *= 2;
    scores_and_selection("bf16 d128 h64", indexer_scores_bf16_d128_h64, s, false, mma(64, false, BF16_128));
    scores_and_selection("fp8 d128 h64 split", indexer_scores_fp8_d128_split_h64, s, true, mma(64, true, NARROW));
  }
  return report("indexer_topk", cases);
}
