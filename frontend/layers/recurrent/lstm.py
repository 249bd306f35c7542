"""LSTM: a state that gates write, keep and show."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnomon.initializers import Initializer, Ones
from gnomon.layers.recurrent.cell import GatedCell, cell_arguments
from gnomon.layers.recurrent.rnn import CellLayer


class LSTMCell(GatedCell):
    """One step of LSTM.

    i, f, c, o = split(x @ kernel + bias + h @ recurrent_kernel)
    c' = sigmoid(f) * c_before + sigmoid(i) * tanh(c)   h' = sigmoid(o) * tanh(c')
    inputs: [batch, features]   states: h[batch, units], c[batch, units]   result: (h', [h', c'])

    activation             in the place of tanh
    recurrent_activation   in the place of sigmoid
    unit_forget_bias       the bias of f begins as 1 (Jozefowicz, Zaremba, Sutskever 2015, "An empirical exploration of
                           recurrent network architectures", section 2.2)
    Raises ArgumentError unless `units` is a positive integer.
    Hochreiter, Schmidhuber 1997, "Long short-term memory", with the forget gate of Gers, Schmidhuber, Cummins 2000,
    "Learning to forget".
    """

    gates = 4
    unit_forget_bias: bool

    def __init__(
        self,
        units: int,
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
        super().__init__(units, cell_arguments(locals()), **kwargs)
        self.state_size = [units, units]

    def first_bias(self):
        return ForgetBias(self.bias_initializer, self.units) if self.unit_forget_bias else self.bias_initializer

    def call(self, inputs, states, training=False):
        h, c = states
        for_inputs, for_state = self.dropout_masks(inputs, h, training)
        x = self.of_inputs(inputs, for_inputs, self.bias)
        r = self.of_state(h, for_state)
        i, f, new, o = (a + b for a, b in zip(x, r, strict=True))
        c = self.recurrently_activate(f) * c + self.recurrently_activate(i) * self.activate(new)
        h = self.recurrently_activate(o) * self.activate(c)
        return h, [h, c]


class ForgetBias(Initializer):
    """1 for the forget gate, what `others` makes for the three others. The gates follow one another along axis 0."""

    def __init__(self, others: Any, units: int):
        self.others, self.units = others, units

    def __call__(self, shape, dtype=None):
        n, rest = self.units, tuple(shape[1:])
        return np.concatenate([
            self.others((n, *rest), dtype=dtype), Ones()((n, *rest), dtype), self.others((2 * n, *rest), dtype=dtype)
        ])  # fmt: skip


class LSTM(CellLayer):
    """Long short-term memory: a recurrence with a state that gates write, keep and show (`LSTMCell` has the formulas).

    sequences: [batch, steps, features]   result: [batch, units], or [batch, steps, units] with `return_sequences`
    states: h[batch, units], c[batch, units]

    use_cudnn   taken for compatibility
    `RNN` tells of the arguments that all recurrent layers have. Raises ArgumentError unless `units` is a positive
    integer.
    Hochreiter, Schmidhuber 1997, "Long short-term memory".
    """

    cell_class = LSTMCell

    def __init__(
        self,
        units: int,
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
        unroll: bool = False,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ):
        super().__init__(
            units, cell_arguments(locals()), return_sequences=return_sequences, return_state=return_state,
            go_backwards=go_backwards, stateful=stateful, unroll=unroll, activity_regularizer=activity_regularizer,
            use_cudnn=use_cudnn, **kwargs,
        )  # fmt: skip
