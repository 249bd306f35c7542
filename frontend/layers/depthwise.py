"""Convolution of each channel by itself, and the same followed by a mixing of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import constraints, initializers, ops, regularizers
from gnomon.layers.convolution import Convolving, as_count


class DepthwiseConvolution(Convolving):
    """activation(depthwise_conv(inputs, kernel) + bias): each channel has filters of its own.

    inputs: float[batch, L1..Ld, channels], or float[batch, channels, L1..Ld] with `data_format="channels_first"`
    kernel: float[K1..Kd, channels, depth_multiplier]   bias: float[channels * depth_multiplier]
    result: float[batch, O1..Od, channels * depth_multiplier], the filters of one channel side by side; O as for
    `Convolution`

    Raises ArgumentError for arguments that make no convolution, ShapeError for inputs that are smaller than a window or
    have other channels than at first.
    """

    strides_or_dilation = False

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, bias_initializer,
            bias_regularizer, bias_constraint, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.depth_multiplier = as_count(type(self).__name__, "depth_multiplier", depth_multiplier)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.depthwise_constraint = constraints.get(depthwise_constraint)

    def build(self, input_shape):
        channels = self.channels(input_shape)
        self.window_sizes(input_shape)
        self.kernel = self.add_weight(
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            name="kernel",
            regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
        )
        self.add_bias(channels * self.depth_multiplier)

    def call(self, inputs):
        outputs = ops.depthwise_conv(
            inputs, self.kernel, self.strides, self.padding, self.data_format, self.dilation_rate
        )
        return self.finish(outputs)

    def compute_output_shape(self, input_shape):
        channels = input_shape[self.channel_axis]
        made = None if channels is None else channels * self.depth_multiplier
        return self.shape_of(input_shape, self.window_sizes(input_shape), made)

    def get_config(self):
        return {
            **super().get_config(),
            "depth_multiplier": self.depth_multiplier,
            "depthwise_initializer": initializers.serialize(self.depthwise_initializer),
            "depthwise_regularizer": regularizers.serialize(self.depthwise_regularizer),
            "depthwise_constraint": constraints.serialize(self.depthwise_constraint),
        }


class DepthwiseConv1D(DepthwiseConvolution):
    """Convolution of each channel of sequences by itself.

    inputs: float[batch, steps, channels]   kernel: float[K, channels, depth_multiplier]
    result: float[batch, O, channels * depth_multiplier]; arguments and errors as for `DepthwiseConvolution`
    """

    rank = 1


class DepthwiseConv2D(DepthwiseConvolution):
    """Convolution of each channel of images by itself.

    inputs: float[batch, height, width, channels]   kernel: float[K1, K2, channels, depth_multiplier]
    result: float[batch, O1, O2, channels * depth_multiplier]; arguments and errors as for `DepthwiseConvolution`
    """

    rank = 2


class SeparableConvolution(Convolving):
    """activation(separable_conv(inputs, depthwise_kernel, pointwise_kernel) + bias): first along the spatial axes, each
    channel by itself, then from channels to filters, each place by itself.

    inputs: float[batch, L1..Ld, channels], or float[batch, channels, L1..Ld] with `data_format="channels_first"`
    depthwise_kernel: float[K1..Kd, channels, depth_multiplier]
    pointwise_kernel: float[1..1, channels * depth_multiplier, filters]   bias: float[filters]
    result: float[batch, O1..Od, filters], or float[batch, filters, O1..Od]; O as for `Convolution`

    Raises ArgumentError for arguments that make no convolution, ShapeError for inputs that are smaller than a window or
    have other channels than at first.
    Chollet 2017, "Xception: deep learning with depthwise separable convolutions", section 2.
    """

    strides_or_dilation = False

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, bias_initializer,
            bias_regularizer, bias_constraint, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.filters = as_count(type(self).__name__, "filters", filters)
        self.depth_multiplier = as_count(type(self).__name__, "depth_multiplier", depth_multiplier)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer)
        self.depthwise_constraint = constraints.get(depthwise_constraint)
        self.pointwise_constraint = constraints.get(pointwise_constraint)

    def build(self, input_shape):
        channels = self.channels(input_shape)
        self.window_sizes(input_shape)
        self.depthwise_kernel = self.add_weight(
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            name="depthwise_kernel",
            regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
        )
        self.pointwise_kernel = self.add_weight(
            (*(1,) * self.rank, channels * self.depth_multiplier, self.filters),
            self.pointwise_initializer,
            name="pointwise_kernel",
            regularizer=self.pointwise_regularizer,
            constraint=self.pointwise_constraint,
        )
        self.add_bias(self.filters)

    def call(self, inputs):
        outputs = ops.separable_conv(
            inputs,
            self.depthwise_kernel,
            self.pointwise_kernel,
            self.strides,
            self.padding,
            self.data_format,
            self.dilation_rate,
        )
        return self.finish(outputs)

    def compute_output_shape(self, input_shape):
        return self.shape_of(input_shape, self.window_sizes(input_shape), self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "depth_multiplier": self.depth_multiplier,
            "depthwise_initializer": initializers.serialize(self.depthwise_initializer),
            "pointwise_initializer": initializers.serialize(self.pointwise_initializer),
            "depthwise_regularizer": regularizers.serialize(self.depthwise_regularizer),
            "pointwise_regularizer": regularizers.serialize(self.pointwise_regularizer),
            "depthwise_constraint": constraints.serialize(self.depthwise_constraint),
            "pointwise_constraint": constraints.serialize(self.pointwise_constraint),
        }


class SeparableConv1D(SeparableConvolution):
    """Convolution of each channel of sequences by itself, and a mixing of the channels of each step.

    inputs: float[batch, steps, channels]   result: float[batch, O, filters]
    Weights, arguments and errors as for `SeparableConvolution`.
    """

    rank = 1


class SeparableConv2D(SeparableConvolution):
    """Convolution of each channel of images by itself, and a mixing of the channels of each place.

    inputs: float[batch, height, width, channels]   result: float[batch, O1, O2, filters]
    Weights, arguments and errors as for `SeparableConvolution`.
    """

    rank = 2


SeparableConvolution1D, SeparableConvolution2D = SeparableConv1D, SeparableConv2D
