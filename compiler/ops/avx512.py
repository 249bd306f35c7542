"""Functions that AVX-512 has instructions for: the exponent and significand of a number, a product with a power of two,
a table of 16 numbers in a register.

A function of `EXPANSIONS` takes the place of the `expand` of the row of that name where the target has these
instructions. Errors are those that `mathlib` names, but exp's 1.1 and erf's 2.2 in float32.
Intel 2023, "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 2C.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from gnomon.compiler.kernel import Apply, Expr, ScalarFn
from gnomon.compiler.ops.exponential import EXP, EXP_RANGE, LN2, LOG2E, reduced
from gnomon.compiler.ops.mathlib import (
    FORMATS,
    add,
    at_least,
    at_most,
    bits,
    call,
    div,
    less,
    mad,
    magnitude,
    mul,
    poly,
    signed,
    sub,
    where,
)

BITS = 512

# ---- instructions


def _spelled(name: str, arguments: str, immediate: str = "") -> dict[str, str]:
    """The call of an intrinsic on whole registers that leaves nothing out and rounds as usual."""
    return {
        dtype: f"call {t} @llvm.x86.avx512.mask.{name}.{kind}.512({arguments.format(t=t)}, {immediate}"
        f"{'' if name == 'fixupimm' else t + ' zeroinitializer, '}{mask} -1, i32 4)"
        for dtype, t, kind, mask in (("float32", "<16 x float>", "ps", "i16"), ("float64", "<8 x double>", "pd", "i8"))
    }


def _instruction(name: str, arity: int, numpy: Callable[..., np.ndarray], spelling: dict[str, str]) -> ScalarFn:
    return ScalarFn(name, arity, numpy, llvm=spelling, bits=BITS)


SCALEF = _instruction("scalef", 2, lambda x, n: x * np.exp2(np.floor(n)), _spelled("scalef", "{t} {{0}}, {t} {{1}}"))
"""x 2^k for the whole part k of n (that below it), rounded once."""
GETEXP = _instruction("getexp", 1, lambda x: np.frexp(x)[1] - 1.0, _spelled("getexp", "{t} {{0}}"))
"""The exponent as a number, of subnormal ones too; -inf of 0."""
GETMANT = _instruction("getmant", 1, lambda x: np.where((m := np.frexp(x)[0]) < 0.75, 2 * m, m),
                       _spelled("getmant", "{t} {{0}}", "i32 11, "))  # fmt: skip
"""The significand between 3/4 and 3/2; NaN of negative numbers."""
LOG_ENDS = 2 | 2 << 4 | 4 << 8 | 3 << 16 | 5 << 20 | 3 << 24
"""What replaces log(x), by the kind of x: NaN itself, of 0 -inf, of inf itself, of what is negative NaN."""
FIXUP = _instruction(
    "fixup_log", 2, lambda y, x: np.log(x),
    {
        "float32": "call <16 x float> @llvm.x86.avx512.mask.fixupimm.ps.512(<16 x float> {0}, <16 x float> {1}, "
        f"<16 x i32> splat (i32 {LOG_ENDS}), i32 0, i16 -1, i32 4)",
        "float64": "call <8 x double> @llvm.x86.avx512.mask.fixupimm.pd.512(<8 x double> {0}, <8 x double> {1}, "
        f"<8 x i64> splat (i64 {LOG_ENDS}), i32 0, i8 -1, i32 4)",
    },
)  # fmt: skip
"""y = log(x) put right where x is 0, negative, infinite or NaN."""


@cache
def _lookup(table: tuple[float, ...]) -> ScalarFn:
    """The number of a table of 16 whose place is in the last four bits of the argument, an unsigned integer."""
    values = ", ".join(f"float 0x{np.float64(np.float32(x)).view(np.uint64):016X}" for x in table)
    spelling = f"call <16 x float> @llvm.x86.avx512.permvar.sf.512(<16 x float> <{values}>, <16 x i32> {{0}})"
    meaning = lambda k: np.asarray(table, np.float32)[k & 15]
    return ScalarFn("lookup", 1, meaning, "float32", {"uint32": spelling}, bits=BITS)


# ---- functions


def _scaled(p: Expr, n: Expr) -> Expr:
    return Apply(SCALEF, (p, n))


PARTS = 16
ROOTS = tuple(float(np.float32(2.0 ** (k / PARTS))) for k in range(PARTS))
NEAR = (0.5, 0.16666667)
"""(exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 32"""


def _exp_limited(x: Expr) -> Expr:
    """exp(x) for x at most the upper end of the range.

    In float32 x = n ln 2 + r for n in sixteenths (Tang 1989, "Table-driven implementation of the exponential function
    in IEEE floating-point arithmetic"): 2^n is of the table, whose place the last bits of n + magic tell, times a power
    of two, which `scalef` takes of the whole part of n.
    """
    x = at_least(x, EXP_RANGE[x.dtype][0])
    parts = PARTS if x.dtype == "float32" else 1
    magic = FORMATS[x.dtype].magic / parts
    t = mad(x, LOG2E, magic)
    n = sub(t, magic)
    r = reduced(x, n)
    if parts == 1:
        return _scaled(mad(mad(poly(r, EXP[x.dtype]), r, 1), r, 1), n)
    root = Apply(_lookup(ROOTS), (bits(t),))
    return _scaled(mad(root, mad(mul(r, r), poly(r, NEAR), r), root), n)


def exp(x: Expr) -> Expr:
    return _exp_limited(at_most(x, EXP_RANGE[x.dtype][1]))


def sigmoid(x: Expr) -> Expr:
    """As `exponential.sigmoid`."""
    e = _exp_limited(call("negative", magnitude(x)))
    return div(where(less(x, 0), e, 1), add(e, 1))


LOG = (  # (log(1 + f) - f + f^2 / 2) / f^3 for -1/4 <= f <= 1/2
    0.3333345, -0.25000104, 0.19990821, -0.16646987, 0.14478253, -0.13163997, 0.10469738, -0.045121204,
)  # fmt: skip


def log(x: Expr) -> Expr:
    high, low = LN2[x.dtype]
    m = Apply(GETMANT, (x,))
    e: Expr = Apply(GETEXP, (x,))
    e = where(less(m, 1), add(e, 1), e)
    f = sub(m, 1)
    tail = mul(mul(f, f), mad(f, poly(f, LOG), -0.5))
    return Apply(FIXUP, (mad(e, high, add(mad(e, low, tail), f)), x))


ERF_END = 3.99
"""From here on erf is 1."""
ERF_PIECE = 66 / 256
"""The width of the pieces: a few bits, so that their middles are exact."""
ERF = (  # erf as a polynomial of the distance from the middle of a piece: coefficients for each of 16 pieces
    (
        0.0, 0.28459144, 0.534123, 0.72595984, 0.8552718, 0.9316981, 0.9713021, 0.9892959, 0.9964638, 0.9989671,
        0.9997337, 0.99993944, 0.99998784, 0.99999785, 0.99999964, 0.99999994,
    ),
    (
        1.1283791, 1.0558171, 0.8649471, 0.62037987, 0.38957676, 0.21418828, 0.10310163, 0.04345129, 0.016032714,
        0.005179391, 0.0014649323, 0.00036276356, 7.864969e-05, 1.4929238e-05, 2.481107e-06, 4.8480894e-07,
    ),
    (
        0.0, -0.27220044, -0.44596758, -0.47982135, -0.40175477, -0.2761095, -0.15948685, -0.07841178, -0.033079125,
        -0.012007308, -0.0037861215, -0.0010289873, -0.00022969734, -4.681025e-05, 3.3261235e-06, 3.0889184e-06,
    ),
    (
        -0.37609407, -0.30517495, -0.13498454, 0.040608943, 0.14634478, 0.1658762, 0.1301035, 0.07986142, 0.040123727,
        0.016863618, 0.006002911, 0.0018240124, 0.00047559655, 0.00010680777, 2.0716803e-05, -1.9114068e-05,
    ),
    (
        0.0, 0.1292519, 0.1814055, 0.1436432, 0.05880909, -0.014069653, -0.04708661, -0.046063513, -0.029670378,
        -0.016239032, -0.0059605516, -0.0022524109, -0.0014797396, -0.0003584078, -0.00077111035, -0.0002183142,
    ),
    (
        0.11045634, 0.0791049, 0.0013861691, -0.05608921, -0.067729756, -0.041908123, -0.009835538, 0.009039363,
        0.012951455, 0.0093749575, 0.0048985723, 0.0020129925, 0.00067472976, 0.00018840657, 4.4319106e-05,
        0.0013154295,
    ),
)


def erf(x: Expr) -> Expr:
    """A polynomial of its own for each of 16 pieces, the first of odd powers."""
    a = at_most(magnitude(x), ERF_END)
    t = mad(a, 1 / ERF_PIECE, magic := FORMATS[x.dtype].magic)
    d = mad(sub(t, magic), -ERF_PIECE, a)
    *rest, last = (Apply(_lookup(table), (bits(t),)) for table in ERF)
    value: Expr = last
    for c in reversed(rest):
        value = mad(value, d, c)
    return signed(value, x)


EXPANSIONS: dict[str, dict[str, Callable[..., Expr]]] = {
    "exp": {"float32": exp, "float64": exp},
    "sigmoid": {"float32": sigmoid, "float64": sigmoid},
    "log": {"float32": log},
    "erf": {"float32": erf},
}
"""By name of the row, then by dtype."""
