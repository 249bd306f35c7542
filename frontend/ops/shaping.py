"""Functions that move elements: reshape, join, cut, repeat, turn, pad."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.sizes import Dim, floordiv
from gnomon.ops.arguments import as_axes, as_axis, as_shape, as_size, numbers, one_of
from gnomon.tensor import node_of, op, reshape_to


def reshaped(x: Node, shape: Any) -> Node:
    """NumPy's reshape with sizes as users write them: one may be -1 (or None)."""
    given = shape if isinstance(shape, (list, tuple)) else (shape,)
    return reshape_to(x, [None if d is None else as_size(d) for d in given])


@numbers("newshape")
@op
def reshape(x, newshape):
    """The same elements in row-major order under another shape; one size may be -1."""
    return reshaped(node_of(x), newshape)


@op
def ravel(x):
    """All elements along one axis."""
    x = node_of(x)
    return build.reshape(x, (build.product(x.shape),))


@numbers("axes")
@op
def transpose(x, axes=None):
    """Axis k of the result is axis `axes[k]` of x; all axes reversed if None."""
    x = node_of(x)
    if axes is None:
        return build.transpose(x, range(x.rank)[::-1])
    order = as_axes(x, tuple(axes))
    if sorted(order) != list(range(x.rank)):
        raise ShapeError(f"transpose of {x.type} needs each of its axes once, got {tuple(axes)}")
    return build.transpose(x, order)


@numbers("axis")
@op
def squeeze(x, axis=None):
    """x without axes of size 1: all of them, or those in `axis`."""
    x = node_of(x)
    if axis is None:
        return build.reshape(x, [d for d in x.shape if d != 1])
    axes = as_axes(x, axis)
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(f"cannot squeeze axis {a} of {x.type}: its size is {x.shape[a]}, not 1")
    return build.reshape(x, [d for k, d in enumerate(x.shape) if k not in axes])


@numbers("axis")
@op
def expand_dims(x, axis):
    """x with axes of size 1 inserted at the positions `axis` of the result."""
    return expanded(node_of(x), axis)


def expanded(x: Node, axis: Any) -> Node:
    given = axis if isinstance(axis, (list, tuple)) else (axis,)
    places = {as_axis(x, a, len(given)) for a in given}
    rest = iter(x.shape)
    return build.reshape(x, [1 if k in places else next(rest) for k in range(x.rank + len(given))])


@op
def moveaxis(x, source, destination):
    """x with the axes `source` at the places `destination`, the others in their order."""
    return moved(node_of(x), source, destination)


def moved(x: Node, source: Any, destination: Any) -> Node:
    from_, to = as_axes(x, source), as_axes(x, destination)
    if len(from_) != len(to):
        raise ShapeError(f"moveaxis needs as many destinations as sources, got {source} and {destination}")
    order = [k for k in range(x.rank) if k not in from_]
    for place, a in sorted(zip(to, from_, strict=True)):
        order.insert(place, a)
    return build.transpose(x, order)


@op
def swapaxes(x, axis1, axis2):
    """x with two axes exchanged."""
    x = node_of(x)
    a, b = as_axis(x, axis1), as_axis(x, axis2)
    order = list(range(x.rank))
    order[a], order[b] = b, a
    return build.transpose(x, order)


@numbers("shape")
@op
def broadcast_to(x, shape):
    """x repeated to `shape`, as NumPy aligns: at the right, axes of size 1 repeat."""
    return build.broadcast_to(node_of(x), as_shape(shape))


@op
def rot90(array, k=1, axes=(0, 1)):
    """x turned by k quarter turns, from the first of `axes` towards the second."""
    x = node_of(array)
    a, b = as_axes(x, tuple(axes))
    if a == b:
        raise ShapeError(f"rot90 needs two different axes of {x.type}, got {axes}")
    order = list(range(x.rank))
    order[a], order[b] = b, a
    match k % 4:
        case 1:
            return build.transpose(build.flip(x, [b]), order)
        case 2:
            return build.flip(x, [a, b])
        case 3:
            return build.flip(build.transpose(x, order), [b])
    return x


@op
def flip(x, axis=None):
    """x with the order of elements along `axis` (None: all) reversed."""
    x = node_of(x)
    return build.flip(x, as_axes(x, axis))


@op
def fliplr(x):
    """x with its second axis reversed."""
    x = node_of(x)
    return build.flip(x, [as_axis(x, 1)])


@op
def flipud(x):
    """x with its first axis reversed."""
    x = node_of(x)
    return build.flip(x, [as_axis(x, 0)])


# ---- joining and cutting


def joined(xs: Any, axis: int) -> Node:
    """Tensors one behind the other along `axis`, promoted to one dtype."""
    parts = [node_of(x) for x in xs]
    if not parts:
        raise ArgumentError("there is nothing to concatenate: the list is empty")
    dtype = build.promote(*parts)
    parts = [build.cast(p, dtype) for p in parts]
    return build.concat(parts, as_axis(parts[0], axis))


def _sequence(xs: Any) -> list[Any]:
    """The tensors of a list, or the rows of one tensor."""
    if isinstance(xs, (list, tuple)):
        return list(xs)
    x = node_of(xs)
    if not x.rank or not isinstance(x.shape[0], int):
        raise ShapeError(f"a list of tensors is needed, or a tensor whose first size is known, got {x.type}")
    return [cut(x, 0, k, 1, drop=True) for k in range(x.shape[0])]


@op
def concatenate(xs, axis=0):
    """Tensors one behind the other along `axis`; the other sizes must agree."""
    return joined(_sequence(xs), axis)


@op
def append(x1, x2, axis=None):
    """x2 behind x1 along `axis`, both flattened if it is None."""
    parts = [node_of(x1), node_of(x2)]
    if axis is None:
        return joined([build.reshape(p, (build.product(p.shape),)) for p in parts], 0)
    return joined(parts, axis)


@op
def stack(x, axis=0):
    """Tensors of one shape along a new `axis`."""
    parts = _sequence(x)
    return joined([expanded(node_of(p), axis) for p in parts], axis)


@op
def hstack(xs):
    """Tensors side by side: along the second axis, vectors along their only one."""
    parts = [node_of(x) for x in _sequence(xs)]
    parts = [p if p.rank else build.reshape(p, (1,)) for p in parts]
    return joined(parts, 0 if parts[0].rank == 1 else 1)


@op
def vstack(xs):
    """Tensors one below the other: along the first axis; vectors are rows."""
    parts = [node_of(x) for x in _sequence(xs)]
    return joined([p if p.rank > 1 else build.reshape(p, (1, build.product(p.shape))) for p in parts], 0)


@op
def dstack(xs):
    """Tensors one behind the other along the third axis."""

    def deep(p: Node) -> Node:
        if p.rank < 2:
            return build.reshape(p, (1, build.product(p.shape), 1))
        return p if p.rank > 2 else build.reshape(p, (*p.shape, 1))

    return joined([deep(node_of(x)) for x in _sequence(xs)], 2)


def cut(x: Node, axis: int, start: Dim, size: Dim, drop: bool = False) -> Node:
    """`size` elements of one axis from `start` on; with `drop` (and size 1) the axis vanishes."""
    begin: list[Dim] = [0] * x.rank
    begin[axis] = start
    shape = list(x.shape)
    shape[axis] = size
    part = build.slice(x, begin, shape)
    return build.reshape(part, [d for k, d in enumerate(x.shape) if k != axis]) if drop else part


def _split(x: Node, where: Any, axis: int, even: bool) -> list[Node]:
    axis = as_axis(x, axis)
    extent = x.shape[axis]
    if isinstance(where, (int, np.integer)):
        parts = int(where)
        if isinstance(extent, int) and not even:
            sizes: list[Dim] = [extent // parts + (k < extent % parts) for k in range(parts)]
        else:
            each = floordiv(extent, parts)
            if each * parts != extent:
                raise ShapeError(f"cannot split axis {axis} of {x.type} in {parts} equal parts: its size is {extent}")
            sizes = [each] * parts
        ends: list[Dim] = [0]
        for s in sizes:
            ends.append(ends[-1] + s)
    else:
        ends = [0]
        for p in [*(as_size(p) for p in where), extent]:
            p = extent + p if isinstance(p, int) and p < 0 else p
            if isinstance(p, int) and isinstance(extent, int):
                p = builtins.min(p, extent)
            last = ends[-1]
            ends.append(builtins.max(p, last) if isinstance(p, int) and isinstance(last, int) else p)
    return [cut(x, axis, a, b - a) for a, b in zip(ends, ends[1:], strict=False)]


@numbers("indices_or_sections")
@op
def split(x, indices_or_sections, axis=0):
    """x cut along `axis`: in that many equal parts, or before those positions."""
    return _split(node_of(x), indices_or_sections, axis, True)


@numbers("indices_or_sections")
@op
def array_split(x, indices_or_sections, axis=0):
    """x cut along `axis` in parts of which the first are longer by one where they cannot be equal."""
    return _split(node_of(x), indices_or_sections, axis, False)


@numbers("indices_or_sections")
@op
def hsplit(x, indices_or_sections):
    """x cut along the second axis, a vector along its only one."""
    x = node_of(x)
    return _split(x, indices_or_sections, 0 if x.rank == 1 else 1, True)


@numbers("indices_or_sections")
@op
def vsplit(x, indices_or_sections):
    """x cut along the first axis."""
    return _split(node_of(x), indices_or_sections, 0, True)


@numbers("indices_or_sections")
@op
def dsplit(x, indices_or_sections):
    """x cut along the third axis."""
    return _split(node_of(x), indices_or_sections, 2, True)


@op
def unstack(x, num=None, axis=0):
    """The slices of x along `axis`, without that axis; `num` of them, needed only where the size is not known."""
    x = node_of(x)
    axis = as_axis(x, axis)
    extent = x.shape[axis] if num is None else num
    if not isinstance(extent, int):
        raise ShapeError(f"unstack needs to know how many slices axis {axis} of {x.type} has: pass num")
    if isinstance(x.shape[axis], int) and x.shape[axis] != extent:
        raise ShapeError(f"axis {axis} of {x.type} has {x.shape[axis]} slices, num is {extent}")
    return [cut(x, axis, k, 1, drop=True) for k in range(extent)]


# ---- repeating, turning, padding


@numbers("repeats")
@op
def tile(x, repeats):
    """x repeated as a whole, `repeats` times along each axis."""
    x = node_of(x)
    times = as_shape(repeats)
    rank = max(x.rank, len(times))
    times = (1,) * (rank - len(times)) + times
    shape = (1,) * (rank - x.rank) + x.shape
    wide = [d for pair in zip(times, shape, strict=True) for d in pair]
    spread = build.broadcast(build.reshape(x, shape), wide, range(1, 2 * rank, 2))
    return build.reshape(spread, [t * d for t, d in zip(times, shape, strict=True)])


@numbers("repeats")
@op
def repeat(x, repeats, axis=None):
    """Each element of `axis` repeated `repeats` times (or each its own number of times, known beforehand).

    Without an axis x is flattened first.
    """
    x = node_of(x)
    if axis is None:
        x, axis = build.reshape(x, (build.product(x.shape),)), 0
    axis = as_axis(x, axis)
    if isinstance(repeats, (list, tuple)) and len(repeats) == 1:
        repeats = repeats[0]
    if isinstance(repeats, (list, tuple)):
        if x.shape[axis] != len(repeats):
            raise ShapeError(f"repeat needs one number per element of axis {axis} of {x.type}, got {len(repeats)}")
        place = np.repeat(np.arange(len(repeats)), [int(r) for r in repeats])
        return build.gather(x, build.constant(place, "int32"), axis)
    times = as_size(repeats)
    wide = (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
    spread = build.broadcast(x, wide, [k for k in range(x.rank + 1) if k != axis + 1])
    return build.reshape(spread, [d * times if k == axis else d for k, d in enumerate(x.shape)])


@numbers("shift")
@op
def roll(x, shift, axis=None):
    """x with its elements moved `shift` places along `axis`, those that leave entering at the other end."""
    x = node_of(x)
    if axis is None:
        flat = _roll(build.reshape(x, (build.product(x.shape),)), as_size(shift), 0)
        return build.reshape(flat, x.shape)
    axes = as_axes(x, axis)
    shifts = shift if isinstance(shift, (list, tuple)) else [shift] * len(axes)
    for s, a in zip(shifts, axes, strict=True):
        x = _roll(x, as_size(s), a)
    return x


def _roll(x: Node, shift: Dim, axis: int) -> Node:
    extent = x.shape[axis]
    if extent == 0:
        return x
    first = shift % extent if isinstance(extent, int) else shift
    if isinstance(extent, int) or shift == 0:
        if first == 0:
            return x
        return build.concat([cut(x, axis, extent - first, first), cut(x, axis, 0, extent - first)], axis)
    # how often the shift goes round is not known: wrap each position
    place = build.iota((extent,), 0, "int64")
    place = build.mod(build.subtract(place, build.size(shift, "int64")), build.size(extent, "int64"))
    return build.gather(x, place, axis)


@numbers("pad_width")
@op
def pad(x, pad_width, mode="constant", constant_values=None):
    """x with `pad_width` elements added before and behind each axis.

    pad_width   one number, a pair (before, behind) for all axes, or one pair per axis
    mode        'constant' (`constant_values`, 0 by default), 'edge', 'reflect', 'symmetric', 'wrap'
    """
    x = node_of(x)
    one_of("mode of pad", mode, ("constant", "edge", "reflect", "symmetric", "wrap"))
    widths = _widths(x, pad_width)
    if mode == "constant":
        value = 0 if constant_values is None else constant_values
        low, high = zip(*widths, strict=True) if widths else ((), ())
        return build.pad(x, low, high, value=value)
    if constant_values is not None:
        raise ArgumentError(f"constant_values is for mode='constant', not for {mode!r}")
    for axis, (before, behind) in enumerate(widths):
        if (before, behind) != (0, 0):
            x = build.gather(x, _border(x.shape[axis], before, behind, mode), axis)
    return x


def _widths(x: Node, pad_width: Any) -> list[tuple[Dim, Dim]]:
    if not isinstance(pad_width, (list, tuple)):
        pad_width = (pad_width, pad_width)
    if not any(isinstance(p, (list, tuple)) for p in pad_width):
        pair = tuple(as_size(p) for p in pad_width)
        return [(pair[0], pair[-1])] * x.rank
    pairs = [tuple(as_size(p) for p in pair) for pair in pad_width]
    if len(pairs) == 1:
        pairs = pairs * x.rank
    if len(pairs) != x.rank:
        raise ShapeError(f"pad of {x.type} needs one pair of widths per axis, got {len(pairs)}")
    return [(p[0], p[-1]) for p in pairs]


def _border(extent: Dim, low: Dim, high: Dim, mode: str) -> Node:
    """Where each element of a padded axis is read from."""
    n = build.size(extent, "int64")
    place = build.subtract(build.iota((low + extent + high,), 0, "int64"), build.size(low, "int64"))
    if mode == "edge":
        return place  # a gather keeps positions within the axis
    if mode == "wrap":
        return build.mod(place, n)
    if mode == "symmetric":  # period 2n: up, then down with both ends twice
        turned = build.mod(place, build.multiply(n, 2))
        return build.minimum(turned, build.subtract(build.subtract(build.multiply(n, 2), 1), turned))
    period = build.maximum(build.multiply(build.subtract(n, 1), 2), 1)  # reflect: the ends once
    turned = build.mod(place, period)
    return build.minimum(turned, build.subtract(period, turned))


# ---- diagonals


@op
def diagonal(x, offset=0, axis1=0, axis2=1):
    """The elements where axis2's position is axis1's plus `offset`, along a new last axis."""
    return _diagonal(node_of(x), offset, axis1, axis2)


def _diagonal(x: Node, offset: int, axis1: int, axis2: int) -> Node:
    if x.rank < 2:
        raise ShapeError(f"a diagonal needs at least two axes, got {x.type}")
    x = moved(x, (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    down, right = builtins.max(-offset, 0), builtins.max(offset, 0)
    if not isinstance(rows, int) or not isinstance(columns, int):
        if rows - down == columns - right:
            count = rows - down
        else:
            from gnomon.compiler.sizes import maximum

            a, b = rows - down, columns - right
            count = a + b - maximum(a, b)
    else:
        count = builtins.max(builtins.min(rows - down, columns - right), 0)
    # row-major, one diagonal step is columns + 1 elements
    lead = x.shape[:-2]
    flat = build.reshape(x, (*lead, rows * columns))
    place = build.multiply(build.iota((count,), 0, "int64"), build.add(build.size(columns, "int64"), 1))
    first = build.size(down * columns + right, "int64")
    return build.gather(flat, build.add(place, first), len(lead))


@op
def trace(x, offset=0, axis1=0, axis2=1):
    """The sum of a diagonal."""
    found = _diagonal(node_of(x), offset, axis1, axis2)
    return build.sum(found, -1)


@op
def diag(x, k=0):
    """Diagonal `k` of a matrix, or the matrix whose diagonal `k` is a vector."""
    x = node_of(x)
    if x.rank == 2:
        return _diagonal(x, k, 0, 1)
    if x.rank != 1:
        raise ShapeError(f"diag is of a vector or a matrix, got {x.type}")
    return _diagonal_matrix(x, k)


@op
def diagflat(x, k=0):
    """The matrix whose diagonal `k` is x, flattened."""
    x = node_of(x)
    return _diagonal_matrix(build.reshape(x, (build.product(x.shape),)), k)


def _diagonal_matrix(x: Node, k: int) -> Node:
    from gnomon.ops.creation import band

    n = x.shape[0]
    down, right = builtins.max(-k, 0), builtins.max(k, 0)
    size = n + down + right
    column = build.pad(x, [down], [right])  # element i of row i
    hit = band(size, size, k, "equal")
    return build.where(hit, build.broadcast(column, (size, size), [0]), build.constant(0, x.dtype))
