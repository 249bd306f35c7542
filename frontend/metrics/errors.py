"""Means of the losses' functions, and of correlations."""

from __future__ import annotations

from typing import Any

from gnomon import losses, ops
from gnomon.config import epsilon
from gnomon.eager import as_tensor, at_once, on_tensors
from gnomon.losses.loss import align_ranks, kind_of_labels
from gnomon.metrics.mean import Mean, MeanMetricWrapper
from gnomon.tensor import Tensor


class MeanSquaredError(MeanMetricWrapper):
    """mean((y_true - y_pred)²)."""

    _direction = "down"

    def __init__(self, name: str | None = "mean_squared_error", dtype: Any = None):
        super().__init__(losses.mean_squared_error, name, dtype)


class RootMeanSquaredError(Mean):
    """sqrt(mean((y_true - y_pred)²))."""

    _direction = "down"

    def __init__(self, name: str | None = "root_mean_squared_error", dtype: Any = None):
        super().__init__(name, dtype)

    @at_once
    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = (ops.cast(as_tensor(y), self.dtype) for y in (y_true, y_pred))
        y_true, y_pred = align_ranks(y_true, y_pred)
        super().update_state(ops.square(y_pred - y_true), sample_weight=sample_weight)

    def result(self):
        return ops.sqrt(super().result())


class MeanAbsoluteError(MeanMetricWrapper):
    """mean(|y_true - y_pred|)."""

    _direction = "down"

    def __init__(self, name: str | None = "mean_absolute_error", dtype: Any = None):
        super().__init__(losses.mean_absolute_error, name, dtype)


class MeanAbsolutePercentageError(MeanMetricWrapper):
    """100 * mean(|y_true - y_pred| / |y_true|)."""

    _direction = "down"

    def __init__(self, name: str | None = "mean_absolute_percentage_error", dtype: Any = None):
        super().__init__(losses.mean_absolute_percentage_error, name, dtype)


class MeanSquaredLogarithmicError(MeanMetricWrapper):
    """mean((log(y_true + 1) - log(y_pred + 1))²)."""

    _direction = "down"

    def __init__(self, name: str | None = "mean_squared_logarithmic_error", dtype: Any = None):
        super().__init__(losses.mean_squared_logarithmic_error, name, dtype)


class LogCoshError(MeanMetricWrapper):
    """mean(log(cosh(y_pred - y_true)))."""

    _direction = "down"

    def __init__(self, name: str | None = "logcosh", dtype: Any = None):
        super().__init__(losses.log_cosh, name, dtype)


@on_tensors(2)
def cosine_similarity(y_true, y_pred, axis=-1):
    """The cosine of the angle between y_true and y_pred along `axis`; the loss of this name is minus that."""
    return -losses.cosine_similarity(y_true, y_pred, axis=axis)


class CosineSimilarity(MeanMetricWrapper):
    """The mean cosine of the angle between y_true and y_pred along `axis`."""

    _direction = "up"

    def __init__(self, name: str | None = "cosine_similarity", dtype: Any = None, axis: int = -1):
        super().__init__(cosine_similarity, name, dtype, axis=axis)

    def get_config(self):
        config = super().get_config()
        if config["axis"] == -1:  # Keras never writes it
            del config["axis"]
        return config


def _centered(y_true: Tensor, y_pred: Tensor, axis: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y_true, y_pred = align_ranks(ops.cast(y_true, y_pred.dtype), y_pred)
    means = [ops.mean(y, axis=axis, keepdims=True) for y in (y_true, y_pred)]
    return y_true - means[0], y_pred - means[1], *means


@on_tensors(2)
def pearson_correlation(y_true, y_pred, axis=-1):
    """The covariance along `axis` divided by both standard deviations."""
    y_true, y_pred, _, _ = _centered(y_true, y_pred, axis)
    y_true, y_pred = (y / ops.sqrt(ops.mean(ops.square(y), axis=axis, keepdims=True)) for y in (y_true, y_pred))
    return ops.mean(y_true * y_pred, axis=axis)


@on_tensors(2)
def concordance_correlation(y_true, y_pred, axis=-1):
    """2 * covariance / (both variances + squared difference of the means) along `axis`: 1 only if y_pred is y_true.

    Lin 1989, "A concordance correlation coefficient to evaluate reproducibility".
    """
    a, b, a_mean, b_mean = _centered(y_true, y_pred, axis)
    variances = [ops.mean(ops.square(y), axis=axis, keepdims=True) for y in (a, b)]
    norm = variances[0] + variances[1] + ops.square(a_mean - b_mean)
    return ops.mean(2.0 * a * b / (norm + epsilon()), axis=axis)


class PearsonCorrelation(MeanMetricWrapper):
    """The mean of Pearson's correlation along `axis`."""

    _direction = "up"

    def __init__(self, name: str | None = "pearson_correlation", dtype: Any = None, axis: Any = -1):
        super().__init__(pearson_correlation, name, dtype, axis=axis)


class ConcordanceCorrelation(MeanMetricWrapper):
    """The mean of Lin's concordance along `axis`."""

    _direction = "up"

    def __init__(self, name: str | None = "concordance_correlation", dtype: Any = None, axis: Any = -1):
        super().__init__(concordance_correlation, name, dtype, axis=axis)


class KLDivergence(MeanMetricWrapper):
    """sum(y_true * log(y_true / y_pred)), the mean over samples."""

    def __init__(self, name: str | None = "kl_divergence", dtype: Any = None):
        super().__init__(losses.kl_divergence, name, dtype)


class Poisson(MeanMetricWrapper):
    """mean(y_pred - y_true * log(y_pred))."""

    def __init__(self, name: str | None = "poisson", dtype: Any = None):
        super().__init__(losses.poisson, name, dtype)


class BinaryCrossentropy(MeanMetricWrapper):
    """The mean binary crossentropy."""

    _direction = "down"

    def __init__(
        self,
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ):
        super().__init__(
            losses.binary_crossentropy, name, dtype, from_logits=from_logits, label_smoothing=label_smoothing
        )


class CategoricalCrossentropy(MeanMetricWrapper):
    """The mean crossentropy of one-hot labels."""

    _direction = "down"

    def __init__(
        self,
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ):
        super().__init__(
            losses.categorical_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class SparseCategoricalCrossentropy(MeanMetricWrapper):
    """The mean crossentropy of labels that are class numbers."""

    _direction = "down"

    def __init__(
        self,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ):
        super().__init__(
            losses.sparse_categorical_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )


class Hinge(MeanMetricWrapper):
    """mean(max(1 - y_true * y_pred, 0))."""

    _direction = "down"

    def __init__(self, name: str | None = "hinge", dtype: Any = None):
        super().__init__(losses.hinge, name, dtype)


class SquaredHinge(MeanMetricWrapper):
    """mean(max(1 - y_true * y_pred, 0)²)."""

    _direction = "down"

    def __init__(self, name: str | None = "squared_hinge", dtype: Any = None):
        super().__init__(losses.squared_hinge, name, dtype)


class CategoricalHinge(MeanMetricWrapper):
    """The margin between the true class and the best of the others."""

    _direction = "down"

    def __init__(self, name: str | None = "categorical_hinge", dtype: Any = None):
        super().__init__(losses.categorical_hinge, name, dtype)


def crossentropy_for(
    y_true_shape: tuple, y_pred_shape: tuple, loss: Any = None, name: str = "crossentropy"
) -> MeanMetricWrapper:
    """The crossentropy that `metrics=["crossentropy"]` stands for, by the shapes as `accuracy_for`."""
    kinds: dict[str, Any] = {
        "binary": BinaryCrossentropy,
        "sparse": SparseCategoricalCrossentropy,
        "categorical": CategoricalCrossentropy,
    }
    return kinds[kind_of_labels(y_true_shape, y_pred_shape)](name=name)
