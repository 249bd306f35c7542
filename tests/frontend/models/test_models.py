"""Models are called, reused, taken apart, cloned and written."""

import gc
import json
import weakref

import numpy as np
import pytest

import gnomon
from gnomon import Input, Model, Sequential, layers, ops
from gnomon.compiler.errors import ArgumentError, GnomonError, GraphError, NotBuiltError, ShapeError
from gnomon.models import Functional, clone_model, model_from_json
from gnomon.utils import clear_session
from gnomon.variable import collecting_updates


@pytest.fixture(autouse=True)
def _names_from_the_beginning():
    clear_session()


X = np.random.default_rng(0).standard_normal((5, 4)).astype("float32")


def dense(x, layer):
    return x @ layer.kernel.numpy() + layer.bias.numpy()


def test_sequential_and_functional_forms_of_the_article():
    model = Sequential()
    with pytest.warns(UserWarning, match=r"make gnomon.Input\(shape=\(784,\)\) the first layer") as caught:
        model.add(layers.Dense(32, activation="relu", input_shape=(784,)))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    model.add(layers.Dense(10, activation="softmax"))
    inputs = Input(shape=(784,))
    x = layers.Dense(32, activation="relu")(inputs)
    same = Model(inputs=inputs, outputs=layers.Dense(10, activation="softmax")(x))
    assert isinstance(same, Functional)
    assert model.built
    assert model.count_params() == same.count_params() == 25450
    same.set_weights(model.get_weights())
    x = np.random.default_rng(1).random((3, 784)).astype("float32")
    np.testing.assert_allclose(model(x), same(x), rtol=1e-6)
    first = model.layers[0]
    e = np.exp(dense(np.maximum(dense(x, first), 0), model.layers[1]))
    np.testing.assert_allclose(model(x), e / e.sum(1, keepdims=True), rtol=1e-4)


def test_every_batch_size_and_dtype_uses_one_program():
    model = Sequential([Input((4,)), layers.Dense(3)])
    before = len(gnomon.compile_events())
    for batch in (1, 2, 7, 64):
        assert model(np.ones((batch, 4), "float32")).shape == (batch, 3)
    model(np.ones((2, 4)))
    model(np.ones((2, 4), "int32"))
    assert len(gnomon.compile_events()) == before + 1


def test_a_changed_attribute_is_traced_anew():
    model = Sequential([Input((4,)), layers.LeakyReLU(0.5)])
    np.testing.assert_array_equal(model(-X), np.where(-X < 0, -X / 2, -X))
    model.layers[0].negative_slope = 0.0
    np.testing.assert_array_equal(model(-X), np.maximum(-X, 0))


def test_expressions_between_layers():
    x = Input((4,))
    layer = layers.Dense(3)
    model = Model(x, layer(ops.exp(x) * 2.0 + x) @ np.eye(3, dtype="float32"))
    np.testing.assert_allclose(model(X), dense(np.exp(X) * 2 + X, layer), rtol=1e-4, atol=1e-5)
    assert [layer.name for layer in model.layers] == [x.history[0].name, layer.name]
    twice = Model(x, model(x) + model(x * 0.0))
    np.testing.assert_allclose(twice(X), model(X) + model(0 * X), rtol=1e-4, atol=1e-5)


def test_an_expression_sees_dropout_that_did_nothing_when_it_was_defined():
    x = Input((4,))
    model = Model(x, x + layers.Dropout(0.5)(x))
    np.testing.assert_allclose(model(X), 2 * X)
    y = model(np.ones((100, 4), "float32"), training=True)
    assert sorted(np.unique(y)) == [1, 3]


def test_training_is_explicit_or_of_the_call_around_or_the_default():
    class Shows(layers.Layer):
        def call(self, x, training=None):
            return x + (1.0 if training else 0.0)

    class Outer(layers.Layer):
        def __init__(self, **options):
            super().__init__()
            self.inner, self.options = Shows(), options

        def call(self, x, training=False):
            return self.inner(x, **self.options)

    zero = np.zeros((1, 1), "float32")
    assert Shows()(zero) == 0
    assert Shows()(zero, training=True) == 1
    assert Outer()(zero, training=True) == 1
    assert Outer(training=False)(zero, training=True) == 0
    x = Input((1,))
    model = Model(x, Shows()(x) + 10.0 * Shows()(x, training=True))
    assert model(zero) == 10
    assert model(zero, training=True) == 11


def test_several_inputs_and_outputs():
    a, b = Input((3,), name="a"), Input((4,), name="b")
    x, y = np.ones((2, 3), "float32"), X[:2]
    model = Model({"a": a, "b": b}, {"sum": layers.Concatenate()([a, b]), "b": layers.Rescaling(2.0)(b)})
    found = model({"b": y, "a": x})
    np.testing.assert_array_equal(found["sum"], np.concatenate([x, y], 1))
    np.testing.assert_array_equal(found["b"], 2 * y)
    assert model.input_shape == {"a": (None, 3), "b": (None, 4)}
    listed = Model([b, a], [a, b])
    for given in ([y, x], (y, x), {"a": x, "b": y}):
        found = listed(given)
        np.testing.assert_array_equal(found[0], x)
        np.testing.assert_array_equal(found[1], y)


def test_shared_layers_and_nested_models():
    x = Input((4,))
    shared = layers.Dense(4)
    model = Model(x, shared(shared(x)))
    np.testing.assert_allclose(model(X), dense(dense(X, shared), shared), rtol=1e-4, atol=1e-5)
    assert len(model.weights) == 2
    inner = Sequential([Input((4,)), layers.Dense(2), layers.Dropout(0.5)])
    outer = Model(x, layers.Dense(1)(inner(model(x))))
    assert len(outer.weights) == 6
    assert outer.layers[2] is inner
    assert len(outer.variables) == 7  # the random stream of the dropout
    assert outer(X).shape == (5, 1)


def test_parts_of_models():
    x = Input((4,))
    h = layers.Dense(3, activation="tanh", name="hidden")(x)
    model = Model(x, layers.Dense(2, name="out")(h))
    features = Model(model.input, model.get_layer("hidden").output)
    head = Model(h, model.output)
    np.testing.assert_allclose(head(features(X)), model(X), rtol=1e-5)
    assert [layer.name for layer in head.layers][1:] == ["out"]


def test_frozen_layers():
    x = Input((4,))
    base = Sequential([Input((4,)), layers.Dense(3), layers.Dense(3)])
    model = Model(x, layers.Dense(1)(base(x)))
    base.trainable = False
    assert len(model.trainable_weights) == 2
    assert len(model.non_trainable_weights) == 4
    base.trainable = True
    assert len(model.trainable_weights) == 6
    model.trainable = False
    assert model.trainable_weights == []


def test_subclassed_model():
    class Mine(Model):
        def __init__(self, units):
            super().__init__()
            self.blocks = []
            for _ in range(2):
                self.blocks.append(layers.Dense(units, activation="relu"))
            self.heads = {"a": layers.Dense(1), "b": layers.Dense(2)}

        def call(self, x, training=False):
            for block in self.blocks:
                x = block(x)
            if training:
                self.add_loss(ops.sum(x) * 0.5)
            return {name: head(x) for name, head in self.heads.items()}

    model = Mine(3)
    found = model(X)
    assert found["a"].shape == (5, 1)
    assert found["b"].shape == (5, 2)
    assert len(model.layers) == 4
    assert len(model.weights) == 8
    assert model.weights[0].path == "mine/dense/kernel"
    h = np.maximum(dense(np.maximum(dense(X, model.blocks[0]), 0), model.blocks[1]), 0)
    np.testing.assert_allclose(found["b"], dense(h, model.heads["b"]), rtol=1e-4, atol=1e-5)
    assert model.losses == []
    model(X, training=True)
    np.testing.assert_allclose(model.losses[0], h.sum() / 2, rtol=1e-4)
    assert model.get_config()["units"] == 3
    x = Input((4,))
    np.testing.assert_allclose(Model(x, model(x)["a"])(X), found["a"], rtol=1e-5)


def test_subclass_of_a_functional_model():
    class Mine(Model):
        def shout(self):
            return self.name.upper()

    x = Input((4,))
    model = Mine(inputs=x, outputs=layers.Dense(2)(x), name="mine")
    assert model.shout() == "MINE"
    assert model(X).shape == (5, 2)
    assert type(Mine.from_config(model.get_config())) is Mine


def test_stateless_call_changes_nothing():
    model = Sequential([Input((4,)), layers.Dense(3, kernel_regularizer="l2"), layers.Dropout(0.5)])
    weights = [np.ones((4, 3), "float32"), np.zeros(3, "float32")]
    state = [v.numpy() for v in model.non_trainable_variables]
    outputs, new, losses = model.stateless_call(weights, state, X, training=True, return_losses=True)
    kept = outputs != 0
    np.testing.assert_allclose(outputs[kept], np.broadcast_to(2 * X.sum(1, keepdims=True), (5, 3))[kept], rtol=1e-5)
    np.testing.assert_allclose(losses[0], 0.01 * 12, rtol=1e-5)
    assert new[0][1] == state[0][1] + 1
    np.testing.assert_array_equal(model.non_trainable_variables[0].numpy(), state[0])
    assert (model.get_weights()[0] != weights[0]).all()


def test_models_are_freed():
    def make():
        x = Input((4,))
        layer = layers.Dense(3)
        model = Model(x, layer(x) + 1.0)
        model(X)
        return weakref.ref(model), weakref.ref(layer), weakref.ref(layer.kernel)

    dead = make()
    while gc.collect():  # freed nodes free those that their entries in the table of living ones held
        pass
    assert [ref() for ref in dead] == [None] * 3


def test_updates_of_a_traced_model_are_collected_once():
    class Counter(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight((), "zeros", trainable=False, name="count")

        def call(self, x):
            self.count.assign_add(1.0)
            return x * 1.0

    model = Sequential([Counter(), layers.Dense(2)])
    model(X)
    assert model.layers[0].count.numpy() == 1
    model(X)
    assert model.layers[0].count.numpy() == 2
    model(Input((4,)))  # a definition runs nothing
    assert model.layers[0].count.numpy() == 2
    with collecting_updates() as updates:
        model(model.symbolic_inputs(X))
    assert [v.name for v in updates] == ["count"]


def test_models_are_built_by_data():
    model = Sequential([layers.Dense(3), layers.Dense(2)])
    assert not model.built
    with pytest.raises(NotBuiltError, match="has no input shape yet"):
        assert model.input_shape
    assert not hasattr(model, "input_shape")
    model.build_for(X)
    assert model.built
    assert model.input_shape == (None, 4)
    assert [w.shape for w in model.weights] == [(4, 3), (3,), (3, 2), (2,)]
    model.pop()
    assert model.output_shape == (None, 3)
    model.add(layers.Dense(7))
    assert model(X).shape == (5, 7)

    class Mine(Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(2)

        def call(self, pair):
            return self.head(pair[0] + pair[1])

    mine = Mine()
    mine.build_for([X, X])
    assert len(mine.weights) == 2
    mine = Mine()
    mine.build([(None, 4), (None, 4)])
    assert len(mine.weights) == 2


def nested_model():
    x, y = Input((4,), name="x"), Input((4,), name="y")
    inner = Model(x, layers.Dense(3, activation="relu")(x), name="inner")
    shared = layers.Dense(3, name="shared")
    total = layers.Add()([inner(x), shared(y), shared(x)])
    return Model({"x": x, "y": y}, [total, layers.Dense(1, name="out")(inner(y))], name="whole")


@pytest.mark.parametrize("make", [
    nested_model,
    lambda: Sequential([Input((4,)), layers.Dense(3, kernel_regularizer="l2"), layers.Dropout(0.5), layers.Dense(1)]),
    lambda: Sequential([layers.Dense(3), layers.Flatten()]),
])  # fmt: skip
def test_configurations(make):
    model = make()
    text = model.to_json()
    again = model_from_json(text)
    assert again.to_json() == text
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    copied = clone_model(model)
    assert copied.count_params() == model.count_params() if model.built else not copied.built
    if not model.built:
        return
    x = {"x": X, "y": -X} if model.name == "whole" else X
    for other in (again, copied):
        other.set_weights(model.get_weights())
        for a, b in zip(model(x), other(x), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    json.loads(text)


def test_expressions_are_written_as_functions_of_keras():
    x = Input((4,), name="x")
    model = Model(x, layers.Dense(2)(ops.sum(ops.where(x > 0.1, x * 0.1, -x), 1, keepdims=False)[:, None] + x))
    with pytest.raises(NotImplementedError, match="make a layer of it"):
        model.to_json()  # the index has no counterpart yet
    total = ops.sum(ops.where(x > 0.1, x * 0.1, -x), 1)
    model = Model(x, [layers.Dense(2)(x @ np.eye(4, dtype="float32") + 1), total])
    text = model.to_json()
    assert '"module": "keras.src.ops.numpy", "class_name": "Where"' in text
    assert "0.1]" in text
    again = model_from_json(text)
    again.set_weights(model.get_weights())
    for a, b in zip(model(X), again(X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert again.to_json() == text
    assert clone_model(model).to_json() == text


def test_clone_function():
    model = Sequential([Input((4,)), layers.Dense(3), layers.Dense(1)])
    doubled = clone_model(model, clone_function=lambda layer: layers.Dense(2 * layer.units, name=layer.name))
    assert [layer.units for layer in doubled.layers] == [6, 2]
    assert doubled.layers[0].name == model.layers[0].name


MISTAKES = {
    "wrong width": (lambda: Sequential([Input((4,)), layers.Dense(3)]).layers[0](Input((5,))), ShapeError,
                    ["dense", "value 4", "(None, 5)"]),
    "wrong array": (lambda: Sequential([Input((4,)), layers.Dense(3)], name="mine")(X[:, :3]), ShapeError,
                    ["mine", "(None, 4)", "(5, 3)"]),
    "same names": (lambda: Model(x := Input((4,)), layers.Dense(4, name="a")(layers.Dense(4, name="a")(x))), GraphError,
                   ['"a" is used 2 times']),
    "same names in Sequential": (lambda: Sequential([layers.Dense(1, name="a"), layers.Dense(1, name="a")]), GraphError,
                                 ["'a' is already the name of a Dense"]),
    "disconnected": (lambda: Model(Input((4,), name="one"), layers.Dense(1)(Input((4,), name="two"))), GraphError,
                     ["'two'", "['one']", "Graph disconnected"]),
    "old spelling": (lambda: Model(input=Input((4,)), output=Input((4,))), ArgumentError, ["inputs=..., outputs=..."]),
    "not a layer": (lambda: Sequential([len]), ArgumentError, ["Lambda"]),
    "open width": (lambda: layers.Dense(2)(Input((None,))), ShapeError, ["'kernel'", "'dense", "(None, 2)"]),
    "merge": (lambda: layers.Add()([Input((4,)), Input((5,))]), ShapeError, ["(None, 4)", "(None, 5)", "add"]),
    "missing key": (lambda: nested_model()({"x": X}), ArgumentError, ['"y"', '"whole"']),
    "unknown layer": (lambda: Sequential([layers.Dense(1, name="head")]).get_layer("haed"), ArgumentError, ["'head'"]),
    "misspelled argument": (lambda: layers.Dense(2, activatoin="relu"), ArgumentError, ["Dense", "'activation'"]),
    "unknown activation": (lambda: layers.Dense(2, activation="rleu"), ArgumentError, ["'relu'"]),
    "misspelled call argument": (lambda: layers.Dense(2)(X, trainning=True), ArgumentError, ["'training'"]),
    "a list of numbers": (lambda: layers.Dense(2)([1.0, 2.0]), ArgumentError, ["numpy.asarray"]),
    "a number as shape": (lambda: Input(784), ShapeError, ["shape=(784,)"]),
    "second input": (lambda: Sequential([layers.Dense(1), Input((3,))]), ArgumentError, ["Input comes first"]),
    "reshape": (lambda: layers.Reshape((3, 3))(Input((8,))), ShapeError, ["(8,)", "(3, 3)", "reshape"]),
    "no layers": (lambda: Sequential().build((None, 3)), ArgumentError, ["has no layers"]),
    "truth of a tensor": (lambda: 1 if Input(()) else 0, GraphError, ["no truth value"]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MISTAKES))
def test_mistakes_are_explained(name):
    mistake, kind, words = MISTAKES[name]
    with pytest.raises(kind) as caught:
        mistake()
    assert isinstance(caught.value, GnomonError)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    if "was called on" in message:
        assert __file__ in message


def test_forgotten_super_init():
    class Mine(layers.Layer):
        def __init__(self):
            self.inner = layers.Dense(2)

    with pytest.raises(GnomonError, match="super"):
        Mine()(X)


def test_expressions_that_broadcast_between_functions():
    """Softmax of an attention's scores as a user writes it: its parts do not fit each other without broadcasts."""
    x = gnomon.Input((5, 8))
    parts = ops.reshape(x, (-1, 5, 2, 4))
    scores = ops.softmax(ops.einsum("bthd,bshd->bhts", parts, parts) / np.sqrt(4))
    model = gnomon.Model(x, ops.reshape(ops.einsum("bhts,bshd->bthd", scores, parts), (-1, 5, 8)))
    given = np.random.default_rng(0).standard_normal((3, 5, 8)).astype("float32")
    p = given.reshape(3, 5, 2, 4)
    e = np.exp(np.einsum("bthd,bshd->bhts", p, p) / 2)
    wanted = np.einsum("bhts,bshd->bthd", e / e.sum(-1, keepdims=True), p).reshape(3, 5, 8)
    np.testing.assert_allclose(model.predict(given, verbose=0), wanted, rtol=1e-4, atol=1e-5)
