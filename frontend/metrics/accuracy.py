"""How often predictions are right. The functions give 1.0 or 0.0 per sample, the classes the mean of them."""

from __future__ import annotations

from typing import Any

from gnomon import ops
from gnomon.config import floatx
from gnomon.eager import on_tensors
from gnomon.losses.loss import align_ranks, kind_of_labels
from gnomon.metrics.mean import MeanMetricWrapper
from gnomon.tensor import Tensor


@on_tensors(2)
def accuracy(y_true, y_pred):
    """Where y_true equals y_pred."""
    y_true, y_pred = align_ranks(ops.cast(y_true, y_pred.dtype), y_pred)
    return ops.cast(y_true == y_pred, floatx())


@on_tensors(2)
def binary_accuracy(y_true, y_pred, threshold=0.5):
    """Where y_true is 1 as y_pred > threshold says."""
    y_true, y_pred = align_ranks(y_true, y_pred)
    return ops.cast(y_true == ops.cast(y_pred > threshold, y_true.dtype), floatx())


@on_tensors(2)
def categorical_accuracy(y_true, y_pred):
    """Where the largest of y_pred is at the largest of y_true (one-hot), along the last axis."""
    return ops.cast(ops.argmax(y_true, axis=-1) == ops.argmax(y_pred, axis=-1), floatx())


@on_tensors(2)
def sparse_categorical_accuracy(y_true, y_pred):
    """Where the largest of y_pred, along the last axis, is at the class number y_true."""
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, -1)
    matches = ops.cast(ops.cast(y_true, y_pred.dtype) == ops.cast(ops.argmax(y_pred, axis=-1), y_pred.dtype), floatx())
    return ops.squeeze(matches, -1) if len(matches.shape) > 1 and matches.shape[-1] == 1 else matches


def _rows(x: Tensor) -> Tensor:
    return ops.reshape(x, (-1, x.shape[-1])) if len(x.shape) > 2 else x


@on_tensors(2)
def top_k_categorical_accuracy(y_true, y_pred, k=5):
    """Where the class of the one-hot y_true is among the k largest of y_pred."""
    return sparse_top_k_categorical_accuracy(ops.argmax(y_true, axis=-1), y_pred, k)


@on_tensors(2)
def sparse_top_k_categorical_accuracy(y_true, y_pred, k=5, from_sorted_ids=False):
    """Where the class number y_true is among the k largest of y_pred.

    from_sorted_ids   y_pred holds class numbers, the likeliest first
    """
    flat = ops.reshape(y_true, (-1,)) if len(y_true.shape) > 1 else y_true
    scores = _rows(y_pred)
    if from_sorted_ids:
        matches = ops.any(ops.expand_dims(ops.cast(flat, scores.dtype), 1) == scores[:, :k], axis=1)
    else:
        matches = ops.in_top_k(ops.cast(flat, "int32"), scores, k)
    matches = ops.cast(matches, floatx())
    return ops.reshape(matches, ops.shape(y_true)) if len(y_true.shape) > 1 else matches


class Accuracy(MeanMetricWrapper):
    """How often y_pred equals y_true."""

    _direction = "up"

    def __init__(self, name: str | None = "accuracy", dtype: Any = None):
        super().__init__(accuracy, name, dtype)


class BinaryAccuracy(MeanMetricWrapper):
    """How often y_pred is on the right side of `threshold`."""

    _direction = "up"

    def __init__(self, name: str | None = "binary_accuracy", dtype: Any = None, threshold: float = 0.5):
        super().__init__(binary_accuracy, name, dtype, threshold=threshold)


class CategoricalAccuracy(MeanMetricWrapper):
    """How often the largest of y_pred is at the class of the one-hot y_true."""

    _direction = "up"

    def __init__(self, name: str | None = "categorical_accuracy", dtype: Any = None):
        super().__init__(categorical_accuracy, name, dtype)


class SparseCategoricalAccuracy(MeanMetricWrapper):
    """How often the largest of y_pred is at the class number y_true."""

    _direction = "up"

    def __init__(self, name: str | None = "sparse_categorical_accuracy", dtype: Any = None):
        super().__init__(sparse_categorical_accuracy, name, dtype)


class TopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the class of the one-hot y_true is among the k largest of y_pred."""

    _direction = "up"

    def __init__(self, k: int = 5, name: str | None = "top_k_categorical_accuracy", dtype: Any = None):
        super().__init__(top_k_categorical_accuracy, name, dtype, k=k)


class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the class number y_true is among the k largest of y_pred."""

    _direction = "up"

    def __init__(
        self,
        k: int = 5,
        name: str | None = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ):
        super().__init__(sparse_top_k_categorical_accuracy, name, dtype, k=k, from_sorted_ids=from_sorted_ids)

    def get_config(self):
        config = super().get_config()
        if not self._arguments["from_sorted_ids"]:
            del config["from_sorted_ids"]
        return config


def accuracy_for(
    y_true_shape: tuple, y_pred_shape: tuple, loss: Any = None, name: str = "accuracy"
) -> MeanMetricWrapper:
    """The accuracy that `metrics=["accuracy"]` stands for. Shapes alone decide, as in Keras; the loss is not asked."""
    kinds = {"binary": BinaryAccuracy, "sparse": SparseCategoricalAccuracy, "categorical": CategoricalAccuracy}
    return kinds[kind_of_labels(y_true_shape, y_pred_shape)](name=name)
