"""TextVectorization: texts as rows of word numbers, or as counts of words."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.layers.preprocessing.data_layer import TextLayer, as_words, batches_of_data
from gnomon.layers.preprocessing.encoding import MODES, checked_mode, encoded_shape, refuse_sparse
from gnomon.layers.preprocessing.index_lookup import as_list, refuse_file
from gnomon.layers.preprocessing.string_lookup import StringLookup
from gnomon.registry import deserialize_object
from gnomon.utils.sequence import pad_sequences

LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
WORD = re.compile(r"[^ \t\n\v\f\r]+")
STANDARDIZE: dict[str, dict[int, Any]] = {
    "lower": LOWER,
    "strip_punctuation": NO_PUNCTUATION,
    "lower_and_strip_punctuation": LOWER | NO_PUNCTUATION,
}
SPLIT: dict[str, Callable[[str], list[str]]] = {"whitespace": WORD.findall, "character": list}


class TextVectorization(TextLayer):
    """Texts as rows of word numbers ('int'), or as rows with a number for each word of the vocabulary.

    max_tokens      size of the vocabulary at most
    standardize     'lower_and_strip_punctuation', 'lower', 'strip_punctuation' (of ASCII, as in Keras), a function of
                    an array of text, or None
    split           'whitespace', 'character', a function that gives a list of words for each text, or None
    ngrams          put n words together: 2 for single ones and pairs, (3,) for triples alone
    output_mode     'int', 'multi_hot', 'count', 'tf_idf'
    output_sequence_length   cut or pad rows of numbers to this length; otherwise to that of the longest
    pad_to_max_tokens        give rows of max_tokens ('multi_hot', 'count', 'tf_idf')
    vocabulary, idf_weights  as in StringLookup; or the layer learns them by `adapt`
    inputs: text[batch] or [batch, 1]   result: int64[batch, words], 0 after the end and 1 for unknown words, or
    [batch, vocabulary]

    The layer is applied to data: a model takes what it gives.
    Raises ArgumentError for arguments that do not fit together, DataError for what is no text, StateError if there is
    no vocabulary yet.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        standardize: str | Callable | None = "lower_and_strip_punctuation",
        split: str | Callable | None = "whitespace",
        ngrams: int | tuple[int, ...] | None = None,
        output_mode: str = "int",
        output_sequence_length: int | None = None,
        pad_to_max_tokens: bool = False,
        vocabulary: Any = None,
        idf_weights: Any = None,
        sparse: bool = False,
        ragged: bool = False,
        encoding: str = "utf-8",
        name: str | None = None,
        **kwargs: Any,
    ):
        given = {k: kwargs.pop(k) for k in ("has_input_vocabulary", "vocabulary_size") if k in kwargs}
        super().__init__(name=name, **kwargs)
        self._standardize = self._checked("standardize", standardize, STANDARDIZE)
        self._split = self._checked("split", split, SPLIT)
        self._output_mode = checked_mode(self, output_mode, (*MODES, "tf_idf"))
        widths = tuple(range(1, ngrams + 1)) if isinstance(ngrams, int) else ngrams
        if widths is not None and (
            not isinstance(widths, tuple) or not widths or not all(isinstance(n, int) and n > 0 for n in widths)
        ):
            raise ArgumentError(f"`ngrams` must be None, an integer, or a tuple of integers. Received: ngrams={ngrams}")
        self._ngrams, self._ngrams_arg = widths, ngrams
        if self._output_mode != "int" and output_sequence_length is not None:
            raise ArgumentError(
                "`output_sequence_length` must not be set if `output_mode` is not 'int'. Received "
                f"output_sequence_length={output_sequence_length}."
            )
        if output_sequence_length is not None and not isinstance(output_sequence_length, int):
            raise ArgumentError(
                "`output_sequence_length` must be either None or an integer when `output_mode` is 'int'. Received: "
                f"output_sequence_length={output_sequence_length}"
            )
        refuse_sparse(self, sparse)
        if ragged:
            raise ArgumentError(f"{type(self).__name__}: ragged=True is not there; rows are padded with 0")
        self._output_sequence_length, self._encoding = output_sequence_length, encoding
        self._lookup_layer = StringLookup(
            max_tokens=max_tokens,
            vocabulary=vocabulary,
            idf_weights=idf_weights,
            pad_to_max_tokens=pad_to_max_tokens,
            mask_token="",
            output_mode=output_mode,
            encoding=encoding,
            **given,
        )
        self.built = True

    def _checked(self, name: str, value: Any, known: Iterable[str]) -> Any:
        if value is None or callable(value) or (isinstance(value, str) and value in known):
            return value
        raise ArgumentError(
            f"Unknown value for `{name}` argument of {type(self).__name__}. Allowed values are: {tuple(known)}, None "
            f"or a function. Received: {name}={value}"
        )

    # ---- the vocabulary

    def adapt(self, data: Any, batch_size: int | None = None, steps: int | None = None) -> None:
        """Learn the vocabulary: the words of `data`, the most frequent first.

        data    an array or list of texts, or something that gives batches of them, `steps` at most
        """
        self.reset_state()
        for batch in batches_of_data(data, steps):
            self.update_state(batch)
        self.finalize_state()

    def update_state(self, data: Any) -> None:
        """Count the words of one batch."""
        rows = self.split_texts(data)
        if isinstance(rows, np.ndarray) and rows.ndim == 0:
            rows = rows.reshape(1)
        if isinstance(rows, np.ndarray):  # not split: what is given are words
            self._lookup_layer.count(rows.reshape(len(rows), -1).tolist())
        else:
            self._lookup_layer.count(rows)

    def finalize_state(self) -> None:
        """Make a vocabulary of what was counted."""
        self._lookup_layer.finalize_state()

    def reset_state(self) -> None:
        """Forget what was counted."""
        self._lookup_layer.reset_state()

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[str]:
        """The words by their numbers; without padding and unknown words unless `include_special_tokens`."""
        return self._lookup_layer.get_vocabulary(include_special_tokens)

    def set_vocabulary(self, vocabulary: Any, idf_weights: Any = None) -> None:
        """See `StringLookup.set_vocabulary`."""
        self._lookup_layer.set_vocabulary(vocabulary, idf_weights)

    def vocabulary_size(self) -> int:
        """How many numbers there are."""
        return self._lookup_layer.vocabulary_size()

    # ---- using it

    def split_texts(self, inputs: Any) -> list[list[str]] | np.ndarray:
        """The words of each text; an array of the words of one text, or of those given if nothing is to be split."""
        texts = as_words(inputs, self._encoding, type(self).__name__)
        if callable(self._standardize):
            texts = as_words(self._standardize(texts.astype(np.str_)), self._encoding, "standardize's result")
        elif self._standardize is not None:
            table = STANDARDIZE[self._standardize]
            flat = np.empty(texts.size, object)
            flat[:] = [t.translate(table) for t in texts.ravel().tolist()]
            texts = flat.reshape(texts.shape)
        if self._split is None:
            return texts if self._ngrams is None else self._joined(texts)
        if texts.ndim > 1:
            if texts.shape[-1] != 1 or texts.ndim > 2:
                raise DataError(
                    "When using `TextVectorization` to tokenize strings, the input rank must be 1 or the last shape "
                    f"dimension must be 1. Received: inputs.shape={texts.shape} with rank={texts.ndim}"
                )
            texts = texts[..., 0]
        flat_texts = texts.ravel().tolist()
        if callable(self._split):
            found = self._split(np.asarray(flat_texts, np.str_))
            rows = [as_words(row, self._encoding, "split's result").tolist() for row in found]
        else:
            rows = [SPLIT[self._split](t) for t in flat_texts]
        if self._ngrams is not None:
            rows = [joined(row, self._ngrams) for row in rows]
        if texts.ndim:
            return rows
        (row,) = rows
        return np.array([*row, None], object)[:-1]  # of objects also where there are no words

    def _joined(self, words: np.ndarray) -> np.ndarray:
        rows = words.reshape(-1, words.shape[-1]).tolist()
        made = [joined(row, self._ngrams or ()) for row in rows]
        return np.array(made, object).reshape(*words.shape[:-1], -1)

    def encode(self, inputs):
        lookup, rows, length = self._lookup_layer, self.split_texts(inputs), self._output_sequence_length
        if isinstance(rows, np.ndarray):
            found = lookup.encode(rows)
            if length is None or self._output_mode != "int":
                return found
            cut = found[..., :length]
            return np.pad(cut, [(0, 0)] * (cut.ndim - 1) + [(0, length - cut.shape[-1])])
        lookup.depth() if self._output_mode != "int" else lookup.encode([])  # refuse to go on without a vocabulary
        if self._output_mode != "int":
            return lookup.encode_rows(rows)
        ends = np.cumsum([len(row) for row in rows])[:-1]
        places = np.split(lookup.places_of([word for row in rows for word in row]), ends) if rows else []
        return pad_sequences(places, length, "int64", "post", "post") if rows else np.zeros((0, length or 0), np.int64)

    def compute_output_shape(self, input_shape):
        if self._output_mode == "int":
            return (input_shape[0], self._output_sequence_length)
        return encoded_shape((input_shape[0], None), self._output_mode, self._lookup_layer.depth())

    # ---- files

    def get_build_config(self):
        return {}

    def build_from_config(self, config):
        """Nothing depends on shapes."""

    def get_config(self):
        lookup = self._lookup_layer
        return {
            **super().get_config(),
            "max_tokens": lookup.max_tokens,
            "standardize": self._standardize,
            "split": self._split,
            "ngrams": self._ngrams_arg,
            "output_mode": self._output_mode,
            "output_sequence_length": self._output_sequence_length,
            "pad_to_max_tokens": lookup.pad_to_max_tokens,
            "sparse": False,
            "ragged": False,
            "vocabulary": as_list(lookup.input_vocabulary),
            "idf_weights": as_list(lookup.input_idf_weights),
            "encoding": self._encoding,
            "vocabulary_size": lookup.vocabulary_size(),
        }

    @classmethod
    def from_config(cls, config):
        refuse_file(config)
        config = dict(config)
        for name in ("standardize", "split"):
            if isinstance(config.get(name), dict):
                config[name] = deserialize_object(config[name])
        if isinstance(config.get("ngrams"), list):
            config["ngrams"] = tuple(config["ngrams"])
        return super().from_config(config)

    def save_own_variables(self, store):
        self._lookup_layer.save_own_variables(store)

    def load_own_variables(self, store):
        self._lookup_layer.load_own_variables(store)

    def save_assets(self, dir_path: Any) -> None:
        """Write the vocabulary; see `StringLookup.save_assets`."""
        self._lookup_layer.save_assets(dir_path)

    def load_assets(self, dir_path: Any) -> None:
        """Read the vocabulary."""
        self._lookup_layer.load_assets(dir_path)


def joined(words: list[str], widths: Iterable[int]) -> list[str]:
    """All runs of so many neighbours, for each width in turn, a space between the words."""
    return [" ".join(words[k : k + n]) for n in widths for k in range(len(words) - n + 1)]
