// Runs kernels/rows.cu thread by thread against loops over the definitions, in double.
#include "check.h"

#include <algorithm>

#include "../rows.cu"

using namespace check;

namespace {

// Whether a bf16 code is the value, one rounding (2^-8) or two apart.
bool near(uint16_t code, double value, double roundings, double largest) {
  return fabs(double(device::low_bf16(code)) - value) <= roundings * (fabs(value) / 256 + largest * 1e-6) + 1e-30;
}

void norm(int rows, int width, int apart, bool bias) {
  Uniform draw(rows * width);
  auto x = floats(size_t(rows - 1) * apart + width, draw), w = floats(width, draw), b = floats(width, draw);
  for (auto& v : x) v = v * 3 + 0.5f;
  const auto x16 = bf16(x), w16 = bf16(w), b16 = bf16(b);
  std::vector<uint16_t> y(size_t(rows) * width);
  emulate::launch(dim3((rows + 7) / 8), dim3(256), 0, 1,
                  [&] { rows_norm(x16.data(), w16.data(), bias ? b16.data() : nullptr, y.data(), 1e-3f, rows, width, apart); });
  for (int r = 0; r < rows; ++r) {
    double mean = 0, squares = 0;
    for (int c = 0; bias && c < width; ++c) mean += x[size_t(r) * apart + c] / width;
    for (int c = 0; c < width; ++c) squares += pow(x[size_t(r) * apart + c] - mean, 2) / width;
    for (int c = 0; c < width; ++c) {
      const double scaled = (x[size_t(r) * apart + c] - mean) / sqrt(squares + 1e-3) * w[c];
      const double want = scaled + (bias ? b[c] : 0);
      // Two or three roundings, of values as large as the terms of the sum.
      expect(fabs(device::low_bf16(y[size_t(r) * width + c]) - want) <= (2 * fabs(scaled) + fabs(want)) / 256 + 1e-6,
             "norm of %d x %d: (%d, %d)", rows, width, r, c);
    }
  }
}

void rotate(int rows, int heads, int dim, int offset, int half, bool interleaved, int positions, int apart) {
  Uniform draw(rows * heads + dim);
  auto x = floats(size_t(rows - 1) * apart + heads * dim, draw);
  const auto x16 = bf16(x);
  const auto cos = floats(size_t(positions) * half, draw), sin = floats(size_t(positions) * half, draw);
  std::vector<uint16_t> y(size_t(rows) * heads * dim);
  const int threads = rows * heads * dim / 8;
  emulate::launch(dim3((threads + 255) / 256), dim3(256), 0, 1, [&] {
    rows_rotate(x16.data(), cos.data(), sin.data(), y.data(), rows, heads, dim, offset, half, interleaved, positions, apart);
  });
  for (int r = 0; r < rows; ++r)
    for (int h = 0; h < heads; ++h)
      for (int c = 0; c < dim; ++c) {
        const float* from = x.data() + size_t(r) * apart + h * dim + offset;
        const int column = c - offset;
        double want = from[column];
        if (column >= 0 && column < 2 * half) {
          const int j = interleaved ? column / 2 : column % half;
          const bool second = interleaved ? column % 2 : column >= half;
          const double a = from[interleaved ? 2 * j : j], b = from[interleaved ? 2 * j + 1 : j + half];
          const double turn = cos[r % positions * half + j], over = sin[r % positions * half + j];
          want = second ? b * turn + a * over : a * turn - b * over;
        }
        expect(near(y[(size_t(r) * heads + h) * dim + c], want, 1, 1), "rotation of %d heads of %d: (%d, %d, %d)", heads, dim, r, h, c);
      }
}

void choose(int rows, int experts, int k) {
  Dyadic draw(rows * experts + k);  // many are equal
  const auto p = floats(size_t(rows) * experts, draw), bias = floats(experts, draw);
  std::vector<uint32_t> ids(size_t(rows) * k);
  emulate::launch(dim3((rows + 7) / 8), dim3(256), 0, 1, [&] { rows_choose(p.data(), bias.data(), ids.data(), rows, experts, k); });
  for (int r = 0; r < rows; ++r) {
    std::vector<uint32_t> all(experts);
    for (int e = 0; e < experts; ++e) all[e] = e;
    std::stable_sort(all.begin(), all.end(), [&](uint32_t a, uint32_t b) { return p[r * experts + a] + bias[a] > p[r * experts + b] + bias[b]; });
    for (int i = 0; i < k; ++i) expect(ids[r * k + i] == all[i], "expert %d of row %d of %d", i, r, experts);
  }
}

}  // namespace

int main() {
  long cases = 0;
  for (bool bias : {false, true})
    for (int rows : {1, 9})
      for (int width : {8, 128, 264, 768}) norm(rows, width, width + (rows > 1 ? 64 : 0), bias), ++cases;
  for (bool interleaved : {false, true})
    for (int rows : {1, 7}) {
      rotate(rows, 3, 32, 16, 8, interleaved, 7, 96), ++cases;   // the last columns of a head
      rotate(rows, 2, 64, 0, 16, interleaved, 4, 128), ++cases;  // the first; sequences one after another
      rotate(rows, 1, 16, 0, 8, interleaved, 7, 80), ++cases;    // a part of a row
    }
  rotate(3, 2, 24, 8, 4, true, 3, 48), ++cases;
  choose(1, 8, 8), choose(9, 64, 4), choose(3, 100, 6), choose(2, 512, 8), cases += 4;
  for (long long count : {8, 4104}) {
    Uniform draw{unsigned(count)};
    auto gate = floats(count, draw), up = floats(count, draw);
    for (auto& v : gate) v *= 8;
    const auto gate16 = bf16(gate), up16 = bf16(up);
    std::vector<uint16_t> y(count);
    emulate::launch(dim3((count / 8 + 255) / 256), dim3(256), 0, 1, [&] { rows_swiglu(gate16.data(), up16.data(), y.data(), count); });
    for (long long i = 0; i < count; ++i)
      expect(near(y[i], gate[i] / (1 + exp(-double(gate[i]))) * up[i], 1, 0.1), "gate %lld", i);
    ++cases;
  }
  return report("rows", cases);
}
