"""Sums and means of values per sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gnomon import ops
from gnomon.compiler.ops import build
from gnomon.eager import as_tensor, at_once
from gnomon.losses.loss import align_ranks, apply_mask
from gnomon.metrics.metric import Metric
from gnomon.registry import deserialize_object, serialize_object
from gnomon.tensor import Tensor


def by_sample(values: Any, weight: Any, reduce: Callable, dtype: str) -> tuple[Tensor, Tensor | None]:
    """Values and weights as one number per sample: what has more axes is reduced.

    A weight of fewer axes than the values is for all that its sample holds.
    """
    values = as_tensor(values)
    mask = values.mask
    values = ops.cast(values, dtype)
    if weight is not None:
        weight = ops.cast(as_tensor(weight), dtype)
        if mask is not None:
            weight = apply_mask(weight, mask, dtype, "sum")
        values, weight = align_ranks(values, weight)
        rank = len(weight.shape)
        if len(values.shape) > rank:
            values = reduce(values, axis=tuple(range(rank, len(values.shape))))
        weight = Tensor(build.broadcast_to(weight.node, values.node.shape))
        values = values * weight
        if rank > 1:
            weight = reduce(weight, axis=tuple(range(1, rank)))
    if len(values.shape) > 1:
        values = reduce(values, axis=tuple(range(1, len(values.shape))))
    return values, weight


class Sum(Metric):
    """The sum of all values, times their weights."""

    def __init__(self, name: str | None = "sum", dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), dtype=self.dtype, name="total")

    @at_once
    def update_state(self, values, sample_weight=None):
        values, _ = by_sample(values, sample_weight, ops.sum, self.dtype)
        self.total.assign_add(ops.sum(values))

    def result(self):
        return self.total.value


class Mean(Metric):
    """The mean of all values: their weighted sum divided by the sum of the weights; 0 before any."""

    def __init__(self, name: str | None = "mean", dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), dtype=self.dtype, name="total")
        self.count = self.add_variable((), dtype=self.dtype, name="count")

    @at_once
    def update_state(self, values, sample_weight=None):
        values, weight = by_sample(values, sample_weight, ops.mean, self.dtype)
        self.total.assign_add(ops.sum(values))
        if weight is not None:
            self.count.assign_add(ops.sum(weight))
        else:
            samples = build.count(values.node, 0, self.dtype) if values.shape else build.constant(1, self.dtype)
            self.count.assign_add(Tensor(samples))

    def result(self):
        return ops.divide_no_nan(self.total, self.count)


class MeanMetricWrapper(Mean):
    """The mean of `fn(y_true, y_pred, **arguments)`, one value per sample."""

    def __init__(self, fn: Callable, name: str | None = None, dtype: Any = None, **arguments: Any):
        super().__init__(name=name, dtype=dtype)
        self._fn, self._arguments = fn, arguments
        if type(self) is not MeanMetricWrapper:
            for key, argument in arguments.items():
                setattr(self, key, argument)

    @at_once
    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = as_tensor(y_true), as_tensor(y_pred)
        values = self._fn(y_true, y_pred, **self._arguments)
        weight = None if sample_weight is None else as_tensor(sample_weight)
        super().update_state(values, sample_weight=apply_mask(weight, y_pred.mask, self.dtype, "sum"))

    def get_config(self):
        if type(self) is MeanMetricWrapper:
            return {**super().get_config(), "fn": serialize_object(self._fn), **serialize_object(self._arguments)}
        return {**super().get_config(), **self._arguments}

    @classmethod
    def from_config(cls, config):
        return cls(**(deserialize_object(config) if "fn" in config else config))
