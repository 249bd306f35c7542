"""The table of scalar functions: what each means on arrays, its gradient, and how targets spell it.

A spelling is a template (see `ScalarFn`); its kind, `{t}` and `{m}` are those of the last argument. `{0}` may stand in
a CUDA template several times, so operands must be names or constants. Two rows need more than that:
    where   its first argument is a bool: `{c}` is the condition's type, i1 or <n x i1>
    mulhi   has no LLVM spelling (three instructions): its `expand` is pattern-matched by LLVM into one multiply
A row without a spelling for a target has `expand`, which is also there where a target has an instruction that others
lack (`fma`, `floor`): the renderer may take it instead. Division and shifts of integers come in two rows: the user's
(`floor_divide`, `left_shift`; any operand is defined) and the machine's (`quotient`, `shl`; never given an operand that
traps or is undefined).

float16 and bfloat16 have no spellings of their own: they are computed in float32. Nothing of fast-math is used, and
products are not fused with sums unless `fma` says so: where a stable formula computes a value again, as
x * x - max(x * x), the fused one would differ from itself by its rounding error, and exp of that overflows. CUDA's
sigmoid is 0 below -88.7 in float32 (-709.8 in float64), where the CPU's is still a subnormal number; elsewhere no
result is flushed to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, GraphError, nearest
from gnomon.compiler.kernel import ScalarFn
from gnomon.compiler.ops import exponential, mathlib, special, trigonometric

SCALAR: dict[str, ScalarFn] = {}


def scalar(name: str) -> ScalarFn:
    """The row called `name`. Raises ArgumentError with near names if there is none."""
    try:
        return SCALAR[name]
    except KeyError:
        raise ArgumentError(f"Unknown scalar function {name!r}.{nearest(name, SCALAR)}") from None


def row(name: str, arity: int, numpy: Callable[..., Any], result: str = "same", grad=None, **spelling: Any) -> None:
    """Enter one function. `grad` is written as (build, g, out, *inputs) -> a node, or a tuple of one per input."""

    def meaning(*args):
        arrays = [np.asarray(a) for a in args]
        with np.errstate(all="ignore"):
            value = np.asarray(numpy(*arrays))
            return value.astype(arrays[-1].dtype if result == "same" else result, copy=False)

    def rule(g, out, *inputs):
        from gnomon.compiler.ops import build

        found = grad(build, g, out, *inputs)
        return found if isinstance(found, tuple) else (found,)

    assert name not in SCALAR, name
    SCALAR[name] = ScalarFn(name, arity, meaning, result, grad=rule if grad else None, **spelling)


# ---- spelling


def intrinsic(name: str, arity: int = 1, flags: str = "") -> str:
    """A call of an LLVM intrinsic on arguments of one type."""
    args = ", ".join(f"{{t}} {{{i}}}" for i in range(arity))
    return f"call {flags}{{t}} @llvm.{name}.{{m}}({args})"


def binary(instruction: str) -> str:
    return f"{instruction} {{t}} {{0}}, {{1}}"


def libm(name: str, arity: int = 1) -> dict[str, str]:
    """CUDA's accurate function, `namef` in float32."""
    args = ", ".join(f"{{{i}}}" for i in range(arity))
    return {"float32": f"{name}f({args})", "float64": f"{name}({args})"}


def both(template: str) -> dict[str, str]:
    """A CUDA template that calls functions: `F` ends their names, and literals, in float32."""
    return {"float32": template.replace("F", "f"), "float64": template.replace("F", "")}


INTEGERS = [d for d in dtypes.TABLE.values() if d.kind in "iu"]


def wrapping(operator: str) -> dict[str, str]:
    """C++ arithmetic of integers, unsigned and cut to the dtype: no overflow is undefined, nothing stays promoted."""
    unsigned = {64: "unsigned long long"}
    return {
        d.name: f"(({d.cuda})(({unsigned.get(d.bits, 'unsigned int')}){{0}} {operator} "
        f"({unsigned.get(d.bits, 'unsigned int')}){{1}}))"
        for d in INTEGERS
    }


def narrowed(operator: str) -> dict[str, str]:
    """C++ arithmetic of integers in their own signedness, cut to the dtype."""
    return {d.name: f"(({d.cuda})({{0}} {operator} {{1}}))" for d in INTEGERS}


# ---- meanings that NumPy lacks


def wide(f: Callable[..., Any]) -> Callable[..., Any]:
    """A meaning computed in float64."""
    return lambda *args: f(*(np.asarray(a, np.float64) for a in args))


def each(f: Callable[[float], float]) -> Callable[..., Any]:
    """A function of Python floats, on every element."""
    over = np.frompyfunc(f, 1, 1)
    return wide(lambda x: np.asarray(over(x), np.float64))


def rounding(f: Callable[..., Any]) -> Callable[..., Any]:
    """An integer is its own: NumPy would round it to float64."""
    return lambda x: f(x) if x.dtype.kind == "f" else x


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _fma(a, b, c):
    """Rounded once: exactly the product's error (Dekker 1971) and the sum's (Knuth), then added."""
    if a.dtype.kind != "f":
        return a * b + c
    if a.dtype != np.float64:
        return np.float64(a) * np.float64(b) + np.float64(c)
    split = lambda x: (h := (x * 134217729.0) - (x * 134217729.0 - x), x - h)
    (a1, a0), (b1, b0), p = split(a), split(b), a * b
    s = p + c
    t = s - p
    tail = ((a1 * b1 - p) + a1 * b0 + a0 * b1) + a0 * b0 + ((p - (s - t)) + (c - t))
    return np.where(np.isfinite(tail), s + tail, s)


def _power(x, y):
    """Integers too: a negative exponent gives 1 / x^-y cut towards zero, and 0 for x = 0."""
    if x.dtype.kind == "f":  # where all exponents are one 0.5 NumPy takes the root, which is NaN for -infinity
        return np.where((x == -np.inf) & (y == 0.5), np.array(np.inf, x.dtype), np.power(x, y))
    if x.dtype.kind == "b":
        return x | ~y
    if x.dtype.kind == "u":
        return np.power(x, y)
    inverse = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, 1, -1), 0))
    return np.where(y < 0, inverse, np.power(x, np.maximum(y, 0)))


def _lgamma(x):
    try:
        return math.lgamma(x)
    except (ValueError, OverflowError):
        return math.inf


def _mulhi(x, y):
    return (x.astype(np.uint64) * y.astype(np.uint64)) >> np.uint64(32)


def _erfinv(x):
    """Wichura 1988 (AS 241) by way of `statistics`, then two Newton steps on erf, on erfc towards the ends."""
    from statistics import NormalDist

    def one(a):
        y = NormalDist().inv_cdf((1 + a) / 2 if a < 0.999 else 1 - (1 - a) / 2) / math.sqrt(2) if a < 1 else math.inf
        for _ in range(2 if a < 1 else 0):
            error = math.erf(y) - a if a < 0.5 else (1 - a) - math.erfc(y)
            y -= error * math.sqrt(math.pi) / 2 * math.exp(y * y)
        return y

    a = np.abs(x)
    inside = np.where(a <= 1, a, 0)
    return np.where(a <= 1, np.copysign(np.asarray(np.frompyfunc(one, 1, 1)(inside), np.float64), x), np.nan)


def _polygamma(x, series, term, reflect):
    """Reflected to x > 0, then raised by the recurrence to x >= 15, where the asymptotic series holds."""
    y = np.where(x > 0, x, 1 - x)
    total = np.zeros_like(y)
    for _ in range(15):
        low = y < 15
        total += np.where(low, term(np.where(low, y, 1.0)), 0)
        y = np.where(low, y + 1, y)
    return np.where(x > 0, total + series(y), reflect(x, total + series(y)))


def _digamma(x):
    """Abramowitz, Stegun 1964, 6.3.5, 6.3.7, 6.3.18. Poles give NaN, but -0.0 and 0.0 give inf and -inf."""

    def series(y):
        z = 1 / (y * y)
        return np.log(y) - 0.5 / y - z * (1 / 12 - z * (1 / 120 - z * (1 / 252 - z * (1 / 240 - z / 132))))

    turn = np.where(x < 0, x - np.rint(x), 0.25)
    value = _polygamma(x, series, lambda y: -1 / y, lambda x, up: up - np.pi / np.tan(np.pi * turn))
    pole = (x < 0) & (x == np.floor(x))
    return np.where(x == 0, -1 / x, np.where(pole, np.nan, value))


def _trigamma(x):
    """Abramowitz, Stegun 1964, 6.4.6, 6.4.7, 6.4.12. Poles give infinity."""

    def series(y):
        z = 1 / (y * y)
        return 1 / y + z / 2 + z / y * (1 / 6 - z * (1 / 30 - z * (1 / 42 - z * (1 / 30 - z * 5 / 66))))

    turn = x - np.rint(x)
    value = _polygamma(x, series, lambda y: 1 / (y * y), lambda x, up: (np.pi / np.sin(np.pi * turn)) ** 2 - up)
    return np.where((x <= 0) & (turn == 0), np.inf, value)


# ---- arithmetic

row("add", 2, np.add, grad=lambda b, g, y, u, v: (g, g),
    llvm={"f": binary("fadd"), "i": binary("add"), "u": binary("add"), "b": binary("or")},
    cuda={"f": "({0} + {1})", "b": "({0} || {1})", **wrapping("+")})
row("subtract", 2, np.subtract, grad=lambda b, g, y, u, v: (g, b.negative(g)),
    llvm={"f": binary("fsub"), "i": binary("sub"), "u": binary("sub")},
    cuda={"f": "({0} - {1})", **wrapping("-")})
row("multiply", 2, np.multiply, grad=lambda b, g, y, u, v: (b.multiply(g, v), b.multiply(g, u)),
    llvm={"f": binary("fmul"), "i": binary("mul"), "u": binary("mul"), "b": binary("and")},
    cuda={"f": "({0} * {1})", "b": "({0} && {1})", **wrapping("*")})
row("divide", 2, np.divide, cost=6,
    grad=lambda b, g, y, u, v: (b.divide(g, v), b.negative(b.multiply(g, b.divide(y, v)))),
    llvm={"f": binary("fdiv")}, cuda={"f": "({0} / {1})"})
row("fma", 3, _fma, grad=lambda b, g, y, u, v, w: (b.multiply(g, v), b.multiply(g, u), g),
    llvm={"f": intrinsic("fma", 3)}, cuda=libm("fma", 3), expand=mathlib.fma)
row("floor_divide", 2, np.floor_divide, cost=95, expand=mathlib.floor_divide)
row("mod", 2, np.mod, cost=85, expand=mathlib.mod,
    grad=lambda b, g, y, u, v: (g, b.negative(b.multiply(g, b.floor_divide(u, v)))))
row("quotient", 2, lambda x, y: np.where(y == 0, 0, np.trunc(x / np.where(y == 0, 1, y))), cost=20,
    llvm={"i": binary("sdiv"), "u": binary("udiv")}, cuda=narrowed("/"))
row("remainder", 2, np.fmod, cost=20, llvm={"i": binary("srem"), "u": binary("urem")}, cuda=narrowed("%"))
row("negative", 1, np.negative, grad=lambda b, g, y, x: b.negative(g),
    llvm={"f": "fneg {t} {0}", "i": "sub {t} zeroinitializer, {0}", "u": "sub {t} zeroinitializer, {0}"},
    cuda={"f": "(-{0})", **{d: t.replace("{1}", "{0}").replace("{0}", "0", 1) for d, t in wrapping("-").items()}})
row("abs", 1, np.abs, grad=lambda b, g, y, x: b.multiply(g, b.sign(x)),
    llvm={"f": intrinsic("fabs"), "i": "call {t} @llvm.abs.{m}({t} {0}, i1 false)"},
    cuda={**libm("fabs"), "i": "({0} < 0 ? -{0} : {0})"}, expand=mathlib.absolute)
row("sign", 1, np.sign, cost=3, expand=mathlib.sign)
row("copysign", 2, np.copysign, llvm={"f": intrinsic("copysign", 2)}, cuda=libm("copysign", 2),
    grad=lambda b, g, y, u, v: (b.multiply(g, b.multiply(b.sign(u), b.copysign(1.0, v))), None))
row("reciprocal", 1, lambda x: 1 / x, cost=6, expand=mathlib.reciprocal,
    cuda={"float32": "(1.0f / {0})", "float64": "(1.0 / {0})"},
    grad=lambda b, g, y, x: b.negative(b.multiply(g, b.square(y))))
row("square", 1, np.square, expand=mathlib.square, grad=lambda b, g, y, x: b.multiply(g, b.multiply(2.0, x)))
row("sqrt", 1, np.sqrt, cost=8, llvm={"f": intrinsic("sqrt")}, cuda=libm("sqrt"),
    grad=lambda b, g, y, x: b.multiply(g, b.divide(0.5, y)))
row("rsqrt", 1, wide(lambda x: 1 / np.sqrt(x)), cost=14, cuda=libm("rsqrt"), expand=mathlib.rsqrt,
    grad=lambda b, g, y, x: b.multiply(g, b.multiply(-0.5, b.multiply(y, b.square(y)))))
row("hypot", 2, np.hypot, cost=20, cuda=libm("hypot", 2), expand=mathlib.hypot,
    grad=lambda b, g, y, u, v: tuple(b.multiply(g, b.divide(x, b.where(b.equal(y, 0.0), 1.0, y))) for x in (u, v)))
row("mulhi", 2, _mulhi, cost=2, expand=mathlib.mulhi,
    cuda={"uint32": "((unsigned int)(((unsigned long long){0} * (unsigned long long){1}) >> 32))"})

# ---- rounding

row("floor", 1, rounding(np.floor), llvm={"f": intrinsic("floor")}, cuda=libm("floor"), expand=mathlib.floor)
row("ceil", 1, rounding(np.ceil), llvm={"f": intrinsic("ceil")}, cuda=libm("ceil"), expand=mathlib.ceil)
row("trunc", 1, rounding(np.trunc), llvm={"f": intrinsic("trunc")}, cuda=libm("trunc"), expand=mathlib.trunc)
row("round", 1, rounding(np.rint), llvm={"f": intrinsic("roundeven")}, cuda=libm("rint"), expand=mathlib.round_even)

# ---- comparing and choosing

for name, function, floats, signed, unsigned, symbol in (
    ("equal", np.equal, "oeq", "eq", "eq", "=="),
    ("not_equal", np.not_equal, "une", "ne", "ne", "!="),
    ("less", np.less, "olt", "slt", "ult", "<"),
    ("less_equal", np.less_equal, "ole", "sle", "ule", "<="),
    ("greater", np.greater, "ogt", "sgt", "ugt", ">"),
    ("greater_equal", np.greater_equal, "oge", "sge", "uge", ">="),
):
    row(name, 2, function, "bool",
        llvm={"f": binary(f"fcmp {floats}"), "i": binary(f"icmp {signed}"),
              "u": binary(f"icmp {unsigned}"), "b": binary(f"icmp {unsigned}")},
        cuda=dict.fromkeys("fiub", f"({{0}} {symbol} {{1}})"))


def _split(chosen: str):
    """The gradient goes to the chosen argument, by halves at ties (as JAX and Keras have it)."""

    def rule(b, g, y, u, v):
        half = b.where(b.equal(u, v), b.multiply(0.5, g), 0.0)
        wins = getattr(b, chosen)
        return b.where(wins(u, v), g, half), b.where(wins(v, u), g, half)

    return rule


row("maximum", 2, np.maximum, cost=2, grad=_split("greater"),
    llvm={"f": intrinsic("maximum", 2, "nsz "), "b": binary("or"),
          "i": intrinsic("smax", 2), "u": intrinsic("umax", 2)},
    cuda={"f": "({0} > {1} || {0} != {0} ? {0} : {1})", "b": "({0} || {1})",
          "i": "({0} > {1} ? {0} : {1})", "u": "({0} > {1} ? {0} : {1})"})
row("minimum", 2, np.minimum, cost=2, grad=_split("less"),
    llvm={"f": intrinsic("minimum", 2, "nsz "), "b": binary("and"),
          "i": intrinsic("smin", 2), "u": intrinsic("umin", 2)},
    cuda={"f": "({0} < {1} || {0} != {0} ? {0} : {1})", "b": "({0} && {1})",
          "i": "({0} < {1} ? {0} : {1})", "u": "({0} < {1} ? {0} : {1})"})
row("relu", 1, lambda x: np.maximum(x, 0), expand=mathlib.relu,
    grad=lambda b, g, y, x: b.where(b.greater(y, 0.0), g, 0.0))
row("where", 3, np.where,
    llvm=dict.fromkeys("fiub", "select {c} {0}, {t} {1}, {t} {2}"), cuda=dict.fromkeys("fiub", "({0} ? {1} : {2})"),
    grad=lambda b, g, y, c, u, v: (None, b.where(c, g, 0.0), b.where(c, 0.0, g)))
row("isnan", 1, np.isnan, "bool", llvm={"f": "fcmp uno {t} {0}, {0}"}, cuda={"f": "({0} != {0})"}, expand=mathlib.isnan)
row("isinf", 1, np.isinf, "bool", cost=2, expand=mathlib.isinf)
row("isfinite", 1, np.isfinite, "bool", cost=2, expand=mathlib.isfinite)

# ---- logic and bits

row("logical_and", 2, np.logical_and, llvm={"b": binary("and")}, cuda={"b": "({0} && {1})"})
row("logical_or", 2, np.logical_or, llvm={"b": binary("or")}, cuda={"b": "({0} || {1})"})
row("logical_xor", 2, np.logical_xor, llvm={"b": binary("xor")}, cuda={"b": "({0} != {1})"})
row("logical_not", 1, np.logical_not, llvm={"b": "icmp eq {t} {0}, zeroinitializer"}, cuda={"b": "(!{0})"})
row("bitwise_and", 2, np.bitwise_and, llvm=dict.fromkeys("iub", binary("and")),
    cuda={"b": "({0} && {1})", **narrowed("&")})
row("bitwise_or", 2, np.bitwise_or, llvm=dict.fromkeys("iub", binary("or")),
    cuda={"b": "({0} || {1})", **narrowed("|")})
row("bitwise_xor", 2, np.bitwise_xor, llvm=dict.fromkeys("iub", binary("xor")),
    cuda={"b": "({0} != {1})", **narrowed("^")})
row("bitwise_not", 1, np.invert, llvm={"b": "icmp eq {t} {0}, zeroinitializer"},
    cuda={"b": "(!{0})", **{d.name: f"(({d.cuda})(~{{0}}))" for d in INTEGERS}}, expand=mathlib.bitwise_not)
row("left_shift", 2, np.left_shift, cost=3, expand=mathlib.left_shift)
row("right_shift", 2, np.right_shift, cost=3, expand=mathlib.right_shift)
row("shl", 2, np.left_shift, llvm=dict.fromkeys("iu", binary("shl")), cuda=wrapping("<<"))
row("shr", 2, np.right_shift, llvm={"i": binary("ashr"), "u": binary("lshr")}, cuda=narrowed(">>"))

# ---- exponentials and logarithms

row("exp", 1, np.exp, cost=20, cuda=libm("exp"), expand=exponential.exp, grad=lambda b, g, y, x: b.multiply(g, y))
row("exp2", 1, np.exp2, cost=20, cuda=libm("exp2"), expand=exponential.exp2,
    grad=lambda b, g, y, x: b.multiply(g, b.multiply(y, math.log(2))))
row("expm1", 1, np.expm1, cost=20, cuda=libm("expm1"), expand=exponential.expm1,
    grad=lambda b, g, y, x: b.multiply(g, b.add(y, 1.0)))
row("log", 1, np.log, cost=30, cuda=libm("log"), expand=exponential.log, grad=lambda b, g, y, x: b.divide(g, x))
row("log1p", 1, np.log1p, cost=40, cuda=libm("log1p"), expand=exponential.log1p,
    grad=lambda b, g, y, x: b.divide(g, b.add(x, 1.0)))
row("log2", 1, np.log2, cost=30, cuda=libm("log2"), expand=exponential.log2,
    grad=lambda b, g, y, x: b.divide(g, b.multiply(x, math.log(2))))
row("log10", 1, np.log10, cost=34, cuda=libm("log10"), expand=exponential.log10,
    grad=lambda b, g, y, x: b.divide(g, b.multiply(x, math.log(10))))


def _power_grad(b, g, y, u, v):
    # neither 0 * inf at v = 0 nor 0 * log 0 at u = 0 may make a NaN, in this rule's own derivative either
    zero = b.equal(v, 0.0)
    base = b.multiply(v, b.power(u, b.where(zero, 1.0, b.subtract(v, 1.0))))
    exponent = b.multiply(y, b.log(b.where(b.equal(u, 0.0), 1.0, u)))
    return b.multiply(g, base), b.multiply(g, exponent)


row("power", 2, _power, cost=75, cuda=libm("pow", 2), expand=exponential.power, grad=_power_grad)
row("sigmoid", 1, wide(_sigmoid), cost=26, expand=exponential.sigmoid,
    cuda={"float32": "(1.0f / (1.0f + expf(-{0})))", "float64": "(1.0 / (1.0 + exp(-{0})))"},
    grad=lambda b, g, y, x: b.multiply(g, b.multiply(y, b.subtract(1.0, y))))
row("softplus", 1, lambda x: np.logaddexp(x, 0), cost=45, expand=exponential.softplus,
    cuda={"float32": "(fmaxf({0}, 0.0f) + log1pf(expf(-fabsf({0}))))",
          "float64": "(fmax({0}, 0.0) + log1p(exp(-fabs({0}))))"},
    grad=lambda b, g, y, x: b.multiply(g, b.sigmoid(x)))
row("log_sigmoid", 1, lambda x: -np.logaddexp(-x, 0), cost=46, expand=exponential.log_sigmoid,
    cuda={"float32": "(fminf({0}, 0.0f) - log1pf(expf(-fabsf({0}))))",
          "float64": "(fmin({0}, 0.0) - log1p(exp(-fabs({0}))))"},
    grad=lambda b, g, y, x: b.multiply(g, b.sigmoid(b.negative(x))))

# ---- trigonometry, round and hyperbolic


def _over(b, g, x):
    """g over the root of x."""
    return b.multiply(g, b.rsqrt(x))


row("sin", 1, np.sin, cost=45, cuda=libm("sin"), expand=trigonometric.sin,
    grad=lambda b, g, y, x: b.multiply(g, b.cos(x)))
row("cos", 1, np.cos, cost=45, cuda=libm("cos"), expand=trigonometric.cos,
    grad=lambda b, g, y, x: b.negative(b.multiply(g, b.sin(x))))
row("tan", 1, np.tan, cost=45, cuda=libm("tan"), expand=trigonometric.tan,
    grad=lambda b, g, y, x: b.multiply(g, b.add(1.0, b.square(y))))
row("arcsin", 1, np.arcsin, cost=22, cuda=libm("asin"), expand=trigonometric.arcsin,
    grad=lambda b, g, y, x: _over(b, g, b.subtract(1.0, b.square(x))))
row("arccos", 1, np.arccos, cost=24, cuda=libm("acos"), expand=trigonometric.arccos,
    grad=lambda b, g, y, x: b.negative(_over(b, g, b.subtract(1.0, b.square(x)))))
row("arctan", 1, np.arctan, cost=26, cuda=libm("atan"), expand=trigonometric.arctan,
    grad=lambda b, g, y, x: b.divide(g, b.add(1.0, b.square(x))))


def _arctan2_grad(b, g, y, u, v):
    scaled = b.divide(g, b.add(b.square(u), b.square(v)))
    return b.multiply(scaled, v), b.negative(b.multiply(scaled, u))


row("arctan2", 2, np.arctan2, cost=60, cuda=libm("atan2", 2), expand=trigonometric.arctan2, grad=_arctan2_grad)
row("sinh", 1, np.sinh, cost=28, cuda=libm("sinh"), expand=exponential.sinh,
    grad=lambda b, g, y, x: b.multiply(g, b.cosh(x)))
row("cosh", 1, np.cosh, cost=26, cuda=libm("cosh"), expand=exponential.cosh,
    grad=lambda b, g, y, x: b.multiply(g, b.sinh(x)))
row("tanh", 1, np.tanh, cost=22, cuda=libm("tanh"), expand=exponential.tanh,
    grad=lambda b, g, y, x: b.multiply(g, b.subtract(1.0, b.square(y))))
row("arcsinh", 1, np.arcsinh, cost=56, cuda=libm("asinh"), expand=trigonometric.arcsinh,
    grad=lambda b, g, y, x: _over(b, g, b.add(1.0, b.square(x))))
row("arccosh", 1, np.arccosh, cost=56, cuda=libm("acosh"), expand=trigonometric.arccosh,
    grad=lambda b, g, y, x: _over(b, g, b.multiply(b.subtract(x, 1.0), b.add(x, 1.0))))
row("arctanh", 1, np.arctanh, cost=50, cuda=libm("atanh"), expand=trigonometric.arctanh,
    grad=lambda b, g, y, x: b.divide(g, b.subtract(1.0, b.square(x))))

# ---- error and gamma functions


def _third(b, g, y, x):
    raise GraphError("the derivative of trigamma, the third of lgamma, is not there: differentiate once less")


row("erf", 1, each(math.erf), cost=34, cuda=libm("erf"), expand=special.erf,
    grad=lambda b, g, y, x: b.multiply(g, b.multiply(2 / math.sqrt(math.pi), b.exp(b.negative(b.square(x))))))
row("erfc", 1, each(math.erfc), cost=60, cuda=libm("erfc"), expand=special.erfc,
    grad=lambda b, g, y, x: b.multiply(g, b.multiply(-2 / math.sqrt(math.pi), b.exp(b.negative(b.square(x))))))
row("erfinv", 1, wide(_erfinv), cost=64, expand=special.erfinv,
    grad=lambda b, g, y, x: b.multiply(g, b.multiply(math.sqrt(math.pi) / 2, b.exp(b.square(y)))))
row("lgamma", 1, each(_lgamma), cost=180, cuda=libm("lgamma"), expand=special.lgamma,
    grad=lambda b, g, y, x: b.multiply(g, b.digamma(x)))
row("digamma", 1, wide(_digamma), cost=160, expand=special.digamma,
    grad=lambda b, g, y, x: b.multiply(g, b.trigamma(x)))
row("trigamma", 1, wide(_trigamma), cost=80, expand=special.trigamma, grad=_third)
