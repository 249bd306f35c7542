"""Trigonometric functions, their inverses and the inverse hyperbolic ones as expressions.

Arguments of sin, cos and tan may be as large as the dtype allows. Payne, Hanek 1983, "Radian reduction for
trigonometric functions": of the product x * 2/pi only what is below 4 matters, so those bits of 2/pi are multiplied
that make it. They are chosen by `where` from constants, as nothing may be read from memory.
"""

from __future__ import annotations

from gnomon.compiler.kernel import Cast, Const, Expr
from gnomon.compiler.ops.exponential import LN2, log1p
from gnomon.compiler.ops.mathlib import (
    FORMATS,
    INF,
    NAN,
    add,
    bit_or,
    bits,
    call,
    div,
    equal,
    greater,
    less,
    mad,
    magnitude,
    mask,
    mul,
    poly,
    shl,
    shr,
    signed,
    sub,
    unbits,
    upper,
    where,
    wide,
)

PI = 3.141592653589793
TWO_OVER_PI = int(  # 1280 bits behind the binary point
    "A2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561"
    "B7246E3A424DD2E006492EEA09D1921CFE1DEB1CB129A73EE88235F52EBB4484"
    "E99C7026B45F7E413991D639835339F49C845F8BBDF9283B1FF897FFDE05980F"
    "EF2F118B5A0A6D1F6D367ECF27CB09B74F463F669E5FEA2D7527BAC7EBE5F17B"
    "3D0739F78A5292EA6BFB5FB11F8D5D0856033046FC7B6BABF0CFBC209AF4361D",
    16,
)

# ---- reduction: x = (4 k + quadrant + f) pi / 2 with |f| <= 1/2


def _digits(first: int, count: int) -> float:
    """Bits `first` to `first + count` of 2/pi behind the binary point, the first bit being number 1."""
    return (TWO_OVER_PI >> 1280 - (first + count - 1)) % (1 << count) * 2.0 ** -(first + count - 1)


def _reduce32(x: Expr) -> tuple[Expr, Expr]:
    """(quadrant as uint32 in its last two bits, r as float32) of a float32.

    In float64: x has 24 digits and the first two parts of 2/pi 29, so their products are exact. Bits of 2/pi above the
    first part give multiples of 4; the parts differ for x below 2^50, 2^76, 2^102 and 2^128.
    """
    x, size = wide(x), wide(magnitude(x))
    parts = [tuple(_digits(first + at, n) for at, n in ((0, 29), (29, 29), (58, 53))) for first in (1, 26, 52, 78)]
    chosen: list[Expr] = [Const("float64", c) for c in parts[-1]]
    for limit, part in zip((2.0**102, 2.0**76, 2.0**50), reversed(parts[:-1]), strict=True):
        chosen = [where(less(size, limit), c, other) for c, other in zip(part, chosen, strict=True)]
    magic = FORMATS["float64"].magic
    p = mul(x, chosen[0])
    t = add(p, magic)
    q = mad(x, chosen[1], sub(p, sub(t, magic)))
    u = add(q, magic)
    f = mad(x, chosen[2], sub(q, sub(u, magic)))
    return Cast("uint32", add(bits(t), bits(u))), Cast("float32", mul(f, PI / 2))


def _window(start: Expr) -> list[Expr]:
    """192 bits from bit `start` of 2/pi preceded by 64 zeros, as three uint64."""
    words: list[Expr] = [Const("uint64", 0)]
    words += [Const("uint64", TWO_OVER_PI >> 1280 - 64 * (i + 1) & (1 << 64) - 1) for i in range(20)]
    for step in (16, 8, 4, 2, 1):  # `start` is below 17 * 64: of the first step, 4 words are in reach
        taken = call("not_equal", mask(start, 64 * step), 0)
        reach = 4 if step == 16 else step + 3
        words = [where(taken, words[i + step], words[i]) for i in range(reach)] + (words[4:19] if step == 16 else [])
    count = mask(start, 63)
    rest = sub(63, count)
    return [bit_or(call("shl", a, count), call("shr", shr(b, 1), rest)) for a, b in zip(words, words[1:], strict=False)]


def _product(x: list[Expr], low: Expr, high: Expr) -> list[Expr]:
    """The 32-bit digits of x * (low + 2^32 high), lowest first, as many as x has; all are below 2^32 in uint64."""
    digits: list[Expr] = []
    carry: Expr = Const("uint64", 0)
    below: Expr = Const("uint64", 0)
    for digit in x:
        t = add(mul(low, digit), carry)
        u = add(mul(high, below), mask(t, 0xFFFFFFFF))
        digits.append(mask(u, 0xFFFFFFFF))
        carry, below = add(shr(t, 32), shr(u, 32)), digit
    return digits


def _reduce64(size: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant as uint64 in its last two bits, r, what r lacks) of a float64 that is not negative."""
    word = bits(size)
    exponent = shr(word, 52)
    exponent = where(less(exponent, 1013), 1013, exponent)  # smaller ones are put right at the end
    significand = bit_or(mask(word, (1 << 52) - 1), 1 << 52)
    halves = [d for w in reversed(_window(sub(exponent, 1013))) for d in (mask(w, 0xFFFFFFFF), shr(w, 32))]
    product = _product(halves, mask(significand, 0xFFFFFFFF), shr(significand, 32))
    # the digits from the top: 2 bits of quadrant, then the fraction; half up, so that it is signed
    turned = add(product[5], 1 << 29)
    quadrant = shr(turned, 30)

    def number(digit: Expr, scale: float, less_by: float = 0.0) -> Expr:
        return mul(sub(unbits(bit_or(digit, 0x433 << 52)), 2.0**52 + less_by), scale)

    first = number(mask(turned, (1 << 30) - 1), 2.0**-30, 2.0**29)
    second = number(product[4], 2.0**-62)
    third = mad(number(product[3], 1.0), 2.0**-94, number(product[2], 2.0**-126))
    f, f_rest = _fast_two_sum(*_fast_two_sum(first, second, third))
    # times pi / 2, exact in the upper halves
    f_upper = upper(f)
    pi_upper, pi_lower = 1.5707963109016418, 1.5893254773528196e-08
    large = mul(f_upper, pi_upper)
    small = mad(f_upper, pi_lower, mad(sub(f, f_upper), PI / 2, mul(f_rest, PI / 2)))
    r, r_rest = _fast_two_sum(large, small)
    inside = less(size, PI / 4)
    r = where(inside, size, where(less(size, INF), r, NAN))
    return where(inside, 0, quadrant), r, where(inside, 0, r_rest)


def _fast_two_sum(x: Expr, y: Expr, more: Expr | None = None) -> tuple[Expr, Expr]:
    """x + y rounded and what it lacks (and `more`), for |x| >= |y| or x = 0. Dekker 1971."""
    total = add(x, y)
    lost = sub(y, sub(total, x))
    return total, lost if more is None else add(lost, more)


# ---- sine and cosine

SIN = {  # (sin(r) - r) / r^3, a polynomial of r^2, for |r| <= pi / 4
    "float32": (-0.16666654, 0.00833211, -0.00019508562),
    "float64": (
        -0.16666666666666627, 0.008333333333321138, -0.00019841269828775956, 2.7557313328701157e-06,
        -2.5050700356556012e-08, 1.589339621402788e-10,
    ),
}  # fmt: skip
COS = {  # (cos(r) - 1 + r^2 / 2) / r^4
    "float32": (0.041666646, -0.0013887299, 2.4430285e-05),
    "float64": (
        0.04166666666666658, -0.0013888888888871043, 2.480158728760604e-05, -2.7557313820935057e-07,
        2.0875652190200522e-09, -1.1356016130191647e-11,
    ),
}  # fmt: skip


def _sin_cos(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant, sin r, cos r); in float64 of |x|. fdlibm's k_sin.c and k_cos.c for what r lacks."""
    if x.dtype == "float32":
        quadrant, r = _reduce32(x)
        z = mul(r, r)
        sin = mad(mul(r, z), poly(z, SIN["float32"]), r)
        return quadrant, sin, mad(z, mad(z, poly(z, COS["float32"]), -0.5), 1)
    quadrant, r, rest = _reduce64(magnitude(x))
    z = mul(r, r)
    sin = add(r, mad(mul(r, z), poly(z, SIN["float64"]), mad(mul(z, -0.5), rest, rest)))
    half = mul(z, 0.5)
    w = sub(1, half)
    tail = mad(mul(z, z), poly(z, COS["float64"]), mul(call("negative", r), rest))
    return quadrant, sin, add(w, add(sub(sub(1, w), half), tail))


def _turn(quadrant: Expr, sin: Expr, cos: Expr, negative: Expr | None = None) -> Expr:
    """The sine of an angle given by its quadrant and the sine and cosine of the rest; `negative` as a sign bit."""
    value = where(equal(mask(quadrant, 1), 0), sin, cos)
    f = FORMATS[value.dtype]
    sign = mask(shl(quadrant, f.sign.bit_length() - 2), f.sign)
    if negative is not None:
        sign = call("bitwise_xor", sign, negative)
    return unbits(call("bitwise_xor", bits(value), sign))


def sin(x: Expr) -> Expr:
    quadrant, s, c = _sin_cos(x)
    if x.dtype == "float32":
        return where(equal(x, 0), x, _turn(quadrant, s, c))
    return _turn(quadrant, s, c, mask(bits(x), FORMATS["float64"].sign))


def cos(x: Expr) -> Expr:
    quadrant, s, c = _sin_cos(x)
    return _turn(add(quadrant, 1), s, c)


def tan(x: Expr) -> Expr:
    quadrant, s, c = _sin_cos(x)
    odd = call("not_equal", mask(quadrant, 1), 0)
    value = div(where(odd, c, s), where(odd, call("negative", s), c))
    if x.dtype == "float32":
        return where(equal(x, 0), x, value)
    return unbits(call("bitwise_xor", bits(value), mask(bits(x), FORMATS["float64"].sign)))


# ---- inverses

ASIN = {  # (arcsin(s) - s) / s^3, a polynomial of s^2, for s^2 <= 1/4
    "float32": (0.16666754, 0.074952535, 0.04547577, 0.024153648, 0.042208966),
    "float64": (
        0.16666666666665383, 0.07500000000342796, 0.0446428568237284, 0.03038195932017452, 0.0223717538016688,
        0.017359766806671142, 0.013884641379884712, 0.012172997253639435, 0.006512067558040031, 0.01957061091438483,
        -0.016288958105507147, 0.031955502334646925,
    ),
}  # fmt: skip
ATAN = {  # (arctan(t) - t) / t^3, a polynomial of t^2, for |t| <= tan(pi / 8)
    "float32": (-0.33333316, 0.19998533, -0.14244501, 0.106000215, -0.060921498),
    "float64": (
        -0.333333333333332, 0.19999999999953763, -0.1428571428021156, 0.1111111078410978, -0.0909089777396428,
        0.07692060463566927, -0.06663106435492235, 0.05847903521020071, -0.05039354859108392, 0.03806549155018803,
        -0.01790786471414007,
    ),
}  # fmt: skip
HALF_PI = {"float32": (1.5707963705062866, -4.3711390001862426e-08), "float64": (PI / 2, 6.123233995736766e-17)}


def _asin_parts(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(|x| > 1/2, s, arcsin(s) - s) with s = |x|, or the root of (1 - |x|) / 2. Cephes, asin.c."""
    a = magnitude(x)
    far = greater(a, 0.5)
    z = where(far, mad(a, -0.5, 0.5), mul(x, x))
    s = where(far, call("sqrt", z), a)
    return far, s, mul(mul(s, z), poly(z, ASIN[x.dtype]))


def arcsin(x: Expr) -> Expr:
    """pi/2 - 2 arcsin of the root, beyond 1/2; outside [-1, 1] the root is NaN."""
    high, low = HALF_PI[x.dtype]
    far, s, tail = _asin_parts(x)
    return signed(where(far, sub(high, sub(mul(add(s, tail), 2), low)), add(s, tail)), x)


def arccos(x: Expr) -> Expr:
    high, low = HALF_PI[x.dtype]
    far, s, tail = _asin_parts(x)
    twice = mul(add(s, tail), 2)
    ends = where(less(x, 0), sub(2 * high, sub(twice, 2 * low)), twice)
    return where(far, ends, sub(high, sub(signed(add(s, tail), x), low)))


def _atan_small(t: Expr) -> Expr:
    """arctan(t) - t."""
    z = mul(t, t)
    return mul(mul(t, z), poly(z, ATAN[t.dtype]))


def arctan(x: Expr) -> Expr:
    """Of x, of (x - 1) / (x + 1) with pi/4, or of -1 / x with pi/2. Cephes, atan.c."""
    high, low = HALF_PI[x.dtype]
    a = magnitude(x)
    middle, far = greater(a, 0.4142135623730950), greater(a, 2.414213562373095)
    upper_part = where(far, -1, where(middle, sub(a, 1), a))
    lower_part = where(far, a, where(middle, add(a, 1), 1))
    t = div(upper_part, lower_part)
    zero = Const(x.dtype, 0)
    turn = where(far, high, where(middle, Const(x.dtype, high / 2), zero))
    rest = where(far, low, where(middle, Const(x.dtype, low / 2), zero))
    return signed(add(turn, add(t, add(_atan_small(t), rest))), x)


def arctan2(y: Expr, x: Expr) -> Expr:
    """The angle of (x, y), from the octant where it is at most pi/4."""
    high, low = HALF_PI[x.dtype]
    a, b = magnitude(x), magnitude(y)
    steep = greater(b, a)
    large, small = where(steep, b, a), where(steep, a, b)
    # infinities become 1 and 0 (or 1), the origin 1 and 0; sums must not overflow
    endless = equal(large, INF)
    small = where(endless, where(equal(small, INF), Const(x.dtype, 1), Const(x.dtype, 0)), small)
    large = where(endless, 1, where(equal(large, 0), 1, large))
    huge = 2.0 ** (FORMATS[x.dtype].bias - 1)
    shrink = where(greater(large, huge), Const(x.dtype, 0.25), Const(x.dtype, 1))
    large, small = mul(large, shrink), mul(small, shrink)
    middle = greater(small, mul(large, 0.4142135623730950))
    t = div(where(middle, sub(small, large), small), where(middle, add(small, large), large))
    tail = _atan_small(t)
    turn = where(middle, Const(x.dtype, high / 2), Const(x.dtype, 0))
    rest = where(middle, Const(x.dtype, low / 2), Const(x.dtype, 0))
    # the angle as turn + t + tail, then mirrored at the diagonal, then at the y axis: each time a sum of two parts
    left = call("not_equal", mask(bits(x), FORMATS[x.dtype].sign), 0)
    flip = call("not_equal", steep, left)  # one mirror turns the angle round, two do not
    t, tail, turn, rest = (where(flip, call("negative", v), v) for v in (t, tail, turn, rest))
    zero = Const(x.dtype, 0)
    base = where(steep, high, where(left, Const(x.dtype, 2 * high), zero))
    base_rest = where(steep, low, where(left, Const(x.dtype, 2 * low), zero))
    angle = add(add(base, turn), add(t, add(tail, add(rest, base_rest))))
    unknown = call("logical_or", call("isnan", x), call("isnan", y))
    return where(unknown, add(x, y), signed(angle, y))


def arcsinh(x: Expr) -> Expr:
    """log(1 + a + a^2 / (1 + root(a^2 + 1))) with a = |x|; log(a) + log(2) for large a."""
    a = magnitude(x)
    large = greater(a, 2.0 ** (FORMATS[x.dtype].digits + 3))
    square = mul(a, a)
    u = add(a, div(square, add(call("sqrt", add(square, 1)), 1)))
    return signed(_log_doubled(large, a, u), x)


def arccosh(x: Expr) -> Expr:
    """log(1 + t + root(2 t + t^2)) with t = x - 1; log(x) + log(2) for large x."""
    large = greater(x, 2.0 ** (FORMATS[x.dtype].digits + 3))
    t = sub(x, 1)
    u = add(t, call("sqrt", mul(t, add(t, 2))))
    return where(less(x, 1), NAN, _log_doubled(large, x, u))


def _log_doubled(large: Expr, a: Expr, u: Expr) -> Expr:
    """log(1 + u), or log(2 a), where 1 is nothing beside a."""
    high, low = LN2[a.dtype]
    zero = Const(a.dtype, 0)
    return add(add(log1p(where(large, a, u)), where(large, Const(a.dtype, low), zero)), where(large, high, zero))


def arctanh(x: Expr) -> Expr:
    """log(1 + 2 a / (1 - a)) / 2 with a = |x|; NaN beyond 1."""
    a = magnitude(x)
    return signed(mul(log1p(div(add(a, a), sub(1, a))), 0.5), x)
