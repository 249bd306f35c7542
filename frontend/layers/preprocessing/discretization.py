"""Discretization: numbers as those of the bins they fall into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gnomon import config, ops
from gnomon.compiler.errors import ArgumentError, StateError
from gnomon.layers.layer import Layer
from gnomon.layers.preprocessing.data_layer import DataLayer
from gnomon.layers.preprocessing.encoding import MODES, checked_mode, encode_tensor, encoded_shape, refuse_sparse
from gnomon.tensor import Tensor


class Discretization(DataLayer):
    """Numbers as those of the bins they fall into: 0 below the first boundary, k from the k-th on.

    bin_boundaries   in increasing order
    num_bins         instead of them: `adapt` finds boundaries between which equally many values lie
    epsilon          how exactly: the share of values that a boundary may be off
    output_mode      'int', or rows: 'one_hot', 'multi_hot', 'count', as in CategoryEncoding
    inputs: float[...]   result: int32[...], or float[..., bins]

    Raises ArgumentError for such arguments, StateError if it is used without boundaries.
    """

    summary: np.ndarray  # of the values seen by `adapt`, see below

    def __init__(
        self,
        bin_boundaries: Sequence[float] | None = None,
        num_bins: int | None = None,
        epsilon: float = 0.01,
        output_mode: str = "int",
        sparse: bool = False,
        dtype: Any = None,
        name: str | None = None,
    ):
        super().__init__(name=name, dtype=dtype)
        refuse_sparse(self, sparse)
        self.output_mode = checked_mode(self, output_mode, MODES)
        if num_bins is not None and num_bins < 0:
            raise ArgumentError(f"`num_bins` must be greater than or equal to 0. Received: `num_bins={num_bins}`")
        if num_bins is not None and bin_boundaries is not None:
            raise ArgumentError(
                f"Both `num_bins` and `bin_boundaries` should not be set. Received: `num_bins={num_bins}` and "
                f"`bin_boundaries={bin_boundaries}`"
            )
        if num_bins is None and bin_boundaries is None:
            raise ArgumentError("You need to set either `num_bins` or `bin_boundaries`.")
        if bin_boundaries is not None and any(
            b < a for a, b in zip(list(bin_boundaries)[:-1], list(bin_boundaries)[1:], strict=True)
        ):
            raise ArgumentError(f"`bin_boundaries` must be in increasing order, got {list(bin_boundaries)}")
        self.bin_boundaries = None if bin_boundaries is None else list(bin_boundaries)
        self.num_bins, self.epsilon, self.sparse = num_bins, epsilon, False
        self.built = True
        self.reset_state()

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Find boundaries between which equally many values of `data` lie.

        data   an array, or something that gives batches, `steps` at most
        """
        if self.num_bins is None:
            raise ArgumentError(
                "Cannot adapt a Discretization layer that has been initialized with `bin_boundaries`, use `num_bins` "
                "instead."
            )
        self.reset_state()
        for k, batch in enumerate([data] if hasattr(data, "__array__") else data):
            if steps is not None and k >= steps:
                break
            self.update_state(batch)
        self.finalize_state()

    def update_state(self, data: Any) -> None:
        """Count the values of one batch."""
        self.summary = joined(summarized(np.asarray(data, np.float32), self.epsilon), self.summary, self.epsilon)

    def finalize_state(self) -> None:
        """Make boundaries of what was counted."""
        if self.num_bins is not None and self.summary.shape[1]:
            self.bin_boundaries = compressed(self.summary, 1.0 / self.num_bins)[0, :-1].tolist()

    def reset_state(self) -> None:
        """Forget what was counted."""
        self.summary = np.zeros((2, 0), np.float32)

    def call(self, inputs):
        if self.bin_boundaries is None:
            raise StateError(
                "You need to either pass the `bin_boundaries` argument at construction time or call `adapt(dataset)` "
                "before you can start using the `Discretization` layer."
            )
        x: Tensor = ops.cast(inputs, config.floatx()) if inputs.dtype != "float64" else inputs
        bins = ops.digitize(x, np.asarray(self.bin_boundaries, x.dtype))
        dtype = "int32" if self.output_mode == "int" else self.compute_dtype
        return encode_tensor(bins, self.output_mode, len(self.bin_boundaries) + 1, dtype)

    def compute_output_shape(self, input_shape):
        depth = self.num_bins if self.bin_boundaries is None else len(self.bin_boundaries) + 1
        return encoded_shape(tuple(input_shape), self.output_mode, depth)

    def get_config(self):
        return {"bin_boundaries": self.bin_boundaries, "num_bins": self.num_bins, "epsilon": self.epsilon,
                "output_mode": self.output_mode, "sparse": False, "name": self.name, "dtype": self.dtype}  # fmt: skip

    @classmethod
    def from_config(cls, config):
        if config.get("bin_boundaries") is None or config.get("num_bins") is None:
            return super().from_config(config)
        made = super().from_config({**config, "bin_boundaries": None})  # boundaries that were learned
        made.bin_boundaries = list(config["bin_boundaries"])
        return made

    def get_build_config(self):
        return Layer.get_build_config(self) or {}


# A summary is [values, how many there are up to each, from the one before]: what a large sample is thinned out to.


def summarized(values: np.ndarray, epsilon: float) -> np.ndarray:
    """About 1 / epsilon of the values, equally far apart in order, and how many each stands for."""
    ordered = np.sort(values, axis=None)
    step = max(ordered.size * epsilon, 1)
    chosen = ordered[int(step - 1) :: int(step)]
    return np.stack([chosen, np.full_like(chosen, step)])


def joined(a: np.ndarray, b: np.ndarray, epsilon: float) -> np.ndarray:
    """The summary of two samples."""
    both = np.concatenate([a, b], axis=1)
    return compressed(both[:, np.argsort(both[0])], epsilon)


def compressed(summary: np.ndarray, epsilon: float) -> np.ndarray:
    """A summary of about 1 / epsilon values: those at equal shares of the whole, interpolated."""
    if summary.shape[1] * epsilon < 1:
        return summary
    shares = epsilon + np.arange(0.0, 1.0, epsilon)
    total = summary[1].cumsum()
    places = total / total[-1]
    reached = np.interp(shares, places, total)
    counts = np.diff(reached, prepend=0)
    return np.stack([np.interp(shares, places, summary[0]), counts]).astype(np.float32)
