"""The base of losses: from a loss per sample to one number, with weights and masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gnomon import ops
from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.ops import build
from gnomon.config import floatx
from gnomon.eager import compute
from gnomon.naming import auto_name
from gnomon.registry import deserialize_object, serialize_object
from gnomon.tensor import Tensor, node_of
from gnomon.utils import tree

REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)


class Loss:
    """Base of losses. A subclass defines `call(y_true, y_pred)`, one value per sample.

    name        shown in logs; made from the class name if not given
    reduction   'sum_over_batch_size' or 'mean' (divide by the number of values), 'mean_with_sample_weight' (by the sum
                of the weights), 'sum', 'none' or None (no reduction)
    dtype       what y_true and y_pred are converted to; the default float if not given

    Called with tensors it gives a Tensor, with arrays a number. A mask on y_pred (`y_pred.mask`) leaves samples out.
    """

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: Any = None):
        self.name = name or auto_name(type(self).__name__)
        self.reduction = check_reduction(reduction)
        self._dtype = compute_dtype(dtype)

    @property
    def dtype(self) -> str:
        return self._dtype

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        def value(given: list) -> Tensor:
            truth, prediction, weight = given
            in_mask = getattr(prediction, "mask", None)
            prediction = tree.map_structure(lambda x: ops.cast(x, self.dtype), prediction)
            truth = tree.map_structure(lambda x: ops.cast(x, self.dtype), truth)
            try:
                losses = as_value(self.call(truth, prediction), self.name)
            except ShapeError as error:
                if "y_true" in str(error):
                    raise
                raise ShapeError(
                    f"loss {self.name!r}: y_true {truth!r} and y_pred {prediction!r} do not fit together: {error}"
                ) from error
            return reduce_weighted(losses, weight, both(in_mask, losses.mask), self.reduction, self.dtype)

        return compute(value, [y_true, y_pred, sample_weight])

    def call(self, y_true: Any, y_pred: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define call(y_true, y_pred)")

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


class LossFunctionWrapper(Loss):
    """A function `fn(y_true, y_pred, **arguments)`, one value per sample, as a Loss."""

    _at_default: dict[
        str, Any
    ] = {}  # arguments that a configuration leaves out while they have these values, as Keras's

    def __init__(
        self,
        fn: Callable,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **arguments: Any,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.fn, self._arguments = fn, arguments
        if type(self) is not LossFunctionWrapper:
            for key, argument in arguments.items():
                setattr(self, key, argument)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if not tree.is_nested(y_true) and not tree.is_nested(y_pred):
            y_true, y_pred = align_ranks(y_true, y_pred)
        return self.fn(y_true, y_pred, **self._arguments)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if type(self) is LossFunctionWrapper:
            return {**config, "fn": serialize_object(self.fn), **serialize_object(self._arguments)}
        for key, argument in self._arguments.items():
            if key not in self._at_default or self._at_default[key] != argument:
                config[key] = argument
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        return cls(**(deserialize_object(config) if "fn" in config else config))


def compute_dtype(dtype: Any) -> str:
    """The dtype of a dtype or of a dtype policy; the default float for None."""
    return dtypes.canonical(getattr(dtype, "compute_dtype", dtype) or floatx())


def check_reduction(reduction: str | None) -> str | None:
    """`reduction` itself. Raises ArgumentError if there is no such one."""
    if reduction not in REDUCTIONS:
        raise ArgumentError(f"Unknown reduction {reduction!r}. Known: {', '.join(map(repr, REDUCTIONS))}.")
    return reduction


def as_value(value: Any, name: str) -> Tensor:
    """What a loss function returned, as a Tensor."""
    if value is None:
        raise ArgumentError(f"the loss {name!r} returned None: a loss returns one value per sample")
    return value if isinstance(value, Tensor) else Tensor(node_of(value))


def both(first: Any, second: Any) -> Any:
    """Where both masks are true; None stands for everywhere."""
    if first is None or second is None:
        return second if first is None else first
    return ops.logical_and(first, second)


def align_ranks(x: Tensor, y: Tensor, expand_rank_1: bool = True) -> tuple[Tensor, Tensor]:
    """x and y with equal ranks, if they differ by a last axis of size 1: it is dropped, or given to a vector."""
    if len(x.shape) == len(y.shape) + 1 and x.shape[-1] == 1:
        if len(y.shape) == 1 and expand_rank_1:
            return x, ops.expand_dims(y, -1)
        return ops.squeeze(x, -1), y
    if len(y.shape) == len(x.shape) + 1 and y.shape[-1] == 1:
        if len(x.shape) == 1 and expand_rank_1:
            return ops.expand_dims(x, -1), y
        return x, ops.squeeze(y, -1)
    return x, y


def kind_of_labels(y_true_shape: tuple, y_pred_shape: tuple) -> str:
    """'binary', 'sparse' or 'categorical': what labels and predictions of these shapes are (Keras's rule)."""
    if y_pred_shape and y_pred_shape[-1] == 1:
        return "binary"
    column = bool(y_true_shape) and y_true_shape[-1] == 1 and bool(y_pred_shape)
    return "sparse" if len(y_true_shape) < len(y_pred_shape) or column else "categorical"


def count_of(x: Tensor, dtype: str) -> Tensor:
    """How many elements x has; 1 if it surely has none, so that it can divide."""
    node = node_of(x)
    return Tensor(build.constant(1, dtype) if 0 in node.shape else build.count(node, None, dtype))


def apply_mask(weight: Any, mask: Any, dtype: str, reduction: str | None) -> Any:
    """Weights that are 0 where the mask is false; for a mean, raised so that it divides by the unmasked values."""
    if mask is None:
        return weight
    mask = ops.cast(mask, "bool")
    factor = ops.cast(mask, dtype)
    if reduction in ("mean", "sum_over_batch_size"):
        factor = factor * ops.divide_no_nan(count_of(mask, dtype), ops.sum(factor))
    if weight is None:
        return factor
    factor, weight = align_ranks(factor, ops.cast(weight, dtype))
    return weight * factor


def reduce_weighted(values: Tensor, weight: Any, mask: Any, reduction: str | None, dtype: str) -> Tensor:
    """`values`, one per sample, times their weights, reduced."""
    values = ops.cast(values, dtype)
    weight = apply_mask(weight, mask, dtype, reduction)
    if weight is not None:
        weight = ops.cast(weight, dtype)
        values, weight = align_ranks(values, weight)
        try:
            values = values * weight
        except ShapeError as error:
            raise ShapeError(
                f"sample_weight {weight!r} does not fit the loss per sample, {values!r}: it has the shape of the "
                "samples, or one value per sample"
            ) from error
    if reduction in (None, "none") or not values.shape:
        return values
    total = ops.sum(values)
    if reduction == "sum":
        return total
    if reduction == "mean_with_sample_weight" and weight is not None:
        return ops.divide_no_nan(total, ops.sum(weight))
    return total / count_of(values, dtype)
