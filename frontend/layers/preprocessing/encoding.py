"""Category numbers as rows: one-hot, multi-hot, counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnomon import ops
from gnomon.compiler.errors import ArgumentError
from gnomon.tensor import Tensor

MODES = ("int", "one_hot", "multi_hot", "count")


def checked_mode(layer: Any, mode: Any, allowed: tuple[str, ...]) -> str:
    """An `output_mode`, older names as the present ones. Raises ArgumentError naming those that are allowed."""
    mode = {"binary": "multi_hot", "tf-idf": "tf_idf"}.get(mode, mode) if isinstance(mode, str) else mode
    if mode not in allowed:
        raise ArgumentError(
            f"Unknown value for `output_mode` argument of {type(layer).__name__}. Allowed values are: {allowed}. "
            f"Received: output_mode={mode}"
        )
    return mode


def refuse_sparse(layer: Any, sparse: Any) -> None:
    """Raises ArgumentError if sparse results are asked for."""
    if sparse:
        raise ArgumentError(f"{type(layer).__name__}: sparse=True is not there; results are dense arrays")


def encoded_shape(shape: tuple[int | None, ...], mode: str, depth: int | None) -> tuple[int | None, ...]:
    """The shape of categories of this shape when they are encoded."""
    if mode == "int":
        return shape
    if mode == "one_hot":
        return (*(shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape), depth)
    return (shape[0], *shape[2:], depth) if len(shape) > 1 else (depth,)


def encode_array(indices: np.ndarray, mode: str, depth: int, dtype: str) -> np.ndarray:
    """Rows of `depth` numbers from category numbers; those outside 0 ... depth - 1 are passed over.

    one_hot: [..., depth], a last axis of 1 dropped   multi_hot, count: axis 1 (0 if there is no other) is one sample's
    """
    if mode == "int":
        return indices.astype(dtype)
    indices = np.atleast_1d(indices)
    if mode == "one_hot":
        indices = indices[..., 0] if indices.ndim > 1 and indices.shape[-1] == 1 else indices
        return (indices[..., None] == np.arange(depth)).astype(dtype)
    samples = np.moveaxis(indices, 1 if indices.ndim > 1 else 0, -1)
    counts = encode_ragged([samples.reshape(-1)], mode, depth, dtype, samples.shape[-1])
    return counts.reshape(*samples.shape[:-1], depth)


def encode_ragged(rows: list[np.ndarray], mode: str, depth: int, dtype: str, width: int | None = None) -> np.ndarray:
    """[n, depth]: which numbers (multi_hot), or how many times each (count), are in each row.

    width   rows lie in one array of this many numbers each
    """
    if width is not None:
        (flat,) = rows
        count = flat.size // width if width else 0
        places = np.repeat(np.arange(count), width)
    else:
        flat = np.concatenate([*rows, np.zeros(0, np.int64)])
        count = len(rows)
        places = np.repeat(np.arange(count), [len(row) for row in rows])
    kept = (flat >= 0) & (flat < depth)
    counts = np.zeros(count * depth, dtype)
    at = places[kept] * depth + flat[kept]
    if mode == "multi_hot":
        counts[at] = 1
    else:
        np.add.at(counts, at, 1)
    return counts.reshape(count, depth)


def encode_tensor(indices: Tensor, mode: str, depth: int, dtype: str, weights: Tensor | None = None) -> Tensor:
    """`encode_array` in a program. `weights` (count): what each number adds."""
    if mode == "int":
        return ops.cast(indices, dtype)
    if indices.ndim == 0:
        indices = ops.reshape(indices, (1,))
    if mode == "one_hot":
        if indices.ndim > 1 and indices.shape[-1] == 1:
            indices = ops.squeeze(indices, -1)
        return ops.one_hot(indices, depth, dtype=dtype)
    if mode == "multi_hot":
        return ops.multi_hot(indices, depth, dtype=dtype)
    rows = ops.one_hot(indices, depth, dtype=dtype)
    if weights is not None:
        rows = rows * ops.expand_dims(ops.cast(weights, dtype), -1)
    return ops.sum(rows, axis=1 if indices.ndim > 1 else 0)
