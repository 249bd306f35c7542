"""What the cells with a kernel for inputs and one for states have in common."""

from __future__ import annotations

from typing import Any

from gnomon import activations, constraints, initializers, ops, regularizers
from gnomon.compiler.errors import ArgumentError
from gnomon.layers.layer import Layer
from gnomon.layers.recurrent.dropout import DropoutCell
from gnomon.tensor import Tensor

RATES = ("dropout", "recurrent_dropout")
OBJECTS = {
    "activation": activations, "recurrent_activation": activations,
    "kernel_initializer": initializers, "recurrent_initializer": initializers, "bias_initializer": initializers,
    "kernel_regularizer": regularizers, "recurrent_regularizer": regularizers, "bias_regularizer": regularizers,
    "kernel_constraint": constraints, "recurrent_constraint": constraints, "bias_constraint": constraints,
}  # fmt: skip
"""Arguments that are objects, and where they are looked up by name."""

CELL_ARGUMENTS = {"use_bias", "unit_forget_bias", "reset_after", "seed", *RATES, *OBJECTS}


def cell_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments of a constructor that are a cell's, besides its units."""
    return {name: value for name, value in given.items() if name in CELL_ARGUMENTS}


class GatedCell(DropoutCell, Layer):
    """Base of SimpleRNNCell, LSTMCell and GRUCell: gates that are sums of products with inputs and with the state.

    inputs: [batch, features]   kernel: [features, gates * units]   recurrent_kernel: [units, gates * units]

    arguments   those of the constructor besides `units`
    """

    gates = 1
    kernel: Any
    recurrent_kernel: Any
    bias: Any
    activation: Any
    recurrent_activation: Any
    use_bias: bool
    bias_initializer: Any
    state_size: Any

    def __init__(self, units: Any, arguments: dict[str, Any], **kwargs: Any):
        if not isinstance(units, int) or isinstance(units, bool) or units <= 0:
            raise ArgumentError(
                f"Received an invalid value for argument `units`, expected a positive integer, got {units!r}."
            )
        apart = kwargs.pop("implementation", 2) == 1
        super().__init__(**kwargs)
        self.units = units
        self._arguments = tuple(arguments)
        self._set_dropout(*(arguments.pop(name) for name in (*RATES, "seed")))
        for name, value in arguments.items():
            setattr(self, name, OBJECTS[name].get(value) if name in OBJECTS else value)
        if self.gates > 1 and (apart or self.recurrent_dropout):
            self.masks_for_gates = self.gates
        self.output_size = units

    def build(self, input_shape):
        self._add("kernel", (input_shape[-1], self.gates * self.units))
        self._add("recurrent_kernel", (self.units, self.gates * self.units), "recurrent")
        self.bias = None
        if self.use_bias:
            self._add("bias", self.bias_shape(), initializer=self.first_bias())

    def _add(self, name: str, shape: tuple[int, ...], prefix: str | None = None, initializer: Any = None) -> None:
        prefix = prefix or name
        weight = self.add_weight(
            shape,
            initializer or getattr(self, f"{prefix}_initializer"),
            name=name,
            regularizer=getattr(self, f"{prefix}_regularizer"),
            constraint=getattr(self, f"{prefix}_constraint"),
        )
        setattr(self, name, weight)

    def bias_shape(self) -> tuple[int, ...]:
        return (self.gates * self.units,)

    def first_bias(self) -> Any:
        return self.bias_initializer

    def split(self, x: Any, axis: int = -1) -> list[Any]:
        """The part of each gate."""
        n = self.units
        before = (slice(None),) * (axis % x.ndim)
        return [x[(*before, slice(k * n, (k + 1) * n))] for k in range(self.gates)] if self.gates > 1 else [x]

    def of_inputs(self, x: Tensor, masks: list[Tensor], bias: Any = None) -> list[Tensor]:
        """What the inputs say to each gate."""
        return self._sums(self.project, x, self.kernel, masks, bias)

    def of_state(self, h: Tensor, masks: list[Tensor], bias: Any = None) -> list[Tensor]:
        """What the state says to each gate."""
        return self._sums(self.feed_back, h, self.recurrent_kernel, masks, bias)

    def _sums(self, product: Any, x: Tensor, weight: Any, masks: list[Tensor], bias: Any) -> list[Tensor]:
        """product(x * mask, weight) + bias for each gate: one product, unless the gates have masks of their own.

        The bias is added before the gates part, so that a loop finds one large product that it can do beforehand.
        """
        if len(masks) > 1:
            found = [product(x * m, w) for m, w in zip(masks, self.split(weight), strict=True)]
            if bias is None:
                return found
            return [self.add_bias(f, b) for f, b in zip(found, self.split(bias), strict=True)]
        sums = product(x * masks[0] if masks else x, weight)
        return self.split(sums if bias is None else self.add_bias(sums, bias), self.channel_axis)

    channel_axis = -1

    def project(self, x: Tensor, weight: Any) -> Tensor:
        return x @ weight

    feed_back = project

    def add_bias(self, x: Tensor, bias: Any) -> Tensor:
        return x + bias

    def activate(self, x: Tensor) -> Tensor:
        return x if self.activation is None else self.activation(x)

    def recurrently_activate(self, x: Tensor) -> Tensor:
        return x if self.recurrent_activation is None else self.recurrent_activation(x)

    def get_initial_state(self, batch_size=None):
        sizes = self.state_size if isinstance(self.state_size, list) else [self.state_size]
        return [ops.zeros((batch_size, d), dtype=self.compute_dtype) for d in sizes]

    def get_config(self):
        config = {**super().get_config(), "units": self.units}
        for name in self._arguments:
            value = getattr(self, name)
            config[name] = OBJECTS[name].serialize(value) if name in OBJECTS else value
        return config
