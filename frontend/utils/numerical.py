"""Labels and rows of data in other forms: Keras's `to_categorical` and `normalize`."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnomon.compiler.errors import DataError


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """One-hot rows of class numbers.

    x: int[...]   result: float[..., num_classes]
    num_classes   the largest class and one if left out; a last axis of 1 is dropped, as in Keras

    Raises DataError for numbers that are no classes, naming the first and its place.
    """
    given = np.asarray(x)
    if given.dtype.kind not in "fiub":
        raise DataError(f"to_categorical takes class numbers, got an array of dtype {given.dtype}")
    classes = given.astype(np.int64)
    count = int(classes.max(initial=-1)) + 1 if num_classes is None else int(num_classes)
    wrong = (classes != given) | (classes < 0) | (classes >= count)
    if wrong.any():
        place = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
        raise DataError(
            f"to_categorical takes the class numbers 0 to {count - 1}, got {given[place]} at position {place} of shape "
            f"{given.shape}"
        )
    if classes.ndim > 1 and classes.shape[-1] == 1:
        classes = classes[..., 0]
    return (classes[..., None] == np.arange(count)).astype(np.float64)


def normalize(x: Any, axis: int = -1, order: int = 2) -> np.ndarray:
    """x divided by its norms along an axis; rows of zeros stay. order: 1, 2 or numpy.inf"""
    array = np.asarray(x)
    norms = np.linalg.norm(np.atleast_1d(array), order, axis, keepdims=True)
    return array / np.where(norms == 0, 1, norms)
