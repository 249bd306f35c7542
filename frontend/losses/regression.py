"""Losses between numbers: one value per row, the mean over the last axis.

y_true, y_pred: float[..., d], which broadcast; a last axis of size 1 that only one of them has is dropped or added.
"""

from __future__ import annotations

import math
from typing import Any

from gnomon import ops
from gnomon.config import epsilon
from gnomon.eager import on_tensors
from gnomon.losses.loss import LossFunctionWrapper, align_ranks
from gnomon.tensor import Tensor


def floats(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """y_true in the dtype of y_pred, and y_pred; whole numbers as float32."""
    if not y_pred.dtype.startswith("float"):
        y_pred = ops.cast(y_pred, "float32")
    return ops.cast(y_true, y_pred.dtype), y_pred


def _pair(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    return align_ranks(*floats(y_true, y_pred))


@on_tensors(2)
def mean_squared_error(y_true, y_pred):
    """mean((y_true - y_pred)²)."""
    y_true, y_pred = _pair(y_true, y_pred)
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


@on_tensors(2)
def mean_absolute_error(y_true, y_pred):
    """mean(|y_true - y_pred|)."""
    y_true, y_pred = _pair(y_true, y_pred)
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


@on_tensors(2)
def mean_absolute_percentage_error(y_true, y_pred):
    """100 * mean(|y_true - y_pred| / |y_true|), |y_true| at least epsilon."""
    y_true, y_pred = _pair(y_true, y_pred)
    return 100.0 * ops.mean(ops.abs((y_true - y_pred) / ops.maximum(ops.abs(y_true), epsilon())), axis=-1)


@on_tensors(2)
def mean_squared_logarithmic_error(y_true, y_pred):
    """mean((log(y_true + 1) - log(y_pred + 1))²), values below epsilon taken as epsilon."""
    y_true, y_pred = _pair(y_true, y_pred)
    prediction = ops.log(ops.maximum(y_pred, epsilon()) + 1.0)
    return ops.mean(ops.square(prediction - ops.log(ops.maximum(y_true, epsilon()) + 1.0)), axis=-1)


@on_tensors(2)
def huber(y_true, y_pred, delta=1.0):
    """mean of e² / 2 where |e| <= delta and delta * |e| - delta² / 2 beyond, e = y_pred - y_true.

    Huber 1964, "Robust estimation of a location parameter".
    """
    y_true, y_pred = _pair(y_true, y_pred)
    error = y_pred - y_true
    size = ops.abs(error)
    return ops.mean(ops.where(size <= delta, 0.5 * ops.square(error), delta * size - 0.5 * delta * delta), axis=-1)


@on_tensors(2)
def log_cosh(y_true, y_pred):
    """mean(log(cosh(y_pred - y_true))), without overflow."""
    y_true, y_pred = _pair(y_true, y_pred)
    error = y_pred - y_true
    return ops.mean(error + ops.softplus(-2.0 * error) - math.log(2.0), axis=-1)


@on_tensors(2)
def cosine_similarity(y_true, y_pred, axis=-1):
    """Minus the cosine of the angle between y_true and y_pred along `axis`: -1 for the same direction."""
    y_true, y_pred = _pair(y_true, y_pred)
    return -ops.sum(ops.normalize(y_true, axis=axis) * ops.normalize(y_pred, axis=axis), axis=axis)


@on_tensors(2)
def poisson(y_true, y_pred):
    """mean(y_pred - y_true * log(y_pred + epsilon)): minus the log-likelihood of counts, up to a constant."""
    y_true, y_pred = floats(y_true, y_pred)
    return ops.mean(y_pred - y_true * ops.log(y_pred + epsilon()), axis=-1)


class MeanSquaredError(LossFunctionWrapper):
    """mean((y_true - y_pred)²)."""

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "mean_squared_error", dtype: Any = None
    ):
        super().__init__(mean_squared_error, reduction, name, dtype)


class MeanAbsoluteError(LossFunctionWrapper):
    """mean(|y_true - y_pred|)."""

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str = "mean_absolute_error", dtype: Any = None
    ):
        super().__init__(mean_absolute_error, reduction, name, dtype)


class MeanAbsolutePercentageError(LossFunctionWrapper):
    """100 * mean(|y_true - y_pred| / |y_true|)."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "mean_absolute_percentage_error",
        dtype: Any = None,
    ):
        super().__init__(mean_absolute_percentage_error, reduction, name, dtype)


class MeanSquaredLogarithmicError(LossFunctionWrapper):
    """mean((log(y_true + 1) - log(y_pred + 1))²)."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "mean_squared_logarithmic_error",
        dtype: Any = None,
    ):
        super().__init__(mean_squared_logarithmic_error, reduction, name, dtype)


class Huber(LossFunctionWrapper):
    """A square near 0, a line beyond `delta`."""

    _at_default = {"delta": 1.0}

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "huber_loss",
        dtype: Any = None,
    ):
        super().__init__(huber, reduction, name, dtype, delta=delta)


class LogCosh(LossFunctionWrapper):
    """mean(log(cosh(y_pred - y_true)))."""

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str = "log_cosh", dtype: Any = None):
        super().__init__(log_cosh, reduction, name, dtype)


class CosineSimilarity(LossFunctionWrapper):
    """Minus the cosine of the angle along `axis`."""

    _at_default = {"axis": -1}

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cosine_similarity",
        dtype: Any = None,
    ):
        super().__init__(cosine_similarity, reduction, name, dtype, axis=axis)


class Poisson(LossFunctionWrapper):
    """mean(y_pred - y_true * log(y_pred))."""

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str = "poisson", dtype: Any = None):
        super().__init__(poisson, reduction, name, dtype)
