// The CUDA C++ dialect on the host: stands in front of a module's text so that a C++ compiler takes it.
// Every CUDA thread is a fiber and one OS thread runs them all (scheduler.cpp), so a run repeats exactly.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define GN_HOST 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n)

struct gn_index { unsigned x, y, z; };
struct gn_thread { gn_index thread, block, block_size, grid_size; };
extern "C" {
extern gn_thread *gn_current;
void gn_barrier(unsigned line);
void gn_barrier_of_all(unsigned *come, unsigned line);  // of a cooperative launch
void gn_warp_barrier(unsigned line);
unsigned gn_warp(void);  // number of the warp among those of all blocks that run at once
unsigned long long gn_exchange(unsigned long long bits, unsigned lane, unsigned line);  // with thread number ^ lane
void *gn_shared_array(unsigned number, size_t bytes);  // array `number` of the running block, poisoned when made
void *gn_shared_bytes(void);                           // what the launch asked for
}
#define threadIdx (gn_current->thread)
#define blockIdx (gn_current->block)
#define blockDim (gn_current->block_size)
#define gridDim (gn_current->grid_size)
#define __syncthreads() gn_barrier(__LINE__)
#define __syncwarp() gn_warp_barrier(__LINE__)
#define __shfl_xor_sync(mask, x, lane) gn_shuffle(x, lane, __LINE__)  // all threads of a warp, always

template <class T> static inline T gn_shuffle(T x, unsigned lane, unsigned line) {
  unsigned long long bits = 0;
  memcpy(&bits, &x, sizeof x), bits = gn_exchange(bits, lane, line), memcpy(&x, &bits, sizeof x);
  return x;
}
static inline float __int_as_float(int i) { float x; memcpy(&x, &i, 4); return x; }
static inline int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
static inline unsigned __float_as_uint(float x) { unsigned i; memcpy(&i, &x, 4); return i; }
static inline float __uint_as_float(unsigned i) { float x; memcpy(&x, &i, 4); return x; }
static inline double __longlong_as_double(long long i) { double x; memcpy(&x, &i, 8); return x; }
static inline long long __double_as_longlong(double x) { long long i; memcpy(&i, &x, 8); return i; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((unsigned __int128)a * b >> 64); }
static inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
static inline double rsqrt(double x) { return 1. / sqrt(x); }
template <class T> static inline T max(T a, T b) { return a > b ? a : b; }
template <class T> static inline T min(T a, T b) { return a < b ? a : b; }

// ---- matrix units: every thread of a warp shows its registers, then computes its own four sums. The layouts are PTX's
// for mma.m16n8k8 and k16: thread (g, q) = (lane / 4, lane % 4) has the words (g + 8 * (r % 2), q + 4 * (r / 2)) of the
// left matrix, (q + 4 * r, g) of the right one, and (g + 8 * (r / 2), 2 * q + r % 2) of the sums.
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline unsigned gn_tfloat32(float x) {
  unsigned u = __float_as_uint(x);
  return x != x ? 0x7fffffffu : (u & 0x7fffffffu) >= 0x7f800000u ? u : (u + 0x1000) & 0xffffe000u;
}
static inline unsigned gn_upper_half(float x) {
  unsigned u = __float_as_uint(x);
  return x != x ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
static inline unsigned gn_bfloat16_pair(float low, float high) { return gn_upper_half(high) << 16 | gn_upper_half(low); }
static inline float gn_of_float16(unsigned h) {
  int e = h >> 10 & 31, m = h & 1023;
  float a = e == 31 ? (m ? NAN : INFINITY) : e ? ldexpf(1024.f + m, e - 25) : ldexpf((float)m, -24);
  return h & 0x8000 ? -a : a;
}
static inline float gn_part_tfloat32(unsigned u, int) { return __uint_as_float(u & 0xffffe000u); }  // the rest is not looked at
static inline float gn_part_bfloat16(unsigned u, int k) { return __uint_as_float(u >> 16 * k << 16); }
static inline float gn_part_float16(unsigned u, int k) { return gn_of_float16(u >> 16 * k & 0xffff); }
static unsigned gn_shown[128][32][6];  // by warp, thread and register
#define GN_MULTIPLY(kind, parts)                                                                      \
  static inline void gn_multiply_##kind(float *d, const unsigned *a, const unsigned *b) {             \
    unsigned (*shown)[6] = gn_shown[gn_warp()], lane = threadIdx.x % 32, g = lane / 4, q = lane % 4; \
    memcpy(shown[lane], a, 16), memcpy(shown[lane] + 4, b, 8);                                        \
    __syncwarp();                                                                                     \
    for (unsigned r = 0; r < 4; r++) {                                                                \
      double sum = 0;                                                                                 \
      for (unsigned k = 0; k < 8; k++) {                                                              \
        unsigned x = shown[g * 4 + k % 4][r / 2 + k / 4 * 2], w = shown[(2 * q + r % 2) * 4 + k % 4][4 + k / 4]; \
        for (int part = 0; part < parts; part++) sum += (double)gn_part_##kind(x, part) * gn_part_##kind(w, part); \
      }                                                                                               \
      d[r] += (float)sum;                                                                             \
    }                                                                                                 \
    __syncwarp();                                                                                     \
  }
GN_MULTIPLY(tfloat32, 1)
GN_MULTIPLY(bfloat16, 2)
GN_MULTIPLY(float16, 2)

// An entry point takes pointers to its arguments, as cuLaunchKernel does. Braces evaluate from left to right.
template <class... A> struct gn_call { gn_call(void (*kernel)(A...), A... a) { kernel(a...); } };
template <class... A> static void gn_enter(void (*kernel)(A...), void **p) { gn_call<A...>{kernel, *(A *)*p++...}; }
#define GN_ENTRY(name) extern "C" void gn_entry_##name(void **arguments) { gn_enter(&name, arguments); }
