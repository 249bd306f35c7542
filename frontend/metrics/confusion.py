"""Counts of right and wrong yes-no decisions at thresholds, and what is computed from them: precision, recall, AUC.

y_true: 0 or 1   y_pred: probabilities, of the same shape   A prediction above the threshold says yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gnomon import ops
from gnomon.compiler.errors import ArgumentError, ShapeError, StateError
from gnomon.config import epsilon
from gnomon.eager import as_tensor, at_once
from gnomon.losses.loss import align_ranks
from gnomon.metrics.metric import Metric
from gnomon.tensor import Tensor
from gnomon.variable import Variable

_LOW = -1e10  # below every score: what is not among the top k


class Counts:
    """How to count at the given thresholds.

    multi_label   count each column of y_pred for itself
    """

    def __init__(self, thresholds: Sequence[float], multi_label: bool = False):
        self.thresholds = np.asarray(thresholds, np.float32)
        self.multi_label = multi_label
        n = len(self.thresholds)
        even = np.arange(n, dtype=np.float32) / max(n - 1, 1)
        self.even = n > 2 and bool(np.allclose(self.thresholds, even, atol=epsilon()))
        self.ends_open = bool(self.thresholds[0] < 0 or self.thresholds[-1] > 1)

    def add(
        self,
        variables: dict[str, Variable],
        y_true: Any,
        y_pred: Any,
        weight: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        label_weights: Any = None,
    ) -> None:
        """Add to those of the variables "tp", "fp", "tn", "fn" that are there."""
        dtype = next(iter(variables.values())).dtype
        y_true, y_pred = (ops.cast(as_tensor(y), dtype) for y in (y_true, y_pred))
        y_pred, y_true = align_ranks(y_pred, y_true)
        if weight is not None:
            weight = ops.expand_dims(ops.cast(as_tensor(weight), dtype), -1)
            _, weight = align_ranks(y_true, weight, expand_rank_1=False)
        if top_k is not None:
            y_pred = _only_top(y_pred, top_k)
        if class_id is not None:
            if len(y_pred.shape) < 2:
                raise ShapeError(
                    f"class_id={class_id} needs predictions with an axis of classes, got y_pred {y_pred!r}"
                )
            y_true, y_pred = y_true[..., class_id : class_id + 1], y_pred[..., class_id : class_id + 1]
        if label_weights is not None:
            weight = label_weights if weight is None else weight * label_weights
        weights = ops.ones_like(y_pred) if weight is None else ops.broadcast_to(weight, ops.shape(y_pred))
        positive = ops.cast(ops.cast(y_true, "bool"), dtype)
        true, false = positive * weights, (1.0 - positive) * weights
        if not self.multi_label:
            true, false, y_pred = (ops.reshape(x, (-1,)) for x in (true, false, y_pred))
        yes = [self._above(x, y_pred) for x in (true, false)]
        found = {"tp": yes[0], "fp": yes[1]}
        if "fn" in variables:
            found["fn"] = ops.sum(true, axis=0) - yes[0]
        if "tn" in variables:
            found["tn"] = ops.sum(false, axis=0) - yes[1]
        for name, variable in variables.items():
            variable.assign_add(found[name])

    def _above(self, x: Tensor, y_pred: Tensor) -> Tensor:
        """For each threshold the sum of the x whose prediction is above it: [thresholds], or [thresholds, labels]."""
        if self.even:
            return self._above_even(x, y_pred)
        thresholds = self.thresholds.reshape(-1, *[1] * len(y_pred.shape))
        above = ops.expand_dims(y_pred, 0) > thresholds
        return ops.sum(ops.where(above, ops.expand_dims(x, 0), 0.0), axis=1)

    def _above_even(self, x: Tensor, y_pred: Tensor) -> Tensor:
        """Each prediction falls into one bucket; buckets are then summed from the top: one pass."""
        count = len(self.thresholds)
        bucket = ops.ceil(ops.clip(y_pred, 0.0, 1.0) * float(count - 1)) - 1.0
        if not self.ends_open:  # nothing is below a threshold under 0; otherwise a prediction of 0 is above none
            x = ops.where(bucket < 0, 0.0, x)
        bucket = ops.cast(ops.maximum(bucket, 0.0), "int32")
        if self.multi_label:
            labels = int(x.shape[1] or 0)
            place = bucket * labels + np.arange(labels, dtype=np.int32)
            sums = ops.segment_sum(ops.reshape(x, (-1,)), ops.reshape(place, (-1,)), num_segments=count * labels)
            sums = ops.reshape(sums, (count, labels))
        else:
            sums = ops.segment_sum(x, bucket, num_segments=count)
        return ops.flip(ops.cumsum(ops.flip(sums, axis=0), axis=0), axis=0)


def _only_top(scores: Tensor, k: int) -> Tensor:
    """The k largest of the last axis as they are, the others at the bottom."""
    _, places = ops.top_k(scores, k)
    chosen = ops.sum(ops.one_hot(places, scores.shape[-1], dtype="int32"), axis=-2) > 0
    return ops.where(chosen, scores, _LOW)


def _as_thresholds(thresholds: Any, default: float) -> list[float]:
    if thresholds is None:
        return [default]
    found = list(thresholds) if isinstance(thresholds, (list, tuple, np.ndarray)) else [thresholds]
    if any(t is None or not 0 <= t <= 1 for t in found):
        raise ArgumentError(f"thresholds are between 0 and 1, got {thresholds!r}")
    return found


def _ratio(part: Any, rest: Any) -> Tensor:
    """part / (part + rest), 0 for nothing."""
    return ops.divide_no_nan(part, part + rest)


class _Count(Metric):
    """One of the four counts at each threshold; a number if there is one threshold."""

    _kind: str
    _name: str

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self.init_thresholds = thresholds
        self.thresholds = _as_thresholds(thresholds, 0.5)
        self._counts = Counts(self.thresholds)
        self.accumulator = self.add_variable((len(self.thresholds),), name="accumulator")

    @at_once
    def update_state(self, y_true, y_pred, sample_weight=None):
        self._counts.add({self._kind: self.accumulator}, y_true, y_pred, sample_weight)

    def result(self):
        return self.accumulator.value[0] if len(self.thresholds) == 1 else self.accumulator.value

    def get_config(self):
        return {**super().get_config(), "thresholds": self.init_thresholds}


class TruePositives(_Count):
    """How many yes are right."""

    _kind = "tp"


class FalsePositives(_Count):
    """How many yes are wrong."""

    _kind = "fp"


class TrueNegatives(_Count):
    """How many no are right."""

    _kind = "tn"


class FalseNegatives(_Count):
    """How many no are wrong."""

    _kind = "fn"


class _Share(Metric):
    """True positives among something, at each threshold.

    top_k      only the k largest of each row can be yes; then every one of them is, if no threshold is given
    class_id   only this column is looked at
    """

    _direction = "up"
    _other: tuple[str, str]  # the kind of count, and the name of its variable

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        super().__init__(name=name, dtype=dtype)
        self.init_thresholds, self.top_k, self.class_id = thresholds, top_k, class_id
        self.thresholds = _as_thresholds(thresholds, 0.5 if top_k is None else _LOW)
        self._counts = Counts(self.thresholds)
        kind, label = self._other
        shape = (len(self.thresholds),)
        self._state = {
            "tp": self.add_variable(shape, name="true_positives"),
            kind: self.add_variable(shape, name=label),
        }

    @at_once
    def update_state(self, y_true, y_pred, sample_weight=None):
        self._counts.add(self._state, y_true, y_pred, sample_weight, self.top_k, self.class_id)

    def result(self):
        share = _ratio(*self._state.values())
        return share[0] if len(self.thresholds) == 1 else share

    def get_config(self):
        own = {"thresholds": self.init_thresholds, "top_k": self.top_k, "class_id": self.class_id}
        return {**super().get_config(), **own}


class Precision(_Share):
    """How many of the yes are right."""

    _other = ("fp", "false_positives")


class Recall(_Share):
    """How many of the true are found."""

    _other = ("fn", "false_negatives")


class _All(Metric):
    """All four counts at each threshold."""

    _labels = {"tp": "true_positives", "fp": "false_positives", "tn": "true_negatives", "fn": "false_negatives"}
    _state: dict[str, Variable]

    def _add_counts(self, shape: Sequence[int]) -> None:
        self._state = {kind: self.add_variable(shape, name=label) for kind, label in self._labels.items()}

    @property
    def true_positives(self) -> Variable:
        return self._state["tp"]

    @property
    def false_positives(self) -> Variable:
        return self._state["fp"]

    @property
    def true_negatives(self) -> Variable:
        return self._state["tn"]

    @property
    def false_negatives(self) -> Variable:
        return self._state["fn"]


class _AtLeast(_All):
    """The best of one share among the thresholds at which another is at least `value`."""

    _direction = "up"
    _argument: str

    def __init__(
        self,
        value: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        kind = type(self).__name__
        if not 0 <= value <= 1:
            raise ArgumentError(f"{kind}: {self._argument} is between 0 and 1, got {value!r}")
        if num_thresholds <= 0:
            raise ArgumentError(f"{kind}: num_thresholds is above 0, got {num_thresholds!r}")
        super().__init__(name=name, dtype=dtype)
        self.value, self.num_thresholds, self.class_id = value, num_thresholds, class_id
        setattr(self, self._argument, value)
        self.thresholds = [0.5] if num_thresholds == 1 else list(np.arange(num_thresholds) / (num_thresholds - 1))
        self._counts = Counts(self.thresholds)
        self._add_counts((len(self.thresholds),))

    @at_once
    def update_state(self, y_true, y_pred, sample_weight=None):
        self._counts.add(self._state, y_true, y_pred, sample_weight, class_id=self.class_id)

    def _shares(self) -> tuple[Tensor, Tensor]:
        """What must be at least `value`, and what should then be large."""
        raise NotImplementedError

    def result(self):
        held, wanted = self._shares()
        return ops.max(ops.where(held >= self.value, wanted, 0.0))

    def get_config(self):
        own = {"num_thresholds": self.num_thresholds, self._argument: self.value, "class_id": self.class_id}
        return {**super().get_config(), **own}


class SensitivityAtSpecificity(_AtLeast):
    """The best sensitivity (share of the true that are found) at a specificity (share of the false that are not)."""

    _argument = "specificity"

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        super().__init__(specificity, num_thresholds, class_id, name, dtype)

    def _shares(self):
        return _ratio(self.true_negatives, self.false_positives), _ratio(self.true_positives, self.false_negatives)


class SpecificityAtSensitivity(_AtLeast):
    """The best specificity at a sensitivity."""

    _argument = "sensitivity"

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)

    def _shares(self):
        return _ratio(self.true_positives, self.false_negatives), _ratio(self.true_negatives, self.false_positives)


class PrecisionAtRecall(_AtLeast):
    """The best precision at a recall."""

    _argument = "recall"

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        super().__init__(recall, num_thresholds, class_id, name, dtype)

    def _shares(self):
        return _ratio(self.true_positives, self.false_negatives), _ratio(self.true_positives, self.false_positives)


class RecallAtPrecision(_AtLeast):
    """The best recall at a precision."""

    _argument = "precision"

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        super().__init__(precision, num_thresholds, class_id, name, dtype)

    def _shares(self):
        return _ratio(self.true_positives, self.false_positives), _ratio(self.true_positives, self.false_negatives)


class AUC(_All):
    """The area under a curve that the counts draw as the threshold moves.

    curve              'ROC' (true over false positive rate), 'PR' (precision over recall) or 'PRGAIN'
    summation_method   'interpolation', or 'minoring' / 'majoring' for the lower / upper sum
    thresholds         instead of `num_thresholds` even ones
    multi_label        an area for each column, then their mean by `label_weights`
    label_weights      without `multi_label`: weights of the columns in the counts
    from_logits        take the sigmoid of y_pred first

    Davis, Goadrich 2006, "The relationship between precision-recall and ROC curves", section 4, for how precision is
    interpolated; Flach, Kull 2015, "Precision-recall-gain curves", for the gains.
    """

    _direction = "up"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Sequence[float] | None = None,
        from_logits: bool = False,
    ):
        super().__init__(name=name, dtype=dtype)
        self.curve, self.summation_method = curve.upper(), summation_method.lower()
        if self.curve not in ("ROC", "PR", "PRGAIN"):
            raise ArgumentError(f"AUC: curve is 'ROC', 'PR' or 'PRGAIN', got {curve!r}")
        if self.summation_method not in ("interpolation", "minoring", "majoring"):
            raise ArgumentError(
                f"AUC: summation_method is 'interpolation', 'minoring' or 'majoring', got {summation_method!r}"
            )
        if num_labels and not multi_label:
            raise ArgumentError("AUC: num_labels is for multi_label=True only")
        self._given_thresholds = None if thresholds is None else sorted(_as_thresholds(thresholds, 0.5))
        if thresholds is None and num_thresholds < 2:
            raise ArgumentError(f"AUC: num_thresholds is at least 2, got {num_thresholds!r}")
        inner = self._given_thresholds
        if inner is None:
            inner = [k / (num_thresholds - 1) for k in range(1, num_thresholds - 1)]
        self.num_thresholds = len(inner) + 2
        self.thresholds = [-epsilon(), *inner, 1.0 + epsilon()]
        self.multi_label, self.num_labels, self.from_logits = multi_label, num_labels, from_logits
        self.label_weights = None if label_weights is None else [float(w) for w in label_weights]
        self._counts = Counts(self.thresholds, multi_label)
        self._state = {}
        if not multi_label:
            self._add_counts((self.num_thresholds,))
        elif num_labels:
            self._add_counts((self.num_thresholds, num_labels))

    @at_once
    def update_state(self, y_true, y_pred, sample_weight=None):
        y_pred = as_tensor(y_pred)
        if not self._state:
            if len(y_pred.shape) != 2 or y_pred.shape[1] is None:
                raise ShapeError(f"AUC with multi_label needs predictions [samples, labels], got {y_pred!r}")
            self._add_counts((self.num_thresholds, y_pred.shape[1]))
        if self.from_logits:
            y_pred = ops.sigmoid(y_pred)
        columns = None if self.multi_label or self.label_weights is None else np.array([self.label_weights], "float32")
        self._counts.add(self._state, y_true, y_pred, sample_weight, label_weights=columns)

    def result(self):
        if not self._state:
            raise StateError(f"metric {self.name!r} knows its labels after the first update_state only")
        if self.curve == "PR" and self.summation_method == "interpolation":
            areas = self._interpolated_precision()
        else:
            x, y = self._curve()
            left, right = y[:-1], y[1:]
            heights = {
                "interpolation": lambda: (left + right) / 2.0,
                "minoring": lambda: ops.minimum(left, right),
                "majoring": lambda: ops.maximum(left, right),
            }[self.summation_method]()
            areas = (x[:-1] - x[1:]) * heights
        if not self.multi_label:
            return ops.sum(areas)
        area = ops.sum(areas, axis=0)
        if self.label_weights is None:
            return ops.mean(area)
        weights = np.asarray(self.label_weights, "float32")
        return ops.divide_no_nan(ops.sum(area * weights), ops.sum(as_tensor(weights)))

    def _curve(self) -> tuple[Any, Any]:
        tp, fp, tn, fn = self.true_positives, self.false_positives, self.true_negatives, self.false_negatives
        recall = _ratio(tp, fn)
        if self.curve == "ROC":
            return _ratio(fp, tn), recall
        if self.curve == "PR":
            return recall, _ratio(tp, fp)
        odds = ops.divide_no_nan(tp + fn, tn + fp)
        none = ops.equal(tp, 0.0)
        recall_gain = ops.where(none, 0.0, 1.0 - odds * ops.divide_no_nan(fn, tp))
        precision_gain = ops.where(none, 1.0, 1.0 - odds * ops.divide_no_nan(fp, tp))
        return ops.maximum(recall_gain, 0.0), precision_gain

    def _interpolated_precision(self) -> Tensor:
        """Between two thresholds the counts change linearly, the precision therefore not."""
        tp, fn = self.true_positives.value, self.false_negatives.value
        yes = tp + self.false_positives
        slope = ops.divide_no_nan(tp[:-1] - tp[1:], ops.maximum(yes[:-1] - yes[1:], 0.0))
        start = tp[1:] - slope * yes[1:]
        both = ops.logical_and(yes[:-1] > 0, yes[1:] > 0)
        ratio = ops.where(both, ops.divide_no_nan(yes[:-1], ops.maximum(yes[1:], 0.0)), 1.0)
        gained = slope * ((tp[:-1] - tp[1:]) + start * ops.log(ratio))
        return ops.divide_no_nan(gained, ops.maximum(tp[1:] + fn[1:], 0.0))

    def get_config(self):
        config = {
            **super().get_config(),
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": self.summation_method,
            "multi_label": self.multi_label,
            "num_labels": self.num_labels,
            "label_weights": self.label_weights,
            "from_logits": self.from_logits,
        }
        return config if self._given_thresholds is None else {**config, "thresholds": self._given_thresholds}
