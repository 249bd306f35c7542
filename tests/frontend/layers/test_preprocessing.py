"""Layers that are applied to data: Keras's numbers, vocabularies and configurations; models with some of them."""

import json

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.compiler.errors import ArgumentError, DataError, FileError, ShapeError, StateError
from gnomon.layers.preprocessing import hashes
from gnomon.models import Model, Sequential
from gnomon.registry import deserialize_object, register_keras_serializable, serialize_object
from gnomon.utils import clear_session, pad_sequences
from tests.frontend.layers.check import check_layer, evaluate
from tests.frontend.layers.recorded import plain
from tests.recorded.load import load

RECORDED = load("preprocessing")
CASES = RECORDED["cases"]
SYMBOLIC = ("CategoryEncoding", "Discretization", "Normalization", "IntegerLookup")


def made(case):
    clear_session()
    layer = getattr(layers, case["class"])(**arguments_of(case))
    if case["adapt"] is not None:
        layer.adapt(iter([np.array(b) for b in case["adapt"]]) if case["batches"] else np.array(case["adapt"]))
    return layer


def arguments_of(case):
    """`ngrams` is a tuple, which JSON has not."""
    return {k: tuple(v) if k == "ngrams" and isinstance(v, list) else v for k, v in case["arguments"].items()}


@pytest.mark.parametrize("name", list(CASES))
def test_layer_is_keras_s(name):
    case = CASES[name]
    layer = made(case)
    check(layer(case["inputs"]), case)
    if "vocabulary" in case:
        assert layer.get_vocabulary() == case["vocabulary"]
        assert layer.get_vocabulary(include_special_tokens=False) == case["without special"]
        assert layer.vocabulary_size() == case["size"]
    config = json.loads(json.dumps(serialize_object(layer)))
    boundaries = config["config"].get("bin_boundaries") or []
    np.testing.assert_allclose(boundaries, case["config"].get("bin_boundaries") or [], rtol=1e-6)
    assert without_boundaries(config["config"]) == without_boundaries(plain(case["config"]))
    again = deserialize_object(config)
    if case["adapt"] is None or case["class"] == "Discretization":  # other layers have learned more than arguments
        check(again(case["inputs"]), case)
    shape = np.shape(case["inputs"][0] if case["class"] == "HashedCrossing" else case["inputs"])
    if case["class"] != "TextVectorization" and shape:
        given = [shape, shape] if case["class"] == "HashedCrossing" else shape
        assert layer.compute_output_shape(given) == np.shape(case["output"])


def check(output, case):
    if case["dtype"] == "string":
        assert output.tolist() == case["output"]
        return
    assert output.dtype == case["dtype"]
    np.testing.assert_allclose(output, case["output"], rtol=2e-6, atol=2e-6)
    assert output.shape == np.shape(case["output"])


def without_boundaries(config):
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items() if k != "bin_boundaries"}


def works_in_a_model(case):
    options = case["arguments"]
    refused = options.get("oov_method") == "farmhash" or options.get("num_oov_indices") == 0
    return case["class"] in SYMBOLIC and np.ndim(case["inputs"]) and not refused


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if works_in_a_model(case)])
def test_layer_in_a_model(name):
    case = CASES[name]
    layer = made(case)
    data = np.asarray(case["inputs"])
    data = data.astype("float32") if data.dtype == "float64" else data
    x = layers.Input(data.shape[1:], dtype=data.dtype.name)
    y = layer(x)
    assert y.dtype == case["dtype"]
    np.testing.assert_allclose(evaluate(y, [x], [data]), case["output"], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(gnomon.function([x], y)(data), case["output"], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("case", RECORDED["errors"], ids=lambda c: f"{c['class']} {c['arguments']}")
def test_arguments_that_keras_refuses(case):
    with pytest.raises(ArgumentError) as raised:
        getattr(layers, case["class"])(**case["arguments"])
    ours, keras = (set(text.replace("`", "").replace("'", "").split()) for text in (str(raised.value), case["message"]))
    assert len(ours & keras) >= 0.5 * len(keras)  # the same matter


@pytest.mark.parametrize("case", RECORDED["sequences"], ids=lambda c: str(c["options"]))
def test_pad_sequences(case):
    if "type" in case:  # Keras cannot cut to nothing
        assert pad_sequences(case["sequences"], **case["options"]).shape == (4, 0)
        return
    result = pad_sequences(case["sequences"], **case["options"])
    assert result.dtype == case["dtype"]
    np.testing.assert_array_equal(result, case["result"])


def test_pad_sequences_refuses():
    with pytest.raises(DataError, match="number 1 is 3"):
        pad_sequences([[1], 3])
    with pytest.raises(DataError, match="position 1"):
        pad_sequences([[[1, 2]], [[1, 2, 3]]])
    with pytest.raises(ArgumentError, match="'pre' or 'post'"):
        pad_sequences([[1]], padding="middle")
    with pytest.raises(ArgumentError, match="dtype=object"):
        pad_sequences([[1]], value="x")
    assert gnomon.preprocessing.sequence.pad_sequences is pad_sequences
    np.testing.assert_array_equal(pad_sequences([["a"], ["b", "c"]], dtype=object, value="-"), [["-", "a"], ["b", "c"]])


def test_siphash_is_that_of_its_authors():
    """Aumasson, Bernstein 2012, appendix A: the key 00 01 ... 0f, the bytes 00 01 ... 0e."""
    key = (int.from_bytes(bytes(range(8)), "little"), int.from_bytes(bytes(range(8, 16)), "little"))
    assert hashes.siphash(bytes(range(15)), key) == 0xA129CA6149BE45E5


@pytest.mark.parametrize(
    ("layer", "data"),
    [
        (layers.StringLookup(vocabulary=["a"]), "x"), (layers.TextVectorization(vocabulary=["a"]), "x"),
        (layers.Hashing(3), "x"),
    ],
)  # fmt: skip
def test_words_inside_a_model_are_refused(layer, data):
    with pytest.raises(ArgumentError, match="Apply the layer to the data first"):
        layer(layers.Input((2,), dtype="int64"))
    with pytest.raises(gnomon.compiler.errors.GnomonError, match="text is no input of a compiled program"):
        layers.Input((1,), dtype="string")
    with pytest.raises(gnomon.compiler.errors.DTypeError, match="TextVectorization"):
        layers.Dense(2)(np.array([["a"]]))


def test_what_is_missing_is_said():
    with pytest.raises(StateError, match="no vocabulary yet"):
        layers.StringLookup()(["a"])
    with pytest.raises(StateError, match="no vocabulary yet"):
        layers.TextVectorization()(["a b"])
    with pytest.raises(StateError, match="set the layer's vocabulary"):
        layers.TextVectorization(output_mode="count")(["a b"])
    with pytest.raises(DataError, match=r"found OOV values \['z'\] \(the first, 'z', is element 1\)"):
        layers.StringLookup(vocabulary=["a"], num_oov_indices=0)(["a", "z"])
    with pytest.raises(DataError, match="takes text, got an array of dtype int64"):
        layers.StringLookup(vocabulary=["a"])([1, 2])
    with pytest.raises(DataError, match="got None of type NoneType at position 1"):
        layers.StringLookup(vocabulary=["a"])(["a", None])
    with pytest.raises(DataError, match="unequal lengths"):
        layers.StringLookup(vocabulary=["a"])([["a"], ["a", "b"]])
    with pytest.raises(DataError, match="takes integers"):
        layers.IntegerLookup(vocabulary=[1])(["a"])
    with pytest.raises(DataError, match=r"found 5 at position \(0, 1\)"):
        layers.CategoryEncoding(3)([[0, 5]])
    with pytest.raises(ArgumentError, match="count_weights"):
        layers.CategoryEncoding(3)([[0, 2]], count_weights=[[1.0, 2.0]])
    with pytest.raises(StateError, match="bin_boundaries"):
        layers.Discretization(num_bins=3)([1.0])
    with pytest.raises(ArgumentError, match="increasing"):
        layers.Discretization([2.0, 1.0])
    with pytest.raises(ArgumentError, match="adapt"):
        layers.Discretization([1.0, 2.0]).adapt(np.ones(3))
    with pytest.raises(ArgumentError, match="static vocabulary"):
        layers.StringLookup(vocabulary=["a"]).adapt(["b"])
    with pytest.raises(DataError, match="last shape dimension must be 1"):
        layers.TextVectorization(vocabulary=["a"])([["a", "b"]])
    with pytest.raises(DataError, match="at least two inputs"):
        layers.HashedCrossing(3)(["a"])
    with pytest.raises(DataError, match="equal shape"):
        layers.HashedCrossing(3)([["a"], ["a", "b"]])
    with pytest.raises(ShapeError, match="known shape"):
        layers.Normalization()(layers.Input((None,)))
    with pytest.raises(ArgumentError, match="cannot be adapted"):
        layers.Normalization(mean=1.0, variance=1.0).adapt(np.ones((2, 3)))
    layer = layers.Normalization()
    with pytest.raises(DataError, match="no data"):
        layer.adapt(iter([]))
    layer.adapt(np.ones((2, 3)))
    with pytest.raises(ShapeError, match="incompatible shape"):
        layer.adapt(np.ones((2, 4)))
    counts = layers.StringLookup(output_mode="count")
    counts.adapt(["a", "b"])
    with pytest.raises(StateError, match="vocabulary size cannot be changed"):
        counts.adapt(["a", "b", "c"])


def test_counts_have_weights():
    x = np.array([[0, 1, 1], [2, 2, 0]])
    w = np.array([[0.5, 1, 2], [1, 2, 4]])
    y = layers.CategoryEncoding(3, "count")(x, count_weights=w)
    np.testing.assert_allclose(y, [[0.5, 3, 0], [4, 0, 3]])


def test_own_functions_standardize_and_split():
    layer = layers.TextVectorization(standardize=without_digits, split=at_commas)
    layer.adapt(["a1,b", "b,c2"])
    assert layer.get_vocabulary() == ["", "[UNK]", "b", "c", "a"]
    np.testing.assert_array_equal(layer(["c,b,a", "x"]), [[3, 2, 4], [1, 0, 0]])
    again = deserialize_object(json.loads(json.dumps(serialize_object(layer))))
    again.set_vocabulary(layer.get_vocabulary())
    np.testing.assert_array_equal(again(["c,b,a", "x"]), [[3, 2, 4], [1, 0, 0]])
    np.testing.assert_array_equal(layer([]), np.zeros((0, 0)))


@register_keras_serializable()
def without_digits(texts):
    return np.char.translate(texts, str.maketrans("", "", "0123456789"))


@register_keras_serializable()
def at_commas(texts):
    return [t.split(",") for t in texts]


def test_vocabularies_in_files(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("earth\nwind\nfire\n", encoding="utf-8")
    layer = layers.StringLookup(vocabulary=str(path))
    np.testing.assert_array_equal(layer(["fire", "?"]), [3, 0])
    with pytest.raises(FileError, match="No such file"):
        layers.StringLookup(vocabulary=str(tmp_path / "none.txt"))
    with pytest.raises(FileError, match="integer a line"):
        layers.IntegerLookup(vocabulary=str(path))
    with pytest.raises(ArgumentError, match="outside of the model archive"):
        layers.TextVectorization.from_config({"vocabulary": str(path)})


@register_keras_serializable()
class Reader(Model):
    """A model that keeps what makes numbers of its words."""

    def __init__(self, words=None, **kwargs):
        super().__init__(**kwargs)
        self.words = words or layers.TextVectorization(output_mode="tf_idf", split="character")
        self.numbers = layers.IntegerLookup(mask_token=0)
        self.dense = layers.Dense(2)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return self.dense(gnomon.ops.cast(self.numbers(x), "float32"))

    def get_config(self):
        return {"name": self.name}


def test_vocabularies_in_the_files_of_models(tmp_path):
    model = Reader()
    model.words.adapt(["a\nb", "b"])
    model.numbers.adapt([7, 7, 5])
    x = np.array([[5, 7], [9, 0]])
    y = model(x)
    model.save(tmp_path / "m.keras")
    again = gnomon.models.load_model(tmp_path / "m.keras")
    assert again.words.get_vocabulary() == model.words.get_vocabulary() == ["[UNK]", "b", "a", "\n"]
    np.testing.assert_array_equal(again.words(["ab"]), model.words(["ab"]))
    assert again.numbers.get_vocabulary() == [0, -1, 7, 5]
    np.testing.assert_array_equal(again(x), y)


def test_files_have_vocabularies_where_keras_has_them(tmp_path):
    import zipfile

    recorded = RECORDED["assets"]
    clear_session()
    texts = CASES["texts"]["adapt"]

    @register_keras_serializable()
    class Keeper(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.text_vectorization = layers.TextVectorization(output_mode="tf_idf")

        def call(self, x):
            return x

    keeper = Keeper()
    keeper.text_vectorization.adapt(texts)
    x = layers.Input((2,), dtype="int64")
    numbers = layers.IntegerLookup()
    numbers.adapt(np.array([7, 7, 5]))
    model = Model(x, numbers(keeper(x)))
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        ours = {name: archive.read(name).decode() for name in archive.namelist() if name.startswith("assets/")}
    theirs, numbers_at = recorded["files"], "assets/layers/integer_lookup/vocabulary.txt"
    assert ours.pop(numbers_at) == theirs[numbers_at]
    for name, text in ours.items():
        assert theirs[name.replace("layers/keeper/", "layers/")] == text
    assert len(ours) == 2


def test_models_with_layers_for_data(tmp_path):
    clear_session()
    random = np.random.default_rng(0)
    data = random.normal(5, 3, (64, 2)).astype("float32")
    scale = layers.Normalization()
    scale.adapt(data)
    model = Sequential([layers.Input((2,)), scale, layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(data, data.sum(1, keepdims=True), verbose=0)
    before = model.predict(data, verbose=0)
    model.save(tmp_path / "m.keras")
    again = gnomon.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(data, verbose=0), before)
    assert [w.name for w in model.weights] == ["mean", "variance", "count", "kernel", "bias"]
    scale.adapt(data * 2)  # programs follow
    assert np.abs(model.predict(data, verbose=0) - before).max() > 0.1


def test_layers():
    check_layer(layers.Normalization, (3,), mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])
    check_layer(layers.Normalization, (2, 3), mean=1.0, variance=4.0, axis=None, invert=True)
