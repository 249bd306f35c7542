"""Scores of whole data sets: F-scores, the coefficient of determination, intersection over union."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ArgumentError, ShapeError, StateError
from gnomon.config import epsilon
from gnomon.eager import as_tensor, at_once
from gnomon.losses.loss import align_ranks
from gnomon.metrics.metric import Metric
from gnomon.tensor import Tensor


def _columns(metric: Metric, y_true: Tensor, y_pred: Tensor) -> int:
    """How many columns both have. Raises ShapeError unless both are matrices with a known number of them."""
    if len(y_true.shape) != 2 or len(y_pred.shape) != 2 or y_pred.shape[1] is None:
        raise ShapeError(f"{metric.name!r} needs y_true and y_pred [samples, columns], got {y_true!r} and {y_pred!r}")
    return y_pred.shape[1]


class FBetaScore(Metric):
    """(1 + beta²) * precision * recall / (beta² * precision + recall), for each class or averaged.

    average     None (one score per class), 'micro' (count all classes together), 'macro' (the mean) or 'weighted' (by
                how often a class occurs)
    threshold   what y_pred must exceed to say yes; None: the largest of each row does
    """

    _direction = "up"

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = "fbeta_score",
        dtype: Any = None,
    ):
        super().__init__(name=name, dtype=dtype)
        kind = type(self).__name__
        if average not in (None, "micro", "macro", "weighted"):
            raise ArgumentError(f"{kind}: average is None, 'micro', 'macro' or 'weighted', got {average!r}")
        if not beta > 0:
            raise ArgumentError(f"{kind}: beta is above 0, got {beta!r}")
        if threshold is not None and not 0 < threshold <= 1:
            raise ArgumentError(f"{kind}: threshold is above 0 and at most 1, got {threshold!r}")
        self.average, self.beta, self.threshold = average, beta, threshold

    def _build(self, classes: int) -> None:
        shape = () if self.average == "micro" else (classes,)
        names = ("true_positives", "false_positives", "false_negatives", "intermediate_weights")
        self._state = [self.add_variable(shape, dtype=self.dtype, name=name) for name in names]

    @at_once
    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = (ops.cast(as_tensor(y), self.dtype) for y in (y_true, y_pred))
        if not self._variables:
            self._build(_columns(self, y_true, y_pred))
        if self.threshold is None:
            largest = y_pred >= ops.max(y_pred, axis=-1, keepdims=True)
            yes = ops.logical_and(largest, ops.abs(y_pred) > 1e-9)
        else:
            yes = y_pred > self.threshold
        yes = ops.cast(yes, self.dtype)
        weight = None if sample_weight is None else ops.expand_dims(ops.cast(as_tensor(sample_weight), self.dtype), 1)
        counted = (yes * y_true, yes * (1.0 - y_true), (1.0 - yes) * y_true, y_true)
        for variable, x in zip(self._state, counted, strict=True):
            axis = None if self.average == "micro" else 0
            variable.assign_add(ops.sum(x if weight is None else x * weight, axis=axis))

    def result(self):
        if not self._variables:
            raise StateError(f"metric {self.name!r} knows its classes after the first update_state only")
        true, false, missed, weights = self._state
        precision, recall = true / (true + false + epsilon()), true / (true + missed + epsilon())
        square = self.beta**2
        score = precision * recall / (square * precision + recall + epsilon()) * (1 + square)
        if self.average == "weighted":
            return ops.sum(score * (weights / (ops.sum(weights) + epsilon())))
        return score if self.average is None else ops.mean(score)

    def get_config(self):
        return {**super().get_config(), "average": self.average, "beta": self.beta, "threshold": self.threshold}


class F1Score(FBetaScore):
    """2 * precision * recall / (precision + recall)."""

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = "f1_score",
        dtype: Any = None,
    ):
        super().__init__(average, 1.0, threshold, name, dtype)

    def get_config(self):
        return {key: value for key, value in super().get_config().items() if key != "beta"}


class R2Score(Metric):
    """1 - the squared error divided by the variance of y_true, times the number of samples: 1 at best.

    class_aggregation   'uniform_average', 'variance_weighted_average' or None (one score per column)
    num_regressors      of a linear model: gives the adjusted score (0: not adjusted)
    """

    _direction = "up"

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = "r2_score",
        dtype: Any = None,
    ):
        super().__init__(name=name, dtype=dtype)
        if class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            raise ArgumentError(
                "R2Score: class_aggregation is None, 'uniform_average' or 'variance_weighted_average', "
                f"got {class_aggregation!r}"
            )
        if num_regressors < 0:
            raise ArgumentError(f"R2Score: num_regressors is at least 0, got {num_regressors!r}")
        self.class_aggregation, self.num_regressors = class_aggregation, num_regressors
        self.num_samples = self.add_variable((), name="num_samples")

    @at_once
    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = (ops.cast(as_tensor(y), self.dtype) for y in (y_true, y_pred))
        y_true, y_pred = align_ranks(y_true, y_pred)
        if len(self._variables) == 1:
            shape = (_columns(self, y_true, y_pred),)
            self._state = [self.add_variable(shape, name=name) for name in ("squared_sum", "sum", "residual", "count")]
        weight = ops.cast(as_tensor(1.0 if sample_weight is None else sample_weight), self.dtype)
        if len(weight.shape) == 1:
            weight = ops.expand_dims(weight, 1)
        weight = ops.broadcast_to(weight, ops.shape(y_true))
        added = (y_true * y_true * weight, y_true * weight, ops.square(y_true - y_pred) * weight, weight)
        for variable, x in zip(self._state, added, strict=True):
            variable.assign_add(ops.sum(x, axis=0))
        self.num_samples.assign_add(ops.cast(ops.size(y_true), self.num_samples.dtype))

    def result(self):
        if len(self._variables) == 1:
            raise StateError(f"metric {self.name!r} knows its columns after the first update_state only")
        squares, total, residual, count = self._state
        spread = squares - total * (total / count)
        score = 1.0 - residual / spread
        score = ops.where(ops.isinf(score), 0.0, score)
        if self.class_aggregation == "uniform_average":
            score = ops.mean(score)
        elif self.class_aggregation == "variance_weighted_average":
            score = ops.sum(spread * score) / ops.sum(spread)
        if not self.num_regressors:
            return score
        free = self.num_samples - (self.num_regressors + 1.0)
        enough = free > 0
        adjusted = 1.0 - (1.0 - score) * (self.num_samples - 1.0) / ops.where(enough, free, 1.0)
        return ops.where(enough, adjusted, score)

    def get_config(self):
        own = {"class_aggregation": self.class_aggregation, "num_regressors": self.num_regressors}
        return {**super().get_config(), **own}


class IoU(Metric):
    """Intersection over union: the samples of a class by both y_true and y_pred, divided by those by at least one.

    The result is the mean over those of the target classes that occur.

    num_classes        y_true and y_pred are class numbers below it; what is not is left out
    target_class_ids   the classes asked about
    ignore_class       samples of this label are left out
    sparse_y_true, sparse_y_pred   whether class numbers are given; if not, scores along `axis`
    """

    _direction = "up"
    _own: tuple[str, ...] = (
        "num_classes",
        "target_class_ids",
        "ignore_class",
        "sparse_y_true",
        "sparse_y_pred",
        "axis",
    )

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ):
        super().__init__(name=name, dtype=dtype or "int32")
        self.num_classes, self.target_class_ids, self.ignore_class = num_classes, list(target_class_ids), ignore_class
        self.sparse_y_true, self.sparse_y_pred, self.axis = sparse_y_true, sparse_y_pred, axis
        if max(self.target_class_ids) >= num_classes:
            raise ArgumentError(
                f"{type(self).__name__}: target class {max(self.target_class_ids)} is not below {num_classes}"
            )
        self.total_cm = self.add_variable((num_classes, num_classes), dtype=self.dtype, name="total_confusion_matrix")

    @at_once
    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = as_tensor(y_true), as_tensor(y_pred)
        if not self.sparse_y_true:
            y_true = ops.argmax(y_true, axis=self.axis)
        if not self.sparse_y_pred:
            y_pred = ops.argmax(y_pred, axis=self.axis)
        labels, found = (ops.reshape(ops.cast(y, "int32"), (-1,)) for y in (y_true, y_pred))
        weight: Any = as_tensor(1 if sample_weight is None else sample_weight)
        if weight.dtype.startswith("float") and not self.dtype.startswith("float"):
            warnings.warn(
                f"metric {self.name!r} counts in {self.dtype}: its float weights are cut to whole numbers; give it "
                "dtype='float32' to keep them",
                stacklevel=3,
            )
        weight = ops.cast(weight, self.dtype)
        weight = ops.reshape(weight, (-1,)) if len(weight.shape) > 1 else weight
        inside = ops.logical_and(
            ops.logical_and(labels >= 0, labels < self.num_classes),
            ops.logical_and(found >= 0, found < self.num_classes),
        )
        if self.ignore_class is not None:
            inside = ops.logical_and(inside, labels != self.ignore_class)
        weight = ops.where(inside, ops.broadcast_to(weight, ops.shape(labels)), 0)
        place = ops.where(inside, labels * self.num_classes + found, 0)
        counted = ops.segment_sum(weight, place, num_segments=self.num_classes**2)
        self.total_cm.assign_add(ops.reshape(counted, (self.num_classes, self.num_classes)))

    def result(self):
        counts = ops.cast(self.total_cm, "float32")
        hits = ops.diagonal(counts)
        union = ops.sum(counts, axis=0) + ops.sum(counts, axis=1) - hits
        hits, union = (ops.take(x, self.target_class_ids, axis=0) for x in (hits, union))
        occurs = union > 1e-9
        shares = ops.where(occurs, hits / (union + epsilon()), 0.0)
        return ops.sum(shares) / (ops.sum(ops.cast(occurs, "float32")) + epsilon())

    def get_config(self):
        return {**super().get_config(), **{key: getattr(self, key) for key in self._own}}


class BinaryIoU(IoU):
    """Intersection over union of the two sides of `threshold`; y_true is 0 or 1."""

    _own = ("target_class_ids", "threshold")

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: Any = None,
    ):
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = threshold

    @at_once
    def update_state(self, y_true, y_pred, sample_weight=None):
        above = ops.cast(as_tensor(y_pred), "float32") >= self.threshold
        super().update_state(y_true, ops.cast(above, "int32"), sample_weight)


class MeanIoU(IoU):
    """The mean intersection over union of all classes that occur."""

    _own: tuple[str, ...] = ("num_classes", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ):
        classes = range(num_classes)
        super().__init__(num_classes, classes, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)


class OneHotIoU(IoU):
    """Intersection over union of target classes, labels being one-hot and predictions scores."""

    _own = ("num_classes", "target_class_ids", "ignore_class", "sparse_y_pred", "axis")

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ):
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)


class OneHotMeanIoU(MeanIoU):
    """The mean intersection over union of all classes that occur, labels being one-hot and predictions scores."""

    _own = ("num_classes", "ignore_class", "sparse_y_pred", "axis")

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ):
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)
