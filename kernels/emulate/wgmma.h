// Products of a warpgroup in emulation (PTX ISA, "asynchronous warpgroup level matrix instructions").
//
// From its start until it is waited for, a product's sums are NaN. Shared memory is read at one of the two moments
// that a kernel must allow for: as soon as a warp starts the product, or when that warp waits for it. Seed 0: always
// late; seed 1: always early; others: by chance. What fails: products that not all lanes or all four warps start
// alike, sums that a thread touches while a product writes them or uses without a fence after a wait, operands that a
// copy filled and `copies_to_products` did not show, addresses outside shared memory.
#pragma once

namespace emulate {

constexpr size_t SHARED_START = 1024;  // of dynamic shared memory, in the window that descriptors address
constexpr uint32_t POISON = 0x7fbadbadu;

// Where the operand that `descriptor` describes has byte `byte` (0..32) of k of row `row`.
inline const unsigned char* operand(uint64_t descriptor, int row, int byte) {
  Shared& shared = block().shared;
  const size_t start = (descriptor & 0x3fff) * 16, leading = (descriptor >> 16 & 0x3fff) * 16;
  const size_t stride = (descriptor >> 32 & 0x3fff) * 16;
  const int swizzle = int(descriptor >> 62);
  if (descriptor >> 49 & 7) fail("a descriptor with a base offset, which is not emulated");
  size_t at;
  if (swizzle == 0) {
    // Core matrices of 8 rows of 16 bytes.
    at = start + row / 8 * stride + byte / 16 * leading + row % 8 * 16 + byte % 16;
  } else {
    // Rows of 128, 64 or 32 bytes in groups of 8; the bits of the 16-byte chunk are those of the address, xor the
    // bits from 128 on: 3, 2 or 1 of them.
    const size_t width = size_t(256) >> swizzle;
    at = start + row / 8 * stride + row % 8 * width + byte;
    at ^= (at >> 7 & (width / 16 - 1)) << 4;
  }
  if (at < SHARED_START || at + 1 > SHARED_START + shared.bytes) fail("a product reads outside shared memory");
  at -= SHARED_START;
  if (shared.unseen[at / 16]) fail("a product reads what a copy has not brought, or not shown to the tensor cores");
  return shared.data + at;
}

inline float element(uint64_t descriptor, bool fp8, int row, int k) {
  if (fp8) {
    static const std::vector<float> values = [] {
      std::vector<float> v(256);
      for (int code = 0; code < 256; ++code) {
        const int exponent = code >> 3 & 15, mantissa = code & 7;
        const float size = exponent ? ldexpf(8.f + mantissa, exponent - 10) : ldexpf(float(mantissa), -9);
        v[code] = (code & 127) == 127 ? NAN : code & 128 ? -size : size;
      }
      return v;
    }();
    return values[*operand(descriptor, row, k)];
  }
  uint32_t low = *operand(descriptor, row, 2 * k), high = *operand(descriptor, row, 2 * k + 1);
  const uint32_t bits = high << 24 | low << 16;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// Reads the operands of a warp's part of a product: 16 rows of A, 128 of B.
inline void read(Product& product, int warp) {
  const int elements = product.fp8 ? 32 : 16;
  std::vector<float> b(128 * elements);
  for (int row = 0; row < 128; ++row)
    for (int k = 0; k < elements; ++k) b[k * 128 + row] = element(product.b, product.fp8, row, k);
  product.sums.assign(16 * 128, 0.f);
  for (int row = 0; row < 16; ++row) {
    double sums[128] = {};
    for (int k = 0; k < elements; ++k) {
      const double a = element(product.a, product.fp8, 16 * (warp % 4) + row, k);
      for (int column = 0; column < 128; ++column) sums[column] += a * double(b[k * 128 + column]);
    }
    for (int column = 0; column < 128; ++column) product.sums[row * 128 + column] = float(sums[column]);
  }
  product.read = true;
}

inline Sums* writing(float* c) {
  for (auto& s : self().sums)
    if (s.at == c) return &s;
  return nullptr;
}

// Writes the oldest product's sums of this thread.
inline void finish(const Started& started) {
  Fiber& f = self();
  Product& product = block().warps[f.warp].products[started.product];
  if (!product.read) read(product, f.warp);
  Sums& s = *writing(started.sums);
  for (int i = 0; i < 64; ++i) {
    const int row = f.lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + f.lane % 4 * 2 + i % 2;
    s.values[i] = (started.accumulate ? s.values[i] : 0.f) + product.sums[row * 128 + column];
  }
  if (--s.pending) return;
  for (int i = 0; i < 64; ++i) {
    uint32_t bits;
    memcpy(&bits, &s.at[i], 4);
    if (bits != POISON) fail("a thread touched sums that a product was writing");
  }
  memcpy(s.at, s.values, sizeof s.values);
  f.sums.erase(f.sums.begin() + (&s - f.sums.data()));
}

}  // namespace emulate

namespace device {

inline uint32_t shared_address(const void* p) {
  const auto& shared = emulate::block().shared;
  return uint32_t(static_cast<const unsigned char*>(p) - shared.data + emulate::SHARED_START);
}

inline void copies_to_products() {
  for (size_t at : emulate::self().unseen) emulate::block().shared.unseen[at] = 0;
  emulate::self().unseen.clear();
}

inline void products_fence() {
  emulate::pause(emulate::State::AtWarpBarrier);
  emulate::self().fenced = true;
}

inline void products_commit() {
  emulate::pause(emulate::State::AtWarpBarrier);
  auto& f = emulate::self();
  f.products.push_back(std::move(f.open_products));
  f.open_products.clear();
}

template <int PENDING>
void products_wait(float (&)[64]) {
  emulate::pause(emulate::State::AtWarpBarrier);
  auto& f = emulate::self();
  while (f.products.size() > PENDING) {
    for (auto& started : f.products.front()) emulate::finish(started);
    f.products.erase(f.products.begin());
  }
  f.fenced = false;
}

template <bool FP8>
void start_product(float (&c)[64], uint64_t a, uint64_t b, bool accumulate) {
  auto& block = emulate::block();
  auto& f = emulate::self();
  struct Operands {
    uint64_t a, b, accumulate;
  } mine = {a, b, accumulate}, all[32];
  emulate::exchange(mine, all);
  if (memcmp(&mine, &all[0], sizeof mine)) emulate::fail("the lanes of a warp start different products");
  auto& products = block.warps[f.warp].products;
  if (products.size() == f.started) {
    products.push_back({a, b, FP8, false, {}});
    if (block.seed == 1 || (block.seed > 1 && block.random() % 2)) emulate::read(products.back(), f.warp);
  }
  emulate::Sums* sums = emulate::writing(c);
  if (!sums) {
    if (!f.fenced) emulate::fail("a product begins to write sums without a fence after their last use");
    f.sums.push_back({c, {}, 0});
    sums = &f.sums.back();
    memcpy(sums->values, c, sizeof sums->values);
    for (float& x : c) memcpy(&x, &emulate::POISON, 4);
  }
  ++sums->pending;
  f.open_products.push_back({f.started++, c, accumulate});
}

}  // namespace device
