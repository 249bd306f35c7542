"""HashedCrossing: pairs of features as bins."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnomon import config
from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.layers.preprocessing.data_layer import TextLayer, as_words
from gnomon.layers.preprocessing.encoding import checked_mode, encode_array, encoded_shape, refuse_sparse
from gnomon.layers.preprocessing.hashes import fingerprint, joined_fingerprints


class HashedCrossing(TextLayer):
    """Several features of a sample (words or integers) as one bin, that of all of them together.

    output_mode   'int', or 'one_hot' for rows of num_bins
    inputs: two or more of text or int, each [batch], [batch, 1] or []   result: int64 of that shape, or
    float[batch, num_bins]

    The bins are those of Keras. The layer is applied to data: a model takes what it gives.
    Raises ArgumentError for such arguments, DataError for inputs of other shapes.
    """

    def __init__(
        self,
        num_bins: int,
        output_mode: str = "int",
        sparse: bool = False,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            name=name, dtype=dtype or ("int64" if output_mode == "int" else config.floatx()), **kwargs
        )
        if not isinstance(num_bins, int) or num_bins <= 0:
            raise ArgumentError(f"HashedCrossing(num_bins) is a positive integer, got {num_bins!r}")
        refuse_sparse(self, sparse)
        self.num_bins, self.sparse = num_bins, False
        self.output_mode = checked_mode(self, output_mode, ("int", "one_hot"))
        self.built = True

    def encode(self, inputs):
        if not isinstance(inputs, (list, tuple)) or len(inputs) < 2:
            raise DataError(
                "`HashedCrossing` should be called on a list or tuple of at least two inputs. Received: "
                f"inputs={inputs}"
            )
        arrays = [self._numbers(x) for x in inputs]
        shape = np.shape(inputs[0])
        if len(shape) > 2 or (len(shape) == 2 and shape[-1] != 1):
            raise DataError(
                "All `HashedCrossing` inputs should have shape `()`, `(batch_size)` or `(batch_size, 1)`. Received: "
                f"shapes {[np.shape(x) for x in inputs]}"
            )
        if any(np.shape(x) != shape for x in inputs):
            raise DataError(
                f"All `HashedCrossing` inputs should have equal shape. Received: {[np.shape(x) for x in inputs]}"
            )
        bins = [joined_fingerprints(values) % self.num_bins for values in zip(*arrays, strict=True)]
        return encode_array(np.array(bins, np.int64).reshape(shape), self.output_mode, self.num_bins, self.dtype)

    def _numbers(self, data: Any) -> list[int]:
        """Integers as they are, words as their fingerprints."""
        array = np.asarray(data)
        if array.dtype.kind in "iu":
            return array.ravel().tolist()
        if array.dtype.kind not in "USO":
            raise DataError(
                f"All `HashedCrossing` inputs should have an integer or string dtype. Received: {array.dtype}"
            )
        words = as_words(array, "utf-8", "HashedCrossing").ravel().tolist()
        known = {word: fingerprint(word.encode("utf-8")) for word in set(words)}
        return [known[word] for word in words]

    def compute_output_shape(self, input_shape):
        return encoded_shape(tuple(input_shape[0]), self.output_mode, self.num_bins)

    def get_build_config(self):
        return {}

    def build_from_config(self, config):
        """Nothing depends on shapes."""

    def get_config(self):
        return {"num_bins": self.num_bins, "output_mode": self.output_mode, "sparse": False, "name": self.name,
                "dtype": self.dtype}  # fmt: skip
