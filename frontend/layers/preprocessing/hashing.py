"""Hashing: words or numbers as bins, without a vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnomon import config
from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.layers.preprocessing.data_layer import TextLayer, as_words
from gnomon.layers.preprocessing.encoding import MODES, encode_array, encoded_shape, refuse_sparse
from gnomon.layers.preprocessing.hashes import fingerprint, siphash
from gnomon.layers.preprocessing.index_lookup import checked_salt


class Hashing(TextLayer):
    """Words, or numbers by their decimal digits, as bins that depend on nothing but them.

    mask_value    what gets bin 0, which then nothing else has
    salt          one or two integers: hash by SipHash with this key instead of FarmHash's Fingerprint64
    output_mode   'int', or rows of num_bins: 'one_hot', 'multi_hot', 'count'
    inputs: text or int[...] (floats are cut to integers)   result: int64[...], or float[..., num_bins]

    The bins are those of Keras. The layer is applied to data: a model takes what it gives.
    Raises ArgumentError for such arguments.
    """

    def __init__(
        self,
        num_bins: int,
        mask_value: Any = None,
        salt: Any = None,
        output_mode: str = "int",
        sparse: bool = False,
        **kwargs: Any,
    ):
        if kwargs.get("dtype") is None:
            kwargs["dtype"] = "int64" if output_mode == "int" else config.floatx()
        super().__init__(**kwargs)
        if num_bins is None or num_bins <= 0:
            raise ArgumentError(
                f"The `num_bins` for `Hashing` cannot be `None` or non-positive values. Received: num_bins={num_bins}."
            )
        if output_mode not in MODES:
            raise ArgumentError(
                f"Invalid value for argument `output_mode`. Expected one of {MODES}. Received: "
                f"output_mode={output_mode}"
            )
        if output_mode == "int" and self.dtype_policy.name not in ("int32", "int64"):
            raise ArgumentError(
                "When `output_mode=\"int\"`, `dtype` should be an integer type, 'int32' or 'int64'. Received: "
                f"dtype={kwargs['dtype']}"
            )
        refuse_sparse(self, sparse)
        self.num_bins, self.mask_value, self.output_mode, self.sparse = num_bins, mask_value, output_mode, False
        self.salt = checked_salt(self, salt)
        self.built = True

    def encode(self, inputs):
        values = digits_or_words(inputs, type(self).__name__)
        if self.output_mode == "one_hot" and values.ndim and values.shape[-1] == 1:
            values = values[..., 0]
        flat = values.ravel().tolist()
        bins = {value: self._bin(value) for value in set(flat)}
        found = np.fromiter((bins[value] for value in flat), np.int64, len(flat)).reshape(values.shape)
        return encode_array(found, self.output_mode, self.num_bins, self.dtype)

    def _bin(self, value: str) -> int:
        masked = self.mask_value is not None and self.num_bins > 1
        if masked and value == str(self.mask_value):
            return 0
        data = value.encode("utf-8")
        number = fingerprint(data) if self.salt is None else siphash(data, self.salt)
        return 1 + number % (self.num_bins - 1) if masked else number % self.num_bins

    def compute_output_shape(self, input_shape):
        return encoded_shape(tuple(input_shape), self.output_mode, self.num_bins)

    def get_build_config(self):
        return {}

    def build_from_config(self, config):
        """Nothing depends on shapes."""

    def get_config(self):
        return {**super().get_config(), "num_bins": self.num_bins, "salt": self.salt and list(self.salt),
                "mask_value": self.mask_value, "output_mode": self.output_mode, "sparse": False}  # fmt: skip


def digits_or_words(data: Any, what: str) -> np.ndarray:
    """Text as it is, and numbers as their decimal digits, in an array of strings."""
    array = np.asarray(data)
    if array.dtype.kind == "b" or array.dtype.kind not in "iufUSO":
        raise DataError(f"{what} takes text and integers, got an array of dtype {array.dtype}")
    if array.dtype.kind in "iuf":
        array = array.astype(np.int64) if array.dtype.kind == "f" else array
        return np.array([str(v) for v in array.ravel().tolist()], object).reshape(array.shape)
    return as_words(array, "utf-8", what)
