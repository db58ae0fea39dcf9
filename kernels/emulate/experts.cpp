// Runs kernels/experts.cu thread by thread against loops over the definition, in double.
#include "check.h"

#include "../experts.cu"

using namespace check;

namespace {

void run(int tokens, int k, int experts, int hidden, int width) {
  Uniform draw(tokens * hidden + k);
  auto x = floats(size_t(tokens) * hidden, draw), w = floats(size_t(tokens) * k, draw);
  const auto x16 = bf16(x), w16 = bf16(w);
  std::vector<float> values[3];
  std::vector<uint16_t> codes[3];
  std::vector<unsigned long long> table;
  for (int kind = 0; kind < 3; ++kind) {
    values[kind] = floats(size_t(experts) * hidden * width, draw);
    codes[kind] = bf16(values[kind]);
    for (int e = 0; e < experts; ++e) table.push_back(reinterpret_cast<unsigned long long>(codes[kind].data() + size_t(e) * hidden * width));
  }
  std::vector<uint32_t> ids;
  for (int s = 0; s < tokens * k; ++s) ids.push_back(uint32_t(s * 7 % experts));
  std::vector<uint16_t> h(size_t(tokens) * k * width), y(size_t(tokens) * hidden);
  emulate::launch(dim3((width + 7) / 8, tokens * k), dim3(256), 0, 1,
                  [&] { experts_gate(x16.data(), ids.data(), table.data(), h.data(), k, experts, hidden, width); });
  emulate::launch(dim3((hidden + 7) / 8, tokens), dim3(256), 0, 1, [&] {
    experts_down(h.data(), ids.data(), w16.data(), table.data(), y.data(), k, experts, hidden, width);
  });
  auto row = [&](int kind, uint32_t e, int n, int size) { return values[kind].data() + (size_t(e) * hidden * width + size_t(n) * size); };
  for (int s = 0; s < tokens * k; ++s)
    for (int n = 0; n < width; ++n) {
      double g = 0, u = 0;
      for (int c = 0; c < hidden; ++c) {
        g += double(row(0, ids[s], n, hidden)[c]) * x[s / k * hidden + c];
        u += double(row(1, ids[s], n, hidden)[c]) * x[s / k * hidden + c];
      }
      const double want = g / (1 + exp(-g)) * u;
      expect(fabs(device::low_bf16(h[size_t(s) * width + n]) - want) <= fabs(want) / 256 + 1e-5, "gate of slot %d, %d", s, n);
    }
  for (int t = 0; t < tokens; ++t)
    for (int n = 0; n < hidden; ++n) {
      double want = 0, terms = 0;
      for (int i = 0; i < k; ++i)
        for (int c = 0; c < width; ++c) {
          const int s = t * k + i;
          const double term = double(w[s]) * row(2, ids[s], n, width)[c] * device::low_bf16(h[size_t(s) * width + c]);
          want += term, terms += fabs(term);
        }
      expect(fabs(device::low_bf16(y[size_t(t) * hidden + n]) - want) <= fabs(want) / 256 + terms * 1e-6, "token %d, %d", t, n);
    }
}

}  // namespace

int main() {
  run(1, 4, 8, 64, 24), run(3, 2, 5, 264, 40), run(2, 3, 3, 8, 272);
  return report("experts", 3);
}
