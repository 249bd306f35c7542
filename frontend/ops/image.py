"""Functions of images: Keras's `keras.ops.image`.

Images are [rows, columns, channels], or [batch, rows, columns, channels]; with data_format "channels_first" the
channels are before the rows. None means `config.image_data_format()`. Sizes may be open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.shape import surely_differ
from gnomon.compiler.sizes import Dim, floordiv, maximum
from gnomon.ops.arguments import as_size, floating, numbers, one_of
from gnomon.ops.convolution import Windows, as_format, as_padding, per_axis
from gnomon.ops.resampling import FILTERS, resampled
from gnomon.ops.warping import (
    affine_transform,
    elastic_transform,
    map_coordinates,
    perspective_transform,
    scale_and_translate,
)
from gnomon.tensor import node_of, op, operand

INTERPOLATIONS = ("nearest", *FILTERS)


@dataclass(frozen=True)
class Layout:
    """Where the axes of images are."""

    rows: int
    columns: int
    channels: int

    @classmethod
    def of(cls, x: Node, data_format: str | None, channels: tuple[int, ...] = ()) -> Layout:
        """Raises ShapeError unless x is an image or a batch of them, with as many channels as allowed."""
        if x.rank not in (3, 4):
            raise ShapeError(
                f"Invalid images rank: expected rank 3 (single image) or rank 4 (batch of images), got {x.type}"
            )
        first = x.rank - 3
        last = as_format(data_format) == "channels_last"
        found = cls(first, first + 1, first + 2) if last else cls(first + 1, first + 2, first)
        if channels and all(surely_differ(x.shape[found.channels], n) for n in channels):
            raise ShapeError(
                f"expected images of {' or '.join(map(str, channels))} channels, got {x.type} with "
                f"{x.shape[found.channels]} in axis {found.channels}"
            )
        return found

    def planes(self, x: Node) -> list[Node]:
        """The three channels, each with an axis of 1."""
        shape = [1 if k == self.channels else d for k, d in enumerate(x.shape)]
        return [build.slice(x, [c if k == self.channels else 0 for k in range(x.rank)], shape) for c in range(3)]


# ---- colours


@op
def rgb_to_grayscale(images, data_format=None):
    """0.2989 red + 0.587 green + 0.114 blue, in one channel; images of one channel as they are.

    Raises ShapeError for another number of channels. ITU-R BT.601, section 2.5.1, rounded as Keras has it.
    """
    x = node_of(images)
    layout = Layout.of(x, data_format, (1, 3))
    if x.shape[layout.channels] == 1:
        return x
    red, green, blue = (build.cast(plane, floating(x).dtype) for plane in layout.planes(x))
    gray = build.add(build.add(build.multiply(red, 0.2989), build.multiply(green, 0.587)), build.multiply(blue, 0.114))
    return build.cast(gray, x.dtype)


def _colours(images: Any, data_format: str | None) -> tuple[Node, Layout]:
    x = node_of(images)
    layout = Layout.of(x, data_format, (3,))
    if not dtypes.is_float(x.dtype):
        raise DTypeError(f"Invalid images dtype: expected float dtype, got {x.type}: cast it, and divide by 255")
    return x, layout


@op
def rgb_to_hsv(images, data_format=None):
    """Hue, saturation and value of images whose values are in [0, 1]; so are the results.

    Raises ShapeError unless there are three channels, DTypeError unless they are floats.
    Smith 1978, "Color gamut transform pairs", the hexcone model.
    """
    x, layout = _colours(images, data_format)
    tiny = dtypes.limits(x.dtype).eps
    red, green, blue = layout.planes(build.where(build.less(build.abs(x), tiny), 0.0, x))
    value = build.maximum(build.maximum(red, green), blue)
    spread = build.subtract(value, build.minimum(build.minimum(red, green), blue))
    coloured, bright = build.greater(spread, 0.0), build.greater(value, 0.0)
    saturation = build.where(bright, build.divide(spread, build.where(bright, value, 1.0)), 0.0)
    sixth = build.divide(1.0, build.multiply(build.where(coloured, spread, 1.0), 6.0))

    def sector(a: Node, b: Node, start: float) -> Node:
        return build.add(build.multiply(sixth, build.subtract(a, b)), start)

    hue = build.where(build.equal(value, green), sector(blue, red, 2 / 6), sector(red, green, 4 / 6))
    hue = build.where(build.equal(value, red), sector(green, blue, 0.0), hue)
    hue = build.where(coloured, build.where(build.less(hue, 0.0), build.add(hue, 1.0), hue), 0.0)
    return build.concat([hue, saturation, value], layout.channels)


@op
def hsv_to_rgb(images, data_format=None):
    """The inverse of `rgb_to_hsv`.

    Raises ShapeError unless there are three channels, DTypeError unless they are floats.
    """
    x, layout = _colours(images, data_format)
    hue, saturation, value = layout.planes(x)
    turn = build.multiply(build.mod(hue, 1.0), 6.0)

    def ramp(centre: float, sign: float, offset: float) -> Node:
        height = build.add(build.multiply(build.abs(build.subtract(turn, centre)), sign), offset)
        height = build.minimum(build.maximum(height, 0.0), 1.0)
        return build.multiply(value, build.add(build.subtract(1.0, saturation), build.multiply(saturation, height)))

    return build.concat([ramp(3.0, 1.0, -1.0), ramp(2.0, -1.0, 2.0), ramp(4.0, -1.0, 2.0)], layout.channels)


# ---- sizes


@numbers("size")
@op
def resize(
    images,
    size,
    interpolation="bilinear",
    antialias=False,
    crop_to_aspect_ratio=False,
    pad_to_aspect_ratio=False,
    fill_mode="constant",
    fill_value=0.0,
    data_format=None,
):
    """Images of another size, of the same dtype (integers are rounded).

    size            (rows, columns)
    interpolation   'nearest', 'bilinear', 'bicubic' (Keys's kernel), 'lanczos3', 'lanczos5'
    antialias       where images become smaller, widen the kernel so that every pixel counts
    crop_to_aspect_ratio   take the largest middle part with the proportions of `size`
    pad_to_aspect_ratio    add `fill_value` on both sides until the proportions are those of `size`

    Rows and columns are interpolated one after the other; the middle of a pixel is its place, and at the borders the
    weights of pixels that there are are made to sum to 1.
    Raises ArgumentError for an unknown interpolation, sizes below 1, and if both ratios are asked for.
    """
    x = node_of(images)
    layout = Layout.of(x, data_format)
    one_of("interpolation", interpolation, INTERPOLATIONS)
    one_of("fill_mode", fill_mode, ("constant",))
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        raise ArgumentError(f"Expected `size` to be a tuple of 2 integers (rows, columns). Received: size={size!r}")
    rows, columns = (as_size(d) for d in size)
    if any(isinstance(d, int) and d <= 0 for d in (rows, columns)):
        raise ArgumentError(f"`size` must have positive height and width. Received: size={size}")
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ArgumentError("Only one of `pad_to_aspect_ratio` & `crop_to_aspect_ratio` can be `True`.")
    if crop_to_aspect_ratio:
        x = cropped_to_ratio(x, layout, rows, columns)
    elif pad_to_aspect_ratio:
        x = _padded_to_ratio(x, layout, rows, columns, fill_value)
    dtype = x.dtype
    if interpolation != "nearest" and dtype not in ("float32", "float64"):
        x = build.cast(x, "float32")
    targets = [(layout.rows, rows), (layout.columns, columns)]
    for axis, extent in sorted(targets, key=lambda t: _growth(x.shape[t[0]], t[1])):
        x = resampled(x, axis, extent, interpolation, antialias)
    if dtypes.is_float(dtype):
        return build.cast(x, dtype)
    return build.cast(build.round(x) if dtypes.is_float(x.dtype) else x, dtype)  # the cast keeps within the range


def _growth(old: Dim, new: Dim) -> float:
    """The axis that shrinks most goes first, so that the other has less to do."""
    return new / old if isinstance(old, int) and isinstance(new, int) and old else 1.0


def _minimum(a: Dim, b: Dim) -> Dim:
    return a + b - maximum(a, b)


def cropped_to_ratio(x: Node, layout: Layout, rows: Dim, columns: Dim) -> Node:
    """The largest middle part of the proportions rows : columns."""
    start: list[Dim] = [0] * x.rank
    shape = list(x.shape)
    height, width = x.shape[layout.rows], x.shape[layout.columns]
    shape[layout.rows] = maximum(_minimum(height, floordiv(width * rows, columns)), 1)
    shape[layout.columns] = maximum(_minimum(width, floordiv(height * columns, rows)), 1)
    for axis in (layout.rows, layout.columns):
        start[axis] = floordiv(x.shape[axis] - shape[axis], 2)
    return build.slice(x, start, shape)


def _padded_to_ratio(x: Node, layout: Layout, rows: Dim, columns: Dim, value: Any) -> Node:
    added: list[Dim] = [0] * x.rank
    height, width = x.shape[layout.rows], x.shape[layout.columns]
    added[layout.rows] = floordiv(maximum(floordiv(width * rows, columns) - height, 0), 2)
    added[layout.columns] = floordiv(maximum(floordiv(height * columns, rows) - width, 0), 2)
    return build.pad(x, added, added, value=value)


def _cut(name: str, verb: str, extent: Dim, before: Any, behind: Any, target: Any, shape: Any) -> tuple[Dim, Dim, Dim]:
    """The two of (before, behind, target) that are given and the third, for `extent` + sign * (before + behind)."""
    sign = 1 if verb == "padding" else -1
    sides = ("top", "bottom", "target_height") if name == "rows" else ("left", "right", "target_width")
    labels = [f"{sides[0]}_{verb}", f"{sides[1]}_{verb}", sides[2]]
    given = [before, behind, target]
    if given.count(None) != 1:
        shown = ", ".join(f"{label}={value}" for label, value in zip(labels, given, strict=True))
        raise ArgumentError(f"Must specify exactly two of {', '.join(labels)}. Received: {shown}")
    before, behind, target = (None if v is None else as_size(v) for v in given)
    if target is None:
        target = extent + sign * (before + behind)
    elif before is None:
        before = sign * (target - extent) - behind
    else:
        behind = sign * (target - extent) - before
    for label, value in zip(labels, (before, behind, target), strict=True):
        if isinstance(value, int) and value < 0:
            raise ArgumentError(f"{label} must be >= 0. Received: {label}={value} for images of shape {list(shape)}")
    return before, behind, target


@numbers("top_padding", "left_padding", "bottom_padding", "right_padding", "target_height", "target_width")
@op
def pad_images(
    images,
    top_padding=None,
    left_padding=None,
    bottom_padding=None,
    right_padding=None,
    target_height=None,
    target_width=None,
    data_format=None,
):
    """Images with zeros around them; of the sizes above, below and of all rows two are given, of columns likewise.

    Raises ArgumentError unless it is two, and if they do not fit.
    """
    x = node_of(images)
    layout = Layout.of(x, data_format)
    low: list[Dim] = [0] * x.rank
    high: list[Dim] = [0] * x.rank
    for name, axis, given in (
        ("rows", layout.rows, (top_padding, bottom_padding, target_height)),
        ("columns", layout.columns, (left_padding, right_padding, target_width)),
    ):
        low[axis], high[axis], _ = _cut(name, "padding", x.shape[axis], *given, x.shape)
    return build.pad(x, low, high)


@numbers("top_cropping", "left_cropping", "bottom_cropping", "right_cropping", "target_height", "target_width")
@op
def crop_images(
    images,
    top_cropping=None,
    left_cropping=None,
    bottom_cropping=None,
    right_cropping=None,
    target_height=None,
    target_width=None,
    data_format=None,
):
    """Images without their borders; of the sizes above, below and of what is left two are given, of columns likewise.

    Raises ArgumentError unless it is two, and if they do not fit.
    """
    x = node_of(images)
    layout = Layout.of(x, data_format)
    start: list[Dim] = [0] * x.rank
    shape = list(x.shape)
    for name, axis, given in (
        ("rows", layout.rows, (top_cropping, bottom_cropping, target_height)),
        ("columns", layout.columns, (left_cropping, right_cropping, target_width)),
    ):
        start[axis], _, shape[axis] = _cut(name, "cropping", x.shape[axis], *given, x.shape)
    return build.slice(x, start, shape)


# ---- windows


@numbers("size", "strides", "dilation_rate")
@op
def extract_patches(images, size, strides=None, dilation_rate=1, padding="valid", data_format=None):
    """Windows of images or volumes, laid out as channels.

    size   of a window: one number or two for images, three for volumes [batch, d1, d2, d3, channels]
    strides   how far windows are apart; by default `size`
    result: [batch, places, size's product * channels], or with the channels second; without batch as given

    Raises ArgumentError and ShapeError for sizes that do not fit.
    """
    rank = len(size) if isinstance(size, (list, tuple)) else 2
    if rank not in (2, 3):
        raise ArgumentError(f"Invalid `size` argument. Expected one number, or two or three. Received: size={size!r}")
    return _patches(node_of(images), rank, size, strides, dilation_rate, padding, data_format)


@numbers("size", "strides", "dilation_rate")
@op
def extract_patches_3d(volumes, size, strides=None, dilation_rate=1, padding="valid", data_format=None):
    """`extract_patches` of volumes, where one number as `size` is that of all three axes."""
    return _patches(node_of(volumes), 3, size, strides, dilation_rate, padding, data_format)


def _patches(x: Node, rank: int, size: Any, strides: Any, dilation: Any, padding: Any, data_format: Any) -> Node:
    if x.rank not in (rank + 1, rank + 2):
        raise ShapeError(
            f"windows of {rank} axes are of a tensor of {rank + 1} (without batch) or {rank + 2} axes, got {x.type}"
        )
    alone = x.rank == rank + 1
    if alone:
        x = build.reshape(x, (1, *x.shape))
    last = as_format(data_format) == "channels_last"
    sizes = per_axis("size", size, rank)
    strides = sizes if strides is None else per_axis("strides", strides, rank)
    slide = Windows(1 if last else 2, sizes, strides, per_axis("dilation_rate", dilation, rank), as_padding(padding))
    found = slide.of(slide.padded(x))
    channels = math.prod(sizes) * x.shape[-1 if last else 1]
    if last:
        found = build.reshape(found, (*found.shape[: rank + 1], channels))
    else:
        found = build.transpose(found, [0, *range(rank + 2, 2 * rank + 2), 1, *range(2, rank + 2)])
        found = build.reshape(found, (found.shape[0], channels, *found.shape[rank + 2 :]))
    return build.reshape(found, found.shape[1:]) if alone else found


def _bell(size: int, sigma: Any, dtype: str) -> Node:
    """A normal density at `size` whole numbers around 0, that sums to 1."""
    place = build.subtract(build.iota((size,), 0, dtype), (size - 1) / 2)
    height = build.exp(build.multiply(build.square(build.divide(place, operand(sigma))), -0.5))
    return build.divide(height, build.sum(height, 0, True))


def weighted(x: Node, axis: int, weights: Node, padding: str) -> Node:
    """Sums of neighbours along `axis`, weighted; with padding "same" there are as many, zeros outside."""
    (size,) = weights.shape
    assert isinstance(size, int)
    slide = Windows(axis, (size,), (1,), (1,), padding)
    windows = slide.of(slide.padded(x))
    kept = [k for k in range(windows.rank) if k != axis + 1]
    return build.contract(windows, build.cast(weights, x.dtype), range(windows.rank), [axis + 1], kept)


@numbers("kernel_size")
@op
def gaussian_blur(images, kernel_size=(3, 3), sigma=(1.0, 1.0), data_format=None):
    """Images blurred by a normal density of `kernel_size` pixels and deviation `sigma`; zeros are outside.

    kernel_size, sigma   of the columns, then of the rows: the order that Keras uses, though not the one it documents
    """
    x = floating(node_of(images))
    layout = Layout.of(x, data_format)
    sizes = per_axis("kernel_size", kernel_size, 2)
    sigma = sigma if isinstance(sigma, (list, tuple)) else _pair(sigma)
    for axis, size, deviation in zip((layout.columns, layout.rows), sizes, sigma, strict=True):
        x = weighted(x, axis, _bell(size, deviation, x.dtype), "same")
    return x


def _pair(value: Any) -> tuple[Any, Any]:
    if isinstance(value, Node) and value.rank:
        return build.slice(value, [0], [1]), build.slice(value, [1], [1])
    return value, value


@op
def sobel_edges(images, data_format=None):
    """How images change from pixel to pixel: [..., 2], downwards first, then to the right; zeros are outside.

    Sobel, Feldman 1968, "A 3x3 isotropic gradient operator for image processing".
    """
    x = node_of(images)
    layout = Layout.of(x, data_format)

    def slope(along: int, across: int) -> Node:
        smooth = weighted(x, across, build.constant([1, 2, 1], x.dtype), "same")
        return weighted(smooth, along, build.constant([-1, 0, 1], x.dtype), "same")

    edges = [slope(layout.rows, layout.columns), slope(layout.columns, layout.rows)]
    return build.concat([build.reshape(e, (*e.shape, 1)) for e in edges], x.rank)


@op
def ssim(image1, image2, max_val=1.0, filter_size=11, filter_sigma=1.5, k1=0.01, k2=0.03, data_format=None):
    """The structural similarity of two images, or of each pair of two batches; 1 for equal ones.

    Means, variances and covariances are of windows of `filter_size` pixels weighted by a normal density.
    Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment: from error visibility to structural similarity",
    equation 13, averaged over the windows within the image and the channels. Integers give floats.
    """
    x = floating(node_of(image1))
    y = build.cast(node_of(image2), x.dtype)
    layout = Layout.of(x, data_format)
    if x.rank != y.rank:
        raise ShapeError(f"ssim needs two images of one shape, got {x.type} and {y.type}")
    y = build.equate(y, x.shape)
    bell = _bell(filter_size, filter_sigma, x.dtype)

    def local(v: Node) -> Node:
        return weighted(weighted(v, layout.rows, bell, "valid"), layout.columns, bell, "valid")

    def doubled(v: Node) -> Node:
        return build.multiply(v, 2.0)

    mx, my = local(x), local(y)
    both, squares = build.multiply(mx, my), build.add(build.square(mx), build.square(my))
    covariance = build.subtract(local(build.multiply(x, y)), both)
    variances = build.subtract(local(build.add(build.square(x), build.square(y))), squares)
    c1, c2 = (k1 * max_val) ** 2, (k2 * max_val) ** 2
    likeness = build.multiply(build.add(doubled(both), c1), build.add(doubled(covariance), c2))
    likeness = build.divide(likeness, build.multiply(build.add(squares, c1), build.add(variances, c2)))
    return build.mean(likeness, [k for k in range(x.rank - 3, x.rank)])


__all__ = [
    "affine_transform", "crop_images", "elastic_transform", "extract_patches", "extract_patches_3d", "gaussian_blur",
    "hsv_to_rgb", "map_coordinates", "pad_images", "perspective_transform", "resize", "rgb_to_grayscale", "rgb_to_hsv",
    "scale_and_translate", "sobel_edges", "ssim",
]  # fmt: skip
