// What the tests of all kernels share: seeded operands, arrays without slack, and counting of failures.
#pragma once

#include "../device.cuh"

namespace check {

inline int failures = 0;

template <class... Args>
void expect(bool right, const char* format, Args... args) {
  if (right) return;
  if (++failures <= 20) {
    fprintf(stderr, "FAILED: ");
    fprintf(stderr, format, args...);
    fprintf(stderr, "\n");
  }
  if (getenv("FIRST")) exit(1);  // mutants.sh: one failure is enough
}

// Small multiples of 1/4: products and sums of a few thousand of them are exact in f32, whatever their order.
struct Dyadic {
  std::mt19937 random;
  explicit Dyadic(unsigned seed) : random(seed) {}
  float operator()() { return float(int(random() % 9) - 4) / 4.f; }
};

struct Uniform {
  std::mt19937 random;
  explicit Uniform(unsigned seed) : random(seed) {}
  float operator()() { return float(random() >> 8) / 8388608.f - 1.f; }
};

template <class Draw>
std::vector<float> floats(size_t n, Draw& draw) {
  std::vector<float> values(n);
  for (auto& v : values) v = draw();
  return values;
}

inline std::vector<uint16_t> bf16(std::vector<float>& values) {
  std::vector<uint16_t> codes;
  for (auto& v : values) {
    codes.push_back(device::to_bf16(v));
    v = device::low_bf16(codes.back());  // what the kernel really sees
  }
  return codes;
}

inline std::vector<uint8_t> e4m3(std::vector<float>& values) {
  std::vector<uint8_t> codes;
  for (auto& v : values) {
    codes.push_back(uint8_t(device::to_e4m3(v)));
    v = device::to_float_e4m3(codes.back());
  }
  return codes;
}

template <class T>
const unsigned char* raw(const std::vector<T>& v) {
  return reinterpret_cast<const unsigned char*>(v.data());
}

inline int report(const char* what, long cases) {
  if (failures) fprintf(stderr, "%s: %d failures\n", what, failures);
  else printf("%s: %ld cases agree\n", what, cases);
  return failures != 0;
}

}  // namespace check
