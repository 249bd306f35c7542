"""What labels must be for a loss to mean anything, checked on arrays before they are trained on.

A compiled step cannot raise for a label; a class number that is none would silently count as no class at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gnomon.losses.probabilistic import (
    binary_crossentropy,
    binary_focal_crossentropy,
    sparse_categorical_crossentropy,
)


def label_problem(loss: Any, y: np.ndarray, y_pred_shape: Sequence[int | None], weight: Any = None) -> str | None:
    """What is wrong with labels y for a loss and predictions of this shape (None: open sizes); None if nothing is.

    weight   labels whose sample weight is 0 may be anything
    """
    rule = RULES.get(getattr(loss, "fn", None))  # type: ignore[arg-type]  # None is no key
    return None if rule is None or not y.size else rule(y, y_pred_shape, weight, getattr(loss, "_arguments", {}))


def _class_numbers(y: np.ndarray, shape: Sequence[int | None], weight: Any, arguments: dict[str, Any]) -> str | None:
    count = shape[arguments.get("axis", -1)] if shape else None
    low, high = y.min(), y.max()
    whole = y.dtype.kind != "f" or bool((y == np.rint(y)).all())
    if whole and low >= 0 and (count is None or high < count):
        return None
    ignored = arguments.get("ignore_class")
    counts = np.ones(y.shape, bool) if ignored is None else y != ignored
    broken = _first(counts & (y != np.rint(y)), weight) if not whole else None
    if broken is not None:
        return (
            f"takes class numbers, got {y[broken]} at position {_shown(broken)} of shape {y.shape}. Use "
            "'categorical_crossentropy' for one number per class, or a loss such as 'mse' for numbers to be predicted"
        )
    outside = _first(counts & ((y < 0) | (y >= (np.inf if count is None else count))), weight)
    if outside is None:
        return None
    from_one = ". If they count from 1, pass y - 1" if low == 1 and high == count else ""
    return (
        f"takes the class numbers 0 to {'...' if count is None else count - 1} (the output has {count} classes), got "
        f"{y[outside]} at position {_shown(outside)} of shape {y.shape}; labels go from {low} to {high}{from_one}"
    )


def _probabilities(y: np.ndarray, shape: Sequence[int | None], weight: Any, arguments: dict[str, Any]) -> str | None:
    low, high = y.min(), y.max()
    if y.dtype.kind == "b" or (low >= 0 and high <= 1):
        return None
    outside = _first((y < 0) | (y > 1), weight)
    if outside is None:
        return None
    several = high > 1 and y.dtype.kind in "iu"
    hint = ". For more than two classes use 'sparse_categorical_crossentropy'" if several else ""
    return (
        f"takes labels from 0 to 1, got {y[outside]} at position {_shown(outside)} of shape {y.shape}; labels go from "
        f"{low} to {high}{hint}"
    )


def _first(wrong: np.ndarray, weight: Any) -> tuple[int, ...] | None:
    """The position of the first true element, those of sample weight 0 left out."""
    if weight is not None:
        used = np.asarray(weight) != 0
        if used.ndim <= wrong.ndim:
            wrong = wrong & used.reshape(used.shape + (1,) * (wrong.ndim - used.ndim))
    if not wrong.any():
        return None
    return tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))


def _shown(position: tuple[int, ...]) -> str:
    return str(position[0] if len(position) == 1 else position)


RULES: dict[Callable, Callable[[np.ndarray, Sequence[int | None], Any, dict[str, Any]], str | None]] = {
    sparse_categorical_crossentropy: _class_numbers,
    binary_crossentropy: _probabilities,
    binary_focal_crossentropy: _probabilities,
}

__all__ = ["label_problem"]
