"""Losses between distributions.

Probabilities are kept epsilon away from 0 and 1; with `from_logits`, y_pred holds their logarithms, unnormalized.
"""

from __future__ import annotations

import warnings
from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.ops.shape import surely_differ
from gnomon.config import epsilon
from gnomon.eager import on_tensors
from gnomon.losses.loss import LossFunctionWrapper
from gnomon.losses.regression import floats
from gnomon.tensor import Tensor, node_of


def _same_shape(loss: str, y_true: Tensor, y_pred: Tensor, hint: str) -> None:
    """Raise ShapeError, naming both, unless labels and predictions may have one shape."""
    a, b = node_of(y_true), node_of(y_pred)
    if a.rank != b.rank or any(surely_differ(m, n) for m, n in zip(a.shape, b.shape, strict=True)):
        raise ShapeError(f"{loss} needs y_true and y_pred of one shape, got y_true {a.type} and y_pred {b.type}{hint}")


def _classes(loss: str, y_true: Tensor, y_pred: Tensor, smoothing: float, axis: int) -> tuple[Tensor, Tensor]:
    """One-hot labels and predictions, checked and smoothed."""
    if isinstance(axis, bool):
        raise ArgumentError(f"{loss}: axis is an integer, got {axis!r}")
    y_true, y_pred = floats(y_true, y_pred)
    if y_pred.shape and y_pred.shape[-1] == 1:
        warnings.warn(
            f"{loss} got y_pred of shape {y_pred.shape}: with one class it is always 0. For two classes given as one "
            "probability use 'binary_crossentropy'.",
            SyntaxWarning,
            stacklevel=4,
        )
    whole = "; for labels that are class numbers use 'sparse_categorical_crossentropy'"
    _same_shape(loss, y_true, y_pred, whole)
    if smoothing:
        y_true = y_true * (1.0 - smoothing) + smoothing / ops.cast(ops.shape(y_true)[-1], y_pred.dtype)
    return y_true, y_pred


@on_tensors(2)
def categorical_crossentropy(y_true, y_pred, from_logits=False, label_smoothing=0.0, axis=-1):
    """-sum(y_true * log(y_pred)) over the classes.

    y_true: one-hot, or probabilities, of the shape of y_pred   y_pred: float[..., classes]
    label_smoothing   takes this much from the labels and spreads it evenly over the classes
    Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7.
    """
    y_true, y_pred = _classes("categorical_crossentropy", y_true, y_pred, label_smoothing, axis)
    return ops.categorical_crossentropy(y_true, y_pred, from_logits=from_logits, axis=axis)


@on_tensors(2)
def categorical_focal_crossentropy(
    y_true, y_pred, alpha=0.25, gamma=2.0, from_logits=False, label_smoothing=0.0, axis=-1
):
    """-sum(alpha * (1 - y_pred)**gamma * y_true * log(y_pred)): what is already right weighs less.

    Lin, Goyal, Girshick, He, Dollár 2017, "Focal loss for dense object detection", equation 5.
    """
    y_true, y_pred = _classes("categorical_focal_crossentropy", y_true, y_pred, label_smoothing, axis)
    if from_logits:
        y_pred = ops.softmax(y_pred, axis=axis)
    p = y_pred / ops.sum(y_pred, axis=axis, keepdims=True)
    p = ops.clip(p, epsilon(), 1.0 - epsilon())
    return ops.sum(alpha * ops.power(1.0 - p, gamma) * -y_true * ops.log(p), axis=axis)


@on_tensors(2)
def sparse_categorical_crossentropy(y_true, y_pred, from_logits=False, ignore_class=None, axis=-1):
    """-log(y_pred[y_true]): labels are class numbers.

    y_true: int[...] or [..., 1]   y_pred: float[..., classes]
    ignore_class   samples of this label count for nothing
    """
    axis = int(axis)
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[axis] == 1:
        y_true = ops.squeeze(y_true, axis)
    _check_class_numbers(y_true, y_pred, axis)
    y_true = ops.cast(y_true, "int32")
    if ignore_class is None:
        return ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=from_logits, axis=axis)
    valid = y_true != int(ignore_class)
    y_pred = ops.where(ops.expand_dims(valid, axis), y_pred, 0.0)
    losses = ops.sparse_categorical_crossentropy(
        ops.where(valid, y_true, 0), y_pred, from_logits=from_logits, axis=axis
    )
    losses = ops.where(valid, losses, 0.0)
    losses.mask = valid
    return losses


def _check_class_numbers(y_true: Tensor, y_pred: Tensor, axis: int) -> None:
    labels, scores = node_of(y_true), node_of(y_pred)
    rest = [d for k, d in enumerate(scores.shape) if k != axis % scores.rank] if scores.rank else None
    if rest is None or len(rest) != labels.rank or any(map(surely_differ, labels.shape, rest)):
        one_hot = labels.rank == scores.rank and labels.shape[-1] == scores.shape[-1]
        raise ShapeError(
            f"sparse_categorical_crossentropy needs one class number per row of y_pred, got y_true {labels.type} and "
            f"y_pred {scores.type}" + ("; for one-hot labels use 'categorical_crossentropy'" if one_hot else "")
        )


def _binary(loss: str, y_true: Tensor, y_pred: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    y_true, y_pred = floats(y_true, y_pred)
    _same_shape(loss, y_true, y_pred, "")
    if smoothing:
        y_true = y_true * (1.0 - smoothing) + 0.5 * smoothing
    return y_true, y_pred


@on_tensors(2)
def binary_crossentropy(y_true, y_pred, from_logits=False, label_smoothing=0.0, axis=-1):
    """mean(-(y_true * log(y_pred) + (1 - y_true) * log(1 - y_pred))) along `axis`."""
    y_true, y_pred = _binary("binary_crossentropy", y_true, y_pred, label_smoothing)
    return ops.mean(ops.binary_crossentropy(y_true, y_pred, from_logits=from_logits), axis=axis)


@on_tensors(2)
def binary_focal_crossentropy(
    y_true,
    y_pred,
    apply_class_balancing=False,
    alpha=0.25,
    gamma=2.0,
    from_logits=False,
    label_smoothing=0.0,
    axis=-1,
):
    """The binary crossentropy times (1 - p)**gamma, p being the probability given to the true class.

    apply_class_balancing   also weigh class 1 by `alpha` and class 0 by 1 - `alpha`
    Lin, Goyal, Girshick, He, Dollár 2017, "Focal loss for dense object detection", equation 4.
    """
    y_true, y_pred = _binary("binary_focal_crossentropy", y_true, y_pred, label_smoothing)
    if from_logits:
        y_pred = ops.sigmoid(y_pred)
    losses = ops.binary_crossentropy(y_true, y_pred)
    right = y_true * y_pred + (1.0 - y_true) * (1.0 - y_pred)
    losses = ops.power(1.0 - right, gamma) * losses
    if apply_class_balancing:
        losses = (y_true * alpha + (1.0 - y_true) * (1.0 - alpha)) * losses
    return ops.mean(losses, axis=axis)


@on_tensors(2)
def categorical_generalized_cross_entropy(y_true, y_pred, q):
    """(1 - p**q) / q, p being the probability of the class number y_true: from crossentropy (q to 0) to 1 - p (q = 1).

    Zhang, Sabuncu 2018, "Generalized cross entropy loss for training deep neural networks with noisy labels".
    """
    _check_class_numbers(y_true, y_pred, -1)
    chosen = ops.one_hot(ops.cast(y_true, "int32"), ops.shape(y_pred)[-1], dtype=y_pred.dtype)
    return (1.0 - ops.power(ops.sum(y_pred * chosen, axis=-1), q)) / q


@on_tensors(2)
def kl_divergence(y_true, y_pred):
    """sum(y_true * log(y_true / y_pred)), both kept between epsilon and 1."""
    y_true, y_pred = floats(y_true, y_pred)
    y_true, y_pred = ops.clip(y_true, epsilon(), 1.0), ops.clip(y_pred, epsilon(), 1.0)
    return ops.sum(y_true * ops.log(y_true / y_pred), axis=-1)


class CategoricalCrossentropy(LossFunctionWrapper):
    """-sum(y_true * log(y_pred)) over the classes of one-hot labels."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(
            categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class CategoricalFocalCrossentropy(LossFunctionWrapper):
    """The categorical crossentropy that weighs what is already right less."""

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(
            categorical_focal_crossentropy,
            reduction,
            name,
            dtype,
            alpha=alpha,
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class SparseCategoricalCrossentropy(LossFunctionWrapper):
    """-log(y_pred[y_true]) of labels that are class numbers."""

    _at_default = {"axis": -1}

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(
            sparse_categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )


class BinaryCrossentropy(LossFunctionWrapper):
    """The crossentropy of labels 0 and 1 and the probability of 1."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(
            binary_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class BinaryFocalCrossentropy(LossFunctionWrapper):
    """The binary crossentropy that weighs what is already right less."""

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(
            binary_focal_crossentropy,
            reduction,
            name,
            dtype,
            apply_class_balancing=apply_class_balancing,
            alpha=alpha,
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class CategoricalGeneralizedCrossEntropy(LossFunctionWrapper):
    """(1 - p**q) / q of labels that are class numbers. Raises ArgumentError unless 0 < q < 1."""

    def __init__(
        self,
        q: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_generalized_cross_entropy",
        dtype: Any = None,
    ):
        if not 0 < q < 1:
            raise ArgumentError(f"CategoricalGeneralizedCrossEntropy: q must be between 0 and 1, got {q!r}")
        super().__init__(categorical_generalized_cross_entropy, reduction, name, dtype, q=q)


class KLDivergence(LossFunctionWrapper):
    """sum(y_true * log(y_true / y_pred))."""

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str = "kl_divergence", dtype: Any = None):
        super().__init__(kl_divergence, reduction, name, dtype)
