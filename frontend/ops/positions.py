"""Reading and writing at computed positions, groups, counting."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.rows import FirstEqual, WriteRows
from gnomon.compiler.sizes import Dim
from gnomon.ops.arguments import as_axis, as_dtype, as_shape, as_size, floating, numbers, one_of
from gnomon.ops.shaping import cut
from gnomon.tensor import getitem, node_of, op, operand


def wrapped(indices: Node, extent: Dim) -> Node:
    """Integer positions, negative ones counted from the end."""
    if not dtypes.is_integer(indices.dtype):
        raise DTypeError(f"positions must be integers, got {indices.type}")
    if indices.dtype.startswith("u"):
        return indices
    wide = build.cast(indices, "int64") if indices.dtype in ("int8", "int16") else indices
    return build.where(build.less(wide, 0), build.add(wide, build.size(extent, wide.dtype)), wide)


# ---- reading


@op
def take(x, indices, axis=None):
    """Elements (or, with `axis`, slices) of x at `indices`; negative ones count from the end.

    Positions outside the axis read its first or last element.
    """
    x, at = node_of(x), node_of(indices)
    if axis is None:
        x, axis = build.reshape(x, (build.product(x.shape),)), 0
    axis = as_axis(x, axis)
    return build.gather(x, wrapped(at, x.shape[axis]), axis)


@op
def take_along_axis(x, indices, axis=None):
    """For each position of `indices`, the element of x that is there along `axis`; the other sizes agree or are 1."""
    x, at = node_of(x), node_of(indices)
    if axis is None:
        x, axis = build.reshape(x, (build.product(x.shape),)), 0
    axis = as_axis(x, axis)
    if at.rank != x.rank:
        raise ShapeError(f"take_along_axis needs as many axes on both sides, got {x.type} and {at.type}")
    lead = build.broadcast_shapes(*((*v.shape[:axis], 1, *v.shape[axis + 1 :]) for v in (x, at)))
    def with_axis(v):
        return build.broadcast_to(v, (*lead[:axis], v.shape[axis], *lead[axis + 1 :]))
    return build.gather_along(with_axis(x), with_axis(wrapped(at, x.shape[axis])), axis)


@op
def get_item(x, key):
    """x[key]."""
    return getitem(node_of(x), key)


@numbers("shape")
@op
def slice(inputs, start_indices, shape):
    """The part of `inputs` of the given `shape` that begins at `start_indices` (numbers or a tensor of integers).

    A begin that leaves too little behind it is moved back.
    """
    x = node_of(inputs)
    size = as_shape(shape)
    starts = _starts(x, start_indices)
    for axis, (start, n) in enumerate(zip(starts, size, strict=True)):
        if not isinstance(start, Node):
            x = cut(x, axis, start, n)
        else:
            place = build.add(build.iota((n,), 0, "int64"), _kept_inside(start, x.shape[axis] - n))
            x = build.gather(x, place, axis)
    return x


def _starts(x: Node, given: Any) -> list[Any]:
    """Where each axis begins: a size, or a scalar node if only the run knows."""
    if isinstance(given, Node):
        parts: list[Any] = [build.reshape(cut(given, 0, k, 1), ()) for k in builtins.range(x.rank)]
    else:
        parts = list(given) if isinstance(given, (list, tuple)) else [given]
    if len(parts) != x.rank:
        raise ShapeError(f"a slice of {x.type} needs one begin per axis, got {len(parts)}")
    found: list[Any] = []
    for p in parts:
        try:
            found.append(as_size(p))
        except ShapeError:
            found.append(node_of(p))
    return found


def _kept_inside(start: Node, last: Dim) -> Node:
    wide = build.cast(start, "int64")
    return build.maximum(build.minimum(wide, build.size(last, "int64")), 0)


@numbers("shape")
@op
def unravel_index(indices, shape):
    """Positions in a flattened array of `shape` as one tensor of positions per axis."""
    at = node_of(indices)
    sizes = as_shape(shape)
    at = wrapped(at, build.product(sizes))
    found = []
    for d in reversed(sizes):
        n = build.size(d, at.dtype)
        found.append(build.mod(at, n))
        at = build.floor_divide(at, n)
    return tuple(reversed(found))


# ---- writing


@op
def slice_update(inputs, start_indices, updates):
    """`inputs` with the part that begins at `start_indices` replaced by `updates`."""
    x, new = node_of(inputs), node_of(updates)
    new = build.cast(new, x.dtype)
    starts = _starts(x, start_indices)
    if new.rank != x.rank:
        raise ShapeError(f"slice_update of {x.type} needs updates with as many axes, got {new.type}")
    inside: Node | None = None
    value = new
    for axis, (start, n) in enumerate(zip(starts, new.shape, strict=True)):
        extent = x.shape[axis]
        if n == extent:
            continue
        begin = _kept_inside(start, extent - n) if isinstance(start, Node) else build.size(start, "int64")
        local = build.subtract(build.iota((extent,), 0, "int64"), begin)
        value = build.gather(value, local, axis)  # positions outside are kept within the axis and not used
        hit = build.logical_and(build.greater_equal(local, 0), build.less(local, build.size(n, "int64")))
        hit = build.broadcast(hit, x.shape, [axis])
        inside = hit if inside is None else build.logical_and(inside, hit)
    return value if inside is None else build.where(inside, value, x)


def _linear(indices: Node, sizes: tuple[Dim, ...]) -> Node:
    """The row-major position of each row of `indices`: int[n, len(sizes)] -> int64[n]."""
    last = indices.rank - 1
    total: Any = 0
    for k, d in enumerate(sizes):
        at = build.cast(wrapped(cut(indices, last, k, 1, drop=True), d), "int64")
        total = at if k == 0 else build.add(build.multiply(total, build.size(d, "int64")), at)
    return total


def _index_rows(indices: Any) -> tuple[Node, int]:
    at = node_of(indices)
    if at.rank < 1 or not isinstance(at.shape[-1], int):
        raise ShapeError(f"indices must be int[..., number of axes], got {at.type}")
    return at, at.shape[-1]


@numbers("shape")
@op
def scatter(indices, values, shape):
    """Zeros of `shape` with `values` added at `indices`.

    indices: int[..., k], positions in the first k axes   values: [..., rest of shape]
    """
    at, depth = _index_rows(indices)
    v, sizes = node_of(values), as_shape(shape)
    place = _linear(at, sizes[:depth])
    flat = build.scatter_add(place, v, build.product(sizes[:depth]), 0)
    return build.reshape(flat, sizes)


@op
def scatter_update(inputs, indices, updates, reduction=None):
    """`inputs` with the elements at `indices` replaced by (or, by `reduction`, combined with) `updates`.

    indices: int[..., k], positions in the first k axes   updates: [..., rest of shape]
    reduction   None (of equal positions the last one stays), 'add', 'mul', 'max', 'min'
    """
    x, (at, depth) = node_of(inputs), _index_rows(indices)
    one_of("reduction of scatter_update", reduction, (None, "add", "mul", "max", "min"))
    lead, rest = x.shape[:depth], x.shape[depth:]
    n = build.product(lead)
    new = build.cast(node_of(updates), x.dtype)
    place = _linear(at, lead)
    place = build.reshape(place, (build.product(place.shape),))
    new = build.broadcast_to(new, (*at.shape[:-1], *rest))
    new = build.reshape(new, (place.shape[0], *rest))
    flat = build.reshape(x, (n, *rest))
    if reduction == "add":
        return build.reshape(build.add(flat, build.scatter_add(place, new, n, 0)), x.shape)
    if reduction is not None:
        kind = {"mul": "prod"}.get(reduction, reduction)
        combined = _segments(new, place, n, kind)
        combine = {"mul": build.multiply, "max": build.maximum, "min": build.minimum}[reduction]
        return build.reshape(combine(flat, combined), x.shape)
    # of equal positions the last one: the first from behind. Those outside are equal to none inside
    first = FirstEqual(n + 2)(build.flip(build.add(place, 1), [0]))
    last = build.flip(build.apply("equal", first, build.iota(first.shape, 0)), [0])
    return build.reshape(WriteRows()(flat, build.where(last, place, build.constant(-1, "int64")), new), x.shape)


# ---- groups


def _segments(data: Node, ids: Node, count: Dim, kind: str) -> Node:
    """A reduction of the rows of `data` that share an id, by comparing every id with every group."""
    n = data.shape[0]
    ids = build.equate(ids, (n,))
    member = build.equal(
        build.broadcast(build.cast(ids, "int64"), (count, n), [1]), build.iota((count, n), 0, "int64")
    )
    wide = (count, *data.shape)
    row = dtypes.named(data.dtype)
    limits = np.iinfo(row.numpy) if row.kind != "f" else None
    low, high = (-math.inf, math.inf) if limits is None else (int(limits.min), int(limits.max))
    empty: Any = {"sum": 0, "prod": 1, "max": low, "min": high}[kind]
    masked = build.where(
        build.broadcast(member, wide, [0, 1]),
        build.broadcast(data, wide, range(1, len(wide))),
        build.constant(empty, data.dtype),
    )
    return build.reduce(kind, masked, [1])


def _segment_arguments(name: str, data: Any, ids: Any, num_segments: Any) -> tuple[Node, Node, Dim]:
    x, at = node_of(data), node_of(ids)
    if at.rank != 1 or not x.rank:
        raise ShapeError(f"{name} needs ids int[n] for the rows of data [n, ...], got {at.type} and {x.type}")
    if num_segments is None:
        raise ArgumentError(f"{name} needs num_segments: the number of groups must be known before the function runs")
    return x, at, as_size(num_segments)


@numbers("num_segments")
@op
def segment_sum(data, segment_ids, num_segments=None, sorted=False):
    """The sums of the rows of `data` that share an id; ids outside 0 … num_segments - 1 are left out.

    data: [n, ...]   segment_ids: int[n]   result: [num_segments, ...]
    """
    x, at, count = _segment_arguments("segment_sum", data, segment_ids, num_segments)
    inside = build.logical_and(build.greater_equal(at, 0), build.less(at, build.size(count, at.dtype)))
    kept = build.where(build.broadcast(build.equate(inside, x.shape[:1]), x.shape, [0]), x, build.constant(0, x.dtype))
    return build.scatter_add(build.equate(at, x.shape[:1]), kept, count, 0)


@numbers("num_segments")
@op
def segment_max(data, segment_ids, num_segments=None, sorted=False):
    """The largest of the rows of `data` that share an id; the lowest value where there are none."""
    return _segments(*_segment_arguments("segment_max", data, segment_ids, num_segments), "max")


@numbers("num_segments")
@op
def segment_min(data, segment_ids, num_segments=None, sorted=False):
    """The smallest of the rows of `data` that share an id; the highest value where there are none."""
    return _segments(*_segment_arguments("segment_min", data, segment_ids, num_segments), "min")


@numbers("num_segments")
@op
def segment_prod(data, segment_ids, num_segments=None, sorted=False):
    """The product of the rows of `data` that share an id; 1 where there are none."""
    return _segments(*_segment_arguments("segment_prod", data, segment_ids, num_segments), "prod")


@numbers("minlength")
@op
def bincount(x, weights=None, minlength=0, sparse=False):
    """How often each of 0 … minlength - 1 is in x (along its last axis), or the sum of their `weights`.

    `minlength` must be given, for sizes are known before the function runs; larger numbers are left out.
    """
    at = node_of(x)
    count = as_size(minlength)
    if isinstance(count, int) and count <= 0:
        raise ArgumentError("bincount needs minlength: the number of counts must be known before the function runs")
    w = build.full(at.shape, 1, "int32") if weights is None else build.broadcast_to(node_of(weights), at.shape)
    wide = (*at.shape, count)
    place = build.cast(at, "int64")
    hit = build.equal(build.broadcast(place, wide, range(at.rank)), build.iota(wide, at.rank, "int64"))
    spread = build.where(hit, build.broadcast(w, wide, range(at.rank)), build.constant(0, w.dtype))
    return build.sum(spread, at.rank - 1)


@op
def histogram(x, bins=10, range=None):
    """How many elements of x fall in each of `bins` equal parts of `range` (default: from the least to the largest).

    result: (counts int32[bins], edges [bins + 1])
    """
    x = floating(node_of(x))
    x = build.reshape(x, (build.product(x.shape),))
    low = build.min(x) if range is None else build.constant(range[0], x.dtype)
    high = build.max(x) if range is None else build.constant(range[1], x.dtype)
    flat = build.equal(low, high)
    low, high = build.where(flat, build.subtract(low, 0.5), low), build.where(flat, build.add(high, 0.5), high)
    step = build.divide(build.subtract(high, low), float(bins))
    turn = build.iota((bins + 1,), 0, x.dtype)
    edges = build.where(build.equal(turn, float(bins)), high, build.add(low, build.multiply(turn, step)))
    wide = (x.shape[0], bins)
    value = build.broadcast(x, wide, [0])
    lower, upper = (build.broadcast(cut(edges, 0, k, bins), wide, [1]) for k in (0, 1))
    last = build.equal(build.iota(wide, 1), bins - 1)
    below = build.logical_or(build.less(value, upper), build.logical_and(last, build.less_equal(value, upper)))
    inside = build.logical_and(build.greater_equal(value, lower), below)
    return build.sum(build.cast(inside, "int32"), 0), edges


# ---- one hot


@numbers("num_classes")
@op
def one_hot(x, num_classes, axis=-1, dtype=None, sparse=False):
    """1 at the position x names along a new `axis` of `num_classes`, 0 elsewhere; all 0 where x is out of range."""
    return hot(node_of(x), as_size(num_classes), axis, _float(dtype))


def _float(dtype: Any) -> str:
    from gnomon.config import floatx

    return as_dtype(dtype, floatx())


def hot(at: Node, classes: Dim, axis: int, dtype: str) -> Node:
    """one_hot of a node."""
    place = as_axis(at, axis, 1)
    shape = (*at.shape[:place], classes, *at.shape[place:])
    at = at if dtypes.is_integer(at.dtype) else build.cast(at, "int32")
    spread = build.broadcast(at, shape, [k for k in range(len(shape)) if k != place])
    return build.cast(build.equal(spread, build.iota(shape, place, at.dtype)), dtype)


@numbers("num_classes")
@op
def multi_hot(inputs, num_classes=None, axis=-1, dtype=None, sparse=False, **kwargs):
    """1 at every position that is in the rows of `inputs`, 0 elsewhere.

    inputs: int[..., n]   result: [..., num_classes]
    """
    num_classes = kwargs.get("num_tokens", num_classes)
    at = node_of(inputs)
    if at.rank == 1:
        return build.max(hot(at, as_size(num_classes), -1, _float(dtype)), 0)
    return build.max(hot(at, as_size(num_classes), axis, _float(dtype)), at.rank - 1 if axis in (-1, at.rank) else 1)


@op
def in_top_k(targets, predictions, k):
    """Whether the prediction of the target class is among the k largest: fewer than k are strictly larger.

    targets: int[n]   predictions: float[n, classes]   result: bool[n]
    """
    at, x = node_of(targets), node_of(predictions)
    if x.rank != at.rank + 1:
        raise ShapeError(f"in_top_k needs targets int[...] and predictions [..., classes], got {at.type} and {x.type}")
    last = x.rank - 1
    own = build.gather_along(x, build.reshape(at, (*at.shape, 1)), last)
    larger = build.greater(x, build.broadcast_to(own, x.shape))
    few = build.less(build.sum(build.cast(larger, "int32"), last), operand(k))
    n = build.size(x.shape[last], at.dtype)
    inside = build.logical_and(build.greater_equal(at, 0), build.less(at, n))
    known = build.isfinite(build.reshape(own, at.shape))
    return build.logical_and(build.logical_and(few, inside), known)
