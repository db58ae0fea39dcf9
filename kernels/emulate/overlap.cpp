// Runs kernels/overlap.cu thread by thread and compares it with counting by hand.
#include "check.h"

#include "../overlap.cu"

using namespace check;

int main() {
  long cases = 0;
  struct Shape {
    int layers, queries, k, blocks;
    uint32_t keys;
  };
  for (Shape s : {Shape{1, 1, 1, 1, 1}, {5, 7, 40, 3, 200}, {20, 3, 33, 2, 100}, {3, 2, 50, 2, overlap::RANGE + 70}}) {
    std::mt19937 random(s.layers);
    std::vector<uint32_t> sets(size_t(s.layers) * s.queries * s.k, ~0u), chosen;
    auto set = [&](int l, int q) { return &sets[(size_t(l) * s.queries + q) * s.k]; };
    for (int q = 0; q < s.queries; ++q) {
      if (s.queries < 3 || q != 1) chosen.push_back(uint32_t(q));
      for (int l = 0; l < s.layers; ++l) {
        std::vector<uint32_t> keys;
        // Keys near the end of the range too, and sometimes fewer than k.
        for (int c = 0; c < s.k; ++c) keys.push_back(random() % 2 ? random() % s.keys : s.keys - 1 - random() % std::min(s.keys, 90u));
        std::sort(keys.begin(), keys.end());
        keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
        std::copy(keys.begin(), keys.end(), set(l, q));
      }
    }
    const size_t pairs = size_t(s.layers) * (s.layers + 1) / 2;
    for (unsigned seed = 0; seed < 2; ++seed) {
      std::vector<unsigned long long> sums(pairs * s.blocks), squares(pairs * s.blocks);
      emulate::launch(dim3(s.blocks), dim3(overlap::THREADS), overlap::RANGE / 8 + 4 * pairs, seed, [&] {
        overlap_pairs(sets.data(), chosen.data(), int(chosen.size()), s.layers, s.queries, s.k, s.keys, sums.data(), squares.data());
      });
      size_t pair = 0;
      for (int i = 0; i < s.layers; ++i)
        for (int j = i; j < s.layers; ++j, ++pair) {
          unsigned long long sum = 0, square = 0, got = 0, got_square = 0;
          for (uint32_t q : chosen) {
            unsigned long long n = 0;
            for (int a = 0; a < s.k; ++a)
              for (int b = 0; b < s.k; ++b) n += set(i, int(q))[a] != ~0u && set(i, int(q))[a] == set(j, int(q))[b];
            sum += n;
            square += n * n;
          }
          for (int b = 0; b < s.blocks; ++b) got += sums[b * pairs + pair], got_square += squares[b * pairs + pair];
          expect(got == sum && got_square == square, "layers %d: pair (%d, %d) is %llu, %llu, not %llu, %llu", s.layers, i, j, got,
                 got_square, sum, square);
        }
      ++cases;
    }
  }
  return report("overlap", cases);
}
