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

struct gn_index { unsigned x, y, z; };
struct gn_thread { gn_index thread, block, block_size, grid_size; };
extern "C" {
extern gn_thread *gn_current;
void gn_barrier(unsigned line);
void *gn_shared_array(unsigned number, size_t bytes);  // array `number` of the running block, poisoned when made
void *gn_shared_bytes(void);                           // what the launch asked for
}
#define threadIdx (gn_current->thread)
#define blockIdx (gn_current->block)
#define blockDim (gn_current->block_size)
#define gridDim (gn_current->grid_size)
#define __syncthreads() gn_barrier(__LINE__)

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

// An entry point takes pointers to its arguments, as cuLaunchKernel does. Braces evaluate from left to right.
template <class... A> struct gn_call { gn_call(void (*kernel)(A...), A... a) { kernel(a...); } };
template <class... A> static void gn_enter(void (*kernel)(A...), void **p) { gn_call<A...>{kernel, *(A *)*p++...}; }
#define GN_ENTRY(name) extern "C" void gn_entry_##name(void **arguments) { gn_enter(&name, arguments); }
