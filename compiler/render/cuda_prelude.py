"""What stands in front of every generated CUDA module. No header is included: each would cost seconds."""

from gnomon.compiler.render.cuda_matrix import PRELUDE as MATRIX

PRELUDE = r"""// In front of every generated module. Inline PTX stands here and nowhere else, each with a host twin.
#define gn_device static __device__ __forceinline__

#ifdef GN_WIDE
typedef long long gn_int;  // what indices are computed in
#else
typedef int gn_int;
#endif
gn_device int gn_floordiv(int a, int b) { int q = a / b; return q * b > a ? q - 1 : q; }
gn_device long long gn_floordiv(long long a, long long b) { long long q = a / b; return q * b > a ? q - 1 : q; }
gn_device long long gn_floordiv(int a, long long b) { return gn_floordiv((long long)a, b); }
gn_device long long gn_floordiv(long long a, int b) { return gn_floordiv(a, (long long)b); }
gn_device int gn_larger(int a, int b) { return a > b ? a : b; }
gn_device long long gn_larger(long long a, long long b) { return a > b ? a : b; }
gn_device long long gn_larger(int a, long long b) { return gn_larger((long long)a, b); }
gn_device long long gn_larger(long long a, int b) { return gn_larger(a, (long long)b); }
template <class T> gn_device T gn_max(T a, T b) { return a > b || a != a ? a : b; }
template <class T> gn_device T gn_min(T a, T b) { return a < b || a != a ? a : b; }
template <class T, class F> gn_device T gn_integer(F x, T low, T high) {
  return x != x ? 0 : x <= (F)low ? low : x >= (F)high ? high : (T)x;
}
template <class T, class F> gn_device T gn_bits(F x) {
  static_assert(sizeof(T) == sizeof(F), "bits of another width");
  T r; memcpy(&r, &x, sizeof r); return r;
}

// Neighbouring elements, read and written as one: they begin at a multiple of their bytes, of 16 if they are more.
template <class T, int n> struct alignas(sizeof(T) * n < 16 ? sizeof(T) * n : 16) gn_vector { T at[n]; };
#ifdef GN_HOST
#define GN_ALIGNED(p, V) if ((unsigned long long)(p) % alignof(V)) *(volatile int *)0 = 0
#else
#define GN_ALIGNED(p, V)
#endif
template <class V, class T> gn_device V gn_load(const T *p) { GN_ALIGNED(p, V); return *(const V *)p; }
template <class V, class T> gn_device void gn_store(T *p, const V &v) { GN_ALIGNED(p, V); *(V *)p = v; }

// All blocks of the launch wait for each other; `come` counts blocks, and how often all were there.
#ifdef GN_HOST
#define gn_grid_barrier(come) gn_barrier_of_all(come, __LINE__)
#else
gn_device void gn_grid_barrier(unsigned int *come) {
  __syncthreads();
  if (gridDim.x == 1) return;
  if (threadIdx.x == 0) {
    volatile unsigned int *count = come, *times = come + 1;
    unsigned int before = *times;
    __threadfence();
    if (atomicAdd(come, 1u) == gridDim.x - 1) { *count = 0; __threadfence(); *times = before + 1; }
    else while (*times == before) {}
    __threadfence();
  }
  __syncthreads();
}
#endif

#ifdef GN_HOST
static unsigned short gn_half_bits(double x) {
  unsigned short sign = signbit(x) ? 0x8000 : 0;
  double a = fabs(x);
  if (!(a < 65520.)) return sign | (a != a ? 0x7e00 : 0x7c00);
  int e = a < 0x1p-14 ? -14 : ilogb(a);
  return sign | (unsigned short)((a < 0x1p-14 ? 0 : e + 14) * 1024 + (int)rint(ldexp(a, 10 - e)));
}
static unsigned short gn_half_bits(float x) { return gn_half_bits((double)x); }
static float gn_half_value(unsigned short h) {
  int e = h >> 10 & 31, m = h & 1023;
  float a = e == 31 ? (m ? NAN : INFINITY) : e ? ldexpf(1024.f + m, e - 25) : ldexpf((float)m, -24);
  return h & 0x8000 ? -a : a;
}
#else
gn_device unsigned short gn_half_bits(float x) {
  unsigned short h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x)); return h;
}
gn_device unsigned short gn_half_bits(double x) {
  unsigned short h; asm("cvt.rn.f16.f64 %0, %1;" : "=h"(h) : "d"(x)); return h;
}
gn_device float gn_half_value(unsigned short h) {
  float x; asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h)); return x;
}
#endif
struct __half {  // stored in 16 bits, computed in 32
  unsigned short bits;
  __half() = default;
  __device__ __half(float x) : bits(gn_half_bits(x)) {}
  __device__ __half(double x) : bits(gn_half_bits(x)) {}
  __device__ operator float() const { return gn_half_value(bits); }
};
struct gn_bfloat16 {  // the upper half of a float, rounded to even
  unsigned short bits;
  gn_bfloat16() = default;
  __device__ gn_bfloat16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
    unsigned int b = gn_bits<unsigned int>(x);
    bits = x != x ? b >> 16 | 0x40 : (b + 0x7fff + (b >> 16 & 1)) >> 16;
#endif
  }
  __device__ gn_bfloat16(double x) : gn_bfloat16((float)x) {}
  __device__ operator float() const { return gn_bits<float>((unsigned int)bits << 16); }
};
""" + MATRIX
