"""IndexLookup: words or numbers as their places in a vocabulary, which is given or learned."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gnomon import config
from gnomon.compiler.errors import ArgumentError, DataError, FileError, StateError
from gnomon.layers.layer import Layer
from gnomon.layers.preprocessing.data_layer import TextLayer, batches_of_data
from gnomon.layers.preprocessing.encoding import (
    MODES,
    checked_mode,
    encode_array,
    encode_ragged,
    encoded_shape,
    refuse_sparse,
)
from gnomon.layers.preprocessing.hashes import fingerprint, siphash
from gnomon.layers.tracking import note_change

DROPPED = -1  # the number of a mask where masks have no place
FILE = "vocabulary.txt"


class IndexLookup(TextLayer):
    """Base of StringLookup and IntegerLookup.

    max_tokens        size of the vocabulary at most, names for masks and unknown words included
    num_oov_indices   how many places there are for words that are not in the vocabulary ("out of vocabulary")
    mask_token        what gets the place 0 ('int'), or none in the other modes; None if there is no such word
    oov_token         what unknown words are called in the vocabulary, and in results if `invert`
    vocabulary        words in the order of their places, with or without mask and oov_token, or a file of one a line
    idf_weights       weights of the words for 'tf_idf'
    invert            give words for places
    output_mode       'int': places; 'one_hot', 'multi_hot', 'count', 'tf_idf': rows of the vocabulary's length
    pad_to_max_tokens give rows of max_tokens
    oov_method        for numbers: 'floormod' (place by the remainder) or 'farmhash'
    salt              one or two integers: hash by SipHash with this key

    The vocabulary is [mask_token, oov_token ..., words] in the mode 'int', without mask_token in the others.
    """

    def __init__(
        self,
        max_tokens: int | None,
        num_oov_indices: int,
        mask_token: Any,
        oov_token: Any,
        vocabulary_dtype: str,
        vocabulary: Any = None,
        idf_weights: Any = None,
        invert: bool = False,
        output_mode: str = "int",
        sparse: bool = False,
        pad_to_max_tokens: bool = False,
        oov_method: str = "floormod",
        name: str | None = None,
        salt: Any = None,
        **kwargs: Any,
    ):
        self._fixed_size: int | None = kwargs.pop("vocabulary_size", None)
        given = kwargs.pop("has_input_vocabulary", vocabulary is not None)
        super().__init__(name=name, **kwargs)
        kind = type(self).__name__
        if max_tokens is not None and max_tokens <= 1:
            raise ArgumentError(f"If set, `max_tokens` must be greater than 1. Received: max_tokens={max_tokens}")
        if pad_to_max_tokens and max_tokens is None:
            raise ArgumentError(f"If pad_to_max_tokens is True, must set `max_tokens`. Received: {max_tokens=}")
        if num_oov_indices < 0:
            raise ArgumentError(
                f"`num_oov_indices` must be greater than or equal to 0. Received: num_oov_indices={num_oov_indices}"
            )
        if oov_method not in ("floormod", "farmhash"):
            raise ArgumentError(
                f"Unknown value for `oov_method` argument of {kind}. Allowed values are: ('floormod', 'farmhash'). "
                f"Received: oov_method={oov_method}"
            )
        if salt is not None and vocabulary_dtype != "string" and oov_method != "farmhash":
            raise ArgumentError(
                f"`salt` can only be used when `oov_method='farmhash'`. Received: oov_method={oov_method}"
            )
        self.output_mode = checked_mode(self, output_mode, (*MODES, "tf_idf"))
        if invert and self.output_mode != "int":
            raise ArgumentError(f"`output_mode` must be `'int'` when `invert` is true. Received: {output_mode=}")
        refuse_sparse(self, sparse)
        if idf_weights is not None and self.output_mode != "tf_idf":
            raise ArgumentError(
                "`idf_weights` should only be set if `output_mode` is `'tf_idf'`. Received: "
                f"idf_weights={idf_weights} and output_mode={output_mode}"
            )
        if self.output_mode == "tf_idf" and given and vocabulary is not None and idf_weights is None:
            raise ArgumentError(
                "When specifying the `vocabulary` argument, in TF-IDF output mode, the `idf_weights` argument must "
                "also "
                "be provided."
            )
        self.invert, self.max_tokens, self.num_oov_indices = invert, max_tokens, num_oov_indices
        self.mask_token, self.oov_token, self.pad_to_max_tokens = mask_token, oov_token, pad_to_max_tokens
        self.vocabulary_dtype, self.oov_method, self.salt = vocabulary_dtype, oov_method, checked_salt(self, salt)
        self.sparse = False
        self.input_vocabulary = None if isinstance(vocabulary, str) else as_list(vocabulary)
        self.input_idf_weights = as_list(idf_weights)
        self.idf_weights: np.ndarray | None = None
        self._given = given
        self._words: list[Any] = []
        self._places: dict[Any, int] = {}
        self.reset_state()
        if vocabulary is not None:
            self.set_vocabulary(vocabulary, idf_weights)
        self.built = True

    # ---- the vocabulary

    def _first_unknown(self) -> int:
        """The place of the first unknown word."""
        return 1 if self.mask_token is not None and self.output_mode == "int" else 0

    def _first_word(self) -> int:
        return self._first_unknown() + self.num_oov_indices

    def vocabulary_size(self) -> int:
        """How many places there are."""
        return len(self._words) + self._first_word()

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[Any]:
        """The words by their places; without mask and unknown ones unless `include_special_tokens`."""
        special = [self.mask_token] * self._first_unknown() + [self.oov_token] * self.num_oov_indices
        return [*special, *self._words] if include_special_tokens else list(self._words)

    def set_vocabulary(self, vocabulary: Any, idf_weights: Any = None) -> None:
        """Take these words, or those in a file of one a line; `idf_weights` of each for the mode 'tf_idf'.

        Raises ArgumentError for repeated or too many words, or reserved ones at other places than the first,
        FileError if the file cannot be read.
        """
        if self.output_mode == "tf_idf" and idf_weights is None:
            raise ArgumentError("`idf_weights` must be set if output_mode is 'tf_idf'.")
        if self.output_mode != "tf_idf" and idf_weights is not None:
            raise ArgumentError(
                f"`idf_weights` should only be set if output_mode is `'tf_idf'`. Received: output_mode="
                f"{self.output_mode} and idf_weights={idf_weights}"
            )
        if isinstance(vocabulary, str):
            vocabulary = self._parsed(self._words_of_file(vocabulary))
        words = self.as_tokens(vocabulary).ravel().tolist()
        if not words:
            raise ArgumentError(f"Cannot set an empty vocabulary. Received: vocabulary={vocabulary}")
        special = self.get_vocabulary()[: self._first_word()]
        named = words[: len(special)] == special
        own = words[len(special) :] if named else words
        repeated = [word for word, count in Counter(own).items() if count > 1]
        if repeated:
            raise ArgumentError(
                "The passed vocabulary has at least one repeated term. Please uniquify your dataset. The repeated "
                "terms "
                f"are: {repeated}"
            )
        for token, kind in ((self.mask_token, "mask"), (self.oov_token if self.invert else None, "OOV")):
            if token is not None and token in own:
                raise ArgumentError(
                    f"Found reserved {kind} token at unexpected location in `vocabulary`. Note that passed "
                    "`vocabulary` "
                    "does not need to include the OOV and mask tokens. Either remove all mask and OOV tokens, or "
                    f"include them only at the start of the vocabulary in precisely this order: {special}. Received: "
                    f"{kind.lower()}_token={token} at vocabulary index {words.index(token)}"
                )
        size = self._first_word() + len(own)
        if self.max_tokens is not None and size > self.max_tokens:
            raise ArgumentError(
                "Attempted to set a vocabulary larger than the maximum vocab size. Received vocabulary size is "
                f"{size}; `max_tokens` is {self.max_tokens}."
            )
        weights = None
        if idf_weights is not None:
            weights = np.asarray(idf_weights, config.floatx())
            if weights.shape != (len(words),):
                raise ArgumentError(
                    f"`idf_weights` must be the same length as vocabulary. len(idf_weights) is {len(weights)}; "
                    f"len(vocabulary) is {len(words)}"
                )
            if not named:  # of unknown words nothing is known: the mean of the others
                weights = np.concatenate([np.full(len(special), weights.mean(), weights.dtype), weights])
        self._take(own, weights)

    def _take(self, words: list[Any], weights: np.ndarray | None) -> None:
        """Make `words` the vocabulary, `weights` those of all places."""
        size = self._first_word() + len(words)
        open_sized = self.output_mode == "int" or self.pad_to_max_tokens
        if not open_sized and self._fixed_size not in (None, size):
            raise StateError(
                f"When using `output_mode={self.output_mode}` and `pad_to_max_tokens=False`, the vocabulary size "
                "cannot "
                f"be changed after the layer is called. Old vocab size is {self._fixed_size}, new vocab size is {size}"
            )
        self._words, self._fixed_size = list(words), size
        self._places = {word: k for k, word in enumerate(words, self._first_word())}
        if self.mask_token is not None:
            self._places[self.mask_token] = 0 if self.output_mode == "int" else DROPPED
        if weights is not None:
            missing = (self.max_tokens or 0) - len(weights) if self.pad_to_max_tokens else 0
            self.idf_weights = np.pad(weights, (0, max(missing, 0)))
        note_change()  # programs have the vocabulary in them

    def as_tokens(self, data: Any) -> np.ndarray:
        """Data as an array of what the vocabulary consists of."""
        raise NotImplementedError

    def to_bytes(self, token: Any) -> bytes:
        """What is hashed."""
        return str(token).encode("utf-8")

    # ---- learning it

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Learn the vocabulary: the words of `data`, the most frequent first, equally frequent ones from Z to A.

        data    an array or list (one batch, a row a document), or something that gives batches, `steps` at most
        Raises ArgumentError if the vocabulary was given.
        """
        self.reset_state()
        for batch in batches_of_data(data, steps):
            tokens = self.as_tokens(batch)
            self._count_array(tokens[:, None] if tokens.ndim == 1 and batch is data else tokens)
        self.finalize_state()

    def update_state(self, data: Any) -> None:
        """Count the words of one batch: rows are documents, one row alone is one."""
        self._count_array(self.as_tokens(data))

    def _count_array(self, tokens: np.ndarray) -> None:
        self.count((tokens.reshape(1, -1) if tokens.ndim < 2 else tokens.reshape(len(tokens), -1)).tolist())

    def count(self, documents: Iterable[Sequence[Any]]) -> None:
        """Count the words of documents."""
        if self._given:
            raise ArgumentError(
                f"Cannot adapt layer '{self.name}' after setting a static vocabulary via `vocabulary` argument or "
                "`set_vocabulary()` method."
            )
        if self.output_mode != "tf_idf":
            self._counts.update(chain.from_iterable(documents))
            return
        for document in documents:
            self._counts.update(document)
            self._having.update(set(document))
            self._documents += 1

    def finalize_state(self) -> None:
        """Make a vocabulary of what was counted."""
        if self._given or not self._counts:
            return
        for special in (self.mask_token, self.oov_token):
            self._counts.pop(special, None)
        ordered = sorted(self._counts, reverse=True)
        ordered.sort(key=self._counts.__getitem__, reverse=True)  # keeps the order of equally frequent ones
        if self.max_tokens is not None:
            ordered = ordered[: max(self.max_tokens - self._first_word(), 0)]
        weights = None
        if self.output_mode == "tf_idf":
            having = np.array([self._having[word] for word in ordered], np.float64)
            weights = np.log(1 + self._documents / (1 + having)).astype(config.floatx())
            mean = weights.mean() if len(weights) else 0.0
            weights = np.concatenate([np.full(self._first_word(), mean, weights.dtype), weights])
        self._take(ordered, weights)
        self.reset_state()

    def reset_state(self) -> None:
        """Forget what was counted."""
        self._counts: Counter[Any] = Counter()
        self._having: Counter[Any] = Counter()  # how many documents have each word
        self._documents = 0

    # ---- using it

    def depth(self) -> int:
        """The length of rows. Raises StateError if it is not known yet."""
        depth = self.max_tokens if self.pad_to_max_tokens else self._fixed_size
        if depth is None:
            raise StateError(
                f"When using `output_mode={self.output_mode}` and `pad_to_max_tokens=False`, you must set the layer's "
                f"vocabulary before calling it ({self.name!r}). Either pass a `vocabulary` argument to the layer, or "
                "call `adapt` with some sample data."
            )
        return depth

    def encode(self, inputs):
        if self._fixed_size is None:
            raise StateError(
                f"{type(self).__name__} {self.name!r} has no vocabulary yet: pass `vocabulary`, or call adapt(data) "
                "with "
                "some sample data, before it is used"
            )
        if self.invert:
            return self._words_at(np.asarray(inputs))
        tokens = self.as_tokens(inputs)
        places = self.places_of(tokens.ravel().tolist()).reshape(tokens.shape)
        if self.output_mode == "int":
            return places
        mode, dtype = self._rows()
        return self.weighted(encode_array(places, mode, self.depth(), dtype))

    def encode_rows(self, rows: list[list[Any]]) -> np.ndarray:
        """Rows of the vocabulary's length, of documents of any lengths."""
        mode, dtype = self._rows()
        return self.weighted(encode_ragged([self.places_of(row) for row in rows], mode, self.depth(), dtype))

    def _rows(self) -> tuple[str, str]:
        """How rows are made, before they are weighted, and their dtype."""
        return ("count", config.floatx()) if self.output_mode == "tf_idf" else (self.output_mode, "int64")

    def weighted(self, rows: np.ndarray) -> np.ndarray:
        if self.output_mode == "tf_idf":
            rows *= self.idf_weights
        return rows

    def places_of(self, tokens: Sequence[Any]) -> np.ndarray:
        """int64 places of words. Raises DataError for unknown ones if there are no places for them."""
        table, first = self._places, self._first_unknown()
        if self.num_oov_indices == 1:
            return np.fromiter((table.get(t, first) for t in tokens), np.int64, len(tokens))
        if self.num_oov_indices == 0:
            unknown = [(k, t) for k, t in enumerate(tokens) if t not in table]
            if unknown:
                k, token = unknown[0]
                raise DataError(
                    "When `num_oov_indices=0` all inputs should be in vocabulary, found OOV values "
                    f"{[t for _, t in unknown[:10]]} (the first, {token!r}, is element {k}), consider setting "
                    "`num_oov_indices=1`."
                )
        return np.array([table[t] if t in table else first + self._bin(t) for t in tokens], np.int64)

    def _bin(self, token: Any) -> int:
        """Which of the places for unknown words this one gets."""
        if self.vocabulary_dtype != "string" and self.oov_method == "floormod":
            return token % self.num_oov_indices
        data = self.to_bytes(token)
        return (fingerprint(data) if self.salt is None else siphash(data, self.salt)) % self.num_oov_indices

    def _words_at(self, places: np.ndarray) -> np.ndarray:
        if places.dtype.kind not in "iub":
            raise DataError(f"{type(self).__name__}(invert=True) takes places, got an array of dtype {places.dtype}")
        first, words, masked = self._first_word(), self._words, self._first_unknown() == 1
        found = [
            words[k - first] if first <= k < first + len(words) else self.mask_token if masked and k == 0
            else self.oov_token
            for k in places.ravel().tolist()
        ]  # fmt: skip
        return np.array(found, np.str_ if self.vocabulary_dtype == "string" else np.int64).reshape(places.shape)

    def compute_output_shape(self, input_shape):
        return encoded_shape(tuple(input_shape), self.output_mode, None if self.output_mode == "int" else self.depth())

    # ---- files

    def get_build_config(self):
        return {}

    def build_from_config(self, config):
        """Nothing depends on shapes."""

    def get_config(self):
        return {
            **Layer.get_config(self),
            "invert": self.invert,
            "max_tokens": self.max_tokens,
            "num_oov_indices": self.num_oov_indices,
            "oov_token": self.oov_token,
            "mask_token": self.mask_token,
            "output_mode": self.output_mode,
            "sparse": self.sparse,
            "pad_to_max_tokens": self.pad_to_max_tokens,
            "vocabulary_dtype": self.vocabulary_dtype,
            "idf_weights": self.input_idf_weights,
            "vocabulary": self.input_vocabulary,
            "vocabulary_size": self._fixed_size,
            "oov_method": self.oov_method,
            "salt": None if self.salt is None else list(self.salt),
        }

    @classmethod
    def from_config(cls, config):
        refuse_file(config)
        return super().from_config(config)

    def save_own_variables(self, store):
        if self.idf_weights is not None:
            store["idf_weights"] = self.idf_weights

    def load_own_variables(self, store):
        if self.output_mode == "tf_idf":
            self.idf_weights = np.asarray(store["idf_weights"])

    def save_assets(self, dir_path: Any) -> None:
        """Write the vocabulary, unless the configuration has it, one word a line."""
        if self.input_vocabulary is not None or self._fixed_size is None:
            return
        words = [str(word) for word in self.get_vocabulary()]
        (Path(dir_path) / FILE).write_text("\n".join(words), encoding="utf-8", newline="\n")
        if any("\n" in word or "\r" in word for word in words) or words[-1:] == [""]:  # lines cannot hold them
            (Path(dir_path) / FILE).with_suffix(".json").write_text(json.dumps(words), encoding="utf-8")

    def load_assets(self, dir_path: Any) -> None:
        """Read what `save_assets`, of gnomon or Keras, wrote. Raises FileError if it is not there or is none."""
        if self.input_vocabulary is not None:
            return
        words: list[Any]
        lossless = (Path(dir_path) / FILE).with_suffix(".json")
        if lossless.exists():
            words = json.loads(lossless.read_text(encoding="utf-8"))
        else:
            words = self._words_of_file(str(Path(dir_path) / FILE))
        self._fixed_size = None  # that of the file
        special = self._first_word()
        own = words[special:] if words[:special] == [str(w) for w in self.get_vocabulary()[:special]] else words
        self._take(self._parsed(own), None)

    def _words_of_file(self, path: str) -> list[Any]:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(
                f"cannot read the vocabulary of layer {self.name!r} from {path!r}: "
                f"{getattr(error, 'strerror', None) or error}"
            ) from None
        lines = text.split("\n")
        while lines and lines[-1] == "":
            lines.pop()
        return lines

    def _parsed(self, words: list[str]) -> list[Any]:
        """What the lines of a file stand for."""
        return words


def checked_salt(layer: Any, salt: Any) -> tuple[int, int] | None:
    """Two integers from one or two. Raises ArgumentError for something else."""
    if salt is None:
        return None
    if isinstance(salt, int) and not isinstance(salt, bool):
        return salt, salt
    if isinstance(salt, (list, tuple)) and len(salt) == 2 and all(isinstance(s, int) for s in salt):
        return salt[0], salt[1]
    raise ArgumentError(
        f"The `salt` argument for `{type(layer).__name__}` can only be a tuple of 2 integers, or a single integer. "
        f"Received: salt={salt}."
    )


def as_list(value: Any) -> Any:
    """Arrays as lists, for configurations."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else value


def refuse_file(config: dict[str, Any]) -> None:
    """Raises ArgumentError if a configuration names a file: what files say is not read from elsewhere."""
    if isinstance(config.get("vocabulary"), str):
        raise ArgumentError(
            "Requested the loading of a vocabulary file outside of the model archive "
            f"({config['vocabulary']!r}), which a configuration cannot do: make the layer with vocabulary=... yourself"
        )
