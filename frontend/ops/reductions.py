"""Functions that take axes together: sums, means, extremes, positions, norms."""

from __future__ import annotations

import builtins
import math
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.ops.arguments import as_axes, as_axis, as_dtype, floating
from gnomon.tensor import node_of, op, operand


def _countable(x: Node) -> Node:
    """Integers narrower than 32 bits as 32 bits, so that their sum has room."""
    if x.dtype in ("bool", "int8", "int16"):
        return build.cast(x, "int32")
    return build.cast(x, "uint32") if x.dtype in ("uint8", "uint16") else x


@op
def sum(x, axis=None, keepdims=False):
    """The sum over `axis` (one, several, or None for all); bools and narrow integers are summed in 32 bits."""
    return build.sum(_countable(node_of(x)), axis, keepdims)


@op
def prod(x, axis=None, keepdims=False, dtype=None):
    """The product over `axis`."""
    x = _countable(node_of(x))
    return build.prod(build.cast(x, as_dtype(dtype, x.dtype)), axis, keepdims)


@op
def mean(x, axis=None, keepdims=False):
    """The mean over `axis`; integers give floats, 16-bit floats are summed in float32."""
    return _mean(node_of(x), axis, keepdims)


def _mean(x: Node, axis: Any, keepdims: bool) -> Node:
    x = floating(x)
    wide = dtypes.named(x.dtype).compute
    if wide != x.dtype:
        return build.cast(build.mean(build.cast(x, wide), axis, keepdims), x.dtype)
    return build.mean(x, axis, keepdims)


@op
def var(x, axis=None, keepdims=False):
    """The variance of a population (divided by the count) over `axis`."""
    return variance(node_of(x), axis, keepdims)


def variance(x: Node, axis: Any, keepdims: bool) -> Node:
    """The mean of squared distances from the mean, which is taken first: no cancellation."""
    x = floating(x)
    wide = dtypes.named(x.dtype).compute
    if wide != x.dtype:
        return build.cast(variance(build.cast(x, wide), axis, keepdims), x.dtype)
    return build.mean(build.square(build.subtract(x, build.mean(x, axis, True))), axis, keepdims)


@op
def std(x, axis=None, keepdims=False):
    """The square root of the variance."""
    return build.sqrt(variance(node_of(x), axis, keepdims))


@op
def max(x, axis=None, keepdims=False, initial=None):
    """The largest element over `axis` (and `initial`); ties share the gradient."""
    found = build.max(node_of(x), axis, keepdims)
    return found if initial is None else build.maximum(found, operand(initial))


@op
def min(x, axis=None, keepdims=False, initial=None):
    """The smallest element over `axis` (and `initial`); ties share the gradient."""
    found = build.min(node_of(x), axis, keepdims)
    return found if initial is None else build.minimum(found, operand(initial))


@op
def amax(x, axis=None, keepdims=False):
    """The largest element over `axis`."""
    return build.max(node_of(x), axis, keepdims)


@op
def amin(x, axis=None, keepdims=False):
    """The smallest element over `axis`."""
    return build.min(node_of(x), axis, keepdims)


@op
def ptp(x, axis=None, keepdims=False):
    """The largest minus the smallest element over `axis`."""
    x = node_of(x)
    return build.subtract(build.max(x, axis, keepdims), build.min(x, axis, keepdims))


@op
def all(x, axis=None, keepdims=False):
    """Whether every element over `axis` is true."""
    return build.all(node_of(x), axis, keepdims)


@op
def any(x, axis=None, keepdims=False):
    """Whether one element at least over `axis` is true."""
    return build.any(node_of(x), axis, keepdims)


@op
def count_nonzero(x, axis=None):
    """How many elements over `axis` are not 0, int32."""
    return build.sum(build.cast(build.not_equal(node_of(x), 0), "int32"), axis)


@op
def argmax(x, axis=None, keepdims=False):
    """The position of the first largest element along `axis` (None: of the flattened array), int32."""
    return _position(node_of(x), axis, keepdims, "max")


@op
def argmin(x, axis=None, keepdims=False):
    """The position of the first smallest element along `axis` (None: of the flattened array), int32."""
    return _position(node_of(x), axis, keepdims, "min")


def _position(x: Node, axis: int | None, keepdims: bool, kind: str) -> Node:
    rank = x.rank
    if x.dtype == "bool":
        x = build.cast(x, "int32")
    if axis is None:
        found = build.argmax(build.reshape(x, (build.product(x.shape),)), 0, kind)
        return build.reshape(found, (1,) * rank) if keepdims else found
    place = as_axis(x, axis)
    found = build.argmax(x, place, kind)
    return build.reshape(found, (*x.shape[:place], 1, *x.shape[place + 1 :])) if keepdims else found


@op
def average(x, axis=None, weights=None):
    """The mean over `axis`, each element counted `weights` times.

    weights: like x, or one per element of the single `axis`
    """
    x = node_of(x)
    if weights is None:
        return _mean(x, axis, False)
    w = node_of(weights)
    if w.rank != x.rank:
        if not isinstance(axis, int) or w.rank != 1:
            raise ShapeError(
                f"average of {x.type}: weights must have its shape, or one axis for the one in `axis`; got {w.type}"
            )
        w = build.reshape(w, [w.shape[0] if k == as_axis(x, axis) else 1 for k in range(x.rank)])
    dtype = build.promote(floating(x), floating(w))
    x, w = build.cast(x, dtype), build.cast(w, dtype)
    w = build.broadcast_to(w, x.shape)
    return build.divide(build.sum(build.multiply(x, w), axis), build.sum(w, axis))


@op
def logsumexp(x, axis=None, keepdims=False):
    """log(sum(exp(x))) over `axis`, without overflow."""
    return log_sum_exp(floating(node_of(x)), axis, keepdims)


def log_sum_exp(x: Node, axis: Any, keepdims: bool) -> Node:
    """The largest element is taken out first, a finite number even where all are infinite."""
    top = build.stop_gradient(build.max(x, axis, True))
    top = build.where(build.isfinite(top), top, 0.0)
    total = build.sum(build.exp(build.subtract(x, top)), axis, True)
    result = build.add(build.log(total), top)
    axes = as_axes(x, axis)
    return result if keepdims else build.reshape(result, [d for k, d in enumerate(x.shape) if k not in axes])


@op
def norm(x, ord=None, axis=None, keepdims=False):
    """A norm of vectors (one axis) or matrices (two axes).

    ord   None: Euclidean or Frobenius norm. Vectors: any number, inf, -inf, 0 (how many are not 0).
          Matrices: 'fro', 1, -1 (columns), inf, -inf (rows); those that need singular values are not there.
    """
    x = floating(node_of(x))
    axes = as_axes(x, axis)
    if ord is None or (ord == "fro" and len(axes) == 2) or (ord == 2 and len(axes) == 1):
        return build.sqrt(build.sum(build.square(x), axes, keepdims))
    size = build.abs(x)
    if len(axes) == 1:
        return _vector_norm(size, ord, axes, keepdims)
    if len(axes) != 2:
        raise ShapeError(f"norm with ord={ord!r} is of one or two axes, got {len(axes)} of {x.type}")
    if ord not in (1, -1, math.inf, -math.inf):
        raise ArgumentError(f"the matrix norm ord={ord!r} is not there: use None, 'fro', 1, -1, inf or -inf")
    inner, outer = axes if builtins.abs(ord) == 1 else axes[::-1]
    total = build.sum(size, inner, True)
    pick = build.max if ord > 0 else build.min
    result = pick(total, outer, True)
    return result if keepdims else build.reshape(result, [d for k, d in enumerate(x.shape) if k not in axes])


def _vector_norm(size: Node, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Node:
    if isinstance(ord, str):
        raise ArgumentError(f"the vector norm ord={ord!r} is not known: use a number")
    if ord == math.inf:
        return build.max(size, axes, keepdims)
    if ord == -math.inf:
        return build.min(size, axes, keepdims)
    if ord == 0:
        return build.sum(build.cast(build.not_equal(size, 0.0), size.dtype), axes, keepdims)
    if ord == 1:
        return build.sum(size, axes, keepdims)
    return build.power(build.sum(build.power(size, float(ord)), axes, keepdims), 1.0 / ord)


# ---- without NaN


def _filled(x: Node, value: float) -> Node:
    """x with NaN replaced."""
    return build.where(build.isnan(x), value, x) if dtypes.is_float(x.dtype) else x


@op
def nansum(x, axis=None, keepdims=False):
    """The sum of what is not NaN."""
    return build.sum(_countable(_filled(node_of(x), 0.0)), axis, keepdims)


@op
def nanprod(x, axis=None, keepdims=False):
    """The product of what is not NaN."""
    return build.prod(_countable(_filled(node_of(x), 1.0)), axis, keepdims)


def _known(x: Node, axis: Any, keepdims: bool) -> Node:
    """How many elements are not NaN."""
    return build.sum(build.cast(build.logical_not(build.isnan(x)), x.dtype), axis, keepdims)


def _nan_mean(x: Node, axis: Any, keepdims: bool) -> Node:
    return build.divide(build.sum(_filled(x, 0.0), axis, keepdims), _known(x, axis, keepdims))


@op
def nanmean(x, axis=None, keepdims=False):
    """The mean of what is not NaN; NaN where nothing is left."""
    return _nan_mean(floating(node_of(x)), axis, keepdims)


def _nan_variance(x: Node, axis: Any, keepdims: bool) -> Node:
    return _nan_mean(build.square(build.subtract(x, _nan_mean(x, axis, True))), axis, keepdims)


@op
def nanvar(x, axis=None, keepdims=False):
    """The variance of what is not NaN."""
    return _nan_variance(floating(node_of(x)), axis, keepdims)


@op
def nanstd(x, axis=None, keepdims=False):
    """The standard deviation of what is not NaN."""
    return build.sqrt(_nan_variance(floating(node_of(x)), axis, keepdims))


def _nan_extreme(x: Node, axis: Any, keepdims: bool, kind: str) -> Node:
    reduce = build.max if kind == "max" else build.min
    if not dtypes.is_float(x.dtype):
        return reduce(x, axis, keepdims)
    found = reduce(_filled(x, -math.inf if kind == "max" else math.inf), axis, keepdims)
    return build.where(build.greater(_known(x, axis, keepdims), 0.0), found, math.nan)


@op
def nanmax(x, axis=None, keepdims=False):
    """The largest of what is not NaN; NaN where nothing is left."""
    return _nan_extreme(node_of(x), axis, keepdims, "max")


@op
def nanmin(x, axis=None, keepdims=False):
    """The smallest of what is not NaN; NaN where nothing is left."""
    return _nan_extreme(node_of(x), axis, keepdims, "min")


@op
def nanargmax(x, axis=None, keepdims=False):
    """The position of the largest of what is not NaN; -1 where nothing is left."""
    return _nan_position(node_of(x), axis, keepdims, "max")


@op
def nanargmin(x, axis=None, keepdims=False):
    """The position of the smallest of what is not NaN; -1 where nothing is left."""
    return _nan_position(node_of(x), axis, keepdims, "min")


def _nan_position(x: Node, axis: Any, keepdims: bool, kind: str) -> Node:
    if not dtypes.is_float(x.dtype):
        return _position(x, axis, keepdims, kind)
    found = _position(_filled(x, -math.inf if kind == "max" else math.inf), axis, keepdims, kind)
    return build.where(build.greater(_known(x, axis, keepdims), 0.0), found, -1)
