"""Functions of single elements: arithmetic, comparisons, logic, transcendentals. Operands broadcast and promote."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.ops.arguments import floating, together
from gnomon.tensor import node_of, op, operand


def _unary(scalar: str, doc: str, floats: bool = False) -> Callable[..., Any]:
    """The public function of a row of the table of scalar functions; with `floats`, integers become floats first."""

    def fn(x):
        return build.apply(scalar, floating(node_of(x)) if floats else operand(x))

    return _named(fn, scalar, doc)


def _binary(scalar: str, doc: str) -> Callable[..., Any]:
    def fn(x1, x2):
        return build.apply(scalar, operand(x1), operand(x2))

    return _named(fn, scalar, doc)


def _of_bits(scalar: str, doc: str) -> Callable[..., Any]:
    def fn(x, y):  # Keras's names of these arguments
        return build.apply(scalar, operand(x), operand(y))

    return _named(fn, scalar, doc)


def _named(fn: Callable[..., Any], name: str, doc: str) -> Callable[..., Any]:
    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    return op(fn)


# ---- arithmetic

add = _binary("add", "x1 + x2; for bools, or.")
subtract = _binary("subtract", "x1 - x2.")
multiply = _binary("multiply", "x1 * x2; for bools, and.")
divide = true_divide = _binary("divide", "x1 / x2; of integers a float.")
floor_divide = _binary("floor_divide", "The largest integer not above x1 / x2.")
mod = _binary("mod", "x1 - x2 * floor(x1 / x2): the remainder with the sign of x2.")
power = _binary("power", "x1 to the power x2.")
maximum = _binary("maximum", "The larger of x1 and x2; NaN if either is. At ties both get half of the gradient.")
minimum = _binary("minimum", "The smaller of x1 and x2; NaN if either is. At ties both get half of the gradient.")
arctan2 = _binary("arctan2", "The angle of the point (x2, x1), between -pi and pi.")
hypot = _binary("hypot", "sqrt(x1**2 + x2**2) without overflow.")
negative = _unary("negative", "-x.")
reciprocal = _unary("reciprocal", "1 / x.")
square = _unary("square", "x * x.")
sign = _unary("sign", "-1, 0 or 1.")


@op
def abs(x):
    """|x|."""
    x = node_of(x)
    return x if x.dtype == "bool" or x.dtype.startswith("u") else build.abs(x)


absolute = abs


@op
def fabs(x):
    """|x| as a float."""
    return build.abs(floating(node_of(x)))


@op
def fmod(x1, x2):
    """The remainder of x1 / x2 with the sign of x1."""
    x, y = together(x1, x2)
    size = build.mod(*(build.abs(v) for v in (x, y)))
    return build.where(build.less(x, 0), build.negative(size), size)


@op
def fmax(x1, x2):
    """The larger of x1 and x2; the other one where one is NaN."""
    x, y = together(x1, x2)
    if not dtypes.is_float(x.dtype):
        return build.maximum(x, y)
    kept = build.where(build.isnan(x), y, x)
    return build.maximum(kept, build.where(build.isnan(y), x, y))


@op
def fmin(x1, x2):
    """The smaller of x1 and x2; the other one where one is NaN."""
    x, y = together(x1, x2)
    if not dtypes.is_float(x.dtype):
        return build.minimum(x, y)
    kept = build.where(build.isnan(x), y, x)
    return build.minimum(kept, build.where(build.isnan(y), x, y))


@op
def divide_no_nan(x1, x2):
    """x1 / x2, and 0 where x2 is 0."""
    x, y = (floating(v) for v in together(x1, x2))
    zero = build.equal(y, 0.0)
    return build.where(zero, 0.0, build.divide(x, build.where(zero, 1.0, y)))


@op
def clip(x, x_min, x_max):
    """x kept between x_min and x_max; either may be None."""
    x = node_of(x)
    if x.dtype == "bool":
        x = build.cast(x, "int32")
    if x_min is not None:
        x = build.maximum(x, operand(x_min))
    return x if x_max is None else build.minimum(x, operand(x_max))


@op
def heaviside(x1, x2):
    """0 where x1 < 0, 1 where x1 > 0, x2 where x1 is 0."""
    x, y = (floating(v) for v in together(x1, x2))
    step = build.where(build.greater(x, 0.0), 1.0, build.where(build.less(x, 0.0), 0.0, x))
    return build.where(build.equal(x, 0.0), y, step)


@op
def ldexp(x1, x2):
    """x1 * 2**x2."""
    x = floating(node_of(x1))
    return build.multiply(x, build.exp2(build.cast(node_of(x2), x.dtype)))


@op
def copy(x):
    """x."""
    return node_of(x)


@op
def signbit(x):
    """Whether x is negative, -0.0 included."""
    x = node_of(x)
    if not dtypes.is_float(x.dtype):
        return build.less(x, 0)
    return build.less(build.copysign(build.full_like(x, 1), x), 0.0)


@op
def nan_to_num(x, nan=0.0, posinf=None, neginf=None):
    """x with NaN, infinity and minus infinity replaced; by default the infinities become the dtype's limits."""
    x = node_of(x)
    if not dtypes.is_float(x.dtype):
        return x
    limits = dtypes.limits(x.dtype)
    low = limits.min if neginf is None else operand(neginf)
    high = limits.max if posinf is None else operand(posinf)
    x = build.where(build.isnan(x), operand(nan), x)
    x = build.where(build.equal(x, math.inf), high, x)
    return build.where(build.equal(x, -math.inf), low, x)


# ---- rounding: integers stay what they are as numbers, and become floats as in Keras

floor = _unary("floor", "The largest integer not above x, as a float.", floats=True)
ceil = _unary("ceil", "The smallest integer not below x, as a float.", floats=True)


@op
def trunc(x):
    """x cut towards zero."""
    x = node_of(x)
    return build.trunc(x) if dtypes.is_float(x.dtype) else x


@op
def round(x, decimals=0):
    """x rounded to `decimals` places, halves to even."""
    x = node_of(x)
    if not dtypes.is_float(x.dtype):
        if decimals >= 0:
            return x
        factor = 10.0**-decimals
        scaled = build.round(build.divide(build.cast(x, "float64"), factor))
        return build.cast(build.multiply(scaled, factor), x.dtype)
    if decimals == 0:
        return build.round(x)
    factor = 10.0**decimals
    return build.divide(build.round(build.multiply(x, factor)), factor)


# ---- comparisons and logic

equal = _binary("equal", "Whether x1 == x2.")
not_equal = _binary("not_equal", "Whether x1 != x2.")
less = _binary("less", "Whether x1 < x2.")
less_equal = _binary("less_equal", "Whether x1 <= x2.")
greater = _binary("greater", "Whether x1 > x2.")
greater_equal = _binary("greater_equal", "Whether x1 >= x2.")
logical_and = _binary("logical_and", "Whether both are true; numbers are true where not 0.")
logical_or = _binary("logical_or", "Whether one at least is true; numbers are true where not 0.")
logical_xor = _binary("logical_xor", "Whether exactly one is true; numbers are true where not 0.")
logical_not = _unary("logical_not", "Whether x is false; numbers are false where 0.")
bitwise_and = _of_bits("bitwise_and", "And of the bits of two integers.")
bitwise_or = _of_bits("bitwise_or", "Or of the bits of two integers.")
bitwise_xor = _of_bits("bitwise_xor", "Exclusive or of the bits of two integers.")
bitwise_not = bitwise_invert = _unary("bitwise_not", "The bits of an integer, turned over.")
left_shift = bitwise_left_shift = _of_bits("left_shift", "The bits of x moved y places up.")
right_shift = bitwise_right_shift = _of_bits("right_shift", "The bits of x moved y places down, the sign repeated.")


def _of_floats(scalar: str, otherwise: bool, doc: str) -> Callable[..., Any]:
    """A test of floats that has one answer for all integers."""

    def fn(x):
        x = node_of(x)
        return build.apply(scalar, x) if dtypes.is_float(x.dtype) else build.full(x.shape, otherwise, "bool")

    return _named(fn, scalar, doc)


isnan = _of_floats("isnan", False, "Whether x is not a number.")
isinf = _of_floats("isinf", False, "Whether x is infinite.")
isfinite = _of_floats("isfinite", True, "Whether x is neither infinite nor NaN.")


@op
def isposinf(x):
    """Whether x is plus infinity."""
    x = node_of(x)
    return build.equal(x, math.inf) if dtypes.is_float(x.dtype) else build.full(x.shape, False, "bool")


@op
def isneginf(x):
    """Whether x is minus infinity."""
    x = node_of(x)
    return build.equal(x, -math.inf) if dtypes.is_float(x.dtype) else build.full(x.shape, False, "bool")


@op
def isreal(x):
    """True everywhere: there are no complex tensors."""
    return build.full(node_of(x).shape, True, "bool")


@op
def real(x):
    """x: there are no complex tensors."""
    return node_of(x)


conj = conjugate = real


@op
def imag(x):
    """0 everywhere: there are no complex tensors."""
    return build.full_like(node_of(x), 0)


@op
def angle(x):
    """The angle of a real number in the complex plane: 0, pi for negative ones, NaN for NaN."""
    x = floating(node_of(x))
    turned = build.where(build.less(x, 0.0), math.pi, build.full_like(x, 0))
    return build.where(build.isnan(x), x, turned)


@op
def isclose(x1, x2, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Whether |x1 - x2| <= atol + rtol * |x2|; infinities are close to themselves alone."""
    x, y = (floating(v) for v in together(x1, x2))
    return _close(x, y, rtol, atol, equal_nan)


@op
def allclose(x1, x2, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Whether all elements are close, see `isclose`."""
    x, y = (floating(v) for v in together(x1, x2))
    return build.all(_close(x, y, rtol, atol, equal_nan))


def _close(x: Node, y: Node, rtol: float, atol: float, equal_nan: bool) -> Node:
    size = build.add(build.multiply(build.abs(y), rtol), atol)
    near = build.less_equal(build.abs(build.subtract(x, y)), size)
    both = build.logical_and(build.isfinite(x), build.isfinite(y))
    result = build.logical_or(build.logical_and(near, both), build.equal(x, y))
    if equal_nan:
        nan = build.logical_and(build.isnan(x), build.isnan(y))
        result = build.logical_or(result, nan)
    return result


@op
def where(condition, x1=None, x2=None):
    """x1 where `condition`, x2 elsewhere."""
    if x1 is None or x2 is None:
        raise ArgumentError("where needs both values: how many elements are true is not known before the function runs")
    return build.where(operand(condition), operand(x1), operand(x2))


# ---- exponentials, logarithms, roots

exp = _unary("exp", "e to the x.")
exp2 = _unary("exp2", "2 to the x.")
expm1 = _unary("expm1", "exp(x) - 1, exact near 0.")
log = _unary("log", "The natural logarithm.")
log1p = _unary("log1p", "log(1 + x), exact near 0.")
log2 = _unary("log2", "The logarithm to base 2.")
log10 = _unary("log10", "The logarithm to base 10.")
sqrt = _unary("sqrt", "The square root.")
rsqrt = _unary("rsqrt", "1 / sqrt(x).")


@op
def cbrt(x):
    """The real cube root."""
    x = floating(node_of(x))
    zero = build.equal(x, 0.0)
    size = build.where(zero, 1.0, build.abs(x))  # no logarithm of 0, nor in the gradient
    root = build.exp(build.multiply(build.log(size), 1 / 3))
    # one Newton step takes the logarithm's error out
    square = build.square(root)
    step = build.divide(build.subtract(root, build.divide(size, square)), 3.0)
    finite = build.isfinite(size)
    root = build.where(finite, build.subtract(root, step), size)
    return build.where(zero, x, build.copysign(root, x))


@op
def logaddexp(x1, x2):
    """log(exp(x1) + exp(x2)) without overflow."""
    x, y = (floating(v) for v in together(x1, x2))
    return _log_add(x, y)


@op
def logaddexp2(x1, x2):
    """log2(2**x1 + 2**x2) without overflow."""
    x, y = (build.multiply(floating(v), math.log(2)) for v in together(x1, x2))
    return build.divide(_log_add(x, y), math.log(2))


def _log_add(x: Node, y: Node) -> Node:
    apart = build.where(build.equal(x, y), 0.0, build.subtract(x, y))  # no inf - inf
    small = build.softplus(build.negative(build.abs(apart)))
    return build.add(build.maximum(x, y), small)


# ---- angles and hyperbolas

sin = _unary("sin", "Sine of an angle in radians.")
cos = _unary("cos", "Cosine of an angle in radians.")
tan = _unary("tan", "Tangent of an angle in radians.")
arcsin = _unary("arcsin", "The angle whose sine is x, in radians.")
arccos = _unary("arccos", "The angle whose cosine is x, in radians.")
arctan = _unary("arctan", "The angle whose tangent is x, in radians.")
sinh = _unary("sinh", "Hyperbolic sine.")
cosh = _unary("cosh", "Hyperbolic cosine.")
tanh = _unary("tanh", "Hyperbolic tangent.")
arcsinh = _unary("arcsinh", "The number whose hyperbolic sine is x.")
arccosh = _unary("arccosh", "The number >= 0 whose hyperbolic cosine is x.")
arctanh = _unary("arctanh", "The number whose hyperbolic tangent is x.")


@op
def deg2rad(x):
    """Degrees to radians."""
    return build.multiply(floating(node_of(x)), math.pi / 180)


@op
def rad2deg(x):
    """Radians to degrees."""
    return build.multiply(floating(node_of(x)), 180 / math.pi)


@op
def sinc(x):
    """sin(pi x) / (pi x), 1 at 0."""
    x = floating(node_of(x))
    zero = build.equal(x, 0.0)
    angle = build.multiply(build.where(zero, 1.0, x), math.pi)
    return build.where(zero, 1.0, build.divide(build.sin(angle), angle))


# ---- error function

erf = _unary("erf", "The error function: 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x.")
erfc = _unary("erfc", "1 - erf(x), exact for large x.")
erfinv = _unary("erfinv", "The number whose erf is x.")


@op
def i0(x):
    """The modified Bessel function of the first kind, order 0.

    Abramowitz, Stegun 1964, 9.8.1 and 9.8.2 (relative error below 2e-7).
    """
    return bessel_i0(floating(node_of(x)))


def bessel_i0(x: Node) -> Node:
    """i0 of a node."""
    x = build.abs(x)
    small = build.square(build.divide(build.minimum(x, 3.75), 3.75))
    near = _polynomial(small, (1.0, 3.5156229, 3.0899424, 1.2067492, 0.2659732, 0.0360768, 0.0045813))
    large = build.maximum(x, 3.75)
    factors = (0.39894228, 0.01328592, 0.00225319, -0.00157565, 0.00916281, -0.02057706, 0.02635537, -0.01647633)
    far = _polynomial(build.divide(3.75, large), (*factors, 0.00392377))
    far = build.multiply(far, build.multiply(build.exp(large), build.rsqrt(large)))
    return build.where(build.less(x, 3.75), near, far)


def _polynomial(x: Node, factors: tuple[float, ...]) -> Node:
    """factors[0] + factors[1] * x + …, by Horner's rule."""
    total: Any = factors[-1]
    for c in reversed(factors[:-1]):
        total = build.add(build.multiply(total, x), c)
    return total
