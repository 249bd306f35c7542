# mypy: disable-error-code="import-not-found"
# (Keras and TensorFlow are not installed where mypy runs)
"""The layers that are applied to data: what they learn by `adapt`, what they give, and how files hold them.

Needs TensorFlow besides Keras, and KERAS_BACKEND=tensorflow: Keras looks words up and hashes them with it.
"""

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from .store import plain, random_of

CASES: dict[str, dict[str, Any]] = {}
TEXTS = ["The cat sat on the mat.", "the dog: it ate THE cat!", "", "on  and\ton\nand on", "Élan naïve über, élan"]
WORDS = ["b", "a", "c", "b", "b", "a", "d"]
ITEMS = [["earth", "wind", "and", "fire"], ["fire", "and", "earth", "michigan"]]


def record() -> dict[str, Any]:
    CASES.clear()
    _strings()
    _integers()
    _texts()
    _categories()
    _bins()
    _hashing()
    _normalization()
    return {"cases": CASES, "errors": _errors(), "sequences": _sequences(), "assets": _assets(), "series": _series(),
            "folders": _folders()}  # fmt: skip


def tidy(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, tf.Tensor | np.ndarray):
        array = np.asarray(value)
        return tidy(array.tolist()) if array.dtype.kind in "OSU" else array
    return [tidy(v) for v in value] if isinstance(value, list | tuple) else value


def add(name: str, layer: str, inputs: Any, adapt: Any = None, batches: bool = False, /, **arguments: Any) -> None:
    """Record a layer: what it makes of `inputs`, after it was adapted to `adapt` (a list of `batches` perhaps)."""
    keras.utils.clear_session()
    made = getattr(layers, layer)(**arguments)
    if adapt is not None:
        made.adapt(iter([np.array(batch) for batch in adapt]) if batches else np.array(adapt))
    given = [np.array(x) for x in inputs] if layer == "HashedCrossing" else np.array(inputs)
    output = made(given)
    found = {
        "class": layer, "arguments": plain(arguments), "adapt": adapt, "batches": batches, "inputs": inputs,
        "output": tidy(output), "dtype": keras.backend.standardize_dtype(output.dtype),
        "config": plain(made.get_config()),
    }  # fmt: skip
    if hasattr(made, "get_vocabulary"):
        found["vocabulary"] = tidy([v.item() if hasattr(v, "item") else v for v in made.get_vocabulary()])
        found["without special"] = tidy(
            [v.item() if hasattr(v, "item") else v for v in made.get_vocabulary(include_special_tokens=False)]
        )
        found["size"] = made.vocabulary_size()
    if getattr(made, "idf_weights", None) is not None:
        found["idf"] = np.asarray(made.idf_weights)
    assert name not in CASES, name
    CASES[name] = found


def _strings() -> None:
    layer = "StringLookup"
    vocabulary = ["a", "b", "c"]
    add("strings", layer, ["c", "a", "z", "b"], vocabulary=vocabulary)
    add("strings, two axes", layer, [["c", "a"], ["z", "b"]], vocabulary=vocabulary)
    add("strings, one", layer, "c", vocabulary=vocabulary)
    add("strings, mask", layer, ["c", "", "z"], vocabulary=vocabulary, mask_token="")
    add("strings, other names", layer, ["c", "[M]", "?"], vocabulary=["[M]", "?", "x", "c"], mask_token="[M]",
        oov_token="?")  # fmt: skip
    add("strings, no oov", layer, ["c", "a"], vocabulary=vocabulary, num_oov_indices=0)
    add("strings, five oov", layer, ["c", "x", "y", "zebra", "a longer word that is not there", "", "é"],
        vocabulary=vocabulary, num_oov_indices=5)  # fmt: skip
    add("strings, salted oov", layer, ["c", "x", "y", "zebra", ""], vocabulary=vocabulary, num_oov_indices=5,
        salt=[3, 9])  # fmt: skip
    add("strings, invert", layer, [1, 3, 0, 2, 9], vocabulary=vocabulary, invert=True)
    add("strings, invert, mask", layer, [0, 1, 2, 4], vocabulary=vocabulary, invert=True, mask_token="-")
    add("strings, adapted", layer, ["a", "b", "c", "d", "e"], WORDS)
    add("strings, adapted to batches", layer, ["a", "b", "c", "d"], [["x", "a"], ["a", "b"]], True)
    add("strings, adapted, most frequent", layer, ["a", "b", "c", "d"], WORDS, max_tokens=3)
    add("strings, adapted, names left out", layer, ["a", "[UNK]", "m"], [*WORDS, "[UNK]", "m"], mask_token="m")
    for mode in ("one_hot", "multi_hot", "count"):
        inputs = ["earth", "nothing", "fire"] if mode == "one_hot" else ITEMS
        add(f"strings, {mode}", layer, inputs, vocabulary=["earth", "wind", "fire"], output_mode=mode)
        add(f"strings, {mode}, mask, padded", layer, [["earth"], ["x"], ["m"]], ITEMS, output_mode=mode, mask_token="m",
            max_tokens=8, pad_to_max_tokens=True)  # fmt: skip
        one = ["earth", "fire", "fire"]
        add(f"strings, {mode}, one axis", layer, one, vocabulary=["earth", "fire"], output_mode=mode)
    add("strings, tf_idf", layer, ITEMS, vocabulary=["earth", "wind", "and", "fire"], output_mode="tf_idf",
        idf_weights=[0.25, 0.75, 0.6, 0.4])  # fmt: skip
    add("strings, tf_idf, special", layer, ITEMS, vocabulary=["[UNK]", "earth", "wind", "and", "fire"],
        output_mode="tf_idf", idf_weights=[0.9, 0.25, 0.75, 0.6, 0.4])  # fmt: skip
    add("strings, tf_idf, adapted", layer, ITEMS, [*ITEMS, ["fire", "fire", "x", "x"]], output_mode="tf_idf")
    add("strings, tf_idf, adapted, padded", layer, ITEMS, ITEMS, output_mode="tf_idf", max_tokens=9,
        pad_to_max_tokens=True)  # fmt: skip


def _integers() -> None:
    layer = "IntegerLookup"
    vocabulary = [12, 36, 1138, 42]
    add("integers", layer, [[12, 1138, 42], [42, 1000, 36]], vocabulary=vocabulary)
    add("integers, mask", layer, [12, 0, 7], vocabulary=vocabulary, mask_token=0)
    add("integers, three oov", layer, [12, 7, 8, 9, -5], vocabulary=vocabulary, num_oov_indices=3)
    add("integers, three oov, farmhash", layer, [12, 7, 8, 9, -5, 123456789012], vocabulary=vocabulary,
        num_oov_indices=3, oov_method="farmhash")  # fmt: skip
    add("integers, salted", layer, [12, 7, 8, 9, -5], vocabulary=vocabulary, num_oov_indices=4, oov_method="farmhash",
        salt=11)  # fmt: skip
    add("integers, no oov", layer, [12, 42], vocabulary=vocabulary, num_oov_indices=0)
    add("integers, invert", layer, [1, 3, 0, 9], vocabulary=vocabulary, invert=True)
    add("integers, adapted", layer, [3, 4, 5, 6], [3, 5, 5, 5, 4, 4, 9])
    add("integers, one_hot", layer, [12, 36, 7], vocabulary=vocabulary, output_mode="one_hot")
    add("integers, multi_hot", layer, [[12, 36], [7, 7]], vocabulary=vocabulary, output_mode="multi_hot")
    add("integers, count", layer, [[12, 36, 12], [7, 7, 0]], vocabulary=vocabulary, output_mode="count", mask_token=0)
    add("integers, tf_idf", layer, [[12, 36], [7, 7]], [[12, 7, 7], [12, 36, 36]], output_mode="tf_idf")


def _texts() -> None:
    layer = "TextVectorization"
    add("texts", layer, TEXTS, TEXTS)
    add("texts, column", layer, [[t] for t in TEXTS], [[t] for t in TEXTS])
    add("texts, one", layer, "the cat", TEXTS)
    add("texts, length", layer, TEXTS, TEXTS, output_sequence_length=3)
    add("texts, longer length", layer, TEXTS, TEXTS, output_sequence_length=9)
    add("texts, most frequent", layer, TEXTS, TEXTS, max_tokens=5)
    add("texts, adapted to batches", layer, TEXTS, [TEXTS[:2], TEXTS[2:]], True)
    add("texts, vocabulary", layer, TEXTS, vocabulary=["the", "cat", "on"])
    add("texts, vocabulary with names", layer, TEXTS, vocabulary=["", "[UNK]", "the", "cat"])
    for standardize in (None, "lower", "strip_punctuation"):
        add(f"texts, standardize {standardize}", layer, TEXTS, TEXTS, standardize=standardize)
    add("texts, characters", layer, TEXTS, TEXTS, split="character", output_sequence_length=10)
    add("texts, not split", layer, [["a", "b"], ["B", "z"]], [["a", "b"], ["B", "c"]], split=None)
    add("texts, not split, one axis", layer, ["a", "B", "z"], ["a", "b", "B", "c"], split=None)
    add("texts, pairs", layer, TEXTS, TEXTS, ngrams=2)
    add("texts, triples", layer, TEXTS, TEXTS, ngrams=(3,))
    add("texts, ones and threes", layer, TEXTS, TEXTS, ngrams=(1, 3), max_tokens=8)
    add("texts, not split, pairs", layer, [["a", "b", "c"]], [["a", "b", "c"], ["b", "c", "a"]], split=None, ngrams=2)
    for mode in ("multi_hot", "count", "tf_idf"):
        add(f"texts, {mode}", layer, TEXTS, TEXTS, output_mode=mode)
        add(f"texts, {mode}, padded", layer, TEXTS, TEXTS, output_mode=mode, max_tokens=25, pad_to_max_tokens=True)
        add(f"texts, {mode}, one", layer, "the cat the", TEXTS, output_mode=mode)
    add("texts, tf_idf, given", layer, TEXTS, vocabulary=["the", "cat"], idf_weights=[0.5, 0.7], output_mode="tf_idf")
    add("texts, count, pairs", layer, TEXTS, TEXTS, output_mode="count", ngrams=2, max_tokens=7)


def _categories() -> None:
    layer = "CategoryEncoding"
    add("categories", layer, [[0, 1], [0, 0], [1, 2], [3, 1]], num_tokens=4)
    add("categories, one axis", layer, [3, 2, 0], num_tokens=4)
    add("categories, one", layer, 2, num_tokens=4)
    add("categories, one_hot", layer, [3, 2, 0, 1], num_tokens=4, output_mode="one_hot")
    add("categories, one_hot, column", layer, [[3], [2]], num_tokens=4, output_mode="one_hot")
    add("categories, one_hot, two axes", layer, [[3, 1], [2, 0]], num_tokens=4, output_mode="one_hot")
    add("categories, count", layer, [[0, 1], [0, 0], [1, 2]], num_tokens=4, output_mode="count", dtype="float64")
    add("categories, floats", layer, [[0.0, 1.0]], num_tokens=3)


def _bins() -> None:
    layer = "Discretization"
    x = [[-1.5, 1.0, 3.4, 0.5], [0.0, 3.0, 1.3, 0.0]]
    add("bins", layer, x, bin_boundaries=[0.0, 1.0, 2.0])
    for mode in ("one_hot", "multi_hot", "count"):
        add(f"bins, {mode}", layer, x, bin_boundaries=[0.0, 1.0, 2.0], output_mode=mode)
        add(f"bins, {mode}, one axis", layer, x[0], bin_boundaries=[0.0, 1.0, 2.0], output_mode=mode)
    add("bins, integers", layer, [0, 1, 2, 3], bin_boundaries=[1.0, 3.0])
    many = random_of("bins").standard_normal(500).astype("float32")
    add("bins, adapted", layer, x, many, num_bins=4)
    add("bins, adapted, finely", layer, x, many, num_bins=10, epsilon=0.001)
    add("bins, adapted, coarsely", layer, x, many, num_bins=3, epsilon=0.2)
    add("bins, adapted to few", layer, x, np.array([1.0, 5.0, 2.0], "float32"), num_bins=4)
    add("bins, adapted to batches", layer, x, [many[:100], many[100:], many[:50]], True, num_bins=5)


def _hashing() -> None:
    layer = "Hashing"
    words = ["", "a", "ab", "abc", "abcd", "eight ch", "nine chars", "sixteen chars!!!", "seventeen chars!!",
             "thirty-two characters in a row!!", "thirty-three characters in a row!",
             "sixty-four characters of text, no more and no less, are in this.",
             "sixty-five characters of text, no more and no less, are in this!.",
             "a text that is longer than one hundred and twenty-eight characters, so that each of the ways in which "
             "the function treats its input is gone through at least once, and its loop more than once", "é", "日本語"]
    add("hash, words", layer, words, num_bins=1 << 40)
    add("hash, words, salted", layer, words, num_bins=1 << 40, salt=[133, 137])
    add("hash, words, one salt", layer, words, num_bins=97, salt=133)
    add("hash", layer, [["A"], ["B"], ["C"], ["D"], ["E"]], num_bins=3)
    add("hash, mask", layer, [["A"], ["B"], [""], ["C"], ["D"]], num_bins=3, mask_value="")
    add("hash, integers", layer, [[1, -2], [300, 12345678901]], num_bins=1000)
    add("hash, integers, mask", layer, [1, 0, 2], num_bins=5, mask_value=0)
    add("hash, floats", layer, [1.0, 2.9, -3.5], num_bins=1000)
    for mode in ("one_hot", "multi_hot", "count"):
        add(f"hash, {mode}", layer, [["A"], ["B"], ["C"]], num_bins=3, output_mode=mode)
    add("hash, count of two", layer, [["A", "A"], ["B", "C"]], num_bins=3, output_mode="count")
    add("hash, int32", layer, ["A", "B"], num_bins=7, dtype="int32")
    layer = "HashedCrossing"
    add("crossing", layer, [["A", "B", "A", "B", "A"], [101, 101, 101, 102, 102]], num_bins=1 << 40)
    add("crossing, few", layer, [["A", "B", "A", "B", "A"], [101, 101, 101, 102, 102]], num_bins=5)
    add("crossing, one_hot", layer, [["A", "B", "A"], [101, 101, 102]], num_bins=5, output_mode="one_hot")
    add("crossing, columns", layer, [[["A"], ["B"]], [[101], [-7]]], num_bins=50)
    add("crossing, columns, one_hot", layer, [[["A"], ["B"]], [[101], [-7]]], num_bins=5, output_mode="one_hot")
    add("crossing, three words", layer, [["A", "B"], ["x", "y"], ["é", ""]], num_bins=1 << 40)
    add("crossing, integers", layer, [[1, 2], [3, 4]], num_bins=1 << 40)
    add("crossing, one", layer, [1, 5], num_bins=1000)


def _normalization() -> None:
    layer = "Normalization"
    x = random_of("normalization layer").normal(3, 2, (6, 2, 3)).astype("float32")
    add("normalization", layer, x, x)
    add("normalization, one for all", layer, x, x, axis=None)
    add("normalization, axis 1", layer, x, x, axis=1)
    add("normalization, two axes", layer, x, x, axis=(1, -1))
    add("normalization, batches", layer, x, [x[:4], x[4:]], True)
    add("normalization, invert", layer, x, x, invert=True)
    add("normalization, given", layer, x, mean=2.0, variance=4.0)
    add("normalization, given for each", layer, x, mean=[1.0, 2.0, 3.0], variance=[4.0, 1.0, 0.0])
    add("normalization, given, two axes", layer, x, mean=np.ones((2, 3)), variance=2 * np.ones((2, 3)), axis=(1, 2))
    add("normalization, one column", layer, x[:, :1, 0], x[:, :1, 0])
    add("normalization, constant", layer, np.ones((3, 2), "float32"), np.ones((3, 2), "float32"))


def _errors() -> list[dict[str, Any]]:
    """Arguments that Keras refuses."""
    bad: list[tuple[str, dict[str, Any]]] = [
        ("StringLookup", {"max_tokens": 1}), ("StringLookup", {"num_oov_indices": -1}),
        ("StringLookup", {"output_mode": "x"}), ("StringLookup", {"pad_to_max_tokens": True}),
        ("StringLookup", {"invert": True, "output_mode": "count"}), ("StringLookup", {"vocabulary": ["a", "a"]}),
        ("StringLookup", {"vocabulary": []}), ("StringLookup", {"vocabulary": ["a", "", "b"], "mask_token": ""}),
        ("StringLookup", {"vocabulary": ["a", "[UNK]"], "invert": True}),
        ("StringLookup", {"vocabulary": ["a", "b", "c"], "max_tokens": 3}),
        ("StringLookup", {"vocabulary": ["a"], "output_mode": "tf_idf"}),
        ("StringLookup", {"idf_weights": [1.0]}), ("StringLookup", {"salt": [1, 2, 3]}),
        ("StringLookup", {"vocabulary": ["a"], "output_mode": "tf_idf", "idf_weights": [1.0, 2.0]}),
        ("IntegerLookup", {"vocabulary_dtype": "int32"}), ("IntegerLookup", {"salt": 3}),
        ("IntegerLookup", {"oov_method": "x"}), ("TextVectorization", {"standardize": "x"}),
        ("TextVectorization", {"split": "x"}), ("TextVectorization", {"ngrams": "x"}),
        ("TextVectorization", {"output_mode": "count", "output_sequence_length": 3}),
        ("TextVectorization", {"output_sequence_length": 2.5}), ("CategoryEncoding", {}),
        ("CategoryEncoding", {"num_tokens": 0}), ("CategoryEncoding", {"num_tokens": 3, "output_mode": "x"}),
        ("Discretization", {}), ("Discretization", {"num_bins": 3, "bin_boundaries": [1.0]}),
        ("Discretization", {"num_bins": -1}), ("Discretization", {"num_bins": 2, "output_mode": "x"}),
        ("Hashing", {"num_bins": 0}), ("Hashing", {"num_bins": 3, "output_mode": "x"}),
        ("Hashing", {"num_bins": 3, "salt": "x"}), ("Hashing", {"num_bins": 3, "dtype": "float32"}),
        ("HashedCrossing", {"num_bins": 3, "output_mode": "count"}), ("Normalization", {"mean": 1.0}),
        ("Normalization", {"mean": [1.0], "variance": [1.0, 2.0]}),
        ("Normalization", {"mean": [[1.0]], "variance": [[1.0]]}),
    ]  # fmt: skip
    found = []
    for layer, arguments in bad:
        try:
            getattr(layers, layer)(**arguments)
        except Exception as error:
            found.append({"class": layer, "arguments": plain(arguments), "type": type(error).__name__,
                          "message": str(error)})  # fmt: skip
        else:
            raise AssertionError((layer, arguments))
    return found


def _sequences() -> list[dict[str, Any]]:
    """`pad_sequences`."""
    given: list[Any] = [[1], [2, 3], [4, 5, 6], []]
    vectors = [[[1, 2]], [[3, 4], [5, 6]], []]
    found = []
    for sequences, options in (
        (given, {}), (given, {"maxlen": 2}), (given, {"padding": "post"}), (given, {"maxlen": 2, "truncating": "post"}),
        (given, {"maxlen": 5, "value": -1.5, "dtype": "float32"}), (vectors, {}), (vectors, {"maxlen": 1}),
        (given, {"maxlen": 4, "padding": "post", "value": 7, "dtype": "int64"}), (given, {"maxlen": 0}),
    ):  # fmt: skip
        try:
            result = keras.utils.pad_sequences(sequences, **options)
            found.append({"sequences": sequences, "options": options, "result": result, "dtype": result.dtype.name})
        except Exception as error:
            found.append({"sequences": sequences, "options": options, "type": type(error).__name__})
    return found


def _series() -> list[dict[str, Any]]:
    """`timeseries_dataset_from_array`: all batches."""
    data, vectors = np.arange(20, dtype="float32"), np.arange(40, dtype="float32").reshape(20, 2)
    targets = 10 * np.arange(20)
    found = []
    for series, aims, options in (
        (data, None, {"sequence_length": 5}), (data, targets, {"sequence_length": 5, "batch_size": 4}),
        (vectors, targets, {"sequence_length": 3, "sequence_stride": 2, "sampling_rate": 3, "batch_size": 3}),
        (data, targets[:9], {"sequence_length": 4, "start_index": 2, "end_index": 12}),
        (data, targets[5:], {"sequence_length": 5, "batch_size": 16}),
        (data, targets, {"sequence_length": 20}), (data, targets, {"sequence_length": 9, "batch_size": None}),
    ):  # fmt: skip
        made = keras.utils.timeseries_dataset_from_array(series, aims, **options)
        batches = [[np.asarray(v) for v in b] if aims is not None else [np.asarray(b)] for b in made]
        found.append({"data": series, "targets": aims, "options": options, "batches": batches})
    return found


def _folders() -> list[dict[str, Any]]:
    """`text_dataset_from_directory` on files that hold their own names; the shuffled ones sorted."""
    names = [f"{kind}/{k:02}.txt" for kind in ("good", "bad", "dull") for k in range(4)] + ["good/deep/1.txt"]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in [*names, "good/readme.md"]:
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        for options in (
            {"shuffle": False}, {"shuffle": False, "label_mode": "categorical"}, {"shuffle": False, "labels": None},
            {"shuffle": False, "class_names": ["good", "bad"], "label_mode": "binary"},
            {"shuffle": False, "max_length": 3}, {"shuffle": False, "labels": [*range(6), *range(7)]},
            {"shuffle": False, "validation_split": 0.3, "subset": "training"},
            {"seed": 7, "validation_split": 0.3, "subset": "training"},
            {"seed": 7, "validation_split": 0.3, "subset": "validation"},
        ):  # fmt: skip
            made = keras.utils.text_dataset_from_directory(folder, batch_size=5, verbose=False, **options)
            texts, labels = [], []
            for batch in made:
                x, y = batch if options.get("labels", "inferred") is not None else (batch, np.zeros(0))
                texts += tidy(x)
                labels += np.asarray(y).tolist()
            if "seed" in options:
                texts, labels = zip(*sorted(zip(texts, labels, strict=True)), strict=True)
            found.append({"options": options, "texts": list(texts), "labels": list(labels),
                          "class_names": made.class_names})  # fmt: skip
    return [{"names": names}, *found]


def _assets() -> dict[str, Any]:
    """Which files a model's archive has for the vocabularies of its layers, and what is in them."""
    keras.utils.clear_session()
    words = layers.TextVectorization(output_mode="tf_idf", name="words")
    words.adapt(np.array(TEXTS))
    numbers = layers.IntegerLookup(name="numbers")
    numbers.adapt(np.array([7, 7, 5]))
    given = layers.StringLookup(vocabulary=["x", "y"], name="given")
    text, word = keras.Input((1,), dtype="string"), keras.Input((2,), dtype="string")
    number = keras.Input((2,), dtype="int64")
    model = keras.Model([text, number, word], [words(text), numbers(number), given(word)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.keras"
        model.save(path)
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            files = {name: archive.read(name).decode("utf-8") for name in names if name.startswith("assets")}
            import h5py

            groups: dict[str, Any] = {}
            with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
                for name in ("layers/text_vectorization/vars", "layers/text_vectorization/_lookup_layer/vars"):
                    groups[name] = {key: list(item.shape) for key, item in file[name].items()}
    return {"names": names, "files": files, "groups": groups}
