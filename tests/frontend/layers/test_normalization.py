"""Normalizing layers give Keras's numbers, gradients and moving statistics, and are accurate far from 0."""

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.calculus import grad
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.utils import clear_session
from gnomon.variable import collecting_updates
from tests.frontend.layers.check import check_layer, evaluate
from tests.recorded.load import load
from tests.recorded.playback import play

RECORDED = load("normalization")
CASES = RECORDED["cases"]
NORMALIZED = [name for name, case in CASES.items() if case["class"] != "SpectralNormalization"]


def plain(value):
    """As JSON would give it back."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.filterwarnings("ignore:LayerNormalization.rms_scaling=True")
@pytest.mark.parametrize("name", NORMALIZED)
def test_recorded(name):
    case = CASES[name]
    clear_session()
    arguments = {k: case["config"].get(k, v) if isinstance(v, (dict, str)) else v for k, v in case["arguments"].items()}
    layer = getattr(layers, case["class"])(**arguments)
    x, options = case["x"], case["options"]
    given = layers.Input(x.shape[1:], dtype=x.dtype.name)
    with collecting_updates():  # a definition changes nothing
        output = layer(given, **options)
    assert [w.name for w in layer.weights] == case["weight names"]
    assert layer.count_params() == case["parameters"]
    assert layer.supports_masking == case["supports_masking"]
    for weight in layer.weights:
        weight.assign(case["weights"][weight.name])
    half = case["output"].dtype == "float16"
    close = {"rtol": 2e-3, "atol": 2e-3} if half else {"rtol": 2e-5, "atol": 3e-6}
    if "far" in name:
        close = {"rtol": 1e-4, "atol": 3e-5}  # Keras computes x * a - mean * a, of numbers 100 times as large
    cost = (output.astype("float32") * case["weight"]).sum()
    targets = [*layer.trainable_weights, given]
    wanted = [*(case["weight gradients"][w.name] for w in layer.trainable_weights), case["input gradient"]]
    if "of nothing" not in name:  # where Keras takes the gradient of 0 / 1e-7
        slack = {"rtol": 5e-3, "atol": 5e-3} if half or "mixed" in name else {"rtol": 2e-4, "atol": 3e-5}
        for target, w in zip(targets, wanted, strict=True):
            np.testing.assert_allclose(evaluate(grad(cost, target), [given], [x]), w, **slack)
    found = layer(x, **options)
    assert found.dtype == case["output"].dtype
    np.testing.assert_allclose(found, case["output"], **close)
    still = {w.name: w for w in layer.non_trainable_weights}
    for weight, value in case["moved"].items():
        np.testing.assert_allclose(still[weight], value, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose([float(loss) for loss in layer.losses], case["losses"], rtol=1e-5)
    assert plain(layer.get_config()) == case["config"]
    assert plain(layer.get_build_config()) == case["build config"]
    type(layer).from_config(case["config"])


@pytest.mark.parametrize("name", list(RECORDED["fit"]))
def test_training(name):
    case = RECORDED["fit"][name]
    played = play(case, gnomon)["result"]
    for key, value in case["result"].items():
        if key == "history":
            for metric, numbers in value.items():
                np.testing.assert_allclose(played["history"][metric], numbers, rtol=2e-4, err_msg=metric)
        elif key == "weights":
            for a, b in zip(played["weights"], value, strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
        elif key != "epoch":
            np.testing.assert_allclose(played[key], value, rtol=2e-4, atol=2e-5)


CHECKED = [
    (layers.BatchNormalization, (4,), {"training": True}),
    (layers.BatchNormalization, (3, 5, 4), {"training": True, "gamma_regularizer": "l2"}),
    (layers.BatchNormalization, (3, 5, 4), {"axis": 1, "training": True, "scale": False}),
    (layers.BatchNormalization, (3, 1), {"training": False, "axis": -2}),
    (layers.LayerNormalization, (3, 5, 4), {"axis": [1, 2, 3]}),
    (layers.LayerNormalization, (3, 5, 4), {"axis": 2, "center": False}),
    (layers.GroupNormalization, (3, 5, 4), {"groups": 2}),
    (layers.GroupNormalization, (4, 5, 3), {"groups": -1, "axis": 1}),
    (layers.GroupNormalization, (6,), {"groups": 3, "scale": False}),
    (layers.RMSNormalization, (4, 5, 3), {"axis": (2, 3)}),
    (layers.UnitNormalization, (4, 5, 3), {"axis": [2, 3]}),
]


@pytest.mark.parametrize(("cls", "shape", "arguments"), CHECKED)
def test_layer(cls, shape, arguments):
    check_layer(cls, shape, **arguments)


@pytest.mark.parametrize(
    ("cls", "arguments", "options"),
    [
        (layers.BatchNormalization, {}, {"training": True}),
        (layers.BatchNormalization, {"axis": 1}, {"training": True}),
        (layers.BatchNormalization, {}, {"training": True, "mask": np.arange(12).reshape(2, 6) % 3 > 0}),
        (layers.LayerNormalization, {"axis": (1, 2)}, {}),
        (layers.GroupNormalization, {"groups": 2}, {}),
        (layers.RMSNormalization, {}, {}),
        (layers.UnitNormalization, {}, {}),
    ],
)
def test_second_derivatives(cls, arguments, options):
    layer, x = cls(**arguments, dtype="float64"), np.random.default_rng(0).standard_normal((2, 6, 4))
    given = layers.Input((6, 4), dtype="float64")
    with collecting_updates():
        output = layer(given, **options)
    weights = np.random.default_rng(1).standard_normal((2, *x.shape))
    slope = grad((ops.square(output) * weights[0]).sum(), given)
    along = (slope * weights[1]).sum()
    found = evaluate(grad(along, given), [given], [x])
    for place in ((0, 0, 0), (1, 4, 2)):
        step = np.zeros_like(x)
        step[place] = 1e-5
        up, down = (evaluate(along, [given], [x + s]) for s in (step, -step))
        np.testing.assert_allclose(found[place], (up - down) / 2e-5, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("axis", [-1, 1])
def test_statistics_far_from_0_are_accurate(axis):
    x = (np.random.default_rng(0).standard_normal((30, 6, 7, 5)) + 1e3).astype("float32")
    exact, rest = x.astype("float64"), tuple(k for k in range(4) if k != axis % 4)
    mean, variance = exact.mean(rest, keepdims=True), exact.var(rest, keepdims=True)
    layer = layers.BatchNormalization(axis=axis, momentum=0.0)
    given = layers.Input(x.shape[1:])
    program = gnomon.function([given], layer(given, training=True))
    for y in (layer(x, training=True), program(x)):
        np.testing.assert_allclose(y, (exact - mean) / np.sqrt(variance + 1e-3), atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, mean.ravel(), rtol=1e-7)
    np.testing.assert_allclose(layer.moving_variance, variance.ravel(), rtol=2e-5)


def test_batch_statistics_of_what_does_not_vary():
    layer = layers.BatchNormalization()
    np.testing.assert_array_equal(layer(np.full((1, 4), 7.1, "float32"), training=True), np.zeros((1, 4)))
    np.testing.assert_array_equal(layer(np.full((5, 4), -3.3, "float32"), training=True), np.zeros((5, 4)))


def test_statistics_move_once_for_each_call_of_a_shared_layer():
    layer, x = layers.BatchNormalization(momentum=0.5, center=False, scale=False), layers.Input((2,))
    model = gnomon.Model(x, layers.Dense(1)(layer(x) + layer(3 * x)))
    model.compile(optimizer=gnomon.optimizers.SGD(0.0), loss="mse")
    data = np.random.default_rng(0).standard_normal((8, 2)).astype("float32") + 1
    model.train_on_batch(data, np.zeros((8, 1)))
    np.testing.assert_allclose(layer.moving_mean, 0.5 * (0.5 * data.mean(0)) + 0.5 * 3 * data.mean(0), rtol=1e-5)
    before = layer.get_weights()
    model.evaluate(data, np.zeros((8, 1)), verbose=0)
    model.predict(data, verbose=0)
    for a, b in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_freezing_after_a_step_stops_the_statistics():
    model = gnomon.Sequential([layers.Input((3,)), layers.BatchNormalization(), layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    x, y = np.random.default_rng(0).standard_normal((6, 3)).astype("float32"), np.zeros((6, 1))
    model.train_on_batch(x, y)
    moved = model.layers[0].moving_mean.numpy()
    assert (moved != 0).all()
    model.layers[0].trainable = False
    model.compile(optimizer="sgd", loss="mse")
    model.train_on_batch(x, y)
    np.testing.assert_array_equal(model.layers[0].moving_mean, moved)
    assert model.layers[0].trainable_weights == []


def test_one_pass_over_the_input():
    """The sum of x and that of its squares are in one kernel."""
    layer, x = layers.BatchNormalization(), layers.Input((8, 8, 16))
    kernels = gnomon.function([x], layer(x, training=True), device="cpu").show("kernels").split("\n\n")
    (squaring,) = [text for text in kernels if "square(subtract(" in text]
    assert squaring.count("add(acc") == 2


def test_an_open_number_of_rows_or_columns():
    for layer in (layers.BatchNormalization(), layers.GroupNormalization(2), layers.LayerNormalization()):
        given = layers.Input((None, None, 4))
        program = gnomon.function([given], layer(given, training=True) if layer.name.startswith("b") else layer(given))
        for shape in ((1, 1, 1, 4), (2, 3, 5, 4), (1, 7, 1, 4)):
            x = np.random.default_rng(3).standard_normal(shape).astype("float32")
            y = layer(x, training=True) if layer.name.startswith("b") else layer(x)
            np.testing.assert_allclose(program(x), y, rtol=1e-5, atol=1e-6)


def test_rows_of_zeros_in_halves():
    x = np.array([[0, 0], [3, 4]], "float16")
    np.testing.assert_allclose(layers.UnitNormalization(dtype="float16")(x), [[0, 0], [0.6, 0.8]], atol=1e-3)
    np.testing.assert_allclose(ops.normalize(x.astype("float32"), axis=None), x.astype("float32") / 5, rtol=1e-6)


def test_synchronized_is_taken():
    layer = layers.BatchNormalization(synchronized=True)
    layer(np.ones((2, 3), "float32"), training=True)
    assert layer.get_config()["synchronized"] is True


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: layers.BatchNormalization(axis=[1, 2]), DTypeError, "axis"),
        (lambda: layers.BatchNormalization(axis=3)(np.ones((2, 3))), ShapeError, "axis 3 is out of bounds"),
        (lambda: layers.BatchNormalization()(layers.Input((None,))), ShapeError, "known shape"),
        (lambda: layers.BatchNormalization(renorm=True, renorm_clipping={"max": 1}), ArgumentError, "rmax"),
        (lambda: layers.BatchNormalization(renorm=True, renorm_clipping={"rmax": 1, "rmin": 2}), ArgumentError, "rmin"),
        (lambda: layers.BatchNormalization(renorm=True, renorm_clipping={"dmax": -1}), ArgumentError, "dmax"),
        (
            lambda: layers.BatchNormalization()(np.ones((2, 3, 4)), training=True, mask=np.ones(2, bool)),
            ShapeError,
            "one axis less",
        ),
        (lambda: layers.LayerNormalization(axis="last"), DTypeError, "int or a list/tuple"),
        (lambda: layers.LayerNormalization(axis=(1, 5))(np.ones((2, 3))), ShapeError, "axis 5 is out of bounds"),
        (lambda: layers.GroupNormalization(groups=0), ArgumentError, "positive integer"),
        (lambda: layers.GroupNormalization(groups=4)(np.ones((2, 3))), ArgumentError, "cannot be more"),
        (lambda: layers.GroupNormalization(groups=2)(np.ones((2, 3))), ArgumentError, "multiple"),
        (lambda: layers.GroupNormalization(axis=0)(np.ones((2, 3))), ShapeError, "samples"),
        (lambda: layers.GroupNormalization(2)(layers.Input((None,))), ShapeError, "known number of channels"),
        (lambda: layers.RMSNormalization(axis=2)(np.ones((2, 3))), ShapeError, "axis 2 is out of bounds"),
        (lambda: layers.UnitNormalization(axis=1.5), DTypeError, "int or a list/tuple"),
    ],
)
def test_mistakes(make, error, words):
    with pytest.raises(error, match=words):
        make()


# ---- spectral normalization


def without_quantization(value):
    if isinstance(value, dict):
        return {k: without_quantization(v) for k, v in value.items() if k != "quantization_config"}
    return plain(value)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["class"] == "SpectralNormalization"])
def test_spectral_norm_is_taken_out_as_by_keras(name):
    case = CASES[name]
    clear_session()
    layer = layers.SpectralNormalization(layers.Dense(5), power_iterations=case["iterations"])
    layer.build(case["x"].shape)
    assert [w.path for w in layer.weights] == list(case["weights"])
    assert [w.path for w in layer.trainable_weights] == case["trainable"]
    layer.set_weights(list(case["weights"].values()))
    np.testing.assert_allclose(layer(case["x"], **case["options"]), case["output"], rtol=1e-5, atol=1e-6)
    for weight in layer.weights:
        np.testing.assert_allclose(weight, case["after"][weight.path], rtol=1e-5, atol=1e-6)
    assert without_quantization(layer.get_config()) == without_quantization(case["config"])
    again = layers.SpectralNormalization.from_config(case["config"])
    assert isinstance(again.layer, layers.Dense)
    assert again.power_iterations == case["iterations"]


def test_spectral_norm_becomes_1_while_training():
    inner = layers.Dense(6, use_bias=False)
    model = gnomon.Sequential([layers.Input((5,)), layers.SpectralNormalization(inner)])
    model.compile(optimizer=gnomon.optimizers.SGD(0.0), loss="mse")
    inner.kernel.assign(3 * np.random.default_rng(0).standard_normal((5, 6)))
    x = np.random.default_rng(1).standard_normal((64, 5)).astype("float32")
    for _ in range(40):
        model.train_on_batch(x, np.zeros((64, 6)))
    np.testing.assert_allclose(np.linalg.svd(inner.kernel.numpy())[1][0], 1, rtol=1e-3)
    before = inner.kernel.numpy()
    np.testing.assert_allclose(model.predict(x, verbose=0), x @ before, rtol=1e-5, atol=1e-6)


def test_gradient_of_a_divided_kernel():
    """Equation 12 of the paper, with u and v held: (g - <g, W/s> v u^T) / s."""
    layer = layers.SpectralNormalization(layers.Dense(4, use_bias=False, dtype="float64"), dtype="float64")
    given, x = layers.Input((3,), dtype="float64"), np.random.default_rng(0).standard_normal((2, 3))
    with collecting_updates():
        layer(given)
        u, w = layer.vector_u.numpy(), layer.kernel.numpy()
        output = layer(given, training=True)
    found = evaluate(grad(ops.square(output).sum(), layer.kernel), [given], [x])
    v = u @ w.T / np.linalg.norm(u @ w.T)
    u = v @ w / np.linalg.norm(v @ w)
    s = (v @ w @ u.T).item()
    g = 2 * x.T @ (x @ w / s)
    np.testing.assert_allclose(found, (g - (g * w / s).sum() * v.T @ u) / s, rtol=1e-6)


def test_a_kernel_of_zeros_stays():
    layer = layers.SpectralNormalization(layers.Dense(4, kernel_initializer="zeros"))
    layer.build((2, 3))
    u = layer.vector_u.numpy()
    np.testing.assert_array_equal(layer(np.ones((2, 3), "float32"), training=True), np.zeros((2, 4)))
    np.testing.assert_array_equal(layer.vector_u, u)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layers.SpectralNormalization("dense"), "isn't a supported layer type"),
        (lambda: layers.SpectralNormalization(layers.Dense(2), power_iterations=0), "greater than zero"),
        (lambda: layers.SpectralNormalization(layers.ReLU())(np.ones((2, 3))), "`kernel` or `embeddings`"),
    ],
)
def test_mistakes_with_spectral_norms(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()
