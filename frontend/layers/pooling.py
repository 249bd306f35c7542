"""Pooling: windows of the spatial axes, or all of each channel, become one number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from gnomon import ops
from gnomon.guards import fitting
from gnomon.layers.convolution import SpatialLayer, sizes_of_windows
from gnomon.ops.arguments import one_of
from gnomon.ops.convolution import per_axis
from gnomon.tensor import Tensor, node_of


class Pooling(SpatialLayer):
    """Base: one number of each window.

    inputs: [batch, L1..Ld, channels], or [batch, channels, L1..Ld] with `data_format="channels_first"`
    result: as inputs, with O = floor((L - pool_size) / strides) + 1 for padding "valid", ceil(L / strides) for "same"
    `strides` are those of `pool_size` if left out.

    Raises ArgumentError for arguments that make no windows, ShapeError for inputs that are smaller than a window.
    """

    pool: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        pool_size: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(data_format, name=name, **kwargs)
        self.pool_size = per_axis("pool_size", pool_size, self.rank)
        self.strides = self.pool_size if strides is None else per_axis("strides", strides, self.rank)
        self.padding = one_of("padding", padding.lower() if isinstance(padding, str) else padding, ("valid", "same"))
        self.built = True

    def call(self, inputs):
        self.compute_output_shape(inputs.shape)  # says it in the layer's words if the windows do not fit
        return type(self).pool(inputs, self.pool_size, self.strides, self.padding, self.data_format)

    def compute_output_shape(self, input_shape):
        ones = (1,) * self.rank
        sizes = sizes_of_windows(self.spatial(input_shape), self.pool_size, self.strides, ones, self.padding)
        return self.shape_of(input_shape, sizes, input_shape[self.channel_axis])

    def get_config(self):
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "padding": self.padding,
            "strides": self.strides,
            "data_format": self.data_format,
        }


class MaxPooling(Pooling):
    """Base: the maximum of each window. Of equal elements the first, in row-major order, alone has a gradient."""

    pool = staticmethod(ops.max_pool)

    def __init__(
        self,
        pool_size: int | Sequence[int] = 2,
        strides: int | Sequence[int] | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(pool_size, strides, padding, data_format, name, **kwargs)


class MaxPooling1D(MaxPooling):
    """The maximum of each window of a sequence.

    inputs: [batch, steps, channels]   result: [batch, O, channels]; more in `Pooling` and `MaxPooling`
    """

    rank = 1


class MaxPooling2D(MaxPooling):
    """The maximum of each window of an image.

    inputs: [batch, height, width, channels]   result: [batch, O1, O2, channels]; more in `Pooling` and `MaxPooling`
    """

    rank = 2


class MaxPooling3D(MaxPooling):
    """The maximum of each window of a volume.

    inputs: [batch, L1, L2, L3, channels]   result: [batch, O1, O2, O3, channels]; more in `Pooling` and `MaxPooling`
    """

    rank = 3


class AveragePooling(Pooling):
    """Base: the mean of each window. What padding "same" adds is not counted."""

    pool = staticmethod(ops.average_pool)


class AveragePooling1D(AveragePooling):
    """The mean of each window of a sequence.

    inputs: [batch, steps, channels]   result: [batch, O, channels]; more in `Pooling` and `AveragePooling`
    """

    rank = 1


class AveragePooling2D(AveragePooling):
    """The mean of each window of an image.

    inputs: [batch, height, width, channels]   result: [batch, O1, O2, channels]; more in `Pooling`, `AveragePooling`
    """

    rank = 2


class AveragePooling3D(AveragePooling):
    """The mean of each window of a volume.

    inputs: [batch, L1, L2, L3, channels]   result: [batch, O1, O2, O3, channels]; more in `Pooling`, `AveragePooling`
    """

    rank = 3


# ---- all places


class GlobalPooling(SpatialLayer):
    """Base: one number of each channel.

    inputs: [batch, L1..Ld, channels], or [batch, channels, L1..Ld] with `data_format="channels_first"`
    result: [batch, channels]; with `keepdims` the spatial axes stay, with one element each
    """

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any):
        super().__init__(data_format, **kwargs)
        self.keepdims = keepdims
        self.axes = tuple(range(self.first, self.first + self.rank))
        self.built = True

    def compute_output_shape(self, input_shape):
        channels = input_shape[self.channel_axis]
        return self.shape_of(input_shape, (1,) * self.rank if self.keepdims else (), channels)

    def get_config(self):
        return {**super().get_config(), "data_format": self.data_format, "keepdims": self.keepdims}


class GlobalMaxPooling(GlobalPooling):
    """Base: the maximum of each channel. Equal maxima share its gradient."""

    def call(self, inputs):
        return ops.max(inputs, axis=self.axes, keepdims=self.keepdims)


class GlobalMaxPooling1D(GlobalMaxPooling):
    """The maximum of each channel over a sequence.

    inputs: [batch, steps, channels]   result: [batch, channels]; more in `GlobalPooling` and `GlobalMaxPooling`
    """

    rank = 1


class GlobalMaxPooling2D(GlobalMaxPooling):
    """The maximum of each channel over an image.

    inputs: [batch, height, width, channels]   result: [batch, channels]; more in `GlobalPooling` and `GlobalMaxPooling`
    """

    rank = 2


class GlobalMaxPooling3D(GlobalMaxPooling):
    """The maximum of each channel over a volume.

    inputs: [batch, L1, L2, L3, channels]   result: [batch, channels]; more in `GlobalPooling` and `GlobalMaxPooling`
    """

    rank = 3


class GlobalAveragePooling(GlobalPooling):
    """Base: the mean of each channel."""

    def call(self, inputs):
        return ops.mean(inputs, axis=self.axes, keepdims=self.keepdims)


class GlobalAveragePooling1D(GlobalAveragePooling):
    """The mean of each channel over a sequence, of the steps that a mask leaves.

    inputs: float[batch, steps, channels]   mask: bool[batch, steps]   more in `GlobalPooling`
    The mean of no steps is NaN.
    """

    rank = 1

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any):
        super().__init__(data_format, keepdims, **kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        if mask is None:
            return super().call(inputs)
        own = [d for k, d in enumerate(inputs.node.shape) if k != self.channel_axis % 3]
        mask = Tensor(fitting(node_of(mask), own, self.name))
        counts = ops.expand_dims(ops.cast(mask, "bool"), self.channel_axis)
        total = ops.sum(ops.where(counts, inputs, 0), axis=self.axes, keepdims=self.keepdims)
        return total / ops.sum(ops.cast(counts, inputs.dtype), axis=self.axes, keepdims=self.keepdims)

    def compute_mask(self, inputs, previous_mask=None):
        return None


class GlobalAveragePooling2D(GlobalAveragePooling):
    """The mean of each channel over an image.

    inputs: float[batch, height, width, channels]   result: float[batch, channels]; more in `GlobalPooling`
    """

    rank = 2


class GlobalAveragePooling3D(GlobalAveragePooling):
    """The mean of each channel over a volume.

    inputs: float[batch, L1, L2, L3, channels]   result: float[batch, channels]; more in `GlobalPooling`
    """

    rank = 3


# ---- a given number of windows


class AdaptivePooling(SpatialLayer):
    """Base: one number of each of `output_size` windows that cover the spatial axes, whatever their sizes.

    inputs: [batch, L1..Ld, channels], or [batch, channels, L1..Ld] with `data_format="channels_first"`
    result: as inputs, the spatial axes of `output_size`; window i of n has the elements from floor(i * L / n) on and
    before ceil((i + 1) * L / n)
    """

    pool: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: int | Sequence[int], data_format: str | None = None, **kwargs: Any):
        super().__init__(data_format, **kwargs)
        self.output_size = per_axis("output_size", output_size, self.rank)

    def call(self, inputs):
        return type(self).pool(inputs, self.output_size, self.data_format)

    def compute_output_shape(self, input_shape):
        return self.shape_of(input_shape, self.output_size, input_shape[self.channel_axis])

    def get_config(self):
        return {**super().get_config(), "output_size": self.output_size, "data_format": self.data_format}


class AdaptiveAveragePooling1D(AdaptivePooling):
    """The means of `output_size` windows of a sequence.

    inputs: float[batch, steps, channels]   result: float[batch, O, channels]; more in `AdaptivePooling`
    """

    rank, pool = 1, staticmethod(ops.adaptive_average_pool)


class AdaptiveAveragePooling2D(AdaptivePooling):
    """The means of `output_size` windows of an image.

    inputs: float[batch, height, width, channels]   result: float[batch, O1, O2, channels]; more in `AdaptivePooling`
    """

    rank, pool = 2, staticmethod(ops.adaptive_average_pool)


class AdaptiveAveragePooling3D(AdaptivePooling):
    """The means of `output_size` windows of a volume.

    inputs: float[batch, L1, L2, L3, channels]   result: float[batch, O1, O2, O3, channels]; more in `AdaptivePooling`
    """

    rank, pool = 3, staticmethod(ops.adaptive_average_pool)


class AdaptiveMaxPooling1D(AdaptivePooling):
    """The maxima of `output_size` windows of a sequence.

    inputs: [batch, steps, channels]   result: [batch, O, channels]; more in `AdaptivePooling`
    """

    rank, pool = 1, staticmethod(ops.adaptive_max_pool)


class AdaptiveMaxPooling2D(AdaptivePooling):
    """The maxima of `output_size` windows of an image.

    inputs: [batch, height, width, channels]   result: [batch, O1, O2, channels]; more in `AdaptivePooling`
    """

    rank, pool = 2, staticmethod(ops.adaptive_max_pool)


class AdaptiveMaxPooling3D(AdaptivePooling):
    """The maxima of `output_size` windows of a volume.

    inputs: [batch, L1, L2, L3, channels]   result: [batch, O1, O2, O3, channels]; more in `AdaptivePooling`
    """

    rank, pool = 3, staticmethod(ops.adaptive_max_pool)


MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
GlobalMaxPool1D, GlobalMaxPool2D, GlobalMaxPool3D = GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D
GlobalAvgPool1D, GlobalAvgPool2D = GlobalAveragePooling1D, GlobalAveragePooling2D
GlobalAvgPool3D = GlobalAveragePooling3D
