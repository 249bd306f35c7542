"""CategoryEncoding: category numbers as rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.layers.calls import is_symbolic_call
from gnomon.layers.preprocessing.data_layer import DataLayer
from gnomon.layers.preprocessing.encoding import encode_tensor, encoded_shape, refuse_sparse


class CategoryEncoding(DataLayer):
    """Category numbers 0 ... num_tokens - 1 as rows of that many numbers.

    output_mode   'multi_hot': which categories a sample has; 'count': how many times; 'one_hot': each number by itself
    inputs: int[batch, n] or [n]   result: float[batch, num_tokens], [num_tokens] for one sample; 'one_hot':
    [..., num_tokens], a last axis of 1 dropped
    `count_weights` of the inputs' shape, in a call, are what each number adds ('count').

    Raises ArgumentError for such arguments, DataError for an array with other numbers; in a model they are passed over.
    """

    def __init__(
        self, num_tokens: int | None = None, output_mode: str = "multi_hot", sparse: bool = False, **kwargs: Any
    ):
        super().__init__(**kwargs)
        output_mode = "multi_hot" if output_mode == "binary" else output_mode
        if output_mode not in ("count", "one_hot", "multi_hot"):
            raise ArgumentError(f"Unknown arg for output_mode: {output_mode}; 'count', 'one_hot' or 'multi_hot'")
        if num_tokens is None:
            raise ArgumentError(
                "num_tokens must be set to use this layer. If the number of tokens is not known beforehand, use the "
                "IntegerLookup layer instead."
            )
        if not isinstance(num_tokens, (int, np.integer)) or num_tokens < 1:
            raise ArgumentError(f"`num_tokens` must be >= 1. Received: num_tokens={num_tokens}.")
        refuse_sparse(self, sparse)
        self.num_tokens, self.output_mode, self.sparse = int(num_tokens), output_mode, False
        self.built = True

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_symbolic_call((inputs, *args), kwargs):
            given = np.asarray(inputs)
            if given.dtype.kind not in "fiub":
                raise DataError(f"CategoryEncoding takes category numbers, got an array of dtype {given.dtype}")
            wrong = (given < 0) | (given >= self.num_tokens)
            if wrong.any():
                place = tuple(int(k) for k in np.argwhere(wrong)[0])
                raise DataError(
                    f"Input values must be in the range 0 <= values < num_tokens with num_tokens={self.num_tokens}; "
                    f"found {given[place]} at position {place} of shape {given.shape}"
                )
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, count_weights=None):
        if count_weights is not None and self.output_mode != "count":
            raise ArgumentError(
                "`count_weights` is not used when `output_mode` is not `'count'`. Received "
                f"`count_weights={count_weights}`."
            )
        return encode_tensor(inputs, self.output_mode, self.num_tokens, self.compute_dtype, count_weights)

    def compute_output_shape(self, input_shape):
        return encoded_shape(tuple(input_shape), self.output_mode, self.num_tokens)

    def get_config(self):
        return {**super().get_config(), "num_tokens": self.num_tokens, "output_mode": self.output_mode}
