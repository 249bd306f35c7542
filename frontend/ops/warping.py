"""Images read at computed places: affine and perspective maps, displacements."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.sizes import Dim, product
from gnomon.ops.arguments import floating, numbers, one_of
from gnomon.ops.convolution import as_format
from gnomon.ops.resampling import FILTERS
from gnomon.tensor import node_of, op

ORDERS = {"nearest": 0, "bilinear": 1}
FILL_MODES = ("constant", "nearest", "wrap", "mirror", "reflect")

Corner = tuple[Node, Node | None, Node | None]
"""A neighbour of a place along an axis: where it is, its weight (None: 1), whether it is inside (None: surely)."""


# ---- reading between elements


def _back_inside(i: Node, extent: Dim, mode: str) -> Node:
    """Which element stands at the whole place i outside an axis."""
    n = build.size(extent, i.dtype)
    match mode:
        case "wrap":
            return build.mod(i, n)
        case "mirror":
            return _mirrored(i, build.subtract(n, 1))
        case "reflect":  # mirrored between elements: at half of every other place of an axis twice as long
            doubled = _mirrored(build.add(build.multiply(i, 2), 1), build.multiply(n, 2))
            return build.floor_divide(build.subtract(doubled, 1), 2)
    return i  # what is read is kept inside anyway


def _mirrored(i: Node, last: Node) -> Node:
    """0 1 2 … last … 2 1 0 1 2 …"""
    period = build.maximum(build.multiply(last, 2), 1)
    return build.abs(build.subtract(build.mod(build.add(i, last), period), last))


def read(
    elements: Node, extents: Sequence[Dim], places: Sequence[Node], order: int, mode: str, value: Any, start: Any = None
) -> Node:
    """Elements at places between them.

    elements  float[product of extents, *rest], laid out in row-major order, perhaps behind others: from `start` on
    places    float[*shape], one for each axis
    order     0: the nearest element, halves away from 0; 1: linear between neighbours
    mode      what is outside: 'constant' (`value`), 'nearest', 'wrap', 'mirror' (at the last), 'reflect' (behind it)
    result: float[*shape, *rest]
    """
    shape = places[0].shape
    corners: list[list[Corner]] = []
    for place, extent in zip(places, extents, strict=True):
        if order == 0:
            away = build.floor(build.add(build.abs(place), 0.5))
            found = [(build.where(build.less(place, 0.0), build.negative(away), away), None)]
        else:
            lower = build.floor(place)
            upper = build.subtract(place, lower)
            found = [(lower, build.subtract(1.0, upper)), (build.add(lower, 1.0), upper)]
        ends: list[Corner] = []
        for at, share in found:
            i = build.cast(at, "int64")
            inside = None
            if mode == "constant":
                n = build.size(extent, "int64")
                inside = build.logical_and(build.greater_equal(i, 0), build.less(i, n))
            i = _back_inside(i, extent, mode)
            i = build.maximum(build.minimum(i, build.size(extent - 1, "int64")), 0)
            ends.append((i, share, inside))
        corners.append(ends)
    result: Node | None = None
    for chosen in itertools.product(*corners):
        flat: Node | None = start
        weight: Node | None = None
        inside = None
        for k, (i, own, within) in enumerate(chosen):
            step = build.multiply(i, build.size(product(extents[k + 1 :]), "int64"))
            flat = step if flat is None else build.add(flat, step)
            weight = own if weight is None else build.multiply(weight, own)
            inside = within if inside is None else build.logical_and(inside, within)
        assert flat is not None
        term = build.gather(elements, flat, 0)
        axes = list(range(len(shape)))
        if inside is not None:
            term = build.where(build.broadcast(inside, term.shape, axes), term, build.constant(value, term.dtype))
        if weight is not None:
            term = build.multiply(term, build.broadcast(build.cast(weight, term.dtype), term.shape, axes))
        result = term if result is None else build.add(result, term)
    assert result is not None
    return result


def _rounded(x: Node, dtype: str) -> Node:
    """As the dtype of the images; halves away from 0."""
    if dtypes.is_float(dtype):
        return build.cast(x, dtype)
    away = build.floor(build.add(build.abs(x), 0.5))
    return build.cast(build.where(build.less(x, 0.0), build.negative(away), away), dtype)


def _widened(x: Node) -> Node:
    return x if x.dtype == "float64" else build.cast(x, "float32")


@op
def map_coordinates(inputs, coordinates, order, fill_mode="constant", fill_value=0):
    """`inputs` read at `coordinates`.

    inputs: [d1, ..., dn]   coordinates: float[n, ...]   result: [...], of the dtype of the inputs
    order      0: the nearest element, 1: linear between neighbours
    fill_mode  what is outside: 'constant' (`fill_value`), 'nearest' (d d | a b c d | a a), 'wrap', 'mirror'
               (c b | a b c d | c b), 'reflect' (b a | a b c d | d c)

    Raises ShapeError unless there is one coordinate for each axis, ArgumentError for an unknown order or mode.
    """
    x = node_of(inputs)
    places = build.concat([build.reshape(floating(c), (1, *c.shape)) for c in map(node_of, coordinates)], 0) \
        if isinstance(coordinates, (list, tuple)) else floating(node_of(coordinates))
    if places.rank < 2 or places.shape[0] != x.rank:
        raise ShapeError(
            f"map_coordinates of {x.type} needs coordinates of at least two axes, the first of {x.rank} elements, one "
            f"for each axis; got {places.type}"
        )
    one_of("fill_mode", fill_mode, FILL_MODES)
    one_of("order", order, (0, 1))
    each = [_part(places, 0, k) for k in range(x.rank)]
    flat = build.reshape(_widened(x), (product(x.shape),))
    return _rounded(read(flat, x.shape, each, order, fill_mode, fill_value), x.dtype)


def _part(x: Node, axis: int, k: int) -> Node:
    """Element k of an axis, which vanishes."""
    start = [k if a == axis else 0 for a in range(x.rank)]
    part = build.slice(x, start, [1 if a == axis else d for a, d in enumerate(x.shape)])
    return build.reshape(part, [d for a, d in enumerate(x.shape) if a != axis])


class _Batch:
    """Images as [batch, rows, columns, channels], whatever form they came in."""

    def __init__(self, images: Any, data_format: str | None, interpolation: str, fill_mode: str = "constant"):
        x = self.given = node_of(images)
        one_of("interpolation", interpolation, tuple(ORDERS))
        one_of("fill_mode", fill_mode, FILL_MODES)
        if x.rank not in (3, 4):
            raise ShapeError(
                f"Invalid images rank: expected rank 3 (single image) or rank 4 (batch of images), got {x.type}"
            )
        self.order, self.mode = ORDERS[interpolation], fill_mode
        self.last = as_format(data_format) == "channels_last"
        if x.rank == 3:
            x = build.reshape(x, (1, *x.shape))
        self.images = x if self.last else build.transpose(x, [0, 2, 3, 1])
        self.size, self.rows, self.columns, self.channels = self.images.shape
        self.dtype = "float64" if x.dtype == "float64" else "float32"

    def grid(self, axis: int) -> Node:
        """The row (axis 1) or column (axis 2) of each pixel, [batch, rows, columns]."""
        return build.iota((self.size, self.rows, self.columns), axis, self.dtype)

    def read(self, y: Node, x: Node, value: Any) -> Node:
        """The images at rows y and columns x, in the form they came in."""
        elements = _widened(build.reshape(self.images, (self.size * self.rows * self.columns, self.channels)))
        start = build.multiply(build.iota(y.shape, 0, "int64"), build.size(self.rows * self.columns, "int64"))
        found = read(elements, (self.rows, self.columns), (y, x), self.order, self.mode, value, start)
        found = _rounded(found, self.given.dtype)
        if not self.last:
            found = build.transpose(found, [0, 3, 1, 2])
        return build.reshape(found, self.given.shape)

    def each(self, values: Node, name: str) -> list[Node]:
        """The numbers of [batch, n], or of [1, n] for all images, each spread over the pixels."""
        shape = (self.size, self.rows, self.columns)
        if values.shape[0] == 1:
            return [build.broadcast(_part(build.reshape(values, values.shape[1:]), 0, k), shape, [])
                    for k in range(_known(values.shape[1]))]  # fmt: skip
        if isinstance(values.shape[0], int) and isinstance(self.size, int) and values.shape[0] != self.size:
            raise ShapeError(f"{name} must be one for all images or one for each of {self.size}, got {values.type}")
        values = build.equate(values, (self.size, values.shape[1]))
        return [build.broadcast(_part(values, 1, k), shape, [0]) for k in range(_known(values.shape[1]))]


def _known(d: Dim) -> int:
    assert isinstance(d, int)
    return d


def _affine(a: Node, b: Node, c: Node, x: Node, y: Node) -> Node:
    return build.add(build.add(build.multiply(a, x), build.multiply(b, y)), c)


@op
def affine_transform(
    images, transform, interpolation="bilinear", fill_mode="constant", fill_value=0, data_format=None
):
    """Images moved, turned, scaled, sheared: pixel (x, y) is read at (a0 x + a1 y + a2, b0 x + b1 y + b2).

    transform      [8] or [batch, 8]: a0, a1, a2, b0, b1, b2, and two numbers that count for nothing
    interpolation  'nearest' or 'bilinear'
    fill_mode      what is outside, as for `map_coordinates`

    x counts columns, y rows. Raises ShapeError and ArgumentError for what does not fit.
    """
    batch = _Batch(images, data_format, interpolation, fill_mode)
    t = build.cast(node_of(transform), batch.dtype)
    if t.rank not in (1, 2) or t.shape[-1] != 8:
        raise ShapeError(f"a transform is 8 numbers, or 8 for each image, got {t.type}")
    a0, a1, a2, b0, b1, b2, *_ = batch.each(build.reshape(t, (1, 8)) if t.rank == 1 else t, "transform")
    y, x = batch.grid(1), batch.grid(2)
    return batch.read(_affine(b0, b1, b2, x, y), _affine(a0, a1, a2, x, y), fill_value)


def _square_to(points: list[Node]) -> list[Node]:
    """The nine numbers of the projective map that takes the corners (0,0) (0,1) (1,0) (1,1) to `points` x0 y0 … y3.

    Heckbert 1989, "Fundamentals of texture mapping and image warping", section 2.2.3.
    """
    x0, y0, x1, y1, x2, y2, x3, y3 = points
    minus, times = build.subtract, build.multiply
    ux, uy, vx, vy = minus(x2, x3), minus(y2, y3), minus(x1, x3), minus(y1, y3)
    sx = build.add(minus(minus(x0, x2), x1), x3)
    sy = build.add(minus(minus(y0, y2), y1), y3)
    whole = minus(times(ux, vy), times(vx, uy))
    g = build.divide(minus(times(sx, vy), times(vx, sy)), whole)
    h = build.divide(minus(times(ux, sy), times(sx, uy)), whole)
    return [
        build.add(minus(x2, x0), times(g, x2)), build.add(minus(x1, x0), times(h, x1)), x0,
        build.add(minus(y2, y0), times(g, y2)), build.add(minus(y1, y0), times(h, y1)), y0,
        g, h, build.full_like(g, 1),
    ]  # fmt: skip


def _adjugate(m: list[Node]) -> list[Node]:
    def minor(i: int, j: int) -> Node:
        a, b, c, d = (m[3 * r + s] for r in range(3) if r != i for s in range(3) if s != j)
        found = build.subtract(build.multiply(a, d), build.multiply(b, c))
        return found if (i + j) % 2 == 0 else build.negative(found)

    return [minor(j, i) for i in range(3) for j in range(3)]


def _composed(m: list[Node], n: list[Node]) -> list[Node]:
    return [
        build.add(build.add(*(build.multiply(m[3 * i + k], n[3 * k + j]) for k in range(2))),
                  build.multiply(m[3 * i + 2], n[6 + j]))
        for i in range(3) for j in range(3)
    ]  # fmt: skip


@op
def perspective_transform(
    images, start_points, end_points, interpolation="bilinear", fill_value=0, data_format=None
):
    """Images drawn so that the four points `start_points` of them come to lie at `end_points`.

    start_points, end_points   [4, 2] or [batch, 4, 2], each point as (column, row); no three on a line

    Raises ShapeError and ArgumentError for what does not fit.
    """
    batch = _Batch(images, data_format, interpolation)
    corners = []
    for name, given in (("start_points", start_points), ("end_points", end_points)):
        points = node_of(given)
        if points.rank not in (2, 3) or points.shape[-2:] != (4, 2):
            raise ShapeError(
                f"Invalid {name} shape: expected [4, 2] for all images, or [batch, 4, 2], got {points.type}"
            )
        # in float64: a determinant of products of columns and rows is all that is left of large numbers
        flat = build.cast(build.reshape(points, (1 if points.rank == 2 else points.shape[0], 8)), "float64")
        corners.append(flat)
    if corners[0].shape != corners[1].shape:
        raise ShapeError(
            f"start_points and end_points must have the same shape, got {node_of(start_points).type} and "
            f"{node_of(end_points).type}"
        )
    start, end = ([_part(c, 1, k) for k in range(8)] for c in corners)
    back = _composed(_square_to(start), _adjugate(_square_to(end)))
    numbers_ = build.concat([build.reshape(build.divide(v, back[8]), (v.shape[0], 1)) for v in back], 1)
    a, b, c, d, e, f, g, h, i = batch.each(build.cast(numbers_, batch.dtype), "start_points")
    y, x = batch.grid(1), batch.grid(2)
    depth = _affine(g, h, i, x, y)
    rows, columns = build.divide(_affine(d, e, f, x, y), depth), build.divide(_affine(a, b, c, x, y), depth)
    return batch.read(rows, columns, fill_value)


@op
def displaced(images, dx, dy, interpolation, fill_mode, fill_value, data_format):
    """Images whose pixel (x, y) is read at (x + dx, y + dy).   dx, dy: float[batch, rows, columns]"""
    batch = _Batch(images, data_format, interpolation, fill_mode)
    y, x = (build.add(batch.grid(a), build.cast(d, batch.dtype)) for a, d in ((1, node_of(dy)), (2, node_of(dx))))
    return batch.read(y, x, fill_value)


def elastic_transform(
    images,
    alpha=20.0,
    sigma=5.0,
    interpolation="bilinear",
    fill_mode="reflect",
    fill_value=0.0,
    seed=None,
    data_format=None,
):
    """Images whose pixels are read at random places nearby: normal displacements times sigma, blurred, times alpha.

    sigma   the deviation of the blur too, of kernels of about 6 sigma pixels

    Simard, Steinkraus, Platt 2003, "Best practices for convolutional neural networks applied to visual document
    analysis", section 2. Rows and columns are displaced independently.
    """
    from gnomon import random
    from gnomon.ops.image import gaussian_blur

    x = images if hasattr(images, "shape") else node_of(images)
    sizes = node_of(x).shape
    if len(sizes) not in (3, 4):
        raise ShapeError(f"Invalid images rank: expected rank 3 or rank 4, got the shape {list(sizes)}")
    batch, sizes = (1 if len(sizes) == 3 else sizes[0]), sizes[-3:]
    rows, columns = sizes[:2] if as_format(data_format) == "channels_last" else sizes[1:]
    width = int(6 * sigma) | 1
    dx, dy = (
        gaussian_blur(
            random.normal((batch, rows, columns, 1), 0.0, sigma, seed=seed), (width, width), (sigma, sigma),
            "channels_last",
        )[..., 0] * alpha
        for _ in range(2)
    )  # fmt: skip
    return displaced(images, dx, dy, interpolation, fill_mode, fill_value, data_format)


@numbers("output_shape", "spatial_dims")
@op
def scale_and_translate(images, output_shape, scale, translation, spatial_dims, method, antialias=True):
    """Axes stretched by `scale` and moved by `translation`, in new elements, into an `output_shape`.

    scale, translation   float[number of spatial_dims]
    method      'linear' ('bilinear', 'trilinear'), 'cubic' ('bicubic', 'tricubic'), 'lanczos3', 'lanczos5'
    antialias   where axes shrink, widen the kernel so that each old element counts

    New elements whose place is outside are 0. Raises ArgumentError for another method, ShapeError for shapes that do
    not fit.
    """
    x = floating(node_of(images))
    names = {"linear": "bilinear", "trilinear": "bilinear", "cubic": "bicubic", "tricubic": "bicubic"}
    method = names.get(method, method)
    if method not in FILTERS:
        raise ArgumentError(f"method must be one of {', '.join([*names, *FILTERS])}, got {method!r}")
    chosen = FILTERS[method]
    factors, shifts = (build.cast(node_of(v), "float32") for v in (scale, translation))
    shape = list(output_shape)
    if len(shape) != x.rank or any(v.shape != (len(spatial_dims),) for v in (factors, shifts)):
        raise ShapeError(
            f"scale_and_translate of {x.type} needs an output_shape of {x.rank} sizes and a scale and a translation "
            f"for each of spatial_dims={spatial_dims}; got {shape}, {factors.type}, {shifts.type}"
        )
    for k, axis in enumerate(spatial_dims):
        axis = axis % x.rank
        old, new = x.shape[axis], shape[axis]
        step = build.divide(1.0, _part(factors, 0, k))
        middle = build.add(build.iota((new,), 0, "float32"), 0.5)
        place = build.subtract(build.multiply(build.subtract(middle, _part(shifts, 0, k)), step), 0.5)
        across = (old, new)
        apart = build.abs(build.subtract(build.broadcast(place, across, [1]), build.iota(across, 0, "float32")))
        if antialias:
            apart = build.divide(apart, build.maximum(step, 1.0))
        weights = chosen.weight(apart)
        total = build.sum(weights, 0)
        usual = build.greater(build.abs(total), 1000 * 2.0**-23)
        inside = build.logical_and(
            build.greater_equal(place, -0.5), build.less_equal(place, build.subtract(build.size(old, "float32"), 0.5))
        )
        factor = build.where(
            build.logical_and(usual, inside), build.divide(1.0, build.where(usual, total, 1.0)), 0.0
        )
        weights = build.cast(build.multiply(weights, build.broadcast(factor, across, [1])), x.dtype)
        kept = [a if a != axis else x.rank for a in range(x.rank)]
        x = build.contract(x, weights, range(x.rank), [axis, x.rank], kept)
    if list(x.shape) != shape:
        raise ShapeError(f"scale_and_translate: an output_shape of {shape} differs from {x.type} in other axes")
    return x
