"""Pooling: maxima and means of windows."""

from __future__ import annotations

from math import prod
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.sizes import Dim
from gnomon.ops.arguments import floating, numbers
from gnomon.ops.convolution import Windows, as_format, as_padding, per_axis, same_padding
from gnomon.tensor import node_of, op


def _windows(name: str, x: Node, pool_size: Any, strides: Any, padding: Any, data_format: Any) -> Windows:
    rank = x.rank - 2
    if not 1 <= rank <= 3:
        raise ShapeError(f"{name} needs 3 to 5 axes: batch, 1 to 3 spatial ones, channels; got {x.type}")
    sizes = per_axis("pool_size", pool_size, rank)
    strides = sizes if strides is None else per_axis("strides", strides, rank)
    axis = 1 if as_format(data_format) == "channels_last" else 2
    return Windows(axis, sizes, strides, (1,) * rank, as_padding(padding))


def _inner(slide: Windows) -> range:
    """The axes of the windows among those of the patches."""
    return range(slide.axis + len(slide.sizes), slide.axis + 2 * len(slide.sizes))


def _lowest(dtype: str) -> Any:
    row = dtypes.named(dtype)
    if row.kind == "f":
        return -float("inf")
    return False if row.kind == "b" else 0 if row.kind == "u" else -(1 << (row.bits - 1))


@numbers("pool_size", "strides")
@op
def max_pool(inputs, pool_size, strides=None, padding="valid", data_format=None):
    """The maximum of each window; `strides` are by default the windows' sizes.

    inputs: [batch, L1..Ld, channels], or [batch, channels, L1..Ld] with data_format "channels_first"
    result: as inputs, the spatial axes as for `conv`
    Of equal elements the first of a window, in row-major order, alone has a gradient.
    """
    x = node_of(inputs)
    slide = _windows("max_pool", x, pool_size, strides, padding, data_format)
    patches = slide.of(slide.padded(x, _lowest(x.dtype)))
    return build.reduce("any", patches, _inner(slide)) if x.dtype == "bool" else build.first_max(patches, _inner(slide))


@numbers("pool_size", "strides")
@op
def average_pool(inputs, pool_size, strides=None, padding="valid", data_format=None):
    """The mean of each window; `strides` are by default the windows' sizes. What padding "same" adds is not counted.

    inputs: [batch, L1..Ld, channels], or [batch, channels, L1..Ld] with data_format "channels_first"
    result: as inputs, the spatial axes as for `conv`; integers give floats
    """
    x = floating(node_of(inputs))
    slide = _windows("average_pool", x, pool_size, strides, padding, data_format)
    total = build.reduce("sum", slide.of(slide.padded(x)), _inner(slide))
    if slide.padding == "valid":
        return build.divide(total, float(prod(slide.sizes)))
    count: Node | None = None
    for k in range(len(slide.sizes)):
        along = build.reshape(
            _counted(slide, k, x.shape[slide.axis + k], total.shape[slide.axis + k]),
            [d if a == slide.axis + k else 1 for a, d in enumerate(total.shape)],
        )
        count = along if count is None else build.multiply(count, along)
    return build.divide(total, build.cast(count, x.dtype))


def _counted(slide: Windows, k: int, extent: Dim, places: Dim) -> Node:
    """How many elements of axis k each window has that padding did not add: int32[places]."""
    before, _ = same_padding(extent, slide.sizes[k], slide.strides[k], 1)
    first = build.subtract(build.multiply(build.iota((places,)), slide.strides[k]), build.size(before, "int32"))
    end = build.minimum(build.add(first, slide.sizes[k]), build.size(extent, "int32"))
    return build.subtract(end, build.maximum(first, 0))


# ---- a given number of windows


def _bins(extent: Dim, count: int) -> tuple[Node, Node]:
    """Where each of `count` windows that cover an axis begins and ends: int32[count]."""
    at, n = build.iota((count,)), build.size(extent, "int32")
    begin = build.floor_divide(build.multiply(at, n), count)
    end = build.floor_divide(build.add(build.multiply(build.add(at, 1), n), count - 1), count)
    return begin, end


def _inside(extent: Dim, count: int) -> tuple[Node, Node]:
    """Whether window i has element l, and how many it has: bool[count, extent], int32[count]."""
    begin, end = _bins(extent, count)
    shape = (count, extent)
    place = build.iota(shape, 1)
    inside = build.logical_and(
        build.greater_equal(place, build.broadcast(begin, shape, [0])),
        build.less(place, build.broadcast(end, shape, [0])),
    )
    return inside, build.subtract(end, begin)


def _adaptive(name: str, inputs: Any, output_size: Any, data_format: Any) -> tuple[Node, tuple[int, ...], int]:
    x = node_of(inputs)
    if not 3 <= x.rank <= 5:
        raise ShapeError(f"{name} needs 3 to 5 axes: batch, 1 to 3 spatial ones, channels; got {x.type}")
    return x, per_axis("output_size", output_size, x.rank - 2), 1 if as_format(data_format) == "channels_last" else 2


def _even(x: Node, axis: int, counts: tuple[int, ...]) -> Windows | None:
    """The windows, if they share all axes evenly."""
    extents = x.shape[axis : axis + len(counts)]
    sizes = tuple(d // n for d, n in zip(extents, counts, strict=True) if isinstance(d, int) and d and d % n == 0)
    if len(sizes) < len(counts):
        return None
    return Windows(axis, sizes, sizes, (1,) * len(sizes), "valid")


@numbers("output_size")
@op
def adaptive_average_pool(inputs, output_size, data_format=None):
    """The means of `output_size` windows that cover the spatial axes.

    inputs: [batch, L1..Ld, channels], or [batch, channels, L1..Ld] with data_format "channels_first"
    result: as inputs, the spatial axes of `output_size`; window i of n has the elements from floor(i * L / n) on and
    before ceil((i + 1) * L / n)
    """
    x, counts, axis = _adaptive("adaptive_average_pool", inputs, output_size, data_format)
    x = floating(x)
    slide = _even(x, axis, counts)
    if slide is not None:
        return build.divide(build.reduce("sum", slide.of(x), _inner(slide)), float(prod(slide.sizes)))
    for k, count in enumerate(counts, axis):
        inside, size = _inside(x.shape[k], count)
        share = build.divide(build.constant(1.0, x.dtype), build.cast(size, x.dtype))
        weights = build.where(inside, build.broadcast(share, inside.shape, [0]), 0.0)
        axes = list(range(x.rank))
        x = build.contract(x, weights, axes, [x.rank, k], [x.rank if a == k else a for a in axes])
    return x


@numbers("output_size")
@op
def adaptive_max_pool(inputs, output_size, data_format=None):
    """The maxima of `output_size` windows that cover the spatial axes.

    inputs: [batch, L1..Ld, channels], or [batch, channels, L1..Ld] with data_format "channels_first"
    result: as inputs, the spatial axes of `output_size`; window i of n has the elements from floor(i * L / n) on and
    before ceil((i + 1) * L / n)
    Of equal elements the first of a window, in row-major order, alone has a gradient.
    """
    x, counts, axis = _adaptive("adaptive_max_pool", inputs, output_size, data_format)
    slide = _even(x, axis, counts)
    if slide is not None:
        return build.first_max(slide.of(x), _inner(slide))
    for k in reversed(range(axis, axis + len(counts))):  # the last axis first: then the first of equals is row-major's
        count = counts[k - axis]
        inside, _ = _inside(x.shape[k], count)
        shape = (*x.shape[:k], count, *x.shape[k:])
        taken = build.where(
            build.broadcast(inside, shape, [k, k + 1]),
            build.broadcast(x, shape, [a for a in range(x.rank + 1) if a != k]),
            build.constant(_lowest(x.dtype), x.dtype),
        )
        x = build.first_max(taken, [k + 1])
    return x


__all__ = ["adaptive_average_pool", "adaptive_max_pool", "average_pool", "max_pool"]
