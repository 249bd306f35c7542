"""SimpleRNN: the state is a function of the inputs and the state before."""

from __future__ import annotations

from typing import Any

from gnomon.layers.recurrent.cell import GatedCell, cell_arguments
from gnomon.layers.recurrent.rnn import CellLayer


class SimpleRNNCell(GatedCell):
    """One step of SimpleRNN: h' = activation(x @ kernel + bias + h @ recurrent_kernel).

    inputs: [batch, features]   state: h[batch, units]   result: (h', [h'])

    Raises ArgumentError unless `units` is a positive integer.
    Elman 1990, "Finding structure in time".
    """

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
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
        super().__init__(units, cell_arguments(locals()), **kwargs)
        self.state_size = units

    def call(self, sequence, states, training=False):
        h = states[0] if isinstance(states, (list, tuple)) else states
        for_inputs, for_state = self.dropout_masks(sequence, h, training)
        (x,) = self.of_inputs(sequence, for_inputs, self.bias)
        (r,) = self.of_state(h, for_state)
        output = self.activate(x + r)
        return output, [output] if isinstance(states, (list, tuple)) else output


class SimpleRNN(CellLayer):
    """A recurrence in which the output is fed back: h_t = activation(x_t @ kernel + bias + h_{t-1} @ recurrent_kernel).

    sequences: [batch, steps, features]   result: [batch, units], or [batch, steps, units] with `return_sequences`

    `RNN` tells of the arguments that all recurrent layers have. Raises ArgumentError unless `units` is a positive
    integer.
    Elman 1990, "Finding structure in time".
    """

    cell_class = SimpleRNNCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            units, cell_arguments(locals()), return_sequences=return_sequences, return_state=return_state,
            go_backwards=go_backwards, stateful=stateful, unroll=unroll, activity_regularizer=activity_regularizer,
            **kwargs,
        )  # fmt: skip
