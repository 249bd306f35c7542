"""Losses of regions (Dice, Tversky), of embeddings (circle) and of sequences (CTC)."""

from __future__ import annotations

from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ShapeError
from gnomon.compiler.ops import build
from gnomon.config import epsilon
from gnomon.eager import on_tensors
from gnomon.losses.loss import LossFunctionWrapper
from gnomon.losses.regression import floats
from gnomon.tensor import Tensor, node_of


@on_tensors(2)
def dice(y_true, y_pred, axis=None):
    """1 - 2 * overlap / (size of y_true + size of y_pred), over `axis` (all axes for None).

    Milletari, Navab, Ahmadi 2016, "V-Net", section 3; here the sizes are sums, not sums of squares.
    """
    y_true, y_pred = floats(y_true, y_pred)
    overlap = ops.sum(y_true * y_pred, axis=axis)
    return 1.0 - 2.0 * overlap / (ops.sum(y_true, axis=axis) + ops.sum(y_pred, axis=axis) + epsilon())


@on_tensors(2)
def tversky(y_true, y_pred, alpha=0.5, beta=0.5, axis=None):
    """1 - overlap / (overlap + alpha * missed + beta * false alarms), over `axis` (all axes for None).

    Salehi, Erdogmus, Gholipour 2017, "Tversky loss function for image segmentation", equation 4; `alpha` weighs what
    only y_true has and `beta` what only y_pred has, the other way round than there.
    """
    y_true, y_pred = floats(y_true, y_pred)
    overlap = ops.sum(y_true * y_pred, axis=axis)
    missed = ops.sum((1.0 - y_pred) * y_true, axis=axis)
    false = ops.sum(y_pred * (1.0 - y_true), axis=axis)
    return 1.0 - overlap / (overlap + missed * alpha + false * beta + epsilon())


@on_tensors(2)
def circle(y_true, y_pred, ref_labels=None, ref_embeddings=None, remove_diagonal=True, gamma=80, margin=0.4):
    """Pulls embeddings of one label together and pushes those of others apart, each at a pace of its own.

    y_true: int[n] or [n, 1], class numbers   y_pred: float[n, d], embeddings of norm 1   result: float[n]
    ref_labels, ref_embeddings   what is compared with, y_true and y_pred themselves by default
    remove_diagonal              whether row k is not compared with row k

    Sun et al. 2020, "Circle loss: a unified perspective of pair similarity optimization", equation 6.
    """
    labels, others = (_row_of(v) for v in (y_true, y_true if ref_labels is None else ref_labels))
    others_at = y_pred if ref_embeddings is None else ref_embeddings
    distance = ops.maximum(1.0 - ops.matmul(y_pred, ops.transpose(others_at)), 0.0)
    same = ops.expand_dims(labels, 1) == ops.expand_dims(others, 0)
    different = ops.logical_not(same)
    if remove_diagonal:
        rows, columns = (ops.arange(ops.shape(v)[0], dtype="int32") for v in (labels, others))
        same = ops.logical_and(same, ops.expand_dims(rows, 1) != ops.expand_dims(columns, 0))
    pull = -gamma * (margin + distance) * (margin - distance)
    push = gamma * ops.maximum(1.0 + margin - distance, 0.0) * (1.0 - margin - distance)
    never = float("-inf")
    total = ops.logsumexp(ops.where(same, pull, never), axis=1) + ops.logsumexp(
        ops.where(different, push, never), axis=1
    )
    losses = ops.softplus(total)
    losses.mask = losses > 0
    return losses


def _row_of(labels: Any) -> Tensor:
    labels = ops.cast(labels, "int32")
    return ops.squeeze(labels, -1) if len(labels.shape) == 2 else labels


@on_tensors(2)
def ctc(y_true, y_pred):
    """Minus the log-probability of label sequences, over all ways to align them with the steps of y_pred.

    y_true: int[batch, labels], 0 after the end   y_pred: logits float[batch, steps, classes], class 0 is the blank
    result: float[batch]
    Raises ShapeError for other ranks.

    Graves, Fernández, Gomez, Schmidhuber 2006, "Connectionist temporal classification", section 4.1.
    """
    labels, scores = node_of(y_true), node_of(y_pred)
    if labels.rank != 2 or scores.rank != 3:
        raise ShapeError(
            f"ctc needs y_true [batch, labels] and y_pred [batch, steps, classes], got {labels.type} and {scores.type}"
        )
    lengths = ops.sum(ops.cast(ops.cast(y_true, "int32") != 0, "int32"), axis=1)
    steps = Tensor(build.broadcast(build.size(scores.shape[1], "int32"), (scores.shape[0],), ()))
    return ops.ctc_loss(y_true, y_pred, lengths, steps)


class Dice(LossFunctionWrapper):
    """1 - 2 * overlap / (size of y_true + size of y_pred)."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "dice",
        axis: Any = None,
        dtype: Any = None,
    ):
        super().__init__(dice, reduction, name, dtype, axis=axis)


class Tversky(LossFunctionWrapper):
    """1 - overlap / (overlap + alpha * missed + beta * false alarms)."""

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "tversky",
        axis: Any = None,
        dtype: Any = None,
    ):
        super().__init__(tversky, reduction, name, dtype, alpha=alpha, beta=beta, axis=axis)


class Circle(LossFunctionWrapper):
    """Pulls embeddings of one label together and pushes those of others apart."""

    def __init__(
        self,
        gamma: float = 80.0,
        margin: float = 0.4,
        remove_diagonal: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str = "circle",
        dtype: Any = None,
    ):
        super().__init__(circle, reduction, name, dtype, gamma=gamma, margin=margin, remove_diagonal=remove_diagonal)


class CTC(LossFunctionWrapper):
    """Minus the log-probability of label sequences over all alignments."""

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str = "ctc", dtype: Any = None):
        super().__init__(ctc, reduction, name, dtype)
