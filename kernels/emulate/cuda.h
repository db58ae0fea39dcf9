// Runs CUDA kernels on a CPU, thread by thread, to test their index maps, barriers and copies where there is no GPU.
//
// A block is a set of fibers in one thread of the host. A warp runs as far as it comes before another one moves, and
// which warp goes first changes with the seed, so that a missing barrier shows as a result that changes or is wrong.
// Shared memory is a heap block of exactly the bytes asked for, full of NaN; an asynchronous copy writes NaN when it
// starts and its data only when it is waited for. Products of a warpgroup: wgmma.h. Fragment layouts follow the PTX ISA
// and are written here independently of the kernels. What this cannot show: races between instructions that no barrier
// separates and that run in program order here, and anything about speed.
#pragma once

#undef _FORTIFY_SOURCE  // its longjmp knows one stack only
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __constant__ static
#define DYNAMIC_SHARED(name) unsigned char* name = emulate::block().shared.data

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint4 {
  uint32_t x, y, z, w;
};
struct float4 {
  float x, y, z, w;
};
struct float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

namespace emulate {

[[noreturn]] inline void fail(const char* what) {
  fprintf(stderr, "emulation: %s\n", what);
  abort();
}

enum class State { Ready, AtBlockBarrier, AtGroupBarrier, AtWarpBarrier, Done };

struct Copy {
  void* to;
  unsigned char data[16];
};

// A product of a warpgroup, as one of its warps started it: the sums of that warp's 16 rows, once they are read.
struct Product {
  uint64_t a, b;
  int columns;
  bool fp8, n_major;  // of b
  bool read;
  std::vector<float> sums;
  bool same(const Product& other) const {
    return a == other.a && b == other.b && columns == other.columns && fp8 == other.fp8 && n_major == other.n_major;
  }
};

// Sums of a thread that products under way write; `values` are what the thread would see without them.
struct Sums {
  float* at;
  std::vector<float> values;
  int pending;
};

// Products that a thread started and has not waited for.
struct Started {
  size_t product;  // of its warp
  float* sums;
  bool accumulate;
};

struct Fiber {
  ucontext_t context;  // to enter it; from then on
  jmp_buf place;       // this, which costs no system call
  bool entered;
  std::vector<unsigned char> stack;
  State state;
  dim3 thread;
  int lane, warp;
  std::vector<std::vector<Copy>> groups;  // closed and pending, oldest first
  std::vector<Copy> open;
  std::vector<size_t> unseen;  // places of shared memory that this thread filled and no fence has shown
  std::vector<std::vector<Started>> products;  // closed and pending groups, oldest first
  std::vector<Started> open_products;
  std::vector<Sums> sums;
  size_t started = 0;
  bool fenced = false;
};

// Shared memory of exactly `bytes`, aligned, so that a sanitizer sees every byte beyond.
struct Shared {
  unsigned char* data = nullptr;
  size_t bytes = 0;
  std::vector<int> unseen;  // per 16 bytes: how many writes the tensor cores were not shown
  void reset(size_t n) {
    free(data);
    bytes = n;
    data = nullptr;
    if (n && posix_memalign(reinterpret_cast<void**>(&data), 1024, n)) fail("out of memory");
    if (n) memset(data, 0xff, n);
    unseen.assign((n + 15) / 16, 0);
  }
  // Which 16 bytes; none where `p` is no place in shared memory.
  bool place(const void* p, size_t& at) const {
    const auto* byte = static_cast<const unsigned char*>(p);
    if (byte < data || byte + 16 > data + bytes) return false;
    at = size_t(byte - data) / 16;
    return true;
  }
  ~Shared() { free(data); }
};

struct Warp {
  unsigned char slots[32][64];
  std::vector<Product> products;
};

struct Block {
  dim3 index, size, grid;
  Shared shared;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  ucontext_t scheduler;
  jmp_buf schedule;
  Fiber* current = nullptr;
  const std::function<void()>* body = nullptr;
  long conflicts = 0, matrix_loads = 0, products = 0;
  unsigned seed = 0;
  std::mt19937 random;
};

inline Block& block() {
  static Block instance;
  return instance;
}
inline Fiber& self() { return *block().current; }

inline void pause(State state) {
  Fiber& f = self();
  f.state = state;
  if (!_setjmp(f.place)) _longjmp(block().schedule, 1);
}

inline void run_fiber() {
  Block& b = block();
  (*b.body)();
  if (!b.current->open.empty() || !b.current->groups.empty()) {
    // Copies nobody waited for are legal only where nobody reads them.
    b.current->open.clear();
    b.current->groups.clear();
  }
  if (!b.current->sums.empty()) fail("a thread ends while its products are under way");
  b.current->state = State::Done;
  _longjmp(b.schedule, 1);
}

// Runs one thread up to its next barrier.
inline void resume(Fiber& f) {
  Block& b = block();
  b.current = &f;
  if (_setjmp(b.schedule)) return;
  if (f.entered) _longjmp(f.place, 1);
  f.entered = true;
  swapcontext(&b.scheduler, &f.context);
}

// Runs one warp as far as it comes alone, up to a barrier of the block or of its warpgroup.
inline void run_warp(size_t w, const std::vector<size_t>& lanes) {
  Block& b = block();
  for (;;) {
    for (size_t l : lanes)
      if (b.fibers[32 * w + l].state == State::Ready) resume(b.fibers[32 * w + l]);
    size_t at = 0, live = 0;
    for (size_t l : lanes) {
      live += b.fibers[32 * w + l].state != State::Done;
      at += b.fibers[32 * w + l].state == State::AtWarpBarrier;
    }
    if (at == 0) return;
    if (at < live) fail("lanes of a warp wait at different barriers: deadlock");
    for (size_t l : lanes)
      if (b.fibers[32 * w + l].state == State::AtWarpBarrier) b.fibers[32 * w + l].state = State::Ready;
  }
}

// Opens the barriers of warpgroups where all of their live threads are, else the block's, where then all are; returns
// whether there was one.
inline bool release(Block& b) {
  bool any = false, waiting = false;
  for (size_t from = 0; from < b.fibers.size(); from += 128) {
    const auto first = b.fibers.begin() + long(from), last = b.fibers.begin() + long(std::min(from + 128, b.fibers.size()));
    const auto in = [=](State state) { return std::count_if(first, last, [=](const Fiber& f) { return f.state == state; }); };
    const auto at = in(State::AtGroupBarrier);
    if (at && at == last - first) {
      any = true;
      std::for_each(first, last, [](Fiber& f) { f.state = State::Ready; });
    } else {
      waiting |= at > 0;
    }
  }
  if (any) return true;
  if (waiting) fail("threads of a warpgroup wait at different barriers: deadlock");
  for (auto& f : b.fibers)
    if (f.state == State::AtBlockBarrier) f.state = State::Ready, any = true;
  return any;
}

// The four warps of a warpgroup start the same products.
inline void agree(Block& b) {
  for (size_t w = 0; w < b.warps.size(); ++w) {
    const auto &mine = b.warps[w].products, &first = b.warps[w / 4 * 4].products;
    b.products += long(mine.size());
    if (mine.size() != first.size()) fail("a product that not all four warps of a warpgroup start");
    for (size_t i = 0; i < mine.size(); ++i)
      if (!mine[i].same(first[i])) fail("the warps of a warpgroup start different products");
  }
}

// Runs `kernel` over the grid; `seed` decides the order of threads. Returns (matrix loads, bank conflicts among them).
template <class Kernel>
std::pair<long, long> launch(dim3 grid, dim3 size, size_t shared_bytes, unsigned seed, Kernel kernel) {
  Block& b = block();
  const std::function<void()> body = kernel;
  b.body = &body;
  b.size = size;
  b.grid = grid;
  b.conflicts = b.matrix_loads = b.products = 0;
  b.seed = seed;
  const size_t threads = size_t(size.x) * size.y * size.z;
  if (threads % 32) fail("a block that is no whole number of warps");
  b.fibers.resize(threads);
  b.warps.resize(threads / 32);
  std::mt19937& random = b.random;
  random.seed(seed);
  std::vector<size_t> warps(threads / 32), lanes(32);
  for (size_t i = 0; i < warps.size(); ++i) warps[i] = i;
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = i;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        b.index = dim3(x, y, z);
        b.shared.reset(shared_bytes);
        for (size_t i = 0; i < threads; ++i) {
          Fiber& f = b.fibers[i];
          f.stack.resize(64 * 1024);
          getcontext(&f.context);
          f.context.uc_stack.ss_sp = f.stack.data();
          f.context.uc_stack.ss_size = f.stack.size();
          f.context.uc_link = nullptr;
          makecontext(&f.context, reinterpret_cast<void (*)()>(run_fiber), 0);
          f.state = State::Ready;
          f.entered = false;
          f.thread = dim3(i % size.x, i / size.x % size.y, i / size.x / size.y);
          f.lane = i % 32;
          f.warp = i / 32;
          f.groups.clear();
          f.open.clear();
          f.unseen.clear();
          f.products.clear();
          f.open_products.clear();
          f.sums.clear();
          f.started = 0;
          f.fenced = false;
        }
        for (auto& w : b.warps) w.products.clear();
        do {
          // Which warp runs ahead changes at every barrier: the last one, or any.
          if (seed == 1) std::reverse(warps.begin(), warps.end());
          if (seed > 1) std::shuffle(warps.begin(), warps.end(), random);
          if (seed) std::shuffle(lanes.begin(), lanes.end(), random);
          for (size_t w : warps) run_warp(w, lanes);
        } while (release(b));
        b.current = nullptr;
        agree(b);
      }
  return {b.matrix_loads, b.conflicts};
}

// Gives every lane of the warp the values of all.
template <class T>
void exchange(const T& mine, T (&all)[32]) {
  static_assert(sizeof(T) <= 64, "slots are of 64 bytes");
  Warp& w = block().warps[self().warp];
  memcpy(w.slots[self().lane], &mine, sizeof(T));
  pause(State::AtWarpBarrier);
  for (int l = 0; l < 32; ++l) memcpy(&all[l], w.slots[l], sizeof(T));
  pause(State::AtWarpBarrier);
}

}  // namespace emulate

#define threadIdx (emulate::self().thread)
#define blockIdx (emulate::block().index)
#define blockDim (emulate::block().size)
#define gridDim (emulate::block().grid)

inline void __syncthreads() { emulate::pause(emulate::State::AtBlockBarrier); }
inline void __syncwarp(unsigned = ~0u) { emulate::pause(emulate::State::AtWarpBarrier); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  T all[32];
  emulate::exchange(value, all);
  return all[(emulate::self().lane ^ mask) & 31];
}
template <class T>
T __shfl_up_sync(unsigned, T value, int by) {
  T all[32];
  emulate::exchange(value, all);
  const int from = emulate::self().lane - by;
  return from < 0 ? value : all[from];
}
template <class T>
T __shfl_sync(unsigned, T value, int from) {
  T all[32];
  emulate::exchange(value, all);
  return all[from & 31];
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  int all[32];
  emulate::exchange(predicate, all);
  unsigned bits = 0;
  for (int l = 0; l < 32; ++l) bits |= unsigned(all[l] != 0) << l;
  return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
template <class T>
T __ldg(const T* p) {
  return *p;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
template <class T, class U>
T atomicAdd(T* p, U x) {
  const T old = *p;
  *p = T(old + x);
  return old;
}
template <class T>
T atomicOr(T* p, T x) {
  const T old = *p;
  *p = old | x;
  return old;
}
using std::max;
using std::min;

namespace device {

inline float to_float_e4m3(uint32_t code) {
  // By the definition, in another way than the kernels' own.
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float magnitude = exponent ? ldexpf(1.f + mantissa / 8.f, exponent - 7) : ldexpf(float(mantissa), -9);
  return code & 0x80 ? -magnitude : magnitude;
}

inline void copy16(void* to, const void* from, bool take) {
  if (reinterpret_cast<uintptr_t>(to) % 16 || (take && reinterpret_cast<uintptr_t>(from) % 16))
    emulate::fail("a copy of 16 bytes is not aligned");
  emulate::Copy c;
  c.to = to;
  if (take) memcpy(c.data, from, 16);
  else memset(c.data, 0, 16);
  memset(to, 0xff, 16);
  size_t at;
  if (emulate::block().shared.place(to, at)) ++emulate::block().shared.unseen[at];
  emulate::self().open.push_back(c);
}
inline void copies_commit() {
  auto& f = emulate::self();
  f.groups.push_back(std::move(f.open));
  f.open.clear();
}
template <int PENDING>
void copies_wait() {
  auto& groups = emulate::self().groups;
  while (groups.size() > PENDING) {
    for (auto& c : groups.front()) {
      memcpy(c.to, c.data, 16);
      size_t at;
      if (emulate::block().shared.place(c.to, at)) emulate::self().unseen.push_back(at);
    }
    groups.erase(groups.begin());
  }
}

inline void gather_matrices(const void* row, const unsigned char* (&rows)[32]) {
  auto& b = emulate::block();
  if (reinterpret_cast<uintptr_t>(row) % 16) emulate::fail("a matrix row is not aligned");
  const unsigned char* mine = static_cast<const unsigned char*>(row);
  if (mine < b.shared.data || mine + 16 > b.shared.data + b.shared.bytes) emulate::fail("a matrix row is not in shared memory");
  emulate::exchange(mine, rows);
  if (emulate::self().lane == 0)
    for (int m = 0; m < 4; ++m) {
      ++b.matrix_loads;
      unsigned banks = 0;
      for (int r = 0; r < 8; ++r) banks |= 1u << (reinterpret_cast<uintptr_t>(rows[8 * m + r]) / 16 % 8);
      b.conflicts += __builtin_popcount(banks) < 8;
    }
}
inline void load_matrices(uint32_t (&r)[4], const void* row) {
  const unsigned char* rows[32];
  gather_matrices(row, rows);
  const int lane = emulate::self().lane;
  for (int m = 0; m < 4; ++m) memcpy(&r[m], rows[8 * m + lane / 4] + 4 * (lane % 4), 4);
}
inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  const unsigned char* rows[32];
  gather_matrices(row, rows);
  const int lane = emulate::self().lane;
  for (int m = 0; m < 4; ++m) {
    uint16_t pair[2];
    for (int i = 0; i < 2; ++i) memcpy(&pair[i], rows[8 * m + 2 * (lane % 4) + i] + 2 * (lane / 4), 2);
    memcpy(&r[m], pair, 4);
  }
}

// c += a b, element e of 32 bytes of k as `value` reads it.
template <int ELEMENTS, class Value>
void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Value value) {
  struct Fragment {
    uint32_t a[4], b[2];
  } mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}}, all[32];
  emulate::exchange(mine, all);
  const int bytes = 32 / ELEMENTS, lane = emulate::self().lane;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + (i / 2) * 8, column = 2 * (lane % 4) + i % 2;
    double sum = 0;
    for (int e = 0; e < ELEMENTS; ++e) {
      const int at = e * bytes, t = at % 16 / 4, half = at / 16;
      uint32_t x = all[4 * (row % 8) + t].a[2 * half + row / 8], y = all[4 * column + t].b[half];
      sum += double(value(x, at % 4)) * double(value(y, at % 4));
    }
    c[i] += float(sum);
  }
}
inline void multiply_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  multiply<16>(c, a, b0, b1, [](uint32_t r, int byte) { return __uint_as_float((r >> (8 * byte) & 0xffffu) << 16); });
}
inline void multiply_e4m3(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  multiply<32>(c, a, b0, b1, [](uint32_t r, int byte) { return to_float_e4m3(r >> (8 * byte) & 0xffu); });
}

}  // namespace device

#include "wgmma.h"
