"""Normalization: numbers with the mean and variance of a data set taken out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gnomon import config, ops
from gnomon.compiler.errors import ArgumentError, DataError, ShapeError
from gnomon.layers.preprocessing.data_layer import DataLayer, batches_of_data
from gnomon.layers.preprocessing.index_lookup import as_list
from gnomon.layers.tracking import note_change


class Normalization(DataLayer):
    """(x - mean) / deviation, of a mean and variance that are given or learned by `adapt`.

    axis             axes that have a mean for each position; None for one mean of all
    mean, variance   of the shape of those axes, or fewer of the last of them
    invert           mean + x * deviation instead
    inputs: float[...]   result: as inputs

    Deviations below `config.epsilon()` are taken as that. Means that were learned are weights: files have them.
    Raises ArgumentError for such arguments, ShapeError for axes that the input does not have, or of an open size.
    """

    def __init__(
        self,
        axis: int | Sequence[int] | None = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.axis = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        self.input_mean, self.input_variance, self.invert = mean, variance, invert
        self.supports_masking = True
        if (mean is None) != (variance is None):
            raise ArgumentError(
                "When setting values directly, both `mean` and `variance` must be set. Received: "
                f"mean={mean} and variance={variance}"
            )
        if np.shape(mean) != np.shape(variance):
            raise ArgumentError(
                "When setting values directly, `mean` and `variance` must have the same shape. Received: mean shape "
                f"{np.shape(mean)} and variance shape {np.shape(variance)}"
            )
        if np.ndim(mean) > len(self.axis):
            raise ArgumentError(
                f"The rank of `mean` must be less than or equal to the number of axes ({len(self.axis)}). Received: "
                f"mean shape {np.shape(mean)} for axis {self.axis}"
            )

    def build(self, input_shape):
        rank = len(input_shape)
        if any(not -rank <= a < rank for a in self.axis):
            raise ShapeError(
                "All `axis` values must be in the range [-ndim, ndim). Received inputs with "
                f"ndim={rank}, while axis={self.axis}"
            )
        self._kept = tuple(sorted(a % rank for a in self.axis))
        for a in self._kept:
            if input_shape[a] is None:
                raise ShapeError(
                    "All `axis` values to be kept must have a known shape. Received axis="
                    f"{self.axis}, inputs.shape={input_shape}, with unknown axis at index {a}"
                )
        self._summed = tuple(a for a in range(rank) if a not in self._kept)
        sizes = tuple(input_shape[a] for a in self._kept)
        self._spread = tuple(input_shape[a] if a in self._kept else 1 for a in range(rank))
        self._input_shape = tuple(input_shape)
        if self.input_mean is None:
            self.adapt_mean = self.add_weight(sizes, "zeros", trainable=False, name="mean")
            self.adapt_variance = self.add_weight(sizes, "ones", trainable=False, name="variance")
            self.count = self.add_weight((), "zeros", "int32", trainable=False, name="count")  # in Keras's files
            return
        self.mean, self.variance = (self._given(v, sizes) for v in (self.input_mean, self.input_variance))

    def _given(self, value: Any, sizes: tuple[int, ...]) -> np.ndarray:
        try:
            spread = np.broadcast_to(np.asarray(value, self.compute_dtype), sizes)
        except ValueError:
            raise ShapeError(
                f"Normalization {self.name!r} was given a mean and variance of shape {np.shape(value)} for axes of "
                f"{sizes} elements (inputs {self._input_shape})"
            ) from None
        return spread.reshape(self._spread).copy()

    def adapt(self, data: Any) -> None:
        """Take mean and variance of `data`: an array, or something that gives batches, of which they are combined.

        Raises ArgumentError if they were given, DataError if there is nothing, ShapeError for data of other sizes.
        """
        if self.input_mean is not None:
            raise ArgumentError(f"Normalization {self.name!r} was given its mean and variance: it cannot be adapted")
        mean: Any = 0.0
        variance: Any = 0.0
        seen = 0
        for batch in batches_of_data(data):
            values = np.asarray(batch)
            if values.dtype.kind not in "fiub":
                raise DataError(f"adapt() takes numbers, got an array of dtype {values.dtype}")
            if not self.built:
                self.build(values.shape if batch is data else (None, *values.shape[1:]))
            own = tuple(values.shape[a] for a in self._kept) if values.ndim == len(self._input_shape) else None
            if own != tuple(self._input_shape[a] for a in self._kept):
                raise ShapeError(
                    f"The layer was built with input_shape={self._input_shape}, but adapt() is being called with data "
                    f"with an incompatible shape, data.shape={values.shape}"
                )
            count = math.prod(values.shape[a] for a in self._summed)
            if not count:
                continue
            # the sums of squares of both parts, and that of their means about the common one
            wide = values.astype(np.float64, copy=False)
            own_mean, own_variance = wide.mean(self._summed), wide.var(self._summed)
            share = count / (seen + count)
            total = mean * (1 - share) + own_mean * share
            variance = (variance + (mean - total) ** 2) * (1 - share) + (own_variance + (own_mean - total) ** 2) * share
            mean, seen = total, seen + count
        if not seen:
            raise DataError(
                "adapt() received no data. Pass an array, or something that gives batches, at least one of them with "
                "elements"
            )
        self.adapt_mean.assign(np.asarray(mean, self.dtype))
        self.adapt_variance.assign(np.asarray(variance, self.dtype))
        note_change()

    def finalize_state(self) -> None:
        """Nothing is left to do after `adapt`."""

    def call(self, inputs):
        x = ops.cast(inputs, self.compute_dtype)
        if self.input_mean is None:
            learned = self.adapt_mean, self.adapt_variance
            mean, variance = (ops.cast(ops.reshape(v, self._spread), self.compute_dtype) for v in learned)
        else:
            mean, variance = self.mean, self.variance
        deviation = ops.maximum(ops.sqrt(variance), config.epsilon())
        return mean + x * deviation if self.invert else (x - mean) / deviation

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "axis": self.axis, "invert": self.invert, "mean": as_list(self.input_mean),
                "variance": as_list(self.input_variance)}  # fmt: skip
