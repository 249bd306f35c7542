"""Convolutions along one, two or three axes, and their transposes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.patches import places, reach
from gnomon.compiler.ops.shape import surely_differ
from gnomon.compiler.sizes import Dim, ceildiv, floordiv, maximum
from gnomon.ops.arguments import numbers, one_of, together
from gnomon.tensor import op

FORMATS = ("channels_last", "channels_first")


def as_format(data_format: str | None) -> str:
    """'channels_last' or 'channels_first'; None means `config.image_data_format()`."""
    from gnomon.config import image_data_format

    return image_data_format() if data_format is None else one_of("data_format", data_format, FORMATS)


def as_padding(padding: Any) -> str:
    """'valid' or 'same'."""
    return one_of("padding", padding.lower() if isinstance(padding, str) else padding, ("valid", "same"))


def per_axis(name: str, value: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """One integer for each of `rank` axes, given as one for all or one for each."""
    found = tuple(value) if isinstance(value, (list, tuple)) else (value,) * rank
    if len(found) != rank or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in found):
        raise ArgumentError(
            f"{name} must be an integer of at least {least}, or a tuple of {rank}, one per axis; got {value!r}"
        )
    return found


def same_padding(extent: Dim, window: int, stride: int, dilation: int) -> tuple[Dim, Dim]:
    """Elements to add before and behind an axis so that there are ceil(extent / stride) windows: half of them each,
    an odd one behind."""
    span = reach(window, dilation)
    missing: Dim = (ceildiv(extent, stride) - 1) * stride + span - extent
    if span < stride:  # else there is always something missing: open sizes stay simple
        missing = maximum(missing, 0)
    before = floordiv(missing, 2)
    return before, missing - before


@dataclass(frozen=True)
class Windows:
    """Where windows lie along the spatial axes, which start at `axis` and are followed by `behind` others."""

    axis: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str

    def padded(self, x: Node, value: Any = 0) -> Node:
        """x with what `padding` adds to the spatial axes."""
        if self.padding == "valid":
            self._check(x)
            return x
        low: list[Dim] = [0] * x.rank
        high: list[Dim] = [0] * x.rank
        used: list[Dim] = list(x.shape)
        for k, (size, stride, dilation) in enumerate(zip(self.sizes, self.strides, self.dilations, strict=True)):
            at = self.axis + k
            low[at], high[at] = same_padding(x.shape[at], size, stride, dilation)
            wanted = ceildiv(x.shape[at], stride)
            used[at] = x.shape[at] + low[at] + high[at]
            if places(used[at], size, stride, dilation) != wanted:  # they are as many, but open sizes hide it
                used[at] = (wanted - 1) * stride + reach(size, dilation)
        x = build.pad(x, low, high, value=value)
        return build.slice(x, [0] * x.rank, used)

    def of(self, x: Node) -> Node:
        """All windows of x, which is padded already."""
        return build.patches(x, self.axis, self.sizes, self.strides, self.dilations)

    def _check(self, x: Node) -> None:
        extents = x.shape[self.axis : self.axis + len(self.sizes)]
        for extent, size, dilation in zip(extents, self.sizes, self.dilations, strict=True):
            if isinstance(extent, int) and extent < reach(size, dilation):
                raise ShapeError(
                    f"windows of {list(self.sizes)} elements, {list(self.dilations)} apart, do not fit into {x.type}: "
                    f'they span {reach(size, dilation)} elements of an axis that has {extent}. Use padding="same" or '
                    "smaller windows"
                )


def _operands(name: str, inputs: Any, kernel: Any, strides: Any, data_format: Any, dilation_rate: Any):
    """Input and kernel as nodes of one dtype, the windows' sizes, strides and dilations, whether channels are last."""
    x, w = together(inputs, kernel)
    rank = x.rank - 2
    if not 1 <= rank <= 3 or w.rank != x.rank:
        raise ShapeError(
            f"{name} needs an input of 3 to 5 axes (batch, 1 to 3 spatial ones, channels) and a kernel of as many, got "
            f"{x.type} and {w.type}"
        )
    sizes = tuple(d for d in w.shape[:rank] if isinstance(d, int) and d > 0)
    if len(sizes) < rank:
        raise ShapeError(f"{name} needs a kernel whose spatial sizes are known and at least 1, got {w.type}")
    strides, dilations = per_axis("strides", strides, rank), per_axis("dilation_rate", dilation_rate, rank)
    last = as_format(data_format) == "channels_last"
    return x, w, sizes, strides, dilations, last


def _layout(rank: int, last: bool, channels: int = 1) -> tuple[list[int], list[int]]:
    """Numbers for the axes of a contraction of patches, in their order: (all of them, those of the channels).

    0 is the batch, from 1 on the places, from rank + 1 on the windows, then `channels` axes.
    """
    found = list(range(2 * rank + 1, 2 * rank + 1 + channels))
    return _ordered(2 * rank, last, found), found


def _ordered(count: int, last: bool, channels: list[int]) -> list[int]:
    """The batch, `count` numbered axes and the channels in the order of the data format."""
    inner = list(range(1, count + 1))
    return [0, *inner, *channels] if last else [0, *channels, *inner]


def _taps(rank: int) -> list[int]:
    """The numbers of the windows' axes."""
    return list(range(rank + 1, 2 * rank + 1))


@numbers("strides", "dilation_rate")
@op
def conv(inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
    """Convolution (in truth correlation) along 1, 2 or 3 axes.

    inputs: [batch, L1..Ld, channels], or [batch, channels, L1..Ld] with data_format "channels_first"
    kernel: [K1..Kd, channels / groups, filters]   result: [batch, O1..Od, filters], or with the filters second
    padding "valid": O = floor((L - dilation * (K - 1) - 1) / stride) + 1; "same": O = ceil(L / stride), zeros on both
    sides, an odd one behind. The number of groups follows from the channels of both; each makes its share of filters.

    Raises ShapeError if channels or sizes do not fit.
    """
    x, w, sizes, strides, dilations, last = _operands("conv", inputs, kernel, strides, data_format, dilation_rate)
    slide = Windows(1 if last else 2, sizes, strides, dilations, as_padding(padding))
    return _convolved(x, w, slide, _groups(x, w, x.rank - 1 if last else 1), last)


def _groups(x: Node, w: Node, at: int) -> int:
    have, each, filters = x.shape[at], w.shape[-2], w.shape[-1]
    if not surely_differ(have, each):
        return 1
    if not isinstance(have, int) or not isinstance(each, int) or each == 0 or have % each:
        raise ShapeError(
            f"conv needs an input whose channels (axis {at}) are those of the kernel (next to last axis) or, for "
            f"groups, a multiple of them, got {x.type} and {w.type}"
        )
    groups = have // each
    if not isinstance(filters, int) or filters % groups:
        raise ShapeError(f"conv in {groups} groups needs a multiple of {groups} filters, got {x.type} and {w.type}")
    return groups


def _convolved(x: Node, w: Node, slide: Windows, groups: int, last: bool) -> Node:
    rank = len(slide.sizes)
    if groups == 1:
        w = build.equate(w, (*w.shape[:rank], x.shape[-1 if last else 1], w.shape[-1]))
        axes, (channel,) = _layout(rank, last)
        kernel_axes = [*_taps(rank), channel, channel + 1]
        out = _ordered(rank, last, [channel + 1])
        return build.contract(slide.of(slide.padded(x)), w, axes, kernel_axes, out)
    each, made = w.shape[-2], w.shape[-1]
    w = build.reshape(w, (*w.shape[:-1], groups, made // groups))
    axes, (group, channel) = _layout(rank, last, 2)
    kernel_axes = [*_taps(rank), channel, group, channel + 1]
    out = _ordered(rank, last, [group, channel + 1])
    if last:
        x = build.reshape(x, (*x.shape[:-1], groups, each))
    else:
        x = build.reshape(x, (x.shape[0], groups, each, *x.shape[2:]))
        slide = Windows(3, slide.sizes, slide.strides, slide.dilations, slide.padding)
    y = build.contract(slide.of(slide.padded(x)), w, axes, kernel_axes, out)
    return _with_one_axis_of_channels(y, last)


def _with_one_axis_of_channels(y: Node, last: bool) -> Node:
    """The two axes of channels made one."""
    if last:
        return build.reshape(y, (*y.shape[:-2], y.shape[-2] * y.shape[-1]))
    return build.reshape(y, (y.shape[0], y.shape[1] * y.shape[2], *y.shape[3:]))


@numbers("strides", "dilation_rate")
@op
def depthwise_conv(inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
    """Convolution of each channel by itself, with `multiplier` filters for it.

    inputs: as for `conv`   kernel: [K1..Kd, channels, multiplier]
    result: [batch, O1..Od, channels * multiplier], the filters of one channel side by side

    Raises ShapeError if channels or sizes do not fit.
    """
    x, w, sizes, strides, dilations, last = _operands(
        "depthwise_conv", inputs, kernel, strides, data_format, dilation_rate
    )
    return _depthwise(x, w, Windows(1 if last else 2, sizes, strides, dilations, as_padding(padding)), last)


def _depthwise(x: Node, w: Node, slide: Windows, last: bool) -> Node:
    rank = len(slide.sizes)
    have = x.shape[-1 if last else 1]
    if surely_differ(have, w.shape[-2]):
        raise ShapeError(
            f"depthwise_conv needs a kernel for each channel of its input, got {x.type} with {have} channels and "
            f"{w.type} for {w.shape[-2]}"
        )
    w = build.equate(w, (*w.shape[:rank], have, w.shape[-1]))
    axes, (channel,) = _layout(rank, last)
    kernel_axes = [*_taps(rank), channel, channel + 1]
    y = build.contract(slide.of(slide.padded(x)), w, axes, kernel_axes, _ordered(rank, last, [channel, channel + 1]))
    return _with_one_axis_of_channels(y, last)


@numbers("strides", "dilation_rate")
@op
def separable_conv(
    inputs, depthwise_kernel, pointwise_kernel, strides=1, padding="valid", data_format=None, dilation_rate=1
):
    """`depthwise_conv`, then a `conv` with windows of one element that mixes its channels.

    depthwise_kernel: [K1..Kd, channels, multiplier]   pointwise_kernel: [1..1, channels * multiplier, filters]
    result: [batch, O1..Od, filters]

    Raises ShapeError if channels or sizes do not fit.
    """
    x, w, sizes, strides, dilations, last = _operands(
        "separable_conv", inputs, depthwise_kernel, strides, data_format, dilation_rate
    )
    y = _depthwise(x, w, Windows(1 if last else 2, sizes, strides, dilations, as_padding(padding)), last)
    y, mix = together(y, pointwise_kernel)
    if mix.rank != y.rank or any(d != 1 for d in mix.shape[:-2]):
        raise ShapeError(f"separable_conv needs a pointwise kernel with windows of 1, got {mix.type}")
    if surely_differ(mix.shape[-2], y.shape[-1 if last else 1]):
        raise ShapeError(
            f"separable_conv needs a pointwise kernel for {y.shape[-1 if last else 1]} channels, got {mix.type}"
        )
    ones = (1,) * len(sizes)
    return _convolved(y, mix, Windows(1 if last else 2, ones, ones, ones, "valid"), 1, last)


@numbers("strides", "output_padding", "dilation_rate")
@op
def conv_transpose(
    inputs, kernel, strides=1, padding="valid", output_padding=None, data_format=None, dilation_rate=1
):
    """The transpose of `conv`: what its gradient with respect to its input computes.

    inputs: [batch, L1..Ld, channels], or with the channels second   kernel: [K1..Kd, filters, channels]
    result: [batch, O1..Od, filters], or with the filters second
    With E = dilation * (K - 1) + 1, O is for padding "valid" (L - 1) * stride + max(E, stride), or
    (L - 1) * stride + E + output_padding; for "same" L * stride, or (L - 1) * stride + E % 2 + output_padding.

    Raises ShapeError if channels do not fit, or nothing would be left.
    """
    x, w, sizes, strides, dilations, last = _operands(
        "conv_transpose", inputs, kernel, strides, data_format, dilation_rate
    )
    rank = len(sizes)
    padding = as_padding(padding)
    extra = (None,) * rank if output_padding is None else per_axis("output_padding", output_padding, rank, 0)
    have = x.shape[-1 if last else 1]
    if surely_differ(have, w.shape[-1]):
        raise ShapeError(
            f"conv_transpose needs an input whose channels are those of the kernel (last axis), got {x.type} with "
            f"{have} channels and {w.type} for {w.shape[-1]}"
        )
    w = build.equate(w, (*w.shape[:-1], have))
    axis = 1 if last else 2
    channel, filters = 2 * rank + 1, 2 * rank + 2
    kernel_axes = [*_taps(rank), filters, channel]
    laid = build.contract(x, w, _ordered(rank, last, [channel]), kernel_axes, _ordered(2 * rank, last, [filters]))
    whole: list[Dim] = []
    wanted: list[Dim] = list(laid.shape[:axis])
    start, behind = [0] * x.rank, [0] * x.rank
    for k in range(rank):
        stride, span = strides[k], reach(sizes[k], dilations[k])
        before, added = _transposed_padding(span, stride, padding, extra[k])
        full = (x.shape[axis + k] - 1) * stride + span
        own = min(max(added, 0), stride - 1)  # elements behind the last window that still belong to its windows
        whole.append(full + own)
        start[axis + k], behind[axis + k] = before, max(added, 0) - own
        wanted.append(full - before + added)
        if isinstance(wanted[-1], int) and wanted[-1] <= 0:
            raise ShapeError(f"conv_transpose of {x.type} with {w.type} leaves nothing of axis {axis + k}")
    y = build.pad(build.unpatch(laid, axis, whole, strides, dilations), [0] * x.rank, behind)
    return build.slice(y, start, [*wanted, *y.shape[axis + rank :]])


def _transposed_padding(span: int, stride: int, padding: str, extra: int | None) -> tuple[int, int]:
    """How many of the elements that windows of `span` make are left out before, and how many are added behind."""
    if padding == "valid":
        return 0, max(stride - span, 0) if extra is None else extra
    both = stride + span - 2 if extra is None else span + span % 2 - 2 + extra
    before = span - 1 - min((both + 1) // 2, span - 1)
    return before, both + before - 2 * (span - 1)


__all__ = ["conv", "conv_transpose", "depthwise_conv", "separable_conv"]
