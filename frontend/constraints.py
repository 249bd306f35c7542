"""What a weight must satisfy after each step: functions of the weight that give the one to use instead."""

from __future__ import annotations

from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ArgumentError
from gnomon.config import epsilon
from gnomon.eager import compute
from gnomon.naming import to_snake_case
from gnomon.registry import Registry, serialize_object
from gnomon.tensor import Tensor


class Constraint:
    """Base of constraints: a subclass defines `__call__(w)` and `get_config()`. This one lets every weight be."""

    def __call__(self, w: Any) -> Any:
        return w

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Constraint:
        return cls(**config)


class NonNeg(Constraint):
    """Negative weights become 0."""

    def __call__(self, w):
        return compute(lambda given: ops.maximum(given[0], 0), [w])


class _Norm(Constraint):
    """Base of those that scale the vectors along `axis` to another norm."""

    axis: Any

    def __call__(self, w):
        return compute(lambda given: self._scaled(*given), [w])

    def _scaled(self, w: Tensor) -> Tensor:
        norms = ops.sqrt(ops.sum(ops.square(w), axis=self.axis, keepdims=True))
        return w * (self.wanted(norms) / (epsilon() + norms))

    def wanted(self, norms: Tensor) -> Any:
        """The norms to have instead of `norms`."""
        raise NotImplementedError


class MaxNorm(_Norm):
    """Vectors along `axis` longer than `max_value` are cut to it.

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", section 5.1.
    """

    def __init__(self, max_value: float = 2, axis: Any = 0):
        self.max_value, self.axis = max_value, axis

    def wanted(self, norms):
        return ops.clip(norms, 0, self.max_value)

    def get_config(self):
        return {"max_value": self.max_value, "axis": self.axis}


class UnitNorm(_Norm):
    """Vectors along `axis` get length 1."""

    def __init__(self, axis: Any = 0):
        self.axis = axis

    def wanted(self, norms):
        return 1.0

    def get_config(self):
        return {"axis": self.axis}


class MinMaxNorm(_Norm):
    """Vectors along `axis` are brought between two lengths, by the part `rate` of the way at each step."""

    def __init__(self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Any = 0):
        if not 0 <= rate <= 1:
            raise ArgumentError(f"MinMaxNorm: rate is between 0 and 1, got {rate!r}")
        self.min_value, self.max_value, self.rate, self.axis = min_value, max_value, rate, axis

    def wanted(self, norms):
        return self.rate * ops.clip(norms, self.min_value, self.max_value) + (1 - self.rate) * norms

    def get_config(self):
        return {"min_value": self.min_value, "max_value": self.max_value, "rate": self.rate, "axis": self.axis}


max_norm, min_max_norm, non_neg, unit_norm = MaxNorm, MinMaxNorm, NonNeg, UnitNorm

_classes = [Constraint, MaxNorm, MinMaxNorm, NonNeg, UnitNorm]
registry = Registry("constraint", _classes, {to_snake_case(c.__name__): c for c in _classes})


def get(identifier: Any) -> Any:
    """A constraint by name, configuration, class or as it is; None stays None. Raises ArgumentError if unknown."""
    return registry.get(identifier)


def serialize(constraint: Any) -> Any:
    return serialize_object(constraint)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    return registry.deserialize(config, custom_objects)
