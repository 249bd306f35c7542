"""Scalar functions as expressions of simpler ones: what the `expand` of the table's rows says. Here the means to write
them and what is arithmetic; `exponential`, `trigonometric` and `special` hold the transcendental functions.

Everything vectorises: choices are `where`, nothing is read from memory. What holds for all of it:
- A product may be fused with a sum or not (some compilers do it by themselves): both must be right. Where the rounding
  error of a product is needed, the factors are cut short by masks so that the product is exact.
- Sums are not reassociated by any target: the order written is the order computed.
- Integers come out of floats by adding a number so large that the fraction falls off, never by conversion, which is
  undefined for NaN and large numbers.

The largest error found, in units of the last place from the exact value, at about 10^6 points of all magnitudes and of
the interesting ranges, subnormal results among them (float32, float64; the worse of fused and unfused products):

    exp     1.0 1.0   sin     1.5 0.8   sinh    2.2 2.2   sigmoid     2.3 2.4   lgamma    0.5 3.3 for x > 0
    exp2    1.1 1.1   cos     1.5 0.8   cosh    1.5 1.4   softplus    1.6 1.7   digamma   0.5 2.7 for x > 0
    expm1   1.6 1.9   tan     3.2 2.2   tanh    2.3 2.5   log_sigmoid 1.7 1.6   trigamma  0.5 2.3 for x > 0
    log     0.9 0.9   arcsin  2.3 2.2   arcsinh 1.8 1.7   erf         1.3 1.3   power     0.5 1.2
    log1p   1.5 1.4   arccos  1.2 1.2   arccosh 2.4 2.3   erfc        3.2 2.4   hypot     0.5 1.2
    log2    1.2 1.2   arctan  1.8 1.5   arctanh 2.1 1.8   erfinv      2.3 3.7   mod, floor_divide: as NumPy
    log10   1.8 1.8   arctan2 1.8 1.9

For x < 0 lgamma and digamma have roots; in float64 the error near them is that of the terms whose difference they are
(some 1e-15 of those), and trigamma's is up to 5 units. mod gives NaN in float64 if |x / y| >= 2^100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import Apply, Bitcast, Cast, Const, Expr, highest

INF, NAN = float("inf"), float("nan")

# ---- writing expressions


@dataclass(frozen=True)
class Format:
    """The layout of a float dtype: `digits` stored bits of significand; `bits` an unsigned integer as wide."""

    digits: int
    bias: int
    bits: str

    @property
    def magic(self) -> float:
        """Added to a number below 2^(digits - 1), it leaves the nearest integer in the last bits."""
        return 1.5 * 2.0**self.digits

    @property
    def tiny(self) -> float:
        """The smallest normal number."""
        return 2.0 ** (1 - self.bias)

    @property
    def sign(self) -> int:
        return 1 << dtypes.named(self.bits).bits - 1


FORMATS = {"float32": Format(23, 127, "uint32"), "float64": Format(52, 1023, "uint64")}


def call(name: str, *args: Any) -> Expr:
    """The scalar function `name`; Python numbers take the dtype of the last expression among the arguments."""
    from gnomon.compiler.ops.scalar import scalar

    dtype = next(a.dtype for a in reversed(args) if isinstance(a, Expr))
    return Apply(scalar(name), tuple(a if isinstance(a, Expr) else Const(dtype, a) for a in args))


def where(condition: Expr, x: Any, y: Any) -> Expr:
    """One of x and y, one of which may be a Python number."""
    dtype = x.dtype if isinstance(x, Expr) else y.dtype
    choices = (a if isinstance(a, Expr) else Const(dtype, a) for a in (x, y))
    return call("where", condition, *choices)


def add(x: Any, y: Any) -> Expr:
    return call("add", x, y)


def sub(x: Any, y: Any) -> Expr:
    return call("subtract", x, y)


def mul(x: Any, y: Any) -> Expr:
    return call("multiply", x, y)


def div(x: Any, y: Any) -> Expr:
    return call("divide", x, y)


def mad(x: Any, y: Any, z: Any) -> Expr:
    """x y + z, rounded once or twice."""
    dtype = next(a.dtype for a in (x, y, z) if isinstance(a, Expr))
    return call("fma", *(a if isinstance(a, Expr) else Const(dtype, a) for a in (x, y, z)))


def less(x: Any, y: Any) -> Expr:
    return call("less", x, y)


def greater(x: Any, y: Any) -> Expr:
    return call("greater", x, y)


def equal(x: Any, y: Any) -> Expr:
    return call("equal", x, y)


def both(x: Expr, y: Expr) -> Expr:
    return call("logical_and", x, y)


def at_least(x: Expr, low: float) -> Expr:
    """The larger of x and a number; NaN stays."""
    return where(less(x, low), low, x)


def at_most(x: Expr, high: float) -> Expr:
    """The smaller of x and a number; NaN stays."""
    return where(greater(x, high), high, x)


def poly(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """c0 + c1 x + c2 x^2 ... by Horner's rule."""
    value: Any = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        value = mad(value, x, c)
    return value


def magnitude(x: Expr) -> Expr:
    return call("abs", x)


def signed(value: Expr, like: Expr) -> Expr:
    """`value` with the sign of `like`."""
    return call("copysign", value, like)


def wide(x: Expr) -> Expr:
    return Cast("float64", x)


def bits(x: Expr) -> Expr:
    """The bits of a float as an unsigned integer."""
    return Bitcast(FORMATS[x.dtype].bits, x)


def unbits(x: Expr) -> Expr:
    """The float of these bits."""
    return Bitcast({"uint32": "float32", "uint64": "float64"}[x.dtype], x)


def mask(x: Expr, kept: int) -> Expr:
    return call("bitwise_and", x, kept)


def bit_or(x: Expr, y: Any) -> Expr:
    return call("bitwise_or", x, y)


def shl(x: Expr, n: int) -> Expr:
    return call("shl", x, n)


def shr(x: Expr, n: int) -> Expr:
    return call("shr", x, n)


def upper(x: Expr) -> Expr:
    """`x` cut to the upper half of its digits: the product of two such is exact."""
    f = FORMATS[x.dtype]
    return unbits(mask(bits(x), 2 * f.sign - (1 << (f.digits + 2) // 2)))


# ---- arithmetic


def fma(x: Expr, y: Expr, z: Expr) -> Expr:
    return add(mul(x, y), z)


def absolute(x: Expr) -> Expr:
    return x  # unsigned, bool


def sign(x: Expr) -> Expr:
    if not dtypes.is_float(x.dtype):
        positive = Cast(x.dtype, call("greater", x, 0))
        return where(call("less", x, 0), -1, positive) if dtypes.named(x.dtype).kind == "i" else positive
    # x + 0 turns -0 into 0 and keeps NaN
    return where(call("greater", x, 0), 1, where(call("less", x, 0), -1, add(x, 0)))


def reciprocal(x: Expr) -> Expr:
    return div(1, x)


def square(x: Expr) -> Expr:
    return mul(x, x)


def rsqrt(x: Expr) -> Expr:
    return div(1, call("sqrt", x))


def relu(x: Expr) -> Expr:
    return where(call("less", x, 0), 0, x)  # x86's max(0, x), NaN kept


def mulhi(x: Expr, y: Expr) -> Expr:
    return Cast("uint32", shr(mul(Cast("uint64", x), Cast("uint64", y)), 32))


def bitwise_not(x: Expr) -> Expr:
    return call("bitwise_xor", x, highest(dtypes.named(x.dtype)) if dtypes.named(x.dtype).kind == "u" else -1)


def left_shift(x: Expr, n: Expr) -> Expr:
    return _shift("shl", x, n)


def right_shift(x: Expr, n: Expr) -> Expr:
    return _shift("shr", x, n)


def _shift(name: str, x: Expr, n: Expr) -> Expr:
    """Every bit is shifted out by a count that is negative or too large, as NumPy has it."""
    row = dtypes.named(x.dtype)
    if isinstance(n, Const) and 0 <= n.value < row.bits:
        return call(name, x, n)
    inside = call("less", n, row.bits)
    if row.kind == "i":
        inside = call("logical_and", inside, call("greater_equal", n, 0))
    count = where(inside, n, row.bits - 1)
    emptied = call(name, x, count)
    return emptied if name == "shr" and row.kind == "i" else where(inside, emptied, 0)


def floor_divide(x: Expr, y: Expr) -> Expr:
    row = dtypes.named(x.dtype)
    if row.kind == "f":
        return _float_floor_divide(x, y)
    q, r, zero = _divide(x, y)
    if row.kind == "i":
        q = where(_signs_differ(r, y), sub(q, 1), q)
    return where(zero, 0, q)


def mod(x: Expr, y: Expr) -> Expr:
    row = dtypes.named(x.dtype)
    if row.kind == "f":
        return _float_mod(x, y)
    _, r, zero = _divide(x, y)
    if row.kind == "i":
        r = where(_signs_differ(r, y), add(r, y), r)
    return where(zero, 0, r)


def _float_mod(x: Expr, y: Expr) -> Expr:
    """The remainder with the sign of y, exact. In float64 NaN if |x / y| >= 2^100."""
    rest, mixed = _float_remainder(x, y)
    return signed(where(mixed, sub(magnitude(y), rest), rest), y)


def _float_floor_divide(x: Expr, y: Expr) -> Expr:
    """As NumPy: the quotient that `mod` leaves, rounded to an integer."""
    plain = div(x, y)
    rest, mixed = _float_remainder(x, y)
    if x.dtype == "float64":  # where the remainder is not known it does not matter
        unknown = both(call("isnan", rest), less(magnitude(x), INF))
        rest = where(both(unknown, call("greater_equal", magnitude(plain), 2.0**100)), 0, rest)
    quotient = div(sub(x, signed(rest, x)), y)
    quotient = where(mixed, sub(quotient, 1), quotient)
    whole = call("floor", quotient)
    whole = where(greater(sub(quotient, whole), 0.5), add(whole, 1), whole)
    whole = where(equal(whole, 0), signed(whole, plain), whole)
    return where(equal(y, 0), plain, whole)


def _float_remainder(x: Expr, y: Expr) -> tuple[Expr, Expr]:
    """(|x| modulo |y|, whether it is not 0 and x and y differ in sign).

    Long division in base 2^28 (float64: 2^25), each digit being so short that digit times divisor is exact (in float64
    of the divisor's halves); digits may be off by one, and the rest negative, until the end.
    """
    rest = long_division32(x, y) if x.dtype == "float32" else long_division64(x, y)
    return rest, both(call("not_equal", less(x, 0), less(y, 0)), call("not_equal", rest, 0))


def long_division32(x: Expr, y: Expr) -> Expr:
    rest, endless = wide(magnitude(x)), equal(magnitude(y), INF)
    divisor = where(endless, 1, wide(magnitude(y)))
    inverse = div(1, divisor)
    left = rest
    for k in reversed(range(10)):  # quotients are below 2^277
        digit = call("round", mul(left, mul(inverse, 2.0 ** (-28 * k))))
        left = sub(left, mul(digit, mul(divisor, 2.0 ** (28 * k))))
    left = where(less(left, 0), add(left, divisor), left)
    # NaN and infinity of x went through the division
    return Cast("float32", where(both(endless, less(rest, INF)), rest, left))


def long_division64(x: Expr, y: Expr) -> Expr:
    divisor, rest = magnitude(y), magnitude(x)
    quotient = div(rest, divisor)
    high = upper(divisor)
    low = sub(divisor, high)
    left = rest
    for k in reversed(range(4)):
        scale, limit = 2.0 ** (25 * k), 2.0**1020  # the limit is for digits that are 0: 0 * inf would be NaN
        digit = call("round", div(left, mul(divisor, scale)))
        for part in (high, low):
            scaled = mul(part, scale)
            left = sub(left, mul(digit, where(less(scaled, limit), scaled, limit) if k else scaled))
    left = where(less(left, 0), add(left, divisor), left)
    left = where(less(quotient, 2.0**100), left, NAN)
    return where(both(equal(divisor, INF), less(rest, INF)), rest, left)


def _divide(x: Expr, y: Expr) -> tuple[Expr, Expr, Expr]:
    """Quotient, remainder and whether y is 0. The divisor 0, and -1 (which overflows), never reach the machine."""
    zero = call("equal", y, 0)
    safe = where(zero, 1, y)
    if dtypes.named(x.dtype).kind != "i":
        q = call("quotient", x, safe)
        return q, sub(x, mul(q, safe)), zero
    minus = call("equal", y, -1)
    safe = where(minus, 1, safe)
    q = call("quotient", x, safe)
    return where(minus, call("negative", x), q), sub(x, mul(q, safe)), zero


def _signs_differ(r: Expr, y: Expr) -> Expr:
    """Whether the remainder is not 0 and of another sign than the divisor."""
    other = call("less", call("bitwise_xor", r, y), 0)
    return call("logical_and", call("not_equal", r, 0), other)


# ---- rounding, for targets without an instruction


def _whole(x: Expr) -> Expr:
    """The nearest integer to x, half to even, by a sum that leaves no digits for the fraction."""
    shifter = 2.0 ** FORMATS[x.dtype].digits
    a = magnitude(x)
    return where(less(a, shifter), signed(sub(add(a, shifter), shifter), x), x)


def round_even(x: Expr) -> Expr:
    return _whole(x) if dtypes.is_float(x.dtype) else x


def floor(x: Expr) -> Expr:
    if not dtypes.is_float(x.dtype):
        return x
    n = _whole(x)
    return signed(where(greater(n, x), sub(n, 1), n), x)


def ceil(x: Expr) -> Expr:
    if not dtypes.is_float(x.dtype):
        return x
    n = _whole(x)
    return signed(where(less(n, x), add(n, 1), n), x)


def trunc(x: Expr) -> Expr:
    return signed(floor(magnitude(x)), x) if dtypes.is_float(x.dtype) else x


def hypot(x: Expr, y: Expr) -> Expr:
    """In float32 by way of float64. Else scaled by a power of two where squares would overflow or vanish."""
    if x.dtype == "float32":
        u, v = wide(x), wide(y)
        value: Expr = Cast("float32", call("sqrt", mad(u, u, mul(v, v))))
    else:
        a, b = magnitude(x), magnitude(y)
        most = where(greater(b, a), b, a)
        one = Const(x.dtype, 1)
        large, small = greater(most, 2.0**500), less(most, 2.0**-450)
        scale = where(large, 2.0**-600, where(small, 2.0**600, one))
        back = where(large, 2.0**600, where(small, 2.0**-600, one))
        a, b = mul(a, scale), mul(b, scale)
        value = mul(call("sqrt", mad(a, a, mul(b, b))), back)
    return where(call("logical_or", call("isinf", x), call("isinf", y)), INF, value)


# ---- classes of numbers


def isnan(x: Expr) -> Expr:
    return Const("bool", False)  # integers


def isinf(x: Expr) -> Expr:
    return call("equal", call("abs", x), float("inf")) if dtypes.is_float(x.dtype) else Const("bool", False)


def isfinite(x: Expr) -> Expr:
    return call("less", call("abs", x), float("inf")) if dtypes.is_float(x.dtype) else Const("bool", True)
