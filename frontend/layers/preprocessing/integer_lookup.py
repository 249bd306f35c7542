"""IntegerLookup: numbers as their places in a vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnomon import config, ops
from gnomon.compiler.errors import ArgumentError, DataError, FileError
from gnomon.layers.calls import is_symbolic_call
from gnomon.layers.layer import Layer
from gnomon.layers.preprocessing.encoding import encode_tensor
from gnomon.layers.preprocessing.index_lookup import IndexLookup
from gnomon.tensor import Tensor


class IntegerLookup(IndexLookup):
    """Whole numbers as their places in a vocabulary, or as rows with a number for each of its members.

    Arguments as in IndexLookup. inputs: int[...]   result: int64[...] or [..., vocabulary]

    Unknown numbers are spread over several places by their remainder, or by the hash of their decimal digits
    ('farmhash': Fingerprint64, with a `salt` SipHash), as in Keras. Inside a model there must be a place for them, and
    not 'farmhash'.
    Raises ArgumentError for arguments that do not fit together, DataError for what is no integer, StateError if there
    is no vocabulary yet.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: int | None = None,
        oov_token: int | None = -1,
        vocabulary: Any = None,
        vocabulary_dtype: str = "int64",
        idf_weights: Any = None,
        invert: bool = False,
        output_mode: str = "int",
        sparse: bool = False,
        pad_to_max_tokens: bool = False,
        oov_method: str = "floormod",
        salt: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        if vocabulary_dtype != "int64":
            raise ArgumentError(
                f"Only `vocabulary_dtype='int64'` is supported at this time. Received: {vocabulary_dtype=!s}"
            )
        super().__init__(
            max_tokens, num_oov_indices, mask_token, oov_token, vocabulary_dtype, vocabulary, idf_weights, invert,
            output_mode, sparse, pad_to_max_tokens, oov_method, name, salt, **kwargs,
        )  # fmt: skip

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if is_symbolic_call((inputs, *args), kwargs):
            return Layer.__call__(self, inputs, *args, **kwargs)
        return super().__call__(inputs)

    def call(self, inputs):
        if self.num_oov_indices > 1 and self.oov_method == "farmhash":
            raise ArgumentError(
                f"IntegerLookup {self.name!r}: oov_method='farmhash' works on data, not inside a model. Apply the "
                "layer "
                "to the data first, or use 'floormod'"
            )
        if self.num_oov_indices == 0 and not self.invert:
            raise ArgumentError(
                f"IntegerLookup {self.name!r}: inside a model unknown numbers must have a place, num_oov_indices=1; or "
                "apply the layer to the data first, where they are found"
            )
        x = ops.cast(inputs, "int64")
        if self.invert:
            known = {k: word for k, word in enumerate(self.get_vocabulary()) if word is not None}
            return self._looked_up(x, known, self.oov_token if self.oov_token is not None else -1)
        first = self._first_unknown()
        unknown = first if self.num_oov_indices == 1 else ops.mod(x, self.num_oov_indices) + first
        places = self._looked_up(x, self._places, unknown)
        if self.output_mode == "int":
            return places
        mode = "count" if self.output_mode == "tf_idf" else self.output_mode
        rows = encode_tensor(places, mode, self.depth(), "int64")
        return rows if self.output_mode != "tf_idf" else ops.cast(rows, config.floatx()) * self.idf_weights

    def _looked_up(self, x: Tensor, table: dict[int, int], otherwise: Any) -> Tensor:
        """table[x] where there is such a key, by bisection."""
        otherwise = ops.cast(otherwise, "int64")
        if not table:
            return ops.zeros_like(x) + otherwise
        keys = np.array(sorted(table), np.int64)
        values = np.array([table[k] for k in keys.tolist()], np.int64)
        at = ops.reshape(ops.searchsorted(keys, ops.reshape(x, (-1,))), ops.shape(x))
        at = ops.minimum(at, len(keys) - 1)
        return ops.where(ops.take(keys, at) == x, ops.take(values, at), otherwise)

    def as_tokens(self, data: Any) -> np.ndarray:
        try:
            array = np.asarray(data)
        except ValueError:
            raise DataError(f"IntegerLookup takes arrays, got rows of unequal lengths: {data!r:.80}") from None
        if array.dtype.kind not in "iubf" and array.size:
            raise DataError(f"IntegerLookup takes integers, got an array of {array.dtype} of shape {array.shape}")
        return array.astype(np.int64)

    def _parsed(self, words):
        try:
            return [int(word) for word in words]
        except ValueError:
            raise FileError(
                f"the vocabulary of layer {self.name!r} must have an integer a line, got {words[:5]}"
            ) from None
