"""StringLookup: words as their places in a vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnomon.layers.preprocessing.data_layer import as_words
from gnomon.layers.preprocessing.index_lookup import IndexLookup


class StringLookup(IndexLookup):
    """Words as their places in a vocabulary, or as rows with a number for each word of it.

    encoding   of words that are given as bytes
    Other arguments as in IndexLookup. inputs: text[...], arrays or lists   result: int64[...] or [..., vocabulary]

    The layer is applied to data: a model takes what it gives. Unknown words are spread over several places by
    FarmHash's Fingerprint64, with a `salt` by SipHash, as in Keras.
    Raises ArgumentError for arguments that do not fit together, DataError for what is no text, StateError if there is
    no vocabulary yet.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: str | None = None,
        oov_token: str | None = "[UNK]",
        vocabulary: Any = None,
        idf_weights: Any = None,
        invert: bool = False,
        output_mode: str = "int",
        pad_to_max_tokens: bool = False,
        sparse: bool = False,
        encoding: str = "utf-8",
        name: str | None = None,
        salt: Any = None,
        **kwargs: Any,
    ):
        self.encoding = encoding
        super().__init__(
            max_tokens, num_oov_indices, mask_token, oov_token, "string", vocabulary, idf_weights, invert, output_mode,
            sparse, pad_to_max_tokens, name=name, salt=salt, **kwargs,
        )  # fmt: skip

    def as_tokens(self, data: Any) -> np.ndarray:
        return as_words(data, self.encoding, type(self).__name__)

    def to_bytes(self, token):
        return token.encode(self.encoding)

    def get_config(self):
        config = {**super().get_config(), "encoding": self.encoding}
        del config["vocabulary_dtype"]
        return config
