"""exp, log and their kin as expressions.

Cody, Waite 1980, "Software Manual for the Elementary Functions": x = n ln 2 + r, and x = 2^e m; ln 2 in two parts.
The form of log in float64 and of log2, log10 is of Sun's fdlibm (e_log.c) and Moshier's Cephes (log2.c, log10.c).
Polynomials are least-squares fits at Chebyshev nodes, reweighted towards minimax and rounded one coefficient after
another.
"""

from __future__ import annotations

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import Cast, Const, Expr
from gnomon.compiler.ops.mathlib import (
    FORMATS,
    INF,
    NAN,
    add,
    at_least,
    at_most,
    bit_or,
    bits,
    both,
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

LOG2E = 1.4426950408889634
LN2 = {  # the upper part is so short that its product with an exponent is exact
    "float32": (0.693359375, -2.1219444e-4),
    "float64": (6.93147180369123816490e-01, 1.90821492927058770002e-10),
}

# ---- exponentials

EXP = {  # (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2
    "float32": (0.49999994, 0.1666652, 0.04166824, 0.008368824, 0.0013823212),
    "float64": (
        0.5, 0.16666666666666682, 0.0416666666666665, 0.008333333333317622, 0.0013888888888985412,
        0.00019841269895228054, 2.480158711842907e-05, 2.7557235807360353e-06, 2.7557449827925547e-07,
        2.5111761539039377e-08, 2.0861124184170687e-09,
    ),
}  # fmt: skip
EXP2 = {  # (2^r - 1) / r for |r| <= 1/2
    "float32": (0.6931472, 0.2402265, 0.055504058, 0.009618078, 0.0013337274, 0.00015455966, 1.4477643e-05),
    "float64": (
        0.6931471805599453, 0.24022650695910064, 0.05550410866482293, 0.009618129107632066, 0.0013333558146166062,
        0.00015403530387365016, 1.5252734035448019e-05, 1.3215491331240251e-06, 1.0177986111640144e-07,
        7.053324152788167e-09, 4.4654791412401407e-10, 2.778764650490277e-11,
    ),
}  # fmt: skip
EXP_RANGE = {"float32": (-104.0, 89.0), "float64": (-746.0, 710.0)}  # beyond: 0 and infinity
COSH_RANGE = {"float32": 89.5, "float64": 710.6}
EXP2_RANGE = {"float32": (-151.0, 129.0), "float64": (-1076.0, 1025.0)}


def nearest(x: Expr, scale: float, bias: int) -> tuple[Expr, Expr]:
    """The integer n nearest to x * scale, and an unsigned integer whose last bits are n + bias."""
    shifter = FORMATS[x.dtype].magic + bias
    t = mad(x, scale, shifter)
    return sub(t, shifter), bits(t)


def reduced(x: Expr, n: Expr) -> Expr:
    """x - n ln 2."""
    high, low = LN2[x.dtype]
    return mad(n, -low, mad(n, -high, x))


def scaled(p: Expr, exponent: Expr) -> Expr:
    """p 2^n in two steps, so that results may be subnormal or infinite; the last bits of `exponent` are n + 2 bias."""
    digits = FORMATS[p.dtype].digits
    half = shr(exponent, 1)
    return mul(mul(p, unbits(shl(half, digits))), unbits(shl(sub(exponent, half), digits)))


def small_expm1(r: Expr) -> Expr:
    """exp(r) - 1 for |r| <= ln(2) / 2."""
    return mad(mul(r, r), poly(r, EXP[r.dtype]), r)


def exp_limited(x: Expr) -> Expr:
    """exp(x) for x at most the upper end of the range."""
    x = at_least(x, EXP_RANGE[x.dtype][0])
    n, exponent = nearest(x, LOG2E, 2 * FORMATS[x.dtype].bias)
    return scaled(add(small_expm1(reduced(x, n)), 1), exponent)


def exp(x: Expr) -> Expr:
    return exp_limited(at_most(x, EXP_RANGE[x.dtype][1]))


def exp2(x: Expr) -> Expr:
    low, high = EXP2_RANGE[x.dtype]
    x = at_least(at_most(x, high), low)
    n, exponent = nearest(x, 1.0, 2 * FORMATS[x.dtype].bias)
    r = sub(x, n)
    return scaled(mad(r, poly(r, EXP2[x.dtype]), 1), exponent)


def _expm1_over(x: Expr, shift: int) -> Expr:
    """(exp(x) - 1) / 2^shift, the power of two being one number: -bias < n - shift <= bias."""
    f = FORMATS[x.dtype]
    n, exponent = nearest(x, LOG2E, f.bias - shift)
    power = unbits(shl(exponent, f.digits))
    return mad(small_expm1(reduced(x, n)), power, sub(power, 2.0**-shift))


def expm1(x: Expr) -> Expr:
    f = FORMATS[x.dtype]
    inside = at_least(at_most(x, EXP_RANGE[x.dtype][1]), -(f.digits + 3) * 0.7)
    value = mul(_expm1_over(inside, 1), 2)
    return where(less(magnitude(x), 2.0 ** -(f.digits + 2)), x, value)  # subnormal numbers and -0


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + exp(-x)) for x >= 0, exp(x) / (1 + exp(x)) below: no overflow, and full precision towards 0."""
    e = exp_limited(call("negative", magnitude(x)))
    return div(where(less(x, 0), e, 1), add(e, 1))


def tanh(x: Expr) -> Expr:
    """t / (t + 2) with t = exp(2 |x|) - 1, which is precise near 0 too."""
    a = at_most(magnitude(x), 10.0 if x.dtype == "float32" else 20.0)
    t = _expm1_over(add(a, a), 0)
    return signed(div(t, add(t, 2)), x)


def sinh(x: Expr) -> Expr:
    """h + h / (2 h + 1) with h = (exp(|x|) - 1) / 2, made with two powers of two to spare."""
    a = at_most(magnitude(x), COSH_RANGE[x.dtype])
    h = mul(_expm1_over(a, 2), 2)
    finite = at_most(h, 2.0**64)
    tiny = less(a, 2.0 ** -(FORMATS[x.dtype].digits + 2) / 2)
    return where(tiny, x, signed(add(h, div(finite, mad(finite, 2, 1))), x))


def cosh(x: Expr) -> Expr:
    """w + 1 / (4 w) with w = exp(|x|) / 2."""
    a = at_most(magnitude(x), COSH_RANGE[x.dtype])
    n, exponent = nearest(a, LOG2E, 2 * FORMATS[x.dtype].bias - 1)
    w = scaled(add(small_expm1(reduced(a, n)), 1), exponent)
    return add(w, div(0.25, w))


# ---- logarithms

LOG = {
    # (log(1 + f) - f + f^2 / 2) / f^3 for 1 + f between the roots of 1/2 and 2
    "float32": (
        0.33333313, -0.25000012, 0.20002073, -0.1666785, 0.14220226, -0.12408312, 0.118864216, -0.11659947, 0.06731514,
    ),
    # (log(1 + f) / s - 2) / s^2 as a polynomial of s^2, with s = f / (2 + f)
    "float64": (
        0.6666666666666734, 0.3999999999941665, 0.2857142874203159, 0.22222198603875676, 0.18183562958123098,
        0.15314080955536244, 0.14795683375447286,
    ),
}  # fmt: skip
ROOT_HALF = {"float32": 0x3F3504F3, "float64": 0x3FE6A09E667F3BCD}  # bits of the root of 1/2


def decomposed(x: Expr, subnormal: bool = True) -> tuple[Expr, Expr, Expr]:
    """x > 0 as 2^e m, m between the roots of 1/2 and 2: (e, m - 1, 2^(1 - e)).

    x may be subnormal unless that is excluded; 2^(1 - e) is not meant for those.
    """
    f = FORMATS[x.dtype]
    origin = float(2**f.digits + f.bias)
    if subnormal:
        small = less(x, f.tiny)
        x = where(small, mul(x, 2.0**f.digits), x)
    shifted = add(bits(x), (f.bias << f.digits) - ROOT_HALF[x.dtype])
    fraction = mask(shifted, (1 << f.digits) - 1)
    m = unbits(add(fraction, ROOT_HALF[x.dtype]))
    # e comes out as a float by putting it in the last bits of 2^digits
    e = unbits(bit_or(shr(shifted, f.digits), (f.bias + f.digits) << f.digits))
    e = sub(e, where(small, Const(x.dtype, origin + f.digits), origin) if subnormal else origin)
    inverse = unbits(sub((2 * f.bias + 1) << f.digits, sub(shifted, fraction)))
    return e, sub(m, 1), inverse


def log1_tail(f: Expr) -> Expr:
    """log(1 + f) - f for 1 + f between the roots of 1/2 and 2."""
    if f.dtype == "float32":
        return mul(mul(f, f), mad(f, poly(f, LOG["float32"]), -0.5))
    half = mul(mul(f, f), 0.5)
    s = div(f, add(f, 2))
    z = mul(s, s)
    return sub(mul(s, mad(z, poly(z, LOG["float64"]), half)), half)


def _log_ends(x: Expr, value: Expr) -> Expr:
    """`value` = log(x) put right where x is 0, negative, infinite or NaN."""
    value = where(less(x, INF), value, x)
    return where(greater(x, 0), value, where(equal(x, 0), -INF, Const(x.dtype, NAN)))


def log(x: Expr) -> Expr:
    high, low = LN2[x.dtype]
    e, f, _ = decomposed(x)
    return _log_ends(x, mad(e, high, add(mad(e, low, log1_tail(f)), f)))


def log1p(x: Expr) -> Expr:
    """log(u), u = 1 + x rounded, with what rounding lost added to the significand of u."""
    high, low = LN2[x.dtype]
    u = add(x, 1)
    lost = where(less(x, 1), sub(x, sub(u, 1)), sub(1, sub(u, x)))
    e, f, inverse = decomposed(u, subnormal=False)
    f = mad(mul(lost, 0.5), inverse, f)
    value = mad(e, high, add(mad(e, low, log1_tail(f)), f))
    return where(less(magnitude(x), 2.0 ** -(FORMATS[x.dtype].digits + 2)), x, _log_ends(u, value))


def log2(x: Expr) -> Expr:
    """e + log(1 + f) + (log2(e) - 1) log(1 + f): exact for powers of two."""
    e, f, _ = decomposed(x)
    y = log1_tail(f)
    tail = mad(f, LOG2E - 1, mad(y, LOG2E - 1, y))
    return _log_ends(x, add(add(tail, f), e))


LOG10 = {  # log10(2) and log10(e), each a short number and the rest
    "float32": (0.30078125, 2.48745663981195e-4, 0.43359375, 7.00731903251827651129e-4),
    "float64": (0.3010299955494702, 1.1451100898021838e-10, 0.43429448176175356, 1.414982685385801e-10),
}


def log10(x: Expr) -> Expr:
    two, two_rest, base, base_rest = LOG10[x.dtype]
    e, f, _ = decomposed(x)
    y = log1_tail(f)
    tail = mad(e, two_rest, mul(add(f, y), base_rest))
    return _log_ends(x, mad(e, two, mad(f, base, mad(y, base, tail))))


def softplus(x: Expr) -> Expr:
    """max(x, 0) + log(1 + exp(-|x|))."""
    return add(call("relu", x), _log1p_exp_negative(magnitude(x)))


def log_sigmoid(x: Expr) -> Expr:
    return call("negative", softplus(call("negative", x)))


def _log1p_exp_negative(a: Expr) -> Expr:
    """log(1 + exp(-a)) for a >= 0. 1 + exp(-a) is in (1, 2]: it is halved if above the root of 2."""
    e = exp_limited(call("negative", a))
    u = add(e, 1)
    big = greater(u, 1.41421356)
    # f is (u - 1) or (u / 2 - 1), made from e itself so that nothing is lost
    f = where(big, mad(e, 0.5, -0.5), e)
    high, low = LN2[a.dtype]
    y = log1_tail(f)
    return where(big, add(add(add(y, low), f), high), add(y, f))


# ---- powers

LOG2_SERIES = (2.885390081790165, 0.9617966732506374, 0.5770836013792073, 0.41167177615869627, 0.34074698318247426)
"""log2((1 + s) / (1 - s)) / s, a polynomial of s^2, to 1e-11."""
EXP2_SHORT = (
    0.9999999999595491, 0.6931471805353803, 0.24022651213588947, 0.05550410974976037, 0.009618025603625995,
    0.0013333423551955923, 0.00015469731798800667, 1.5316254492645548e-05,
)  # fmt: skip
"""2^r for |r| <= 1/2, to 4e-11."""
ATANH_TAIL = (
    0.40000000000002267, 0.28571428570094515, 0.22222222520802654, 0.18181784291336295, 0.1538676079155431,
    0.13256737521481593, 0.13197072333061058,
)  # fmt: skip
"""(log((1 + s) / (1 - s)) / s - 2 - 2 s^2 / 3) / s^4, a polynomial of s^2."""

TWO_THIRDS = (0.6666666567325592, 9.934107462565104e-09)
LOG2E_PARTS = (1.4426950216293335, 1.9259629911266175e-08)
"""2/3 and 1 / ln 2, each as a number of 26 bits and the rest."""


def power(x: Expr, y: Expr) -> Expr:
    """x^y with the rules of IEEE 754 `pow`; of integers by repeated squaring."""
    kind = dtypes.named(x.dtype).kind
    if kind == "b":
        return call("logical_or", x, call("logical_not", y))
    if kind != "f":
        return _integer_power(x, y)
    a = magnitude(x)
    limited = at_least(at_most(y, 2.0**66), -(2.0**66))  # enough to reach 0 or infinity; 1 to it is 1
    value = _power32(a, limited) if x.dtype == "float32" else _power64(a, limited)
    zero = equal(a, 0)
    vanishes = call("not_equal", zero, less(y, 0))
    ends = call("logical_or", zero, equal(a, INF))
    value = where(ends, where(vanishes, Const(x.dtype, 0), Const(x.dtype, INF)), value)
    whole = equal(call("floor", y), y)
    half = mul(y, 0.5)
    odd = both(whole, call("not_equal", call("floor", half), half))
    broken = both(both(less(x, 0), call("logical_not", whole)), call("logical_not", ends))
    value = where(odd, signed(value, x), where(broken, NAN, value))
    value = where(call("logical_or", call("isnan", x), call("isnan", y)), NAN, value)
    return where(call("logical_or", equal(x, 1), equal(y, 0)), 1, value)


def _power32(a: Expr, y: Expr) -> Expr:
    """a^y, a > 0 and finite, y limited: in float64, where rounding does not matter."""
    a, y = wide(a), wide(y)
    e, f, _ = decomposed(a, subnormal=False)
    s = div(f, add(f, 2))
    v = at_least(at_most(mul(y, mad(s, poly(mul(s, s), LOG2_SERIES), e)), 160.0), -160.0)
    n, exponent = nearest(v, 1.0, FORMATS["float64"].bias)
    return Cast("float32", mul(poly(sub(v, n), EXP2_SHORT), unbits(shl(exponent, FORMATS["float64"].digits))))


def _power64(a: Expr, y: Expr) -> Expr:
    """a^y, a > 0 and finite, y limited: log2(a) to some 66 bits as the sum of two numbers, as in fdlibm's e_pow.c.

    Every product whose error matters is of two numbers cut to 26 bits, so that it is exact.
    """
    e, f, _ = decomposed(a)
    # s = f / (2 + f) as s_high + s_low
    d = add(f, 2)
    d_high = upper(d)
    d_low = sub(f, sub(d_high, 2))
    s = div(f, d)
    s_high = upper(s)
    s_low = div(sub(sub(f, mul(s_high, d_high)), mul(s_high, d_low)), d)
    # s^2 as z_high + z_low, and u = 2 + 2/3 s^2 + ..., of which log = s u
    z = mul(s, s)
    square = mul(s_high, s_high)
    z_high = upper(square)
    z_low = mad(s_low, add(s_high, s), sub(square, z_high))
    third = mul(z_high, TWO_THIRDS[0])
    rest = mad(z_high, TWO_THIRDS[1], mad(z_low, 2 / 3, mul(mul(z, z), poly(z, ATANH_TAIL))))
    u = add(third, 2)
    rest = add(sub(third, sub(u, 2)), rest)
    u_high = upper(add(u, rest))
    u_low = add(sub(u, u_high), rest)
    product, product_low = mul(s_high, u_high), mad(s_low, add(u, rest), mul(s_high, u_low))
    log_high = upper(add(product, product_low))
    log_low = add(sub(product, log_high), product_low)
    # log2 = e + log / log(2), as w_high + w_low
    part = mul(log_high, LOG2E_PARTS[0])
    part_low = mad(log_high, LOG2E_PARTS[1], mul(log_low, LOG2E))
    w = add(e, part)
    lost = add(sub(part, sub(w, e)), part_low)
    w_high = upper(add(w, lost))
    w_low = add(sub(w, w_high), lost)
    # y times that, of which the integer part is the exponent
    y_high = upper(y)
    high = mul(y_high, w_high)
    low = mad(sub(y, y_high), w_high, mul(y, w_low))
    v = add(high, low)
    inside = less(magnitude(v), 1100.0)
    n, exponent = nearest(where(inside, v, signed(Const("float64", 1100.0), v)), 1.0, 2 * FORMATS["float64"].bias)
    r = where(inside, add(sub(high, n), low), 0)
    return scaled(mad(r, poly(r, EXP2["float64"]), 1), exponent)


def _integer_power(x: Expr, y: Expr) -> Expr:
    """x^y modulo 2^bits; for y < 0, 1 / x^-y cut to an integer, and 0 for x = 0."""
    row = dtypes.named(x.dtype)
    value: Expr = Const(x.dtype, 1)
    square, count = x, y
    for i in range(row.bits - (row.kind == "i")):
        odd = call("not_equal", mask(count, 1), 0)
        value = where(odd, mul(value, square), value)
        if i + 1 < row.bits:
            square, count = mul(square, square), shr(count, 1)
    if row.kind == "u":
        return value
    minus = where(equal(mask(y, 1), 0), Const(x.dtype, 1), Const(x.dtype, -1))
    inverse = where(equal(x, 1), 1, where(equal(x, -1), minus, Const(x.dtype, 0)))
    return where(less(y, 0), inverse, value)
