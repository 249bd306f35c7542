"""GRU: a state that one gate keeps and another resets."""

from __future__ import annotations

from typing import Any

from gnomon.layers.recurrent.cell import GatedCell, cell_arguments
from gnomon.layers.recurrent.rnn import CellLayer


class GRUCell(GatedCell):
    """One step of GRU.

    z, r, n = split(x @ kernel + bias[0])   z = sigmoid(z + h @ U_z)   r = sigmoid(r + h @ U_r)
    n = tanh(n + r * (h @ U_n + b_n)), or, reset before the product, n = tanh(n + (r * h) @ U_n)
    h' = z * h + (1 - z) * n
    inputs: [batch, features]   state: h[batch, units]   recurrent_kernel: [U_z, U_r, U_n]   result: (h', [h'])

    activation             in the place of tanh
    recurrent_activation   in the place of sigmoid
    reset_after            resets the product, and there are biases of both products: bias[2, 3 * units]; else the state
                           is reset, and there is one bias[3 * units]
    Raises ArgumentError unless `units` is a positive integer.
    Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder for statistical machine translation":
    `reset_after=False` is its first version, True the later one of arXiv 1406.1078v1. What they call z is 1 - z here.
    """

    gates = 3
    reset_after: bool

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
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
        reset_after: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(units, cell_arguments(locals()), **kwargs)
        self.state_size = units

    def bias_shape(self):
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def call(self, inputs, states, training=False):
        h = states[0] if isinstance(states, (list, tuple)) else states
        for_inputs, for_state = self.dropout_masks(inputs, h, training)
        bias, recurrent_bias = self.bias, None
        if bias is not None and self.reset_after:
            bias, recurrent_bias = self.bias[0], self.bias[1]
        x_z, x_r, x_n = self.of_inputs(inputs, for_inputs, bias)
        if self.reset_after:
            r_z, r_r, r_n = self.of_state(h, for_state, recurrent_bias)
            r = self.recurrently_activate(x_r + r_r)
            n = self.activate(x_n + r * r_n)
        else:
            *two, last = self.split(self.recurrent_kernel)
            if for_state:
                r_z, r_r = (h * m @ w for m, w in zip(for_state, two, strict=False))
            else:
                both = h @ self.recurrent_kernel[:, : 2 * self.units]
                r_z, r_r = both[:, : self.units], both[:, self.units :]
            r = self.recurrently_activate(x_r + r_r)
            n = self.activate(x_n + (r * (h * for_state[2] if for_state else h)) @ last)
        z = self.recurrently_activate(x_z + r_z)
        h = z * h + (1 - z) * n
        return h, [h] if isinstance(states, (list, tuple)) else h


class GRU(CellLayer):
    """Gated recurrent units: a recurrence whose state one gate keeps and another resets (`GRUCell` has the formulas).

    sequences: [batch, steps, features]   result: [batch, units], or [batch, steps, units] with `return_sequences`
    state: h[batch, units]

    use_cudnn   taken for compatibility
    `RNN` tells of the arguments that all recurrent layers have. Raises ArgumentError unless `units` is a positive
    integer.
    Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder for statistical machine translation".
    """

    cell_class = GRUCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
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
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ):
        super().__init__(
            units, cell_arguments(locals()), return_sequences=return_sequences, return_state=return_state,
            go_backwards=go_backwards, stateful=stateful, unroll=unroll, activity_regularizer=activity_regularizer,
            use_cudnn=use_cudnn, **kwargs,
        )  # fmt: skip
