"""ConvLSTM: LSTM whose products are convolutions, for sequences of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.ops import build
from gnomon.layers.convolution import as_count, sizes_of_windows
from gnomon.layers.input_spec import InputSpec
from gnomon.layers.layer import Layer
from gnomon.layers.recurrent.cell import cell_arguments
from gnomon.layers.recurrent.lstm import LSTMCell
from gnomon.layers.recurrent.rnn import RNN
from gnomon.ops.arguments import one_of
from gnomon.ops.convolution import as_format, per_axis
from gnomon.tensor import Tensor, node_of

OWN = ("kernel_size", "strides", "padding", "data_format", "dilation_rate")
"""Arguments besides those of an LSTM cell."""


class ConvLSTMCell(LSTMCell):
    """One step of ConvLSTM: LSTMCell with convolutions of inputs and state in the place of products.

    inputs: [batch, L1..Ld, channels]   states: h, c[batch, O1..Od, filters]   result: (h', [h', c'])
    kernel: [K1..Kd, channels, 4 * filters]   recurrent_kernel: [K1..Kd, filters, 4 * filters]

    rank   d
    The state is convolved with strides of 1 and padding "same". With `data_format="channels_first"` channels and
    filters stand before the spatial axes.

    Raises ArgumentError for arguments that make no convolution, ShapeError for open spatial axes.
    Shi et al. 2015, "Convolutional LSTM network", without its peepholes from c to the gates, as in Keras.
    """

    def __init__(
        self,
        rank: int,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        arguments = cell_arguments(locals())
        title = f"ConvLSTM{rank}D"
        if rank not in (1, 2, 3):
            raise ArgumentError(f"ConvLSTMCell(rank) is 1, 2 or 3, got {rank!r}")
        super().__init__(as_count(title, "filters", filters), **arguments, **kwargs)
        self.rank, self.filters = rank, filters
        self.kernel_size = per_axis("kernel_size", kernel_size, rank)
        self.strides = per_axis("strides", strides, rank)
        self.padding = one_of("padding", padding.lower() if isinstance(padding, str) else padding, ("valid", "same"))
        self.data_format = as_format(data_format)
        self.dilation_rate = per_axis("dilation_rate", dilation_rate, rank)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ArgumentError(
                f"{title} takes strides > 1 or dilation_rate > 1, not both: got strides={self.strides} and "
                f"dilation_rate={self.dilation_rate}"
            )
        self.masks_for_gates = self.gates
        self.state_size = [filters, filters]  # and the spatial axes, which `get_initial_state` knows
        self.output_size = filters
        self._step_shape: tuple | None = None

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def build(self, inputs_shape, states_shape=None):
        spatial = self._spatial(inputs_shape)
        channels = inputs_shape[self.channel_axis]
        if None in (*spatial, channels):
            raise ShapeError(
                "ConvLSTM layers need to know the spatial sizes and the channels of their inputs, got steps of shape "
                f"{tuple(inputs_shape)}: give the Input's axes sizes"
            )
        self._step_shape = tuple(inputs_shape[1:])
        self.state_shape(inputs_shape)  # a window that does not fit is told of now
        self._add("kernel", (*self.kernel_size, channels, 4 * self.filters))
        self._add("recurrent_kernel", (*self.kernel_size, self.filters, 4 * self.filters), "recurrent")
        self.bias = None
        if self.use_bias:
            self._add("bias", self.bias_shape(), initializer=self.first_bias())

    def _spatial(self, shape: Sequence[Any]) -> tuple:
        return tuple(shape[1:-1] if self.data_format == "channels_last" else shape[2:])

    def state_shape(self, inputs_shape: Sequence[Any]) -> tuple:
        """[batch, ...] of the states, for a step's inputs of this shape."""
        sizes = sizes_of_windows(
            self._spatial(inputs_shape), self.kernel_size, self.strides, self.dilation_rate, self.padding
        )
        last = self.data_format == "channels_last"
        return (inputs_shape[0], *sizes, self.filters) if last else (inputs_shape[0], self.filters, *sizes)

    def compute_output_shape(self, inputs_shape, states_shape=None):
        shape = self.state_shape(inputs_shape)
        return shape, [shape, shape]

    def get_initial_state(self, batch_size=None):
        if self._step_shape is None:
            raise ShapeError(f"cell {self.name!r} is not built: the spatial sizes of its states are not known yet")
        shape = self.state_shape((batch_size, *self._step_shape))
        return [ops.zeros(shape, dtype=self.compute_dtype) for _ in range(2)]

    def project(self, x, weight):
        return ops.conv(x, weight, self.strides, self.padding, self.data_format, self.dilation_rate)

    def feed_back(self, x, weight):
        return ops.conv(x, weight, 1, "same", self.data_format)

    def add_bias(self, x, bias):
        shape = x.node.shape
        return x + Tensor(build.broadcast(node_of(bias), shape, (self.channel_axis % len(shape),)))

    def get_config(self):
        config = super().get_config()
        del config["units"]
        return {**config, "filters": self.filters, **{name: getattr(self, name) for name in OWN}}


class ConvLSTM(RNN):
    """LSTM over sequences of signals, pictures or volumes, with convolutions in the place of products.

    sequences: [batch, steps, L1..Ld, channels], or [batch, steps, channels, L1..Ld] with
    `data_format="channels_first"`   result: [batch, O1..Od, filters], with the steps before O1 if `return_sequences`
    states: h, c of the shape of a step's result

    `ConvLSTMCell` has the formulas and weights, `RNN` the arguments that all recurrent layers have.
    Shi et al. 2015, "Convolutional LSTM network".
    """

    rank = 0

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        **kwargs: Any,
    ):
        given = locals()
        arguments = {**cell_arguments(given), **{name: given[name] for name in OWN}}
        cell = ConvLSTMCell(self.rank, filters, **arguments, name="conv_lstm_cell", dtype=kwargs.get("dtype"))
        super().__init__(
            cell, return_sequences=return_sequences, return_state=return_state, go_backwards=go_backwards,
            stateful=stateful, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.input_spec = InputSpec(ndim=self.rank + 3)
        self._names = ("filters", *arguments)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_names", ()):
            return getattr(self.cell, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        batch, steps, *rest = sequences_shape
        state = self.cell.state_shape((batch, *rest))
        output = (batch, steps, *state[1:]) if self.return_sequences else state
        return (output, state, state) if self.return_state else output

    def get_config(self):
        config = RNN.get_config(self)
        del config["cell"]
        of_cell = self.cell.get_config()
        config.setdefault("activity_regularizer", None)
        return {**config, **{name: of_cell[name] for name in self._names}}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return Layer.from_config.__func__(cls, config)  # type: ignore[attr-defined]  # not RNN's, which wants a cell


class ConvLSTM1D(ConvLSTM):
    __doc__ = ConvLSTM.__doc__
    rank = 1


class ConvLSTM2D(ConvLSTM):
    __doc__ = ConvLSTM.__doc__
    rank = 2


class ConvLSTM3D(ConvLSTM):
    __doc__ = ConvLSTM.__doc__
    rank = 3
