"""Layers that disturb their input while training and pass it on otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gnomon import random
from gnomon.compiler.errors import ArgumentError
from gnomon.layers.activation import Elementwise
from gnomon.layers.input_spec import InputSpec
from gnomon.ops.convolution import as_format
from gnomon.tensor import Tensor


class Noise(Elementwise):
    """Base: `disturb(x)` while training. Its random stream is among `variables`, not among `weights`."""

    def __init__(self, amount: float, name_of_amount: str, seed: int | None, **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount <= 1:
            raise ArgumentError(
                f"Invalid value received for argument `{name_of_amount}` of {type(self).__name__}. "
                f"Expected a float value between 0 and 1. Received: {name_of_amount}={amount!r}"
            )
        self.amount = amount
        self.seed = seed
        if amount > 0:
            self.seed_generator = random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        return self.disturb(inputs) if training and self.amount > 0 else inputs

    def disturb(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def shape_of(self, x: Tensor, noise_shape: Sequence[int | None] | None = None) -> Sequence[Any]:
        sizes = x.node.shape
        return (
            sizes if noise_shape is None else [d if n is None else n for n, d in zip(noise_shape, sizes, strict=True)]
        )


class Dropout(Noise):
    """Sets each element to 0 with probability `rate` while training, and divides the others by 1 - rate.

    noise_shape   a shape with 1 for axes along which elements share their fate; None keeps the input's size

    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout", section 10, for scaling while training.
    """

    def __init__(
        self, rate: float, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(rate, "rate", seed, **kwargs)
        self.rate = rate
        self.noise_shape = _checked_noise_shape(noise_shape)

    def disturb(self, x):
        return random.dropout(x, self.rate, self.noise_shape, self.seed_generator)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed, "noise_shape": self.noise_shape}


class SpatialDropout(Dropout):
    """Base: whole channels are set to 0, or kept, together. `axes` is the rank of the input."""

    axes: int

    def __init__(
        self, rate: float, data_format: str | None = None, seed: int | None = None, name: str | None = None,
        dtype: Any = None, **kwargs: Any,
    ):  # fmt: skip
        super().__init__(rate, seed=seed, name=name, dtype=dtype, **kwargs)
        self.data_format = as_format(data_format)
        self.input_spec = InputSpec(ndim=self.axes)

    def disturb(self, x):
        channels = 1 if self.data_format == "channels_first" else self.axes - 1
        shape = [None if k in (0, channels) else 1 for k in range(self.axes)]
        return random.dropout(x, self.rate, shape, self.seed_generator)

    def get_config(self):
        """As in Keras, which leaves out `trainable`, for there is nothing to train."""
        return {"rate": self.rate, "seed": self.seed, "name": self.name, "dtype": self.dtype_policy.name,
                "data_format": self.data_format}  # fmt: skip


class SpatialDropout1D(SpatialDropout):
    """Dropout of whole channels of sequences.   x: float[batch, steps, channels]

    Tompson, Goroshin, Jain, LeCun, Bregler 2015, "Efficient object localization using convolutional networks",
    section 3.2.
    """

    axes = 3

    def __init__(
        self, rate: float, seed: int | None = None, name: str | None = None, dtype: Any = None, **kwargs: Any
    ):
        super().__init__(rate, "channels_last", seed, name, dtype, **kwargs)

    def get_config(self):
        config = super().get_config()
        config.pop("data_format")
        return config


class SpatialDropout2D(SpatialDropout):
    """Dropout of whole channels of images.   x: float[batch, rows, columns, channels], or with the channels second

    Tompson, Goroshin, Jain, LeCun, Bregler 2015, "Efficient object localization using convolutional networks",
    section 3.2.
    """

    axes = 4


class SpatialDropout3D(SpatialDropout):
    """Dropout of whole channels of volumes.   x: float[batch, d1, d2, d3, channels], or with the channels second

    Tompson, Goroshin, Jain, LeCun, Bregler 2015, "Efficient object localization using convolutional networks",
    section 3.2.
    """

    axes = 5


class GaussianNoise(Noise):
    """Adds normal noise of deviation `stddev` while training."""

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any):
        super().__init__(stddev, "stddev", seed, **kwargs)
        self.stddev = stddev

    def disturb(self, x):
        return x + random.normal(self.shape_of(x), 0.0, self.stddev, self.compute_dtype, self.seed_generator)

    def get_config(self):
        return {**super().get_config(), "stddev": self.stddev, "seed": self.seed}


class GaussianDropout(Noise):
    """Multiplies by normal noise of mean 1 and variance rate / (1 - rate) while training (Dropout, section 10)."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(rate, "rate", seed, **kwargs)
        self.rate = rate

    def disturb(self, x):
        deviation = math.sqrt(self.rate / (1 - self.rate)) if self.rate < 1 else math.inf
        return x * random.normal(self.shape_of(x), 1.0, deviation, self.compute_dtype, self.seed_generator)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


class AlphaDropout(Noise):
    """Sets elements to SELU's negative limit with probability `rate`, then restores mean 0 and variance 1.

    Klambauer, Unterthiner, Mayr, Hochreiter 2017, "Self-normalizing neural networks", section "New dropout technique".
    """

    def __init__(
        self, rate: float, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(rate, "rate", seed, **kwargs)
        self.rate = rate
        self.noise_shape = _checked_noise_shape(noise_shape)

    def disturb(self, x):
        limit = -1.6732632423543772 * 1.0507009873554805  # SELU's value at minus infinity
        a = ((1 - self.rate) * (1 + self.rate * limit**2)) ** -0.5 if self.rate < 1 else 0.0
        drawn = random.uniform(self.shape_of(x, self.noise_shape), dtype=x.dtype, seed=self.seed_generator)
        kept = (drawn >= self.rate).astype(x.dtype)
        return a * (x * kept + limit * (1 - kept)) - a * limit * self.rate

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed, "noise_shape": self.noise_shape}


def _checked_noise_shape(noise_shape: Any) -> tuple[int | None, ...] | None:
    if noise_shape is None:
        return None
    if isinstance(noise_shape, str) or not hasattr(noise_shape, "__iter__"):
        raise ArgumentError(f"noise_shape is a tuple of sizes >= 1 and None, got {noise_shape!r}")
    sizes = tuple(noise_shape)
    if any(d is not None and (not isinstance(d, int) or d <= 0) for d in sizes):
        raise ArgumentError(f"noise_shape is a tuple of sizes >= 1 and None, got {noise_shape!r}")
    return sizes
