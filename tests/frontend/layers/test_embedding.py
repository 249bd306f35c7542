"""Embedding: Keras's numbers, ids outside the vocabulary, masks."""

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.compiler.errors import ArgumentError, DataError, DTypeError, GnomonError, NotBuiltError, ShapeError
from tests.frontend.layers.sequences import check_case
from tests.recorded.load import load

CASES = {name: case for name, case in load("recurrent")["cases"].items() if name.startswith("Embedding")}


@pytest.mark.parametrize("name", CASES)
def test_recorded(name):
    check_case(CASES[name], compiled=name == "Embedding, everything")


IDS = np.array([[1, 2, 0], [4, 3, 3]], "int32")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "float32", "float64"])
def test_ids_of_any_dtype(dtype):
    layer = layers.Embedding(5, 2)
    table = np.arange(10, dtype="float32").reshape(5, 2)
    layer.build()
    layer.set_weights([table])
    for rows in (1, 2):
        np.testing.assert_array_equal(layer(IDS[:rows].astype(dtype)), table[IDS[:rows]])
    x = layers.Input((None,), dtype=dtype)
    np.testing.assert_array_equal(gnomon.function([x], layer(x))(IDS.astype(dtype)), table[IDS])


def test_float64():
    layer = layers.Embedding(5, 2, dtype="float64")
    assert layer(IDS).dtype == "float64"


def test_gradient_adds_up_what_repeats():
    layer = layers.Embedding(5, 2)
    x = layers.Input((3,), dtype="int32")
    cost = (layer(x) ** 3).sum()
    (gradient,) = gnomon.grad(cost, layer.trainable_weights)
    (second,) = gnomon.grad(gradient.sum(), layer.trainable_weights)
    table = layer.get_weights()[0]
    counts = np.bincount(IDS.ravel(), minlength=5)[:, None]
    found = gnomon.function([x], [gradient, second])(IDS)
    np.testing.assert_allclose(found[0], 3 * table**2 * counts, rtol=1e-5)
    np.testing.assert_allclose(found[1], 6 * table * counts, rtol=1e-5)


def test_given_weights():
    table = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    for given in (table, [table], table.tolist()):
        layer = layers.Embedding(5, 2, weights=given)
        np.testing.assert_array_equal(layer(IDS), table[IDS])
    with pytest.raises(ShapeError, match=r"has the shape \(5, 2\)"):
        layers.Embedding(5, 2, weights=table.T)


def with_id(number, at=(1, 2)):
    ids = IDS.copy()
    ids[at] = number
    return ids


@pytest.mark.parametrize("number", [5, 7, -1, 2**30])
def test_id_outside_the_vocabulary(number):
    """Named with its position and its layer, however the model is run."""
    x = layers.Input((None,), dtype="int32")
    model = gnomon.Model(x, layers.Dense(1)(layers.Embedding(5, 2, name="words")(x)))
    model.compile("sgd", "mse")
    ids, y = with_id(number), np.zeros((2, 3, 1), "float32")
    function = gnomon.function([x], model(x))
    runs = [
        lambda: model(ids),
        lambda: model.predict(ids, verbose=0),
        lambda: model.predict_on_batch(ids),
        lambda: model.fit(ids, y, verbose=0),
        lambda: model.train_on_batch(ids, y),
        lambda: model.evaluate(ids, y, verbose=0),
        lambda: function(ids),
        lambda: model.layers[1](ids),
    ]
    before = model.get_weights()
    text = rf"'words' takes token ids from 0 to 4 .*got {number} at position \(1, 2\)"
    for run in runs:
        with pytest.raises(DataError, match=text):
            run()
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    model.fit(IDS, y, verbose=0)


def test_position_is_that_in_the_data():
    model = gnomon.Sequential([layers.Embedding(5, 2), layers.Dense(1)])
    model.compile("sgd", "mse")
    ids = np.concatenate([IDS] * 5)
    ids[7, 1] = 6
    with pytest.raises(DataError, match=r"got 6 at position \(7, 1\)"):
        model.fit(ids, np.zeros((10, 3, 1)), batch_size=3, verbose=0)
    with pytest.raises(DataError, match="If 5 is the largest id, input_dim is 6"):
        model.predict(with_id(5), verbose=0)


def test_columns_with_vocabularies_of_their_own():
    x = layers.Input((2,), dtype="int32")
    first, second = layers.Embedding(9, 2, name="users")(x[:, 0]), layers.Embedding(3, 2, name="films")(x[:, 1] - 1)
    model = gnomon.Model(x, layers.Dot(1)([first, second]))
    model.compile("sgd", "mse")
    data = np.array([[8, 1], [2, 3], [0, 2]], "int32")
    assert model.predict(data, verbose=0).shape == (3, 1)
    model.fit(data, np.zeros((3, 1)), verbose=0)
    data[1, 1] = 4
    with pytest.raises(DataError, match="'films' takes token ids from 0 to 2 .*got 3 at position 1"):
        model.fit(data, np.zeros((3, 1)), verbose=0)


def test_ids_that_are_computed_are_kept_inside():
    """A network's own choice is always one of its classes; what is not looked at cannot crash."""
    x = layers.Input((4,))
    y = layers.Embedding(3, 2)(ops.argmax(layers.Dense(4, kernel_initializer="zeros", bias_initializer="ones")(x), -1))
    assert gnomon.function([x], y)(np.ones((2, 4), "float32")).shape == (2, 2)


def test_ids_that_are_no_numbers():
    with pytest.raises(DataError, match="got nan at position"):
        layers.Embedding(5, 2)(np.array([[1.0, np.nan]], "float32"))
    with pytest.raises(DTypeError, match="whole numbers"):
        layers.Embedding(5, 2)(np.array([[True]]))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 2), "`input_dim` must be a positive integer"),
        ((3, -1), "`output_dim` must be a positive integer"),
        ((3.0, 1), "`input_dim` must be a positive integer"),
        ((True, 1), "`input_dim` must be a positive integer"),
        ((3, 1, "nonsense"), "nonsense"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(GnomonError, match=text):
        layers.Embedding(*arguments)


def test_what_there_is_not():
    with pytest.raises(ArgumentError, match="low-rank adaptation does not exist in gnomon"):
        layers.Embedding(3, 2, lora_rank=2)
    with pytest.raises(NotBuiltError, match="embeddings"):
        _ = layers.Embedding(3, 2).embeddings


def test_mask():
    x = layers.Input((None,), dtype="int32")
    y = layers.Embedding(5, 2, mask_zero=True)(x)
    np.testing.assert_array_equal(gnomon.function([x], y.mask)(IDS), IDS != 0)
    assert layers.Embedding(5, 2)(x).mask is None


def test_one_program_for_all_lengths():
    model = gnomon.Sequential([layers.Input((None,), dtype="int32"), layers.Embedding(5, 2, mask_zero=True)])
    model.predict(IDS, verbose=0)
    before = len(gnomon.compile_events())
    for length in (1, 2, 7):
        assert model.predict(np.ones((3, length), "int32"), verbose=0).shape == (3, length, 2)
    assert len(gnomon.compile_events()) == before
