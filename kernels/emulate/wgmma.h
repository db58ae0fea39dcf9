// Products of a warpgroup in emulation (PTX ISA 9.7.15, "asynchronous warpgroup level matrix instructions").
//
// From its start until it is waited for, a product's sums are NaN. Shared memory is read at one of the two moments
// that a kernel must allow for: as soon as a warp starts the product, or when that warp waits for it. Seed 0: always
// late; seed 1: always early; others: by chance. What fails: products that not all lanes or all four warps start
// alike, sums that a thread touches while a product writes them or uses without a fence after a wait, operands that a
// copy or a store filled and `writes_to_products` did not show, addresses outside shared memory.
#pragma once

namespace emulate {

constexpr size_t SHARED_START = 1024;  // of dynamic shared memory, in the window that descriptors address
constexpr uint32_t POISON = 0x7fbadbadu;

// What a descriptor says (9.7.15.5.1.2.2, "matrix descriptor format").
struct Operand {
  size_t start, leading, stride;
  int swizzle;  // 0 none, 1 of 128 bytes, 2 of 64, 3 of 32
};

inline Operand operand(uint64_t descriptor) {
  auto bytes = [=](int bit) { return size_t(descriptor >> bit & 0x3fff) * 16; };
  if (descriptor >> 49 & 7) fail("a descriptor with a base offset, which is not emulated");
  return {bytes(0), bytes(16), bytes(32), int(descriptor >> 62)};
}

// Where element (`mn`, `k`), of `size` bytes, of an operand lies (9.7.15.5.1.2.1.3, "canonical layouts"). In units of
// T = 16 / size elements, a layout of an operand has the shape and the strides
//   K-major, not swizzled    ((8, m), (T, 2))      ((1T, stride), (1, leading))
//   K-major, W bytes         ((8, m), (T, W/16))   ((W/16 T, stride), (1, T))
//   MN-major, not swizzled   ((T, 1, m), (8, k))   ((1, T, stride), (1T, leading))
//   MN-major, W bytes        ((T, W/16, m), (8, k))   ((1, T, leading), (W/16 T, stride))
// and swizzled ones have the bits of the 16-byte chunk of the address xor those from 128 bytes on: 3, 2 or 1 of them.
inline size_t address(const Operand& o, bool mn_major, int mn, int k, int size) {
  const size_t t = 16 / size, chunks = o.swizzle ? size_t(16) >> o.swizzle : 1;
  size_t at = o.start;
  if (!mn_major) {
    at += mn % 8 * chunks * 16 + mn / 8 * o.stride + k % t * size;
    at += o.swizzle ? k / t * 16 : k / t * o.leading;
  } else if (o.swizzle) {
    at += mn % t * size + mn / t % chunks * 16 + mn / (t * chunks) * o.leading;
    at += k % 8 * chunks * 16 + k / 8 * o.stride;
  } else {
    at += mn % t * size + mn / t * o.stride + k % 8 * 16 + k / 8 * o.leading;
  }
  return o.swizzle ? at ^ (at >> 7 & (chunks - 1)) << 4 : at;
}

// `size` bytes at an address of the window.
inline const unsigned char* bytes_at(size_t at, size_t size) {
  Shared& shared = block().shared;
  if (at < SHARED_START || at + size > SHARED_START + shared.bytes) fail("a product reads outside shared memory");
  at -= SHARED_START;
  if (shared.unseen[at / 16]) fail("a product reads what was not brought, or not shown to the tensor cores");
  return shared.data + at;
}

inline float element(const Operand& o, bool fp8, bool mn_major, int mn, int k) {
  const int size = fp8 ? 1 : 2;
  const unsigned char* at = bytes_at(address(o, mn_major, mn, k, size), size);
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
    return values[*at];
  }
  const uint32_t bits = uint32_t(at[1]) << 24 | uint32_t(at[0]) << 16;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// Reads the operands of a warp's part of a product: 16 rows of A, all columns of B.
inline void read(Product& product, int warp) {
  const int elements = product.fp8 ? 32 : 16, columns = product.columns;
  const Operand at = operand(product.a), bt = operand(product.b);
  std::vector<float> b(size_t(columns) * elements);
  for (int column = 0; column < columns; ++column)
    for (int k = 0; k < elements; ++k) b[k * columns + column] = element(bt, product.fp8, product.n_major, column, k);
  product.sums.clear();
  for (int row = 0; row < 16; ++row) {
    std::vector<double> sums(columns);
    for (int k = 0; k < elements; ++k) {
      const double a = element(at, product.fp8, false, 16 * (warp % 4) + row, k);
      for (int column = 0; column < columns; ++column) sums[column] += a * double(b[k * columns + column]);
    }
    product.sums.insert(product.sums.end(), sums.begin(), sums.end());
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
  for (size_t i = 0; i < s.values.size(); ++i) {
    const int row = f.lane / 4 + int(i) / 2 % 2 * 8, column = int(i) / 4 * 8 + f.lane % 4 * 2 + int(i) % 2;
    s.values[i] = (started.accumulate ? s.values[i] : 0.f) + product.sums[row * product.columns + column];
  }
  if (--s.pending) return;
  for (size_t i = 0; i < s.values.size(); ++i) {
    uint32_t bits;
    memcpy(&bits, &s.at[i], 4);
    if (bits != POISON) fail("a thread touched sums that a product was writing");
  }
  memcpy(s.at, s.values.data(), s.values.size() * sizeof(float));
  f.sums.erase(f.sums.begin() + (&s - f.sums.data()));
}

// Starts a product of all columns that the thread's `count` sums are of.
inline void start(float* c, int count, Product product, bool accumulate) {
  auto& b = block();
  auto& f = self();
  product.columns = 2 * count;
  struct Started {
    uint64_t a, b, accumulate, columns;
  } mine = {product.a, product.b, accumulate, uint64_t(product.columns)}, all[32];
  exchange(mine, all);
  if (memcmp(&mine, &all[0], sizeof mine)) fail("the lanes of a warp start different products");
  auto& products = b.warps[f.warp].products;
  if (products.size() == f.started) {
    products.push_back(product);
    if (b.seed == 1 || (b.seed > 1 && b.random() % 2)) read(products.back(), f.warp);
  }
  Sums* sums = writing(c);
  if (!sums) {
    if (!f.fenced) fail("a product begins to write sums without a fence after their last use");
    f.sums.push_back({c, std::vector<float>(c, c + count), 0});
    sums = &f.sums.back();
    for (int i = 0; i < count; ++i) memcpy(&c[i], &POISON, 4);
  }
  if (sums->values.size() != size_t(count)) fail("two shapes of products write the same sums");
  ++sums->pending;
  f.open_products.push_back({f.started++, c, accumulate});
}

}  // namespace emulate

namespace device {

inline uint32_t shared_address(const void* p) {
  const auto& shared = emulate::block().shared;
  return uint32_t(static_cast<const unsigned char*>(p) - shared.data + emulate::SHARED_START);
}

inline void writes_to_products() {
  for (size_t at : emulate::self().unseen) --emulate::block().shared.unseen[at];
  emulate::self().unseen.clear();
}

inline void store_pair(void* to, uint32_t pair) {
  auto& shared = emulate::block().shared;
  auto* start = static_cast<unsigned char*>(to) - reinterpret_cast<uintptr_t>(to) % 16;
  size_t at;
  if (!shared.place(start, at)) emulate::fail("a pair is stored outside shared memory");
  memcpy(to, &pair, 4);
  ++shared.unseen[at];
  emulate::self().unseen.push_back(at);
}

inline void warpgroup_barrier(int) { emulate::pause(emulate::State::AtGroupBarrier); }

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
void products_wait() {
  emulate::pause(emulate::State::AtWarpBarrier);
  auto& f = emulate::self();
  while (f.products.size() > PENDING) {
    for (auto& started : f.products.front()) emulate::finish(started);
    f.products.erase(f.products.begin());
  }
  f.fenced = false;
}
template <int PENDING, size_t N>
void products_wait(float (&)[N]) {
  products_wait<PENDING>();
}

template <bool FP8>
void start_product(float (&c)[64], uint64_t a, uint64_t b, bool accumulate) {
  emulate::start(c, 64, {a, b, 0, FP8, false, false, {}}, accumulate);
}
inline void start_product(float (&c)[32], uint64_t a, uint64_t b, bool accumulate) {
  emulate::start(c, 32, {a, b, 0, false, false, false, {}}, accumulate);
}
inline void start_product_of_columns(float (&c)[128], uint64_t a, uint64_t b) {
  emulate::start(c, 128, {a, b, 0, false, true, false, {}}, true);
}

}  // namespace device
