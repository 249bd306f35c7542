"""Layers that widen, narrow or enlarge the spatial axes: ZeroPadding, Cropping, UpSampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.compiler.ops import build
from gnomon.compiler.sizes import Dim
from gnomon.layers.input_spec import InputSpec
from gnomon.layers.layer import Layer
from gnomon.ops.convolution import as_format, per_axis
from gnomon.ops.image import INTERPOLATIONS
from gnomon.tensor import Tensor

Pairs = tuple[tuple[int, int], ...]


class Spatial(Layer):
    """Base of layers for inputs of `rank` spatial axes, a batch and channels."""

    rank: int
    data_format: str

    def __init__(self, data_format: str | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.data_format = as_format(data_format)
        self.input_spec = InputSpec(ndim=self.rank + 2)

    @property
    def first(self) -> int:
        """The first spatial axis."""
        return 2 if self.data_format == "channels_first" else 1

    def compute_output_shape(self, input_shape):
        first, found = self.first, list(input_shape)
        for k in range(first, first + self.rank):
            found[k] = None if found[k] is None else self.sized(k - first, found[k], tuple(input_shape))
        return tuple(found)

    def sized(self, k: int, extent: int, shape: Sequence[Any]) -> int:
        """The size of spatial axis k of the output."""
        raise NotImplementedError


def as_pairs(name: str, value: Any, rank: int) -> Pairs:
    """What is to be added or taken before and behind each axis: one number for all, or one or two for each axis.

    Raises ArgumentError for anything else.
    """
    try:
        if rank == 1:
            return (_numbers(value),)
        if not isinstance(value, int) and len(value) != rank:
            raise ValueError
        given = [value] * rank if isinstance(value, int) else value
        return tuple(_numbers(pair) for pair in given)
    except (TypeError, ValueError):
        pairs = f"{rank} of them or of pairs (before, behind), one for each axis" if rank > 1 else "two: before, behind"
        raise ArgumentError(f"`{name}` should be an integer of at least 0, or {pairs}. Received: {value!r}") from None


def _numbers(value: Any) -> tuple[int, int]:
    found = (value, value) if isinstance(value, int) else tuple(value)
    if len(found) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in found):
        raise ValueError
    return found[0], found[1]


class ZeroPadding(Spatial):
    """Base: zeros before and behind each spatial axis."""

    def __init__(self, padding: Any, data_format: str | None = None, **kwargs: Any):
        super().__init__(data_format, **kwargs)
        self.pairs = as_pairs("padding", padding, self.rank)
        self.padding = self.pairs if self.rank > 1 else self.pairs[0]

    def call(self, inputs):
        x = inputs.node
        low, high = [0] * x.rank, [0] * x.rank
        for k, (before, behind) in enumerate(self.pairs):
            low[self.first + k], high[self.first + k] = before, behind
        return Tensor(build.pad(x, low, high))

    def sized(self, k, extent, shape):
        return extent + sum(self.pairs[k])

    def get_config(self):
        return {**super().get_config(), "padding": self.padding, "data_format": self.data_format}


class ZeroPadding1D(ZeroPadding):
    """Zeros before and behind sequences.   x: [batch, n, channels]   result: [batch, before + n + behind, channels]

    padding      one number for both ends, or (before, behind)
    data_format  'channels_first': x is [batch, channels, n]

    Raises ArgumentError for anything but integers of at least 0.
    """

    rank = 1

    def __init__(self, padding: int | Sequence[int] = 1, data_format: str | None = None, **kwargs: Any):
        super().__init__(padding, data_format, **kwargs)


class ZeroPadding2D(ZeroPadding):
    """Zeros around images.   x: [batch, rows, columns, channels], or with the channels second

    padding   one number, (rows, columns), or ((above, below), (left, right))

    Raises ArgumentError for anything but integers of at least 0.
    """

    rank = 2

    def __init__(self, padding: int | Sequence[Any] = (1, 1), data_format: str | None = None, **kwargs: Any):
        super().__init__(padding, data_format, **kwargs)


class ZeroPadding3D(ZeroPadding):
    """Zeros around volumes.   x: [batch, d1, d2, d3, channels], or with the channels second

    padding   one number, three, or three pairs (before, behind)

    Raises ArgumentError for anything but integers of at least 0.
    """

    rank = 3

    def __init__(
        self, padding: int | Sequence[Any] = ((1, 1), (1, 1), (1, 1)), data_format: str | None = None, **kwargs: Any
    ):
        super().__init__(padding, data_format, **kwargs)


class Cropping(Spatial):
    """Base: elements taken away before and behind each spatial axis."""

    def __init__(self, cropping: Any, data_format: str | None = None, **kwargs: Any):
        super().__init__(data_format, **kwargs)
        self.pairs = as_pairs("cropping", cropping, self.rank)
        self.cropping = self.pairs if self.rank > 1 else self.pairs[0]

    def call(self, inputs):
        x = inputs.node
        start: list[Dim] = [0] * x.rank
        size = list(x.shape)
        for k, (before, behind) in enumerate(self.pairs):
            at, d = self.first + k, x.shape[self.first + k]
            start[at], size[at] = before, self.sized(k, d, inputs.shape) if isinstance(d, int) else d - before - behind
        return Tensor(build.slice(x, start, size))

    def sized(self, k, extent, shape):
        if sum(self.pairs[k]) >= extent:
            raise ShapeError(
                f"Values in `cropping` of {type(self).__name__} should be smaller than the spatial axes of the input. "
                f"Received: input_shape={tuple(shape)}, cropping={self.cropping}"
            )
        return extent - sum(self.pairs[k])

    def get_config(self):
        return {**super().get_config(), "cropping": self.cropping, "data_format": self.data_format}


class Cropping1D(Cropping):
    """Sequences without their ends.   x: [batch, n, channels]   result: [batch, n - before - behind, channels]

    cropping   one number for both ends, or (before, behind)

    Raises ArgumentError for anything but integers of at least 0, ShapeError if nothing is left.
    """

    rank = 1

    def __init__(self, cropping: int | Sequence[int] = (1, 1), **kwargs: Any):
        super().__init__(cropping, "channels_last", **kwargs)

    def get_config(self):
        config = super().get_config()
        config.pop("data_format")
        return config


class Cropping2D(Cropping):
    """Images without their borders.   x: [batch, rows, columns, channels], or with the channels second

    cropping   one number, (rows, columns), or ((above, below), (left, right))

    Raises ArgumentError for anything but integers of at least 0, ShapeError if nothing is left.
    """

    rank = 2

    def __init__(
        self, cropping: int | Sequence[Any] = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any
    ):
        super().__init__(cropping, data_format, **kwargs)


class Cropping3D(Cropping):
    """Volumes without their borders.   x: [batch, d1, d2, d3, channels], or with the channels second

    cropping   one number, three, or three pairs (before, behind)

    Raises ArgumentError for anything but integers of at least 0, ShapeError if nothing is left.
    """

    rank = 3

    def __init__(
        self, cropping: int | Sequence[Any] = ((1, 1), (1, 1), (1, 1)), data_format: str | None = None, **kwargs: Any
    ):
        super().__init__(cropping, data_format, **kwargs)


class UpSampling(Spatial):
    """Base: each spatial axis `sizes` times as long."""

    def __init__(self, sizes: tuple[int, ...], data_format: str | None = None, **kwargs: Any):
        super().__init__(data_format, **kwargs)
        self.sizes = sizes

    def call(self, inputs):
        """Each element repeated, along all axes at once."""
        x = inputs.node
        first = self.first
        times = [1] * first + list(self.sizes) + [1] * (x.rank - first - self.rank)
        wide = [d for k, n in enumerate(times) for d in ((x.shape[k], n) if n > 1 else (x.shape[k],))]
        places = [k + sum(n > 1 for n in times[:k]) for k in range(x.rank)]
        spread = build.broadcast(x, wide, places)
        return Tensor(build.reshape(spread, [d * n for d, n in zip(x.shape, times, strict=True)]))

    def sized(self, k, extent, shape):
        return extent * self.sizes[k]


class UpSampling1D(UpSampling):
    """Each step `size` times.   x: [batch, n, channels]   result: [batch, n * size, channels]

    Raises DTypeError unless `size` is an integer, ArgumentError unless it is positive.
    """

    rank = 1

    def __init__(self, size: int = 2, **kwargs: Any):
        if isinstance(size, bool) or not isinstance(size, int):
            raise DTypeError(f"Expected an integer value for `size`, got {size!r} ({type(size).__name__})")
        if size <= 0:
            raise ArgumentError(f"Argument `size` should be a positive integer. Received: size={size}")
        super().__init__((size,), "channels_last", **kwargs)
        self.size = size

    def get_config(self):
        return {**super().get_config(), "size": self.size}


class UpSampling2D(UpSampling):
    """Images `size` times as high and wide.   x: [batch, rows, columns, channels], or with the channels second

    size           one number, or (rows, columns)
    interpolation  'nearest' repeats; 'bilinear', 'bicubic', 'lanczos3', 'lanczos5' as `gnomon.ops.image.resize`

    Raises ArgumentError for sizes that are not positive integers, and for an unknown interpolation.
    """

    rank = 2

    def __init__(
        self,
        size: int | Sequence[int] = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ):
        super().__init__(per_axis("size", size, 2), data_format, **kwargs)
        self.size = self.sizes
        self.interpolation = interpolation.lower() if isinstance(interpolation, str) else interpolation
        if self.interpolation not in INTERPOLATIONS:
            raise ArgumentError(
                f"interpolation must be one of {', '.join(map(repr, INTERPOLATIONS))}, got {interpolation!r}"
            )

    def call(self, inputs):
        if self.interpolation == "nearest":
            return super().call(inputs)
        shape = inputs.node.shape[self.first : self.first + 2]
        wanted = [d * n for d, n in zip(shape, self.sizes, strict=True)]
        return ops.image.resize(inputs, wanted, self.interpolation, data_format=self.data_format)

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "data_format": self.data_format,
            "interpolation": self.interpolation,
        }


class UpSampling3D(UpSampling):
    """Volumes `size` times as long in each axis.   x: [batch, d1, d2, d3, channels], or with the channels second

    size   one number, or three

    Raises ArgumentError for sizes that are not positive integers.
    """

    rank = 3

    def __init__(self, size: int | Sequence[int] = (2, 2, 2), data_format: str | None = None, **kwargs: Any):
        super().__init__(per_axis("size", size, 3), data_format, **kwargs)
        self.size = self.sizes

    def get_config(self):
        return {**super().get_config(), "size": self.size, "data_format": self.data_format}
