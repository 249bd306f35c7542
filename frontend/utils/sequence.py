"""Sequences of unequal lengths as one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError, DataError


def pad_sequences(
    sequences: Sequence[Any],
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: Any = 0.0,
) -> np.ndarray:
    """Sequences as the rows of one array, cut and padded to one length.

    sequences    lists or arrays [length, ...], alike but for the length
    maxlen       the length; that of the longest if left out
    padding      'pre' or 'post': whether `value` is put before or after shorter ones
    truncating   'pre' or 'post': whether longer ones lose their beginning or their end
    result: dtype[n, maxlen, ...]

    Raises DataError for what is no list of sequences, and for elements of unequal shapes, naming the sequence.
    """
    for name, given in (("padding", padding), ("truncating", truncating)):
        if given not in ("pre", "post"):
            raise ArgumentError(f"pad_sequences({name}=...) is 'pre' or 'post', got {given!r}")
    if not hasattr(sequences, "__len__"):
        raise DataError(f"pad_sequences takes a list of sequences, got {type(sequences).__name__}")
    for k, sequence in enumerate(sequences):
        if not hasattr(sequence, "__len__"):
            raise DataError(f"pad_sequences takes a list of sequences; number {k} is {sequence!r:.80}, which is none")
    lengths = [len(sequence) for sequence in sequences]
    length = max(lengths, default=0) if maxlen is None else maxlen
    kind = np.dtype(dtype)
    if isinstance(value, str) and kind.kind not in "OUS":
        raise ArgumentError(f"pad_sequences(value={value!r}) needs dtype=object or a text dtype, got dtype={dtype!r}")
    first = next((np.asarray(s) for s in sequences if len(s)), np.zeros(0))
    padded = np.full((len(lengths), length, *first.shape[1:]), value, kind)
    for k, sequence in enumerate(sequences):
        kept = sequence[max(len(sequence) - length, 0) :] if truncating == "pre" else sequence[:length]
        if not len(kept):
            continue
        row = np.asarray(kept, kind)
        if row.shape[1:] != first.shape[1:]:
            raise DataError(
                f"Shape of sample {row.shape[1:]} of sequence at position {k} is different from expected shape "
                f"{first.shape[1:]}"
            )
        if padding == "post":
            padded[k, : len(row)] = row
        else:
            padded[k, length - len(row) :] = row
    return padded


__all__ = ["pad_sequences"]
