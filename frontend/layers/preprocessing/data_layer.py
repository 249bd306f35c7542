"""DataLayer: a layer that is applied to data, perhaps before any model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.layers.calls import is_symbolic_call
from gnomon.layers.layer import Layer
from gnomon.tensor import Array


class DataLayer(Layer):
    """Base of layers that take lists and numbers besides arrays."""

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_symbolic_call((inputs, *args), kwargs):
            inputs = np.asarray(inputs)
        return super().__call__(inputs, *args, **kwargs)


class TextLayer(DataLayer):
    """Base of layers that work on words: they are applied to the data, on NumPy; no program has words in it."""

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if is_symbolic_call((inputs, *args), kwargs):
            raise ArgumentError(
                f"{type(self).__name__} {self.name!r} works on data, not inside a model: text is no input of a "
                "compiled "
                f"program. Apply the layer to the data first, x = {self.name}(data), and begin the model with an Input "
                "of what it gives"
            )
        return np.asarray(self.encode(inputs)).view(Array)

    def encode(self, inputs: Any) -> np.ndarray:
        """What the layer makes of an array."""
        raise NotImplementedError

    def call(self, inputs):
        raise ArgumentError(f"{type(self).__name__} is applied to data by calling the layer")


def batches_of_data(data: Any, steps: int | None = None) -> Iterator[Any]:
    """What `adapt` goes through: an array or list is one batch, of (x, y) the first is taken, `steps` at most.

    Raises ArgumentError for something else.
    """
    if isinstance(data, (str, bytes, list, tuple)) or hasattr(data, "__array__"):
        yield data
        return
    if not hasattr(data, "__iter__"):
        raise ArgumentError(
            f"adapt() takes an array, a list or something that gives batches, got {type(data).__name__}"
        )
    for batch in islice(data, steps):
        yield batch[0] if isinstance(batch, tuple) else batch


def as_words(data: Any, encoding: str, what: str) -> np.ndarray:
    """Text as an array of Python's strings. Raises DataError for numbers and for rows of unequal lengths."""
    try:
        array = np.asarray(data)
    except ValueError:
        raise DataError(f"{what} takes arrays of text, got rows of unequal lengths: {data!r:.80}") from None
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype.kind == "S":
        return np.char.decode(array, encoding).astype(object)
    words = array.ravel().tolist() if array.dtype.kind == "O" else None
    if words is None and array.size:
        raise DataError(f"{what} takes text, got an array of dtype {array.dtype} and shape {array.shape}")
    found = np.empty(array.size, object)
    for k, w in enumerate(words or ()):
        if not isinstance(w, (str, bytes)):
            raise DataError(f"{what} takes text, got {w!r:.80} of type {type(w).__name__} at position {k}")
        found[k] = w if isinstance(w, str) else w.decode(encoding)
    return found.reshape(array.shape)
