"""Tensors made of nothing: constants, ranges, grids, triangles, windows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.sizes import Dim, Size
from gnomon.ops.arguments import as_dtype, as_shape, as_size, floating, numbers, one_of
from gnomon.tensor import node_of, op, operand


def _float() -> str:
    from gnomon.config import floatx

    return floatx()


@numbers("shape")
@op
def zeros(shape, dtype=None):
    """0 everywhere; the default float if no dtype is given."""
    return build.full(as_shape(shape), 0, as_dtype(dtype, _float()))


@numbers("shape")
@op
def ones(shape, dtype=None):
    """1 everywhere; the default float if no dtype is given."""
    return build.full(as_shape(shape), 1, as_dtype(dtype, _float()))


@numbers("shape")
@op
def empty(shape, dtype=None):
    """A tensor whose values do not matter: 0 everywhere."""
    return build.full(as_shape(shape), 0, as_dtype(dtype, _float()))


@numbers("shape")
@op
def full(shape, fill_value, dtype=None):
    """`fill_value`, which may be a tensor that broadcasts, everywhere."""
    value = operand(fill_value)
    value = value if isinstance(value, Node) else build.constant(value, None)
    return build.broadcast_to(build.cast(value, as_dtype(dtype, value.dtype)), as_shape(shape))


def _like(x: Any, value: Any, dtype: Any) -> Node:
    x = node_of(x)
    return build.full(x.shape, value, as_dtype(dtype, x.dtype))


@op
def zeros_like(x, dtype=None):
    """0 everywhere, in the shape of x."""
    return _like(x, 0, dtype)


@op
def ones_like(x, dtype=None):
    """1 everywhere, in the shape of x."""
    return _like(x, 1, dtype)


@op
def empty_like(x, dtype=None):
    """A tensor in the shape of x whose values do not matter: 0 everywhere."""
    return _like(x, 0, dtype)


@op
def full_like(x, fill_value, dtype=None):
    """`fill_value` everywhere, in the shape of x."""
    x = node_of(x)
    return build.broadcast_to(build.cast(operand(fill_value), as_dtype(dtype, x.dtype)), x.shape)


@numbers("start", "stop", "step")
@op
def arange(start, stop=None, step=None, dtype=None):
    """start, start + step, … below `stop`; `arange(n)` counts from 0. Bounds may be sizes (`ops.shape(x)[0]`)."""
    if stop is None:
        start, stop = 0, start
    step = 1 if step is None else step
    numbers = all(isinstance(v, (int, float, np.number)) for v in (start, stop, step))
    if numbers:
        values = np.arange(start, stop, step)
        kind = as_dtype(dtype, "int32" if values.dtype.kind in "iu" else _float())
        if values.dtype.kind != "i" or len(values) == 0:
            return build.constant(values.astype(dtypes.named(kind).numpy), kind)
    first, end, stride = (as_size(v) for v in (start, stop, step))
    if not isinstance(stride, int) or stride == 0:
        raise ArgumentError(f"the step of arange must be a number other than 0, got {stride}")
    count = build.strided_size(end if stride > 0 else end + 0, first, end, stride)
    return _count(first, stride, count, as_dtype(dtype, "int32"))


def _count(first: Dim, stride: int, count: Dim, dtype: str) -> Node:
    wide = dtype if dtypes.is_integer(dtype) else "int64"
    place = build.iota((count,), 0, wide)
    place = place if stride == 1 else build.multiply(place, stride)
    place = place if first == 0 and not isinstance(first, Size) else build.add(place, build.size(first, wide))
    return build.cast(place, dtype)


def _steps(num: Any, endpoint: bool, dtype: str) -> tuple[Node, Node | float]:
    """0, 1, 2 … as floats, and how many steps lie between the ends."""
    n = as_size(num)
    between = n - 1 if endpoint else n
    place = build.iota((n,), 0, dtype)
    return place, float(max(between, 1)) if isinstance(between, int) else build.size(between, dtype)


def _line(start: Any, stop: Any, num: Any, endpoint: bool, dtype: Any, axis: int) -> tuple[Node, Node, str]:
    """Evenly spaced numbers along `axis`, the step, and the dtype wanted."""
    a, b = operand(start), operand(stop)
    kind = build.promote(a, b, 0.0)
    wanted = as_dtype(dtype, kind)
    a, b = build.cast(a, kind), build.cast(b, kind)
    shape = build.broadcast_shapes(a.shape, b.shape)
    a, b = build.broadcast_to(a, shape), build.broadcast_to(b, shape)
    place, between = _steps(num, endpoint, kind)
    step = build.divide(build.subtract(b, a), between)
    at = axis % (len(shape) + 1)
    def grow(v):
        return build.reshape(v, (*shape[:at], 1, *shape[at:]))
    place = build.reshape(place, [place.shape[0] if k == at else 1 for k in range(len(shape) + 1)])
    # the last point is the end itself, not the start plus rounded steps
    line = build.add(grow(a), build.multiply(place, grow(step)))
    if endpoint:
        last = build.equal(place, between)
        line = build.where(last, grow(b), line)
    return line, step, wanted


@op
def linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0):
    """`num` numbers at equal distances from `start` to `stop` (left out unless `endpoint`), along a new `axis`."""
    line, step, wanted = _line(start, stop, num, endpoint, dtype, axis)
    if not dtypes.is_float(wanted):
        line = build.floor(line)
    line = build.cast(line, wanted)
    return (line, step) if retstep else line


@op
def logspace(start, stop, num=50, endpoint=True, base=10, dtype=None, axis=0):
    """`base` to the power of equally spaced exponents."""
    line, _, wanted = _line(start, stop, num, endpoint, dtype, axis)
    return build.cast(build.power(operand(float(base)), line), wanted)


@op
def geomspace(start, stop, num=50, endpoint=True, dtype=None, axis=0):
    """`num` numbers at equal ratios from `start` to `stop`, both positive or both negative."""
    a, b = floating(node_of(start)), floating(node_of(stop))
    line, _, wanted = _line(build.log(build.abs(a)), build.log(build.abs(b)), num, endpoint, None, axis)
    dtype = as_dtype(dtype, wanted)
    sign = build.broadcast_to(build.sign(a), build.broadcast_shapes(a.shape, b.shape))
    at = axis % line.rank
    sign = build.reshape(sign, (*sign.shape[:at], 1, *sign.shape[at:]))
    return build.cast(build.multiply(build.exp(line), sign), dtype)


def band(rows: Dim, columns: Dim, k: int, comparison: str) -> Node:
    """Whether `column comparison row + k`, bool[rows, columns]."""
    shape = (rows, columns)
    return build.apply(comparison, build.iota(shape, 1), build.add(build.iota(shape, 0), k))


@numbers("N", "M")
@op
def eye(N, M=None, k=0, dtype=None):
    """1 on diagonal `k` (above the main one if positive), 0 elsewhere: [N, M], M = N by default."""
    n = as_size(N)
    return build.cast(band(n, n if M is None else as_size(M), k, "equal"), as_dtype(dtype, _float()))


@numbers("n")
@op
def identity(n, dtype=None):
    """The identity matrix [n, n]."""
    return build.cast(band(as_size(n), as_size(n), 0, "equal"), as_dtype(dtype, _float()))


@numbers("N", "M")
@op
def tri(N, M=None, k=0, dtype=None):
    """1 on and below diagonal `k`, 0 above: [N, M]."""
    n = as_size(N)
    return build.cast(band(n, n if M is None else as_size(M), k, "less_equal"), as_dtype(dtype, _float()))


@op
def tril(x, k=0):
    """x with the elements above diagonal `k` of the last two axes set to 0."""
    return _masked(node_of(x), k, "less_equal")


@op
def triu(x, k=0):
    """x with the elements below diagonal `k` of the last two axes set to 0."""
    return _masked(node_of(x), k, "greater_equal")


def _masked(x: Node, k: int, comparison: str) -> Node:
    if x.rank < 2:
        raise ShapeError(f"a triangle needs at least two axes, got {x.type}")
    return build.where(band(x.shape[-2], x.shape[-1], k, comparison), x, build.constant(0, x.dtype))


@op
def meshgrid(*x, indexing="xy"):
    """Coordinates of a grid from its axes: one array per axis, each of the grid's shape.

    indexing   'xy': the first input runs along the second axis, as in pictures; 'ij': along the first
    """
    one_of("indexing", indexing, ("xy", "ij"))
    parts = [build.reshape(node_of(v), (build.product(node_of(v).shape),)) for v in x]
    order = list(range(len(parts)))
    if indexing == "xy" and len(parts) > 1:
        order[:2] = [1, 0]
    shape: list[Dim] = [1] * len(parts)
    for part, at in zip(parts, order, strict=True):
        shape[at] = part.shape[0]
    return [build.broadcast(part, shape, [at]) for part, at in zip(parts, order, strict=True)]


@numbers("N")
@op
def vander(x, N=None, increasing=False):
    """Powers of x as columns: [len(x), N], the highest first unless `increasing`."""
    x = node_of(x)
    n = x.shape[0] if N is None else as_size(N)
    exponent = build.iota((x.shape[0], n), 1, "int32")
    if not increasing:
        exponent = build.subtract(build.size(n - 1, "int32"), exponent)
    dtype = build.promote(x, 1)
    base = build.broadcast(build.cast(x, dtype), (x.shape[0], n), [0])
    return build.power(base, build.cast(exponent, dtype))


# ---- windows


def _window(x: Any, shape_of: Any) -> Node:
    n = as_size(x)
    dtype = _float()
    if n == 1:
        return build.full((1,), 1, dtype)
    return shape_of(build.iota((n,), 0, dtype), build.size(n - 1, dtype))


def _cosine(x: Any, factors: tuple[float, ...]) -> Node:
    """A sum of cosines over one period."""

    def shape_of(place, last):
        turn = build.divide(build.multiply(place, 2 * math.pi), last)
        total: Any = factors[0]
        for k, c in enumerate(factors[1:], 1):
            total = build.add(build.multiply(build.cos(build.multiply(turn, float(k))), c), total)
        return total

    return _window(x, shape_of)


@numbers("x")
@op
def hanning(x):
    """The window 0.5 - 0.5 cos(2 pi n / (x - 1)) of x points."""
    return _cosine(x, (0.5, -0.5))


@numbers("x")
@op
def hamming(x):
    """The window 0.54 - 0.46 cos(2 pi n / (x - 1)) of x points."""
    return _cosine(x, (0.54, -0.46))


@numbers("x")
@op
def blackman(x):
    """The window 0.42 - 0.5 cos(2 pi n / (x - 1)) + 0.08 cos(4 pi n / (x - 1)) of x points."""
    return _cosine(x, (0.42, -0.5, 0.08))


@numbers("x")
@op
def bartlett(x):
    """The triangular window of x points, 0 at both ends."""

    def shape_of(n, last):
        return build.subtract(1.0, build.abs(build.subtract(build.divide(build.multiply(n, 2.0), last), 1.0)))

    return _window(x, shape_of)


@numbers("x")
@op
def kaiser(x, beta):
    """The Kaiser window of x points: I0(beta sqrt(1 - t**2)) / I0(beta), t from -1 to 1."""
    from gnomon.ops.elementwise import bessel_i0

    def shape_of(n, last):
        t = build.subtract(build.divide(build.multiply(n, 2.0), last), 1.0)
        inside = build.sqrt(build.maximum(build.subtract(1.0, build.square(t)), 0.0))
        return build.divide(bessel_i0(build.multiply(inside, operand(beta))), bessel_i0(build.constant(beta, n.dtype)))

    return _window(x, shape_of)
