"""Order along an axis: sorting, searching, quantiles, running totals and differences.

Sorting counts, for each element, how many come before it (`Rank`), and writes it there.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.order import Cumulate, Rank
from gnomon.ops.arguments import as_axes, as_axis, as_dtype, as_size, floating, numbers, one_of, together
from gnomon.ops.shaping import cut, moved
from gnomon.tensor import node_of, op, operand


def order_of(x: Node, descending: bool = False) -> Node:
    """Positions that sort the last axis: int32, the inverse permutation of the ranks."""
    last = x.rank - 1
    return build.scatter_along(Rank(last, descending)(x), build.iota(x.shape, last), x.shape[last], last)


def _on_last(x: Node, axis: int | None, fn: Callable[[Node], Node]) -> Node:
    """`fn` along one axis; None flattens."""
    if axis is None:
        return fn(build.reshape(x, (build.product(x.shape),)))
    if not x.rank:
        return build.reshape(fn(build.reshape(x, (1,))), ())
    return moved(fn(moved(x, axis, -1)), -1, axis)


def sorted_last(x: Node) -> Node:
    return build.gather_along(x, order_of(x), x.rank - 1)


@op
def sort(x, axis=-1):
    """x in ascending order along `axis`, NaN last."""
    return _on_last(node_of(x), axis, sorted_last)


@op
def argsort(x, axis=-1):
    """The positions that put x in ascending order along `axis`, equal elements in their order: int32."""
    return _on_last(node_of(x), axis, order_of)


@op
def argpartition(x, kth, axis=-1):
    """Positions that put the kth smallest element at place kth, smaller ones before and larger ones behind it."""
    return _on_last(node_of(x), axis, order_of)


@numbers("k")
@op
def top_k(x, k, sorted=True):
    """The k largest elements of the last axis in descending order, and their positions: ([..., k], int32[..., k])."""
    x = node_of(x)
    n = as_size(k)
    if not x.rank or (isinstance(n, int) and isinstance(x.shape[-1], int) and n > x.shape[-1]):
        raise ShapeError(f"top_k: the last axis of {x.type} has fewer than {n} elements")
    place = cut(order_of(x, descending=True), x.rank - 1, 0, n)
    return build.gather_along(x, place, x.rank - 1), place


@op
def searchsorted(sorted_sequence, values, side="left"):
    """Where each of `values` belongs in a sorted vector: before ('left') or behind ('right') its equals. int32."""
    one_of("side", side, ("left", "right"))
    s, v = together(sorted_sequence, values)
    if s.rank != 1:
        raise ShapeError(f"searchsorted needs a sorted vector, got {s.type}")
    return _searched(s, v, "less" if side == "left" else "less_equal")


def _searched(s: Node, v: Node, comparison: str) -> Node:
    wide = (*v.shape, s.shape[0])
    below = build.apply(comparison, build.broadcast(s, wide, [v.rank]), build.broadcast(v, wide, range(v.rank)))
    return build.sum(build.cast(below, "int32"), v.rank)


@op
def digitize(x, bins):
    """Which of the intervals between ascending `bins` each element is in: 0 below the first. int32."""
    x, edges = together(x, bins)
    return _searched(edges, x, "less_equal")


@op
def isin(x1, x2, assume_unique=False, invert=False):
    """Whether each element of x1 is among those of x2."""
    x, y = together(x1, x2)
    y = build.reshape(y, (build.product(y.shape),))
    wide = (*x.shape, y.shape[0])
    same = build.equal(build.broadcast(x, wide, range(x.rank)), build.broadcast(y, wide, [x.rank]))
    found = build.any(same, x.rank)
    return build.logical_not(found) if invert else found


@op
def select(condlist, choicelist, default=0):
    """For each element the first choice whose condition is true, `default` where none is."""
    if len(condlist) != len(choicelist):
        raise ArgumentError(f"select needs one choice per condition, got {len(condlist)} and {len(choicelist)}")
    result: Any = operand(default)
    for condition, choice in reversed(list(zip(condlist, choicelist, strict=True))):
        result = build.where(operand(condition), operand(choice), result)
    return result


# ---- quantiles


def _quantile(x: Node, q: Any, axis: Any, method: str, keepdims: bool) -> Node:
    one_of("method of quantile", method, ("linear", "lower", "higher", "nearest", "midpoint"))
    x = floating(x)
    axes = as_axes(x, axis)
    kept = [k for k in range(x.rank) if k not in axes]
    moved_x = build.transpose(x, [*kept, *axes])
    lead = tuple(x.shape[k] for k in kept)
    flat = build.reshape(moved_x, (*lead, build.product(x.shape[a] for a in axes)))
    ordered = sorted_last(flat)
    q = build.cast(node_of(q), x.dtype)
    n = build.size(flat.shape[-1], x.dtype)
    place = build.multiply(q, build.subtract(n, 1.0))
    low, high = build.floor(place), build.ceil(place)
    def read(p):
        return build.gather(ordered, build.cast(p, "int32"), len(lead))
    part = build.subtract(place, low)
    match method:
        case "lower":
            found = read(low)
        case "higher":
            found = read(high)
        case "nearest":
            found = read(build.round(place))
        case "midpoint":
            found = build.multiply(build.add(read(low), read(high)), 0.5)
        case _:
            below, above = read(low), read(high)
            weight = build.broadcast_to(part, below.shape)
            between = build.multiply(build.subtract(above, below), weight)
            found = build.where(build.equal(weight, 0.0), below, build.add(below, between))  # no 0 * inf
    missing = build.any(build.isnan(flat), -1)
    found = build.where(build.broadcast(missing, found.shape, range(len(lead))), math.nan, found)
    found = moved(found, tuple(range(len(lead), found.rank)), tuple(range(q.rank)))  # the axes of q come first
    if keepdims:
        found = build.reshape(found, (*q.shape, *(1 if k in axes else d for k, d in enumerate(x.shape))))
    return found


@op
def quantile(x, q, axis=None, method="linear", keepdims=False):
    """The value below which a share `q` (0 to 1) of the elements over `axis` lies; the axes of q come first.

    method   between two elements: 'linear', 'lower', 'higher', 'nearest', 'midpoint'
    """
    return _quantile(node_of(x), q, axis, method, keepdims)


@op
def percentile(x, q, axis=None, method="linear", keepdims=False):
    """The value below which `q` percent of the elements over `axis` lie."""
    return _quantile(node_of(x), build.divide(floating(node_of(q)), 100.0), axis, method, keepdims)


@op
def median(x, axis=None, keepdims=False):
    """The middle element over `axis`, the mean of the middle two of an even number."""
    return _quantile(node_of(x), 0.5, axis, "linear", keepdims)


# ---- running totals and differences


def _running(x: Node, axis: int | None, dtype: Any, kind: str) -> Node:
    x = build.cast(x, "int32") if x.dtype == "bool" else x
    x = build.cast(x, as_dtype(dtype, x.dtype))

    return _on_last(x, axis, lambda v: Cumulate(kind, v.rank - 1)(v))


@op
def cumsum(x, axis=None, dtype=None):
    """The sum of each element and all before it along `axis` (None: of the flattened array)."""
    return _running(node_of(x), axis, dtype, "sum")


@op
def cumprod(x, axis=None, dtype=None):
    """The product of each element and all before it along `axis` (None: of the flattened array)."""
    return _running(node_of(x), axis, dtype, "prod")


def _without_nan(x: Node, value: int) -> Node:
    return build.where(build.isnan(x), float(value), x) if dtypes.is_float(x.dtype) else x


@op
def nancumsum(x, axis=None, dtype=None):
    """cumsum with NaN as 0."""
    return _running(_without_nan(node_of(x), 0), axis, dtype, "sum")


@op
def nancumprod(x, axis=None, dtype=None):
    """cumprod with NaN as 1."""
    return _running(_without_nan(node_of(x), 1), axis, dtype, "prod")


@op
def diff(a, n=1, axis=-1):
    """Each element minus the one before it along `axis`, n times over."""
    x = node_of(a)
    at = as_axis(x, axis)
    for _ in builtins.range(n):
        extent = x.shape[at]
        later, earlier = cut(x, at, 1, extent - 1), cut(x, at, 0, extent - 1)
        x = build.not_equal(later, earlier) if x.dtype == "bool" else build.subtract(later, earlier)
    return x


@op
def corrcoef(x):
    """Pearson's correlation of the rows of x: [n, n]."""
    x = floating(node_of(x))
    x = x if x.rank == 2 else build.reshape(x, (1, *x.shape))
    centred = build.subtract(x, build.mean(x, -1, True))
    cov = build.contract(centred, centred, [0, 2], [1, 2], [0, 1])
    spread = build.sqrt(build.sum(build.square(centred), -1))
    n = x.shape[0]
    scale = build.multiply(build.broadcast(spread, (n, n), [0]), build.broadcast(spread, (n, n), [1]))
    return build.minimum(build.maximum(build.divide(cov, scale), -1.0), 1.0)


@op
def correlate(x1, x2, mode="valid"):
    """The sliding sum of products of two vectors: 'valid', 'same' or 'full' overlaps."""
    one_of("mode of correlate", mode, ("valid", "same", "full"))
    x, w = together(x1, x2)
    if x.rank != 1 or w.rank != 1 or not (isinstance(x.shape[0], int) and isinstance(w.shape[0], int)):
        raise ShapeError(f"correlate needs two vectors of known size, got {x.type} and {w.type}")
    turned = x.shape[0] < w.shape[0]
    if turned:
        x, w = w, x
    n, m = x.shape[0], w.shape[0]
    low = {"valid": 0, "full": m - 1, "same": m // 2}[mode]
    if turned and mode == "same":
        low = (m - 1) // 2
    count = {"valid": n - m + 1, "full": n + m - 1, "same": n}[mode]
    high = count + m - 1 - n - low
    padded = build.pad(x, [low], [high])
    place = build.add(build.iota((count, m), 0), build.iota((count, m), 1))
    windows = build.gather(padded, place, 0)
    result = build.contract(windows, w, [0, 1], [1], [0])
    return build.flip(result, [0]) if turned else result
