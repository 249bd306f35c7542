"""What is added to the loss for the sake of the weights: functions of a weight, or an activation, to a number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gnomon import ops
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.eager import compute
from gnomon.naming import to_snake_case
from gnomon.registry import Registry, serialize_object
from gnomon.tensor import Tensor


class Regularizer:
    """Base of regularizers: a subclass defines `__call__(x)` and `get_config()`. This one adds nothing."""

    def __call__(self, x: Any) -> Any:
        return 0.0

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} must define get_config() to be written to a file")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Regularizer:
        return cls(**config)


def _factor(regularizer: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ArgumentError(f"{regularizer}: {name} is a finite number from 0 on, got {value!r}")
    return float(value)


def _rounded(value: float) -> float:
    """As Keras writes the factors that it holds in float32."""
    return float(np.float32(value))


class L1L2(Regularizer):
    """l1 * sum(|x|) + l2 * sum(x²)."""

    def __init__(self, l1: float | None = 0.0, l2: float | None = 0.0):
        self.l1, self.l2 = _factor("L1L2", "l1", l1 or 0.0), _factor("L1L2", "l2", l2 or 0.0)

    def __call__(self, x):
        return compute(lambda given: self._penalty(*given), [x])

    def _penalty(self, x: Tensor) -> Tensor:
        parts = []
        if self.l1:
            parts.append(self.l1 * ops.sum(ops.abs(x)))
        if self.l2:
            parts.append(self.l2 * ops.sum(ops.square(x)))
        return sum(parts[1:], parts[0]) if parts else ops.zeros_like(ops.sum(x))

    def get_config(self):
        return {"l1": self.l1, "l2": self.l2}


class L1(L1L2):
    """l1 * sum(|x|)."""

    def __init__(self, l1: float | None = 0.01):
        super().__init__(l1=_factor("L1", "l1", 0.01 if l1 is None else l1))

    def get_config(self):
        return {"l1": _rounded(self.l1)}


class L2(L1L2):
    """l2 * sum(x²)."""

    def __init__(self, l2: float | None = 0.01):
        super().__init__(l2=_factor("L2", "l2", 0.01 if l2 is None else l2))

    def get_config(self):
        return {"l2": self.l2}


class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean magnitude of the cosines between different rows (or columns) of a matrix.

    Raises ShapeError for other ranks than 2.
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows"):
        if mode not in ("rows", "columns"):
            raise ArgumentError(f"OrthogonalRegularizer: mode is 'rows' or 'columns', got {mode!r}")
        self.factor, self.mode = _factor("OrthogonalRegularizer", "factor", factor), mode

    def __call__(self, x):
        return compute(lambda given: self._penalty(*given), [x])

    def _penalty(self, x: Tensor) -> Tensor:
        if len(x.shape) != 2:
            raise ShapeError(f"OrthogonalRegularizer is for matrices, got {x!r}")
        if self.mode == "columns":
            x = ops.transpose(x)
        x = ops.normalize(x, axis=1)
        count = x.shape[0] or 1
        cosines = ops.matmul(x, ops.transpose(x)) * (1.0 - ops.eye(count, dtype=x.dtype))
        return self.factor * 0.5 * ops.sum(ops.abs(cosines)) / (count * (count - 1.0) / 2.0)

    def get_config(self):
        return {"factor": _rounded(self.factor), "mode": self.mode}


l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer

_classes = [Regularizer, L1, L2, L1L2, OrthogonalRegularizer]
registry = Registry("regularizer", _classes, {to_snake_case(c.__name__): c for c in _classes})


def get(identifier: Any) -> Any:
    """A regularizer by name, configuration, class or as it is; None stays None. Raises ArgumentError if unknown."""
    return registry.get(identifier)


def serialize(regularizer: Any) -> Any:
    return serialize_object(regularizer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    return registry.deserialize(config, custom_objects)
