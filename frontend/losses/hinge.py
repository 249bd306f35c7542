"""Losses of margins. Labels are -1 and 1; labels that are all 0 or 1 are taken as -1 and 1."""

from __future__ import annotations

from typing import Any

from gnomon import ops
from gnomon.eager import on_tensors
from gnomon.losses.loss import LossFunctionWrapper
from gnomon.losses.regression import floats
from gnomon.tensor import Tensor


def _signs(labels: Tensor) -> Tensor:
    binary = ops.all(ops.logical_or(labels == 0, labels == 1))
    return ops.where(binary, 2.0 * labels - 1.0, labels)


@on_tensors(2)
def hinge(y_true, y_pred):
    """mean(max(1 - y_true * y_pred, 0))."""
    y_true, y_pred = floats(y_true, y_pred)
    return ops.mean(ops.maximum(1.0 - _signs(y_true) * y_pred, 0.0), axis=-1)


@on_tensors(2)
def squared_hinge(y_true, y_pred):
    """mean(max(1 - y_true * y_pred, 0)²)."""
    y_true, y_pred = floats(y_true, y_pred)
    return ops.mean(ops.square(ops.maximum(1.0 - _signs(y_true) * y_pred, 0.0)), axis=-1)


@on_tensors(2)
def categorical_hinge(y_true, y_pred):
    """max(neg - pos + 1, 0): the score of the true class should exceed the largest of the others by 1.

    y_true: one-hot float[..., classes]   pos = sum(y_true * y_pred)   neg = max((1 - y_true) * y_pred)
    """
    y_true, y_pred = floats(y_true, y_pred)
    positive = ops.sum(y_true * y_pred, axis=-1)
    negative = ops.max((1.0 - y_true) * y_pred, axis=-1)
    return ops.maximum(negative - positive + 1.0, 0.0)


class Hinge(LossFunctionWrapper):
    """mean(max(1 - y_true * y_pred, 0))."""

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str = "hinge", dtype: Any = None):
        super().__init__(hinge, reduction, name, dtype)


class SquaredHinge(LossFunctionWrapper):
    """mean(max(1 - y_true * y_pred, 0)²)."""

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str = "squared_hinge", dtype: Any = None):
        super().__init__(squared_hinge, reduction, name, dtype)


class CategoricalHinge(LossFunctionWrapper):
    """The margin between the true class and the best of the others."""

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "categorical_hinge", dtype: Any = None
    ):
        super().__init__(categorical_hinge, reduction, name, dtype)
