"""EinsumDense: a dense layer whose sum of products is written down as an einsum."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from gnomon import activations, constraints, initializers, regularizers
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.initializers import VarianceScaling
from gnomon.layers.input_spec import InputSpec
from gnomon.layers.layer import Layer
from gnomon.ops.arguments import together
from gnomon.ops.products import contracted
from gnomon.tensor import Tensor

LETTERS = "[a-zA-Z]"
FORM = re.compile(rf"(\.\.\.)?({LETTERS}+)(\.\.\.)?,({LETTERS}+)->(\.\.\.)?({LETTERS}+)(\.\.\.)?")


class Equation(NamedTuple):
    """A product of inputs with a kernel: the letters of each, and whether axes without a letter come `before` them
    or `after`."""

    inputs: str
    kernel: str
    output: str
    before: bool
    after: bool

    @classmethod
    def read(cls, text: str) -> Equation:
        """Raises ArgumentError for another form than `X,Y->Z`, `...X,Y->...Z` or `X...,Y->Z...`."""
        found = FORM.fullmatch(text.replace(" ", ""))
        before, inputs, after, kernel, out_before, output, out_after = found.groups("") if found else ("",) * 7
        if not found or before != out_before or after != out_after or (before and after):
            raise ArgumentError(
                f"Invalid einsum equation '{text}'. Equations must be in the form [X],[Y]->[Z], ...[X],[Y]->...[Z], or "
                "[X]...,[Y]->[Z]...."
            )
        for letters, what in ((inputs, "input"), (kernel, "kernel"), (output, "output")):
            if len(set(letters)) < len(letters):
                raise ArgumentError(f"einsum equation '{text}': a letter occurs twice in the {what} '{letters}'")
        for letter in output:
            if letter not in inputs + kernel:
                raise ArgumentError(
                    f"Dimension '{letter}' was specified in the output '{output}' but has no corresponding dim in the "
                    f"input spec '{inputs}' or weight spec '{kernel}'"
                )
        for letter in kernel:
            if letter not in inputs + output:
                raise ArgumentError(
                    f"Weight dimension '{letter}' did not have a match in either the input spec '{inputs}' or the "
                    f"output spec '{output}'. For this layer, the weight must be fully specified."
                )
        return cls(inputs, kernel, output, bool(before), bool(after))

    def axes(self, rank: int) -> tuple[list[int], list[int], list[int]]:
        """Numbers for the axes of inputs of `rank` axes, of the kernel, and of the output."""
        number = {letter: k for k, letter in enumerate(dict.fromkeys(self.inputs + self.kernel))}
        extra = list(range(len(number), len(number) + rank - len(self.inputs)))

        def full(letters: str) -> list[int]:
            own = [number[letter] for letter in letters]
            return [*extra, *own] if self.before else [*own, *extra]

        return full(self.inputs), [number[letter] for letter in self.kernel], full(self.output)


class EinsumDense(Layer):
    """activation(einsum(equation, inputs, kernel) + bias).

    equation       `ab,bc->ac`: axes of the inputs, of the kernel, of the output; `...ab,bc->...ac` and
                   `ab...,bc->ac...` stand for inputs with any number of further axes before or after
    output_shape   sizes of the output without the batch, None for those that the inputs decide; an integer for one
    bias_axes      the letters of the output along which the bias differs; None: no bias

    Raises ArgumentError for an equation of another form, ShapeError where sizes disagree or that of a kernel's axis is
    open.
    """

    def __init__(
        self,
        equation: str,
        output_shape: int | Sequence[int | None],
        activation: Any = None,
        bias_axes: str | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(equation, str):
            raise ArgumentError(f"EinsumDense(equation) is a string such as '...x,xy->...y', got {equation!r}")
        self.equation = equation
        self._parsed = Equation.read(equation)
        given = (output_shape,) if isinstance(output_shape, int) else output_shape
        if isinstance(given, str) or not hasattr(given, "__iter__"):
            raise ArgumentError(f"EinsumDense(output_shape) is a size or a tuple of sizes and None, got {given!r}")
        self.partial_output_shape = tuple(given)
        if any(d is not None and (not isinstance(d, int) or d <= 0) for d in self.partial_output_shape):
            raise ArgumentError(f"EinsumDense(output_shape) holds positive sizes and None, got {output_shape!r}")
        for letter in bias_axes or "":
            if letter not in self._parsed.output:
                raise ArgumentError(
                    f"Bias dimension '{letter}' was requested, but is not part of the output spec "
                    f"'{self._parsed.output}'"
                )
        self.bias_axes = bias_axes
        self.activation = activations.get(activation)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def build(self, input_shape):
        sizes = self._sizes(tuple(input_shape))
        letters = self._parsed
        initializer = self.kernel_initializer
        if isinstance(initializer, VarianceScaling) and None in (initializer.input_axes, initializer.output_axes):
            summed = [k for k, letter in enumerate(letters.kernel) if letter not in letters.output]
            kept = [k for k, letter in enumerate(letters.kernel) if letter in letters.output]
            seen = {"seed": initializer.seed, "input_axes": summed, "output_axes": kept}
            initializer = type(initializer).from_config({**initializer.get_config(), **seen})
        self.kernel = self.add_weight(
            [sizes[letter] for letter in letters.kernel],
            initializer,
            name="kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.bias_axes is not None:
            first = min((letters.output.index(letter) for letter in self.bias_axes), default=len(letters.output))
            shape = [sizes[letter] if letter in self.bias_axes else 1 for letter in letters.output[first:]]
            if not letters.before:
                shape += [1] * (len(input_shape) - len(letters.inputs))
            self.bias = self.add_weight(
                shape,
                self.bias_initializer,
                name="bias",
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = InputSpec(ndim=len(input_shape))

    def _sizes(self, input_shape: tuple) -> dict[str, Any]:
        """The size that each letter stands for, None where it is open."""
        letters, rank = self._parsed, len(input_shape)
        extra = rank - len(letters.inputs)
        if extra < 0 or (extra and not letters.before and not letters.after):
            raise ShapeError(
                f"EinsumDense with the equation '{self.equation}' cannot take inputs of {rank} axes, {input_shape}"
            )
        own = input_shape[extra:] if letters.before else input_shape[: rank - extra]
        known = dict(zip(letters.inputs, own, strict=True))
        # `output_shape` is without the batch axis, which is one of the axes before the letters, if there are any
        wanted = letters.output if letters.before and extra else letters.output[1:]
        if len(wanted) != len(self.partial_output_shape):
            raise ShapeError(
                f"EinsumDense with the equation '{self.equation}' needs output_shape to have {len(wanted)} sizes, "
                f"those of '{wanted}', got {self.partial_output_shape}"
            )
        for letter, size in zip(wanted, self.partial_output_shape, strict=True):
            if letter not in known:
                known[letter] = size
            elif size is not None and size != known[letter]:
                raise ShapeError(
                    f"Input shape and output shape do not match at shared dimension '{letter}'. Input shape is "
                    f"{known[letter]}, and output shape is {size}."
                )
        if wanted != letters.output:
            known.setdefault(letters.output[0], input_shape[0])
        return known

    def call(self, inputs):
        x, w = together(inputs, self.kernel)
        y = Tensor(contracted(x, w, *self._parsed.axes(x.rank)))
        if self.bias is not None:
            y = y + self.bias
        return y if self.activation is None else self.activation(y)

    def compute_output_shape(self, input_shape):
        sizes = self._sizes(tuple(input_shape))
        extra = len(input_shape) - len(self._parsed.inputs)
        own = tuple(sizes[letter] for letter in self._parsed.output)
        if not extra:
            return own
        return (*input_shape[:extra], *own) if self._parsed.before else (*own, *input_shape[-extra:])

    def get_config(self):
        return {
            **super().get_config(),
            "output_shape": self.partial_output_shape,
            "equation": self.equation,
            "activation": activations.serialize(self.activation),
            "bias_axes": self.bias_axes,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
        }
