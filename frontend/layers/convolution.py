"""Convolution along one, two or three axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import activations, constraints, initializers, ops, regularizers
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.ops import build as graph_of
from gnomon.compiler.ops.patches import places, reach
from gnomon.layers.input_spec import InputSpec
from gnomon.layers.spatial import Spatial
from gnomon.ops.arguments import one_of
from gnomon.ops.convolution import per_axis
from gnomon.tensor import Tensor, node_of

OpenShape = Sequence[int | None]
Shape = tuple[int | None, ...]


def as_count(layer: str, name: str, value: Any) -> int:
    """A positive integer. Raises ArgumentError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ArgumentError(f"{layer}({name}) is a positive integer, got {name}={value!r}")
    return value


class SpatialLayer(Spatial):
    """Base of layers whose outputs have other sizes, and perhaps other channels: the parts of shapes by their names.

    inputs: [batch, L1..Ld, channels], or [batch, channels, L1..Ld] with `data_format="channels_first"`
    """

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def spatial(self, shape: OpenShape) -> OpenShape:
        """The spatial sizes in a shape."""
        return shape[1:-1] if self.data_format == "channels_last" else shape[2:]

    def shape_of(self, input_shape: OpenShape, spatial: OpenShape, channels: int | None) -> Shape:
        """The shape of an output with these spatial sizes and channels."""
        if self.data_format == "channels_last":
            return (input_shape[0], *spatial, channels)
        return (input_shape[0], channels, *spatial)


def sizes_of_windows(
    extents: OpenShape, windows: Sequence[int], strides: Sequence[int], dilations: Sequence[int], padding: str
) -> Shape:
    """How many windows there are along each axis, None where its size is open. Raises ShapeError if there are none."""
    found: list[int | None] = []
    for extent, window, stride, dilation in zip(extents, windows, strides, dilations, strict=True):
        if extent is None:
            found.append(None)
        elif padding == "valid":
            found.append(places(extent, window, stride, dilation))  # type: ignore[arg-type]  # integers give integers
        else:
            found.append(-(-extent // stride))
    if any(n is not None and n <= 0 for n in found):
        spans = [reach(window, dilation) for window, dilation in zip(windows, dilations, strict=True)]
        raise ShapeError(
            f"the computed output size would be zero or negative: windows that span {spans} elements do not fit into "
            f"spatial axes of {list(extents)} (padding={padding!r}, strides={list(strides)}, "
            f'dilation_rate={list(dilations)}). Use padding="same", smaller windows or larger inputs'
        )
    return tuple(found)


class Convolving(SpatialLayer):
    """Base of convolutions: what slides over the spatial axes is in the subclass, bias and activation are here."""

    paddings: tuple[str, ...] = ("valid", "same")
    strides_or_dilation = True  # only one of the two may be above 1

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int],
        padding: str,
        data_format: str | None,
        dilation_rate: int | Sequence[int],
        activation: Any,
        use_bias: bool,
        bias_initializer: Any,
        bias_regularizer: Any,
        bias_constraint: Any,
        **kwargs: Any,
    ):
        super().__init__(data_format, **kwargs)
        self.input_spec = InputSpec(min_ndim=self.rank + 2, max_ndim=self.rank + 2)
        self.kernel_size = per_axis("kernel_size", kernel_size, self.rank)
        self.strides = per_axis("strides", strides, self.rank)
        self.dilation_rate = per_axis("dilation_rate", dilation_rate, self.rank)
        self.padding = one_of("padding", padding.lower() if isinstance(padding, str) else padding, self.paddings)
        if self.strides_or_dilation and max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ArgumentError(
                f"{type(self).__name__} takes strides > 1 or dilation_rate > 1, not both: got strides={self.strides} "
                f"and dilation_rate={self.dilation_rate}"
            )
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = initializers.get(bias_initializer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.bias_constraint = constraints.get(bias_constraint)

    def add_bias(self, size: int) -> None:
        """Make the bias, if there is one."""
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                (size,),
                self.bias_initializer,
                name="bias",
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def channels(self, input_shape: OpenShape) -> int:
        """The channels of the input, of which all later inputs must have as many."""
        axes, found = self.rank + 2, input_shape[self.channel_axis]
        if found is None:
            raise ShapeError(
                f"layer {self.name!r} needs to know the number of channels (axis {self.channel_axis} of "
                f"{self.data_format} data), got inputs of shape {tuple(input_shape)}: give the input's axis a size "
                "instead of None"
            )
        self.input_spec = InputSpec(min_ndim=axes, max_ndim=axes, axes={self.channel_axis: found})
        return found

    def finish(self, outputs: Any) -> Any:
        """The outputs with bias and activation."""
        if self.bias is not None:
            if self.data_format == "channels_last":
                outputs = outputs + self.bias
            else:
                shape = outputs.node.shape
                outputs = outputs + Tensor(graph_of.broadcast(node_of(self.bias), shape, (1,)))
        return outputs if self.activation is None else self.activation(outputs)

    def window_sizes(self, input_shape: OpenShape) -> Shape:
        """The spatial sizes of the output."""
        extents = self.spatial(input_shape)
        return sizes_of_windows(extents, self.kernel_size, self.strides, self.dilation_rate, self.padding)

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
            "bias_constraint": constraints.serialize(self.bias_constraint),
        }


class Convolution(Convolving):
    """activation(conv(inputs, kernel) + bias), over `rank` spatial axes.

    inputs: float[batch, L1..Ld, channels], or float[batch, channels, L1..Ld] with `data_format="channels_first"`
    kernel: float[K1..Kd, channels / groups, filters]   bias: float[filters]
    result: float[batch, O1..Od, filters], or float[batch, filters, O1..Od]
    With padding "valid" O = floor((L - dilation_rate * (K - 1) - 1) / strides) + 1, with "same" O = ceil(L / strides).

    groups   parts that channels and filters are divided into, each convolved by itself

    Raises ArgumentError for arguments that make no convolution, ShapeError for inputs that are smaller than a window or
    have other channels than at first.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
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
        self.groups = as_count(type(self).__name__, "groups", groups)
        if filters % groups:
            raise ArgumentError(
                f"{type(self).__name__}: the number of filters must be a multiple of that of groups, got "
                f"filters={filters} and groups={groups}"
            )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)

    def build(self, input_shape):
        channels = self.channels(input_shape)
        if channels % self.groups:
            raise ShapeError(
                f"layer {self.name!r}: the number of input channels must be a multiple of groups={self.groups}, but "
                f"inputs of shape {tuple(input_shape)} have {channels} channels"
            )
        self.window_sizes(input_shape)
        self.kernel = self.add_weight(
            (*self.kernel_size, channels // self.groups, self.filters),
            self.kernel_initializer,
            name="kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.add_bias(self.filters)

    def call(self, inputs):
        outputs = ops.conv(inputs, self.kernel, self.strides, self.padding, self.data_format, self.dilation_rate)
        return self.finish(outputs)

    def compute_output_shape(self, input_shape):
        return self.shape_of(input_shape, self.window_sizes(input_shape), self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "groups": self.groups,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
        }


class Conv1D(Convolution):
    """Convolution over sequences.

    inputs: float[batch, steps, channels]   kernel: float[K, channels / groups, filters]
    result: float[batch, O, filters]; arguments, sizes and errors as for `Convolution`
    With padding "causal" O is that of "same", and no output sees inputs of later steps (van den Oord et al. 2016,
    "WaveNet: a generative model for raw audio", section 2.1).
    """

    rank = 1
    paddings: tuple[str, ...] = ("valid", "same", "causal")

    def call(self, inputs):
        if self.padding != "causal":
            return super().call(inputs)
        low = [0, 0, 0]
        low[self.first] = reach(self.kernel_size[0], self.dilation_rate[0]) - 1
        padded = Tensor(graph_of.pad(inputs.node, low, [0, 0, 0]))
        return self.finish(ops.conv(padded, self.kernel, self.strides, "valid", self.data_format, self.dilation_rate))


class Conv2D(Convolution):
    """Convolution over images.

    inputs: float[batch, height, width, channels]   kernel: float[K1, K2, channels / groups, filters]
    result: float[batch, O1, O2, filters]; arguments, sizes and errors as for `Convolution`
    """

    rank = 2


class Conv3D(Convolution):
    """Convolution over volumes, or over images in time.

    inputs: float[batch, L1, L2, L3, channels]   kernel: float[K1, K2, K3, channels / groups, filters]
    result: float[batch, O1, O2, O3, filters]; arguments, sizes and errors as for `Convolution`
    """

    rank = 3


Convolution1D, Convolution2D, Convolution3D = Conv1D, Conv2D, Conv3D
