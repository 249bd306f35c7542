"""Text of what moves several numbers at once, and of the matrix units; the wrappers that hold their PTX.

The host twins of the wrappers that multiply are the emulator's (tests/emulator/device.h): they hold the layouts.
"""

from __future__ import annotations

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import CopyVector, MultiplyFragments

VECTORS = {4: "unsigned int", 8: "uint2", 16: "uint4"}
"""What an access of so many bytes is called."""


def copy_vector(s: CopyVector, target: str, source: str) -> str:
    """The statement that copies from place `source` to place `target`: one of them is in memory, or both are."""
    vector = VECTORS[s.size * dtypes.named(s.target.dtype).bytes]
    inside = [b.space in ("local", "register") for b in (s.target, s.source)]
    return f"{'gn_load' if inside[0] else 'gn_store' if inside[1] else 'gn_move'}<{vector}>({target}, {source});"


def multiply_fragments(s: MultiplyFragments, total: str, left: str, right: str) -> str:
    """The statement that multiplies fragments at these places in registers."""
    return f"gn_multiply_{s.kind}({total}, {left}, {right});"


PRELUDE = r"""
template <class V> gn_device void gn_load(void *to, const void *from) {
  V v = *(const V *)from; memcpy(to, &v, sizeof v);
}
template <class V> gn_device void gn_store(void *to, const void *from) {
  V v; memcpy(&v, from, sizeof v); *(V *)to = v;
}
template <class V> gn_device void gn_move(void *to, const void *from) { *(V *)to = *(const V *)from; }
#ifndef GN_HOST  // the twins are in the emulator's device.h
gn_device unsigned int gn_tfloat32(float x) {  // the nearest number with 10 bits after the point
  unsigned int u; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(u) : "f"(x)); return u;
}
gn_device unsigned int gn_bfloat16_pair(float low, float high) {
  unsigned int u; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(high), "f"(low)); return u;
}
#define GN_MULTIPLY(kind, shape, type)                                                                               \
  gn_device void gn_multiply_##kind(float *d, const unsigned int *a, const unsigned int *b) {                        \
    asm("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "         \
        "{%0,%1,%2,%3};" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                            \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                         \
  }
GN_MULTIPLY(tfloat32, "m16n8k8", "tf32")
GN_MULTIPLY(bfloat16, "m16n8k16", "bf16")
GN_MULTIPLY(float16, "m16n8k16", "f16")
#endif
"""
