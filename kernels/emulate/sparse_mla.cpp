// Runs kernels/sparse_mla.cu thread by thread and compares it with loops over the definition.
#include <string>

#include "check.h"

#include "../sparse_mla.cu"

using namespace check;

namespace {

long cases = 0;

struct Shape {
  int rows, heads, groups, latent, rope, keys, k, splits;
};

// How a kernel shares heads out, and what shared memory it asks for.
struct Tiling {
  int heads, threads;
  size_t shared;
  bool grouped, wgmma;
};

Tiling mma(int mg, int ng, int nk, int latent, int rope, bool grouped) {
  const size_t row = 2 * (latent + rope), heads = 16 * mg;
  const size_t shared = heads * row + 2 * nk * (row + (grouped ? 2 * latent : 0)) + heads * (nk + 8) * 2 + 2 * heads * ng * 4;
  return {16 * mg, 32 * mg * ng, shared, grouped, false};
}

Tiling wgmma() {
  const size_t shared = 3 * sparse::PANELS * sparse::PANEL + sparse::PANEL + 2 * sparse::BLOCK * 4;
  return {sparse::BLOCK, sparse::WGMMA_THREADS, shared, false, true};
}

// Random ascending sets of the keys that row i sees: j < first + i.
std::vector<uint32_t> random_sets(const Shape& s, int first) {
  std::mt19937 random(s.keys * 31 + s.rows);
  std::vector<uint32_t> sets(size_t(s.rows) * s.k, ~0u);
  for (int i = 0; i < s.rows; ++i) {
    std::vector<uint32_t> all(first + i);
    for (size_t j = 0; j < all.size(); ++j) all[j] = uint32_t(j);
    std::shuffle(all.begin(), all.end(), random);
    all.resize(std::min<size_t>(all.size(), s.k));
    std::sort(all.begin(), all.end());
    std::copy(all.begin(), all.end(), &sets[size_t(i) * s.k]);
  }
  return sets;
}

// `steep`: keys grow with their place and scores are large, so that every tile has a higher maximum than the one before.
template <class Kernel>
void run(const char* name, Kernel kernel, Tiling tiling, const Shape& s, bool steep = false) {
  Uniform draw(s.keys + s.k);
  const bool grouped = tiling.grouped;
  const int first = s.keys - s.rows + 1, per_group = s.heads / s.groups;
  // Queries lie as the model leaves them: the latent part head by head, the rotated part behind another of width 8.
  auto q = floats(size_t(s.heads) * s.rows * s.latent, draw), q_rope = floats(size_t(s.rows) * s.heads * (8 + s.rope), draw);
  auto k = floats(size_t(s.keys) * s.groups * s.latent, draw), k_rope = floats(size_t(s.keys) * s.rope, draw);
  auto v = floats(size_t(s.keys) * s.groups * s.latent, draw);
  for (size_t at = 0; steep && at < k.size(); ++at) k[at] *= float(at / s.latent + 1) / float(s.keys);
  const auto q16 = bf16(q), q_rope16 = bf16(q_rope), k16 = bf16(k), k_rope16 = bf16(k_rope), v16 = bf16(v);
  if (!grouped) v = k;
  // Of grouped heads each key has its value behind it, as the model keeps them.
  std::vector<uint16_t> kept;
  for (size_t at = 0; grouped && at < k16.size(); at += s.latent) {
    kept.insert(kept.end(), &k16[at], &k16[at] + s.latent);
    kept.insert(kept.end(), &v16[at], &v16[at] + s.latent);
  }
  const uint16_t* keys = grouped ? kept.data() : k16.data();
  const int key_head = grouped ? 2 * s.latent : s.latent;
  const auto sets = random_sets(s, first);
  const float scale = (steep ? 40.f : 1.5f) / sqrtf(float(s.latent + s.rope));
  const int blocks = s.groups * ((per_group + tiling.heads - 1) / tiling.heads);
  const long long token = s.latent, head = (long long)(s.rows) * s.latent;

  std::vector<uint16_t> before;
  for (unsigned seed = 0; seed < (tiling.wgmma ? 4 : 2); ++seed)
    for (int splits : {1, s.splits}) {
      std::vector<uint16_t> mixed(size_t(s.heads) * s.rows * s.latent, 0x7fff);
      std::vector<float> parts(size_t(splits) * s.rows * s.heads * s.latent, NAN), sums(size_t(splits) * s.rows * s.heads * 2, NAN);
      auto [loads, conflicts] = emulate::launch(
          dim3(s.rows, splits, blocks), dim3(tiling.threads), tiling.shared, seed, [&] {
            kernel(q16.data(), q_rope16.data() + 8, keys, k_rope16.data(), keys + (grouped ? s.latent : 0), sets.data(), mixed.data(),
                   splits > 1 ? parts.data() : nullptr, sums.data(), scale * 1.44269504f, s.rows, s.heads, s.groups, s.latent,
                   s.rope, key_head, s.k, first, s.keys, token, head, (long long)(s.heads) * (8 + s.rope), 8 + s.rope, token, head);
          });
      if (tiling.wgmma) expect(emulate::block().products > 0 && loads == 0, "%s: no product of a warpgroup", name);
      else expect(loads > 0 && conflicts == 0, "%s: %ld of %ld matrix loads have bank conflicts", name, conflicts, loads);
      if (splits > 1)
        emulate::launch(dim3(s.rows, s.heads), dim3(64), 0, seed, [&] {
          sparse_merge(parts.data(), sums.data(), mixed.data(), splits, s.rows, s.heads, s.latent, token, head);
        });
      for (int i = 0; i < s.rows; ++i)
        for (int h = 0; h < s.heads; ++h) {
          const int count = std::min(s.k, first + i), group = h / per_group;
          std::vector<double> p(count), want(s.latent);
          double top = -INFINITY, sum = 0;
          for (int c = 0; c < count; ++c) {
            const size_t j = sets[size_t(i) * s.k + c];
            double dot = 0;
            for (int d = 0; d < s.latent; ++d) dot += double(q[h * head + i * token + d]) * k[(j * s.groups + group) * s.latent + d];
            for (int d = 0; d < s.rope; ++d)
              dot += double(q_rope[(size_t(i) * s.heads + h) * (8 + s.rope) + 8 + d]) * k_rope[j * s.rope + d];
            p[c] = scale * dot;
            top = std::max(top, p[c]);
          }
          for (auto& x : p) sum += x = exp(x - top);
          for (int c = 0; c < count; ++c)
            for (int d = 0; d < s.latent; ++d)
              want[d] += p[c] / sum * v[(sets[size_t(i) * s.k + c] * size_t(s.groups) + group) * s.latent + d];
          for (int d = 0; d < s.latent; ++d) {
            const float got = device::low_bf16(mixed[h * head + i * token + d]);
            // Probabilities and the result are rounded to bf16: by 2^-9 of values up to 1, and of the result.
            expect(fabs(got - want[d]) < 0.002 + 0.004 * fabs(want[d]), "%s seed %u splits %d: row %d head %d dim %d is %g, not %g", name, seed, splits, i, h,
                   d, got, want[d]);
          }
        }
      if (seed == 0 && splits == 1) before = mixed;
      if (splits == 1) expect(mixed == before, "%s: the result depends on the order of threads", name);
      ++cases;
    }
}

// A NaN in one number of a query is one in all that its head gets, one of a key in all that attends to it.
template <class Kernel>
void not_a_number(const char* name, Kernel kernel, Tiling tiling) {
  constexpr int HEADS = 40, LATENT = 512, ROPE = 64, KEYS = 200, K = 130, SPOILT_HEAD = 3;
  Uniform draw(1);
  auto q = floats(2 * HEADS * LATENT, draw), q_rope = floats(2 * HEADS * ROPE, draw);
  auto k = floats(KEYS * LATENT, draw), k_rope = floats(KEYS * ROPE, draw);
  auto q16 = bf16(q), q_rope16 = bf16(q_rope), k16 = bf16(k), k_rope16 = bf16(k_rope);
  q_rope16[SPOILT_HEAD * ROPE + 5] = k_rope16[150 * ROPE + 7] = 0x7fc0;
  std::vector<uint32_t> sets;
  for (uint32_t row : {0, 1})  // the second query attends to the spoilt key
    for (uint32_t c = 0; c < K; ++c) sets.push_back(c + row * (KEYS - K));
  std::vector<uint16_t> mixed(2 * HEADS * LATENT);
  emulate::launch(dim3(2, 1, (HEADS + tiling.heads - 1) / tiling.heads), dim3(tiling.threads), tiling.shared, 0, [&] {
    kernel(q16.data(), q_rope16.data(), k16.data(), k_rope16.data(), k16.data(), sets.data(), mixed.data(), nullptr, nullptr,
           0.1f, 2, HEADS, 1, LATENT, ROPE, LATENT, K, KEYS, KEYS, HEADS * LATENT, LATENT, HEADS * ROPE, ROPE, HEADS * LATENT,
           LATENT);
  });
  for (int at = 0; at < 2 * HEADS * LATENT; ++at) {
    const float got = device::low_bf16(mixed[at]);
    const int row = at / LATENT / HEADS, head = at / LATENT % HEADS;
    expect((got != got) == (row == 1 || head == SPOILT_HEAD), "%s: row %d head %d dim %d is %g", name, row, head, at % LATENT, got);
  }
  ++cases;
}

}  // namespace

// With an argument, `wgmma` or `mma`: that part alone.
int main(int count, char** arguments) {
  const std::string part = count > 1 ? arguments[1] : "";
  if (part != "mma") {
    // A tile and a part of one; whole tiles; fewer keys than a tile; a second block of heads; narrow widths.
    run("mla l512 wgmma", sparse_mla_l512_wgmma, wgmma(), {2, 64, 1, 512, 64, 300, 230, 2});
    run("mla l512 wgmma, whole tiles", sparse_mla_l512_wgmma, wgmma(), {1, 40, 1, 512, 64, 200, 192, 3});
    run("mla l512 wgmma, ragged", sparse_mla_l512_wgmma, wgmma(), {2, 70, 1, 448, 32, 70, 69, 3});
    run("mla l512 wgmma, one key", sparse_mla_l512_wgmma, wgmma(), {1, 33, 1, 456, 8, 1, 4, 2});
    run("mla l512 wgmma, steep", sparse_mla_l512_wgmma, wgmma(), {1, 64, 1, 512, 64, 330, 320, 2}, true);
    not_a_number("mla l512 wgmma", sparse_mla_l512_wgmma, wgmma());
  }
  if (part != "wgmma") {
    run("mla l512 m4", sparse_mla_l512_m4, mma(4, 2, 64, 512, 64, false), {2, 64, 1, 512, 64, 200, 150, 2});
    run("mla l512 m4, ragged", sparse_mla_l512_m4, mma(4, 2, 64, 512, 64, false), {2, 70, 1, 448, 32, 70, 69, 3});
    run("mla l512 m2", sparse_mla_l512_m2, mma(2, 4, 64, 512, 64, false), {3, 20, 1, 512, 64, 131, 130, 2});
    run("mla l512 m2, steep", sparse_mla_l512_m2, mma(2, 4, 64, 512, 64, false), {1, 20, 1, 512, 64, 131, 130, 2}, true);
    not_a_number("mla l512 m4", sparse_mla_l512_m4, mma(4, 2, 64, 512, 64, false));
    run("mla l512 m1", sparse_mla_l512_m1, mma(1, 4, 32, 512, 64, false), {2, 20, 1, 512, 64, 100, 70, 3});
    run("mla l128 m1", sparse_mla_l128_m1, mma(1, 4, 32, 128, 64, false), {5, 8, 1, 128, 16, 5, 64, 2});
    run("mla l128 m1, one key", sparse_mla_l128_m1, mma(1, 4, 32, 128, 64, false), {1, 3, 1, 40, 8, 1, 4, 2});
    run("gqa d128 m1", sparse_gqa_d128_m1, mma(1, 4, 32, 128, 0, true), {3, 12, 2, 128, 0, 90, 50, 2});
    run("gqa d64 m1", sparse_gqa_d64_m1, mma(1, 4, 32, 64, 0, true), {3, 40, 2, 64, 0, 90, 80, 2});
  }
  return report("sparse_mla", cases);
}
