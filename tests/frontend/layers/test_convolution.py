"""Convolutions: every layer by `check_layer`, Keras's numbers, derivatives, files, mistakes."""

import re

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.compiler.errors import GnomonError
from gnomon.models import load_model
from gnomon.utils import clear_session
from tests.frontend.layers.check import check_layer
from tests.frontend.layers.derivatives import check_derivatives
from tests.frontend.layers.recorded import check_recorded, check_shape
from tests.recorded.load import FOLDER, load
from tests.recorded.playback import play

RECORDED = load("convolution")
FIRST = {"data_format": "channels_first"}
CASES = [
    (layers.Conv1D, (7, 2), {"filters": 3, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}),
    (layers.Conv1D, (4, 7), {"filters": 4, "kernel_size": 2, "strides": 2, "groups": 2, **FIRST}),
    (layers.Conv2D, (5, 6, 2), {"filters": 3, "kernel_size": (3, 2), "padding": "same", "activation": "tanh"}),
    (layers.Conv2D, (3, 7, 5), {"filters": 2, "kernel_size": 3, "strides": (2, 1), "use_bias": False, **FIRST}),
    (layers.Conv2D, (5, 7, 4), {"filters": 6, "kernel_size": 2, "dilation_rate": (1, 3), "groups": 2}),
    (layers.Conv2D, (4, 5, 1), {"filters": 1, "kernel_size": 1, "strides": 3, "kernel_regularizer": "l2"}),
    (layers.Conv3D, (3, 4, 3, 2), {"filters": 2, "kernel_size": 2, "strides": 2, "padding": "same"}),
    (layers.Conv1DTranspose, (4, 2), {"filters": 3, "kernel_size": 3, "strides": 2, "activation": "tanh"}),
    (layers.Conv2DTranspose, (3, 4, 2), {"filters": 2, "kernel_size": (3, 2), "strides": 2, "padding": "same"}),
    (layers.Conv2DTranspose, (3, 2, 3), {"filters": 2, "kernel_size": 2, "strides": 3, "output_padding": 2, **FIRST}),
    (layers.Conv2DTranspose, (3, 2, 3), {"filters": 2, "kernel_size": 2, "dilation_rate": (2, 1)}),
    (layers.Conv3DTranspose, (2, 3, 2, 1), {"filters": 2, "kernel_size": 2}),
    (layers.DepthwiseConv1D, (7, 3), {"kernel_size": 3, "strides": 2, "depth_multiplier": 2, "activation": "tanh"}),
    (layers.DepthwiseConv2D, (3, 5, 4), {"kernel_size": (2, 3), "padding": "same", **FIRST}),
    (layers.SeparableConv1D, (7, 3), {"filters": 2, "kernel_size": 3, "padding": "same"}),
    (layers.SeparableConv2D, (4, 5, 2), {"filters": 3, "kernel_size": 2, "depth_multiplier": 2, "dilation_rate": 2}),
]
NAMES = lambda c: c.__name__ if isinstance(c, type) else ""


@pytest.mark.parametrize(("cls", "shape", "arguments"), CASES, ids=NAMES)
def test_layer(cls, shape, arguments):
    check_layer(cls, shape, **arguments)


@pytest.mark.parametrize(("cls", "shape", "arguments"), CASES, ids=NAMES)
def test_derivatives(cls, shape, arguments):
    gnomon.utils.set_random_seed(3)
    check_derivatives(cls(**arguments, dtype="float64"), shape, batch=1 if arguments.get("padding") else 2)


@pytest.mark.parametrize("name", [n for n, c in RECORDED["cases"].items() if "Conv" in c["class"]])
def test_recorded(name):
    check_recorded(RECORDED["cases"][name])


@pytest.mark.parametrize("case", RECORDED["shapes"], ids=lambda c: f"{c['class']} {c['input']}")
def test_shapes(case):
    shape = tuple(case["input"])
    make = lambda: getattr(layers, case["class"])(**case["arguments"])
    check_shape(make().compute_output_shape(shape), case["compute_output_shape"])
    check_shape(make()(layers.Input(batch_shape=shape)).shape, case["called"])


@pytest.mark.parametrize("name", RECORDED["errors"])
def test_mistakes(name):
    """What Keras refuses is refused, when it is refused there or earlier, as an error of the same kind."""
    case = RECORDED["errors"][name]
    clear_session()
    found = play(case, gnomon)
    if case["type"] == "TypeError":  # Keras stumbles; a missing argument is Python's own error
        assert found["type"] == "TypeError" if "missing" in name else "GnomonError" in found["bases"]
    else:
        assert "GnomonError" in found["bases"]
        assert case["type"] in found["bases"]
    said = found["message"]
    for key, words in SAYS.items():
        if key in name:
            assert all(word in said for word in words), said


SAYS = {
    "filters 0": ["Conv2D(filters)", "positive", "filters=0"],
    "kernel_size 0": ["kernel_size", "2", "got 0"],
    "kernel_size too long": ["kernel_size", "2", "(3, 3, 3)"],
    "strides and dilation": ["strides", "dilation_rate"],
    "padding unknown": ["padding", "'same'", "'full'"],
    "causal in two": ["padding", "'causal'"],
    "groups that do not divide filters": ["groups=2", "filters=3"],
    "groups that do not divide channels": ["groups=2", "3 channels", "(None, 8, 8, 3)"],
    "output_padding": ["output_padding=(2, 2)", "strides=(2, 2)"],
    "of too few axes": ["ndim=4", "found ndim="],
    "too many axes": ["max_ndim=4, found ndim=5"],
    "input smaller than the window": ["zero or negative", "[3, 3]", "[2, 8]"],
    "array smaller than the window": ["[3]", "(1, 2, 1)", "span 3", "has 2"],
    "too small an input": ["zero or negative", "[3, 3]", "[2, 8]", "max_pooling2d"],
    "other channels": ["axis -1", "value 3", "(None, 8, 8, 4)"],
    "channels unknown": ["number of channels", "(None, 8, 8, None)", "instead of None"],
    "flattened too early": ["min_ndim=4, found ndim=2", "(None, 64)"],
}


def test_strides_and_dilation_are_for_depthwise_layers():
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype("float32")
    strided = layers.DepthwiseConv2D(2, strides=2, dilation_rate=3)
    y = strided(x)
    plain = layers.DepthwiseConv2D(2, dilation_rate=3)
    plain.build(x.shape)
    plain.set_weights(strided.get_weights())
    np.testing.assert_allclose(y, plain(x)[:, ::2, ::2], rtol=1e-6, atol=1e-6)


def test_open_sizes_share_a_program():
    layer = layers.Conv2D(2, 3, padding="same", strides=2)
    x = layers.Input((None, None, 1))
    f = gnomon.function([x], layers.MaxPooling2D(padding="same")(layer(x)))
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1, 1), (2, 5, 4, 1), (3, 8, 7, 1)):
        data = rng.normal(size=shape).astype("float32")
        expected = layers.MaxPooling2D(padding="same")(layer(data))
        assert expected.shape[1:3] == tuple(-(-d // 4) for d in shape[1:3])
        np.testing.assert_allclose(f(data), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_half_precision_keeps_weights_in_float32(data_format):
    """At once and compiled."""
    gnomon.utils.set_random_seed(4)
    x = np.random.default_rng(0).normal(size=(3, 5, 6, 5)).astype("float32")
    for cls in (layers.Conv2D, layers.Conv2DTranspose, layers.SeparableConv2D):
        half, full = (cls(4, 2, padding="same", data_format=data_format, dtype=d) for d in ("mixed_float16", "float32"))
        inputs = layers.Input(x.shape[1:])
        output = half(inputs)
        full.build(x.shape)
        full.set_weights(half.get_weights())
        assert {w.dtype for w in half.weights} == {"float32"}
        for y in (half(x), gnomon.function([inputs], output)(x)):
            assert y.dtype == np.float16
            np.testing.assert_allclose(y.astype("float32"), full(x), rtol=1e-2, atol=1e-2)


def test_names_of_keras():
    for name in ("Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"):
        assert getattr(layers, name.replace("Conv", "Convolution")) is getattr(layers, name)
    assert layers.SeparableConvolution2D is layers.SeparableConv2D
    layer = layers.Conv3DTranspose(2, 3, 1, "valid", "channels_first", None)  # the order of its arguments is its own
    assert layer.data_format == "channels_first"


def test_image_data_format_is_the_default():
    gnomon.config.set_image_data_format("channels_first")
    try:
        layer = layers.Conv2D(2, 3)
        assert layer(layers.Input((4, 8, 7))).shape == (None, 2, 6, 5)
    finally:
        gnomon.config.set_image_data_format("channels_last")
    assert layer.get_config()["data_format"] == "channels_first"


# ---- networks


def test_a_network_learns():
    gnomon.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 7, 6, 1)).astype("float32")
    x[::2, 2:5, 1:4] += 1.5
    y = (np.arange(64) % 2 == 0).astype("float32")[:, None]
    model = gnomon.Sequential([
        gnomon.Input((7, 6, 1)), layers.Conv2D(4, 3, padding="same", activation="relu"), layers.MaxPooling2D(2),
        layers.Conv2D(4, 2, activation="relu"), layers.AveragePooling2D(2, padding="same"), layers.Flatten(),
        layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip
    model.compile(gnomon.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=10, epochs=15, verbose=0).history
    assert history["accuracy"][-1] > 0.95
    assert model.predict(x[:1], verbose=0).shape == (1, 1)


def test_training_follows_keras():
    case = RECORDED["network"]
    clear_session()
    names = {"keras": gnomon, "layers": layers, "np": np}
    exec(case["code"], names)
    model = names["model"]
    model.set_weights(case["initial weights"])
    history = model.fit(case["inputs"], case["y"], epochs=2, batch_size=5, shuffle=False, verbose=0).history
    for key, wanted in case["history"].items():
        np.testing.assert_allclose(history[key], wanted, rtol=1e-4)
    for got, wanted in zip(model.get_weights(), case["weights"], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


def test_a_file_of_keras_is_read_and_trained_on(tmp_path):
    case = RECORDED["network"]
    model = load_model(FOLDER / "saving" / case["file"])
    for got, wanted in zip(model.get_weights(), case["weights"], strict=True):
        np.testing.assert_array_equal(got, wanted)
    np.testing.assert_allclose(model.predict(case["inputs"], verbose=0), case["predict"], rtol=1e-5, atol=1e-6)
    found = model.evaluate(case["inputs"], case["y"], verbose=0, return_dict=True)
    assert found == pytest.approx(case["evaluate"], rel=1e-5)
    model.save(tmp_path / "own.keras")
    for net in (model, load_model(tmp_path / "own.keras")):
        history = net.fit(case["inputs"], case["y"], epochs=2, batch_size=5, shuffle=False, verbose=0).history
        for key, wanted in case["goes on"].items():
            np.testing.assert_allclose(history[key], wanted, rtol=1e-4)


def test_an_error_names_layer_and_line():
    with pytest.raises(GnomonError, match=r"(?s)zero or negative.*layer 'eye' \(Conv2D\).*test_convolution\.py:\d+"):
        layers.Conv2D(2, 5, name="eye")(layers.Input((4, 4, 1)))


def test_what_is_made_of_weights_ahead_is_read_ahead():
    """Minimal filtering transforms the kernel, then packs what it made: both before the first batch, or the loop."""
    gnomon.utils.set_random_seed(2)
    layer = layers.Conv2D(32, 3, padding="same", activation="relu")
    x = np.random.default_rng(0).normal(size=(6, 16, 16, 32)).astype("float32")
    model = gnomon.Sequential([gnomon.Input((16, 16, 32)), layer, layers.GlobalMaxPooling2D()])
    wanted = layers.GlobalMaxPooling2D()(layer(x))
    np.testing.assert_allclose(model.predict(x, verbose=0), wanted, rtol=1e-4, atol=1e-4)
    kernel, images = layers.Input(batch_shape=(3, 3, 32, 32)), layers.Input((16, 16, 32))
    twice, _ = gnomon.ops.scan(lambda c, _: (gnomon.ops.conv(c, 2 * kernel, padding="same"), None), images, length=2)
    once = gnomon.ops.conv(x, layer.kernel.numpy(), padding="same")
    wanted = gnomon.ops.conv(once, layer.kernel.numpy(), padding="same")
    found = gnomon.function([images, kernel], twice)(x, layer.kernel.numpy() / 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_frozen_trunk_computes_no_gradients():
    trunk = gnomon.Sequential([
        gnomon.Input((8, 7, 2)), layers.Conv2D(3, 3, activation="relu"), layers.MaxPooling2D(), layers.Conv2D(4, 2),
    ])  # fmt: skip
    image = gnomon.Input((8, 7, 2))
    model = gnomon.Model(image, layers.Dense(1)(layers.Flatten()(trunk(image))))
    found = {}
    for trunk.trainable in (True, False):
        model.compile("sgd", "mse")
        text = str(model.show("differentiated"))
        found[trunk.trainable] = [len(re.findall(rf"= {op}\(", text)) for op in ("Contract", "Unpatch")]
    assert found == {True: [3 + 5, 2], False: [3 + 1, 0]}  # a product for each kernel, and each input but the image
