"""Several outputs: losses, weights, metrics and labels in lists and dictionaries, and what does not fit."""

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.models.heads import CompileLoss, CompileMetrics, names_of, per_output
from gnomon.tensor import Tensor
from tests.frontend.training.support import data

X, LABEL = data()
AMOUNT = X[:, :1] * 2
FIT = {"batch_size": 16, "shuffle": False, "verbose": 0}
SPARSE = "sparse_categorical_crossentropy"


def two_heads(**options):
    inputs = gnomon.Input((6,))
    hidden = layers.Dense(5, activation="tanh")(inputs)
    heads = [layers.Dense(1, name="amount")(hidden), layers.Dense(4, activation="softmax", name="kind")(hidden)]
    model = gnomon.Model(inputs, heads)
    random = np.random.default_rng(2)
    model.set_weights([0.4 * random.standard_normal(w.shape) for w in model.get_weights()])
    model.compile(**{"optimizer": "sgd", **options})
    return model


@pytest.mark.parametrize(
    "options",
    [
        {"loss": {"kind": SPARSE, "amount": "mse"}, "loss_weights": {"amount": 2.0, "kind": 0.5}},
        {"loss": ["mse", SPARSE], "loss_weights": [2.0, 0.5]},
        {"loss": ("mse", gnomon.losses.SparseCategoricalCrossentropy()), "loss_weights": [2, np.float32(0.5)]},
        {"loss": [gnomon.losses.mean_squared_error, SPARSE], "loss_weights": {"kind": 0.5, "amount": 2.0}},
    ],
)
@pytest.mark.parametrize(
    "y", [[AMOUNT, LABEL], (AMOUNT, LABEL), {"kind": LABEL, "amount": AMOUNT}], ids=["list", "tuple", "dictionary"]
)
def test_what_is_for_which_output(options, y):
    model = two_heads(**options, metrics={"kind": "accuracy"})
    amount, kind = model.predict(X, verbose=0)
    logs = model.test_on_batch(X, y, return_dict=True)
    losses = {"amount_loss": np.mean((amount - AMOUNT) ** 2), "kind_loss": -np.log(kind[np.arange(50), LABEL]).mean()}
    wanted = {
        **losses,
        "loss": 2 * losses["amount_loss"] + 0.5 * losses["kind_loss"],
        "kind_accuracy": np.mean(kind.argmax(1) == LABEL),
    }
    assert list(logs) == sorted(wanted)
    for name, value in wanted.items():
        assert logs[name] == pytest.approx(value, rel=1e-5)
    assert model.test_on_batch(X, y) == [logs[n] for n in ("loss", "amount_loss", "kind_loss", "kind_accuracy")]
    history = model.fit(X, y, validation_split=0.2, epochs=2, **FIT).history
    assert list(history) == [*sorted(wanted), *(f"val_{name}" for name in sorted(wanted))]


def test_a_loss_for_one_output_alone_needs_labels_for_it_alone():
    for loss in ({"kind": SPARSE}, [None, SPARSE]):
        model = two_heads(loss=loss)
        for y in ([None, LABEL], LABEL, {"kind": LABEL}, [LABEL]):
            assert list(model.test_on_batch(X, y, return_dict=True)) == ["loss"]


def test_weights_of_samples_by_output():
    model = two_heads(loss=["mse", SPARSE])
    amount, kind = model.predict(X, verbose=0)
    w, v = np.random.default_rng(0).random((2, 50)).astype("float32")
    error, entropy = ((amount - AMOUNT) ** 2)[:, 0], -np.log(kind[np.arange(50), LABEL])
    for weight, wanted in [
        (w, [(error * w).mean(), (entropy * w).mean()]),
        ([w, v], [(error * w).mean(), (entropy * v).mean()]),
        ({"kind": v}, [error.mean(), (entropy * v).mean()]),
        ([None, v], [error.mean(), (entropy * v).mean()]),
    ]:
        _, *losses = model.test_on_batch(X, [AMOUNT, LABEL], sample_weight=weight)
        np.testing.assert_allclose(losses, wanted, rtol=1e-5)
        history = two_heads(loss=["mse", SPARSE]).fit(X, [AMOUNT, LABEL], sample_weight=weight, **FIT).history
        assert np.isfinite(history["loss"][0])


def test_metrics_of_outputs():
    for metrics in (["mae", ["accuracy", "mse"]], {"kind": ["accuracy", "mse"], "amount": "mae"}):
        model = two_heads(loss=["mse", "mse"], metrics=metrics)
        one_hot = np.eye(4, dtype="float32")[LABEL]
        logs = model.test_on_batch(X, [AMOUNT, one_hot], return_dict=True)
        assert sorted(logs) == ["amount_loss", "amount_mae", "kind_accuracy", "kind_loss", "kind_mse", "loss"]
        assert model.metrics_names == ["loss", "compile_metrics", "amount_loss", "kind_loss"]
        assert [m.name for m in model.metrics[1].metrics] == ["mae", "accuracy", "mse"]


def test_names_of_metrics_that_meet():
    inputs = gnomon.Input((6,))
    model = gnomon.Model(inputs, layers.Dense(4, activation="softmax")(inputs))

    def largest(y_true, y_pred):
        return ops.max(y_pred, -1)

    metrics = ["accuracy", "acc", largest, largest, gnomon.metrics.MeanSquaredError(name="mine")]
    model.compile("sgd", loss=SPARSE, metrics=metrics[:-1], weighted_metrics=["accuracy"])
    logs = model.test_on_batch(X, LABEL, return_dict=True)
    assert list(logs) == ["acc", "accuracy", "largest", "largest_1", "loss", "weighted_accuracy"]
    assert logs["largest"] == pytest.approx(model.predict(X, verbose=0).max(1).mean(), rel=1e-5)


def test_outputs_in_a_dictionary_are_known_by_their_keys():
    inputs = gnomon.Input((6,))
    outputs = {"b": layers.Dense(1)(inputs), "a": layers.Dense(4, activation="softmax")(inputs)}
    model = gnomon.Model(inputs, outputs)
    model.compile("sgd", loss={"a": SPARSE, "b": "mse"}, metrics={"a": ["accuracy"]})
    history = model.fit(X, {"a": LABEL, "b": AMOUNT}, **FIT).history
    assert list(history) == ["a_accuracy", "a_loss", "b_loss", "loss"]
    assert sorted(model.predict(X, verbose=0)) == ["a", "b"]


def test_nested_outputs():
    class Nested(gnomon.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = layers.Dense(1), layers.Dense(1), layers.Dense(1)

        def call(self, x):
            return {"left": {"up": self.one(x), "down": self.two(x)}, "right": self.three(x)}

    model = Nested()
    model.compile("sgd", loss={"left": {"up": "mse", "down": "mae"}, "right": "mse"})
    y = {"left": {"up": AMOUNT, "down": AMOUNT}, "right": AMOUNT}
    history = model.fit(X, y, **FIT).history
    assert list(history) == ["left/down_loss", "left/up_loss", "loss", "right_loss"]
    assert model.predict(X, verbose=0)["left"]["up"].shape == (50, 1)


def test_names_of_outputs():
    t = Tensor(gnomon.Input((1,)).node)
    assert names_of(t, ["dense"]) == ["dense"]
    assert names_of([t, t], ["a", "b"]) == ["a", "b"]
    assert names_of([t, t], None) == ["output_1", "output_2"]
    assert names_of({"y": t, "x": t}, ["a", "b"]) == ["x", "y"]
    assert names_of({"y": [t, t], "x": t}, ["p", "q", "r"]) == ["x", "y/q", "y/r"]


def test_the_crossentropy_that_fits_the_shapes():
    inputs = gnomon.Input((6,))
    for units, y in ((1, (LABEL[:, None] > 1).astype("float32")), (4, LABEL), (4, np.eye(4, dtype="float32")[LABEL])):
        activation = "sigmoid" if units == 1 else "softmax"
        model = gnomon.Model(inputs, layers.Dense(units, activation=activation)(inputs))
        model.compile("sgd", loss="crossentropy", metrics=["crossentropy"])
        loss, metric = model.test_on_batch(X, y)
        assert loss == pytest.approx(metric, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": {"amount": "mse", "kin": "mse"}}, "`loss` names 'kin', which is not an output.*Did you mean 'kind'"),
        ({"loss": ["mse"] * 3}, "`loss` has 3 entries for 2 outputs: 'amount', 'kind'"),
        ({"loss": ["mse", "mse"], "loss_weights": {"a": 1.0}}, "`loss_weights` names 'a'"),
        ({"loss": ["mse", "mse"], "loss_weights": [1.0, 2.0, 3.0]}, "`loss_weights` has 3 entries for 2 outputs"),
        ({"loss": "mse", "loss_weights": 0.5}, "must be a list or dictionary for a model with 2 outputs"),
        ({"loss": ["mse", "mse"], "metrics": {"c": ["mae"]}}, "`metrics` names 'c'"),
        ({"loss": ["mse", "mse"], "metrics": ["mae", "mse", "mae"]}, "`metrics` has 3 entries for 2 outputs"),
        ({"loss": [None, None]}, "no output has a loss"),
    ],
)
def test_what_does_not_fit_the_outputs(options, message):
    model = two_heads(**options)
    with pytest.raises(ArgumentError, match=f"(?s){message}"):
        model.fit(X, [AMOUNT, np.eye(4, dtype="float32")[LABEL]], **FIT)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (AMOUNT, r"y has 1 arrays for 2 outputs \('amount', 'kind'\)"),
        ([AMOUNT] * 3, "y has 3 arrays for 2 outputs"),
        ({"amount": AMOUNT, "sort": LABEL}, "y names 'sort', which is not an output"),
        ({"amount": AMOUNT}, "the output 'kind' has a loss, but y has nothing for it"),
    ],
)
def test_labels_that_do_not_fit_the_outputs(y, message):
    with pytest.raises(DataError, match=message):
        two_heads(loss=["mse", SPARSE]).fit(X, y, **FIT)


def test_unknown_names_fail_where_they_are_given():
    for given in ({"loss": "msee"}, {"loss": "mse", "metrics": ["acuracy"]}, {"loss": "mse", "loss_weights": ["1", 2]}):
        with pytest.raises(ArgumentError, match="msee|acuracy|`loss_weights` are numbers, got '1'"):
            two_heads(**given)
    with pytest.raises(ArgumentError, match="loss"):
        CompileLoss(5)
    with pytest.raises(ArgumentError):
        CompileMetrics([5])
    assert per_output(None, ["a", "b"], "loss") == [None, None]
