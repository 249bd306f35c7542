"""Layers that move elements: Flatten, Reshape, Permute, RepeatVector."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from gnomon import config
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.compiler.ops import build
from gnomon.layers.input_spec import InputSpec
from gnomon.layers.layer import Layer
from gnomon.tensor import Tensor, reshape_to


class Flatten(Layer):
    """All axes but the batch as one. x: [batch, ...]   result: [batch, product of the others]

    With `data_format='channels_first'` the second axis is moved to the end before.
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.data_format = data_format or config.image_data_format()
        if self.data_format not in ("channels_last", "channels_first"):
            raise ArgumentError(f"data_format is 'channels_last' or 'channels_first', got {data_format!r}")
        self.input_spec = InputSpec(min_ndim=1)

    def call(self, inputs):
        x = inputs.node
        if self.data_format == "channels_first" and x.rank > 2:
            x = build.transpose(x, (0, *range(2, x.rank), 1))
        rest = build.product(x.shape[1:])
        return Tensor(build.reshape(x, (x.shape[0], rest)))

    def compute_output_shape(self, input_shape):
        rest = input_shape[1:]
        return (input_shape[0], None if None in rest else prod(rest))

    def get_config(self):
        return {**super().get_config(), "data_format": self.data_format}


class Reshape(Layer):
    """The same elements of each sample under another shape; one size may be -1. The batch axis stays."""

    def __init__(self, target_shape: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.target_shape = (target_shape,) if isinstance(target_shape, int) else tuple(target_shape)
        if sum(d == -1 for d in self.target_shape) > 1:
            raise ArgumentError(f"Reshape(target_shape) may hold one -1, got {self.target_shape}")
        self.built = True

    def call(self, inputs):
        x = inputs.node
        if -1 not in self.target_shape:
            wanted, found = prod(self.target_shape), build.product(x.shape[1:])
            if isinstance(found, int) and found != wanted:
                raise ShapeError(
                    f"The total size of the tensor must be unchanged. Received: input_shape={inputs.shape[1:]} "
                    f"({found} elements a sample), target_shape={self.target_shape} ({wanted})"
                )
        return Tensor(reshape_to(x, (x.shape[0], *self.target_shape)))

    def get_config(self):
        return {**super().get_config(), "target_shape": self.target_shape}


class Permute(Layer):
    """Axes in another order: `dims` counts from 1, the batch axis stays first."""

    def __init__(self, dims: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ArgumentError(
                "Invalid permutation argument `dims` for Permute Layer. The set of indices in `dims` must be "
                f"consecutive and start from 1. Received dims={dims}"
            )
        self.input_spec = InputSpec(ndim=len(self.dims) + 1)

    def call(self, inputs):
        return Tensor(build.transpose(inputs.node, (0, *self.dims)))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *(input_shape[d] for d in self.dims))

    def get_config(self):
        return {**super().get_config(), "dims": self.dims}


class RepeatVector(Layer):
    """Each vector n times.   x: [batch, features]   result: [batch, n, features]

    Raises DTypeError unless n is an integer, ArgumentError unless it is positive.
    """

    def __init__(self, n: int, **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(n, bool) or not isinstance(n, int):
            raise DTypeError(f"Expected an integer value for `n`, got {n!r} ({type(n).__name__})")
        if n <= 0:
            raise ArgumentError(f"Argument `n` should be a positive integer. Received: n={n}")
        self.n = n
        self.input_spec = InputSpec(ndim=2)

    def call(self, inputs):
        x = inputs.node
        return Tensor(build.broadcast(x, (x.shape[0], self.n, x.shape[1]), (0, 2)))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.n, input_shape[1])

    def get_config(self):
        return {**super().get_config(), "n": self.n}
