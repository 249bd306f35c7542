"""Transposed convolution along one, two or three axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import constraints, initializers, ops, regularizers
from gnomon.compiler.errors import ArgumentError
from gnomon.compiler.ops.patches import reach
from gnomon.layers.convolution import Convolving, OpenShape, Shape, as_count
from gnomon.ops.convolution import per_axis


class ConvolutionTranspose(Convolving):
    """activation(conv_transpose(inputs, kernel) + bias): from the places of a convolution back to what it came from.

    inputs: float[batch, L1..Ld, channels], or float[batch, channels, L1..Ld] with `data_format="channels_first"`
    kernel: float[K1..Kd, filters, channels]   bias: float[filters]
    result: float[batch, O1..Od, filters], or float[batch, filters, O1..Od]
    With E = dilation_rate * (K - 1) + 1, O is for padding "valid" (L - 1) * strides + max(E, strides), or
    (L - 1) * strides + E + output_padding; for "same" L * strides, or (L - 1) * strides + E % 2 + output_padding.

    output_padding   how many elements are added behind, less than `strides`: the sizes of which a strided convolution
                     makes the same L are told apart by it

    Raises ArgumentError for arguments that make none, ShapeError for inputs with other channels than at first.
    Dumoulin, Visin 2016, "A guide to convolution arithmetic for deep learning", chapter 4.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        output_padding: int | Sequence[int] | None = None,
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, bias_initializer,
            bias_regularizer, bias_constraint, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.filters = as_count(type(self).__name__, "filters", filters)
        self.output_padding = None
        if output_padding is not None:
            self.output_padding = per_axis("output_padding", output_padding, self.rank, 0)
            if any(extra >= stride for extra, stride in zip(self.output_padding, self.strides, strict=True)):
                raise ArgumentError(
                    f"{type(self).__name__}: output_padding must be less than strides along each axis, got "
                    f"output_padding={self.output_padding} and strides={self.strides}"
                )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            (*self.kernel_size, self.filters, self.channels(input_shape)),
            self.kernel_initializer,
            name="kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.add_bias(self.filters)

    def call(self, inputs):
        outputs = ops.conv_transpose(
            inputs,
            self.kernel,
            self.strides,
            self.padding,
            self.output_padding,
            self.data_format,
            self.dilation_rate,
        )
        return self.finish(outputs)

    def window_sizes(self, input_shape: OpenShape) -> Shape:
        """The spatial sizes of the output."""
        found: list[int | None] = []
        for k, extent in enumerate(self.spatial(input_shape)):
            stride, span = self.strides[k], reach(self.kernel_size[k], self.dilation_rate[k])
            extra = None if self.output_padding is None else self.output_padding[k]
            if extent is None:
                found.append(None)
            elif self.padding == "valid":
                found.append((extent - 1) * stride + (max(span, stride) if extra is None else span + extra))
            else:
                found.append(extent * stride if extra is None else (extent - 1) * stride + span % 2 + extra)
        return tuple(found)

    def compute_output_shape(self, input_shape):
        return self.shape_of(input_shape, self.window_sizes(input_shape), self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "output_padding": self.output_padding,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
        }


class Conv1DTranspose(ConvolutionTranspose):
    """Transposed convolution over sequences.

    inputs: float[batch, steps, channels]   kernel: float[K, filters, channels]
    result: float[batch, O, filters]; arguments, sizes and errors as for `ConvolutionTranspose`
    """

    rank = 1


class Conv2DTranspose(ConvolutionTranspose):
    """Transposed convolution over images.

    inputs: float[batch, height, width, channels]   kernel: float[K1, K2, filters, channels]
    result: float[batch, O1, O2, filters]; arguments, sizes and errors as for `ConvolutionTranspose`
    """

    rank = 2


class Conv3DTranspose(ConvolutionTranspose):
    """Transposed convolution over volumes.

    inputs: float[batch, L1, L2, L3, channels]   kernel: float[K1, K2, K3, filters, channels]
    result: float[batch, O1, O2, O3, filters]; arguments, sizes and errors as for `ConvolutionTranspose`, but that
    `data_format` comes before `output_padding`
    """

    rank = 3

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        output_padding: int | Sequence[int] | None = None,
        dilation_rate: int | Sequence[int] = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            filters, kernel_size, strides, padding, output_padding, data_format, dilation_rate, activation, use_bias,
            kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer,
            kernel_constraint, bias_constraint, **kwargs,
        )  # fmt: skip


Convolution1DTranspose, Convolution2DTranspose = Conv1DTranspose, Conv2DTranspose
Convolution3DTranspose = Conv3DTranspose
