"""Padding, cropping, enlarging and resizing layers, and dropout of whole channels, are Keras's."""

import inspect

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.calculus import grad
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.utils import clear_session
from tests.frontend.layers.check import check_layer, evaluate
from tests.recorded.load import load

RECORDED = load("spatial")
CASES = RECORDED["layers"]
CLOSE = {"rtol": 2e-5, "atol": 3e-6}


def plain(value):
    """As JSON would give it back."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("name", list(CASES))
def test_recorded(name):
    case = CASES[name]
    clear_session()
    layer = getattr(layers, case["class"])(**case["arguments"])
    x = case["inputs"]
    given = layers.Input(x.shape[1:])
    output = layer(given)
    assert list(output.shape) == case["symbolic output"]
    np.testing.assert_allclose(layer(x), case["output"], **CLOSE)
    np.testing.assert_allclose(gnomon.function([given], output)(x), case["output"], **CLOSE)
    slope = grad((output * case["weight"]).sum(), given)
    np.testing.assert_allclose(evaluate(slope, [given], [x]), case["input gradients"], **CLOSE)
    assert plain(layer.get_config()) == case["config"]
    assert layer.supports_masking is False
    again = type(layer).from_config(case["config"])
    assert again.compute_output_shape((None, *x.shape[1:])) == tuple(case["symbolic output"])


@pytest.mark.parametrize(
    ("cls", "shape", "arguments"),
    [
        (layers.ZeroPadding1D, (3, 2), {"padding": (2, 1)}),
        (layers.ZeroPadding2D, (3, 1, 2), {"padding": ((0, 1), (2, 0)), "data_format": "channels_first"}),
        (layers.ZeroPadding3D, (3, 1, 2, 2), {}),
        (layers.Cropping1D, (4, 2), {}),
        (layers.Cropping2D, (3, 5, 2), {"cropping": (1, 2)}),
        (layers.Cropping3D, (3, 3, 4, 1), {}),
        (layers.UpSampling1D, (3, 2), {"size": 3}),
        (layers.UpSampling2D, (3, 1, 2), {"size": (1, 3)}),
        (layers.UpSampling2D, (3, 4, 2), {"interpolation": "bilinear"}),
        (layers.UpSampling2D, (2, 3, 3), {"interpolation": "bicubic", "data_format": "channels_first", "size": 3}),
        (layers.UpSampling3D, (1, 3, 2, 2), {"size": (3, 2, 1)}),
        (layers.RepeatVector, (3,), {"n": 1}),
        (layers.SpatialDropout2D, (3, 4, 2), {"rate": 0.5}),
    ],
)
def test_layer(cls, shape, arguments):
    if "SpatialDropout" in cls.__name__:
        layer = cls(**arguments)
        x = np.ones((2, *shape), "float32")
        np.testing.assert_array_equal(layer(x), x)
        return
    check_layer(cls, shape, **arguments)


@pytest.mark.parametrize(
    "layer",
    [
        layers.ZeroPadding2D(2),
        layers.Cropping2D(1),
        layers.UpSampling2D(2),
        layers.UpSampling2D((1, 3), interpolation="bilinear"),
        layers.UpSampling2D(2, interpolation="lanczos3"),
        layers.Resizing(4, 5),
        layers.Resizing(4, 5, "bicubic", antialias=True),
        layers.Resizing(4, 5, "nearest"),
        layers.Resizing(4, 4, crop_to_aspect_ratio=True),
        layers.Resizing(4, 4, pad_to_aspect_ratio=True),
        layers.CenterCrop(3, 3),
    ],
    ids=lambda layer: layer.name,
)
def test_one_program_for_images_of_all_sizes(layer):
    given = layers.Input((None, None, 2))
    output = layer(given)
    program = gnomon.function([given], [output, grad((output * output).sum(), given)])
    for shape in ((1, 3, 3, 2), (2, 5, 9, 2), (3, 8, 4, 2)):
        x = np.random.default_rng(0).standard_normal(shape).astype("float32")
        known = layers.Input(shape[1:])
        at_once = layer(known)
        slope = grad((at_once * at_once).sum(), known)
        for found, wanted in zip(program(x), (layer(x), evaluate(slope, [known], [x])), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(RECORDED["spatial dropout"]))
def test_dropout_of_channels(name):
    case = RECORDED["spatial dropout"][name]
    clear_session()
    layer = getattr(layers, case["class"])(**case["arguments"])
    y = layer(np.ones(case["shape"], "float32"), training=True)
    np.testing.assert_allclose(np.unique(y), case["values"], rtol=1e-6)
    assert [k for k in range(1, y.ndim) if (y == y.take([0], k)).all()] == case["shared"]
    assert abs((y != 0).mean() - 0.75) < 0.05
    assert plain(layer.get_config()) == case["config"]
    type(layer).from_config(case["config"])
    assert layer.supports_masking


def test_rescaling_of_channels_first():
    image = np.random.default_rng(0).uniform(size=(2, 3, 4, 5)).astype("float32")
    layer = layers.Rescaling([1.0, 2.0, 3.0], [0.5, 0.25, 0.0])
    last = layer(image.transpose(0, 2, 3, 1))
    gnomon.config.set_image_data_format("channels_first")
    try:
        np.testing.assert_allclose(layer(image), last.transpose(0, 3, 1, 2))
    finally:
        gnomon.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: layers.ZeroPadding1D(-1), ArgumentError, "padding"),
        (lambda: layers.ZeroPadding2D((1, 2, 3)), ArgumentError, "2 of them or of pairs"),
        (lambda: layers.ZeroPadding2D(1.5), ArgumentError, "padding"),
        (lambda: layers.ZeroPadding3D(((1, 1), (1, 1, 1), (1, 1))), ArgumentError, "padding"),
        (lambda: layers.ZeroPadding2D(data_format="last"), ArgumentError, "data_format"),
        (lambda: layers.Cropping1D((0, -1)), ArgumentError, "cropping"),
        (lambda: layers.Cropping1D(2)(np.ones((1, 4, 2))), ShapeError, "smaller than the spatial axes"),
        (lambda: layers.Cropping2D(((0, 0), (2, 1)))(np.ones((1, 3, 3, 1))), ShapeError, "Cropping2D"),
        (lambda: layers.Cropping3D(1).compute_output_shape((None, 2, 3, 3, 1)), ShapeError, "input_shape"),
        (lambda: layers.Cropping2D()(np.ones((1, 3, 3))), ShapeError, "expected ndim=4"),
        (lambda: layers.UpSampling1D(2.0), DTypeError, "integer"),
        (lambda: layers.UpSampling1D(0), ArgumentError, "positive"),
        (lambda: layers.UpSampling2D((2, 0)), ArgumentError, "size"),
        (lambda: layers.UpSampling2D(interpolation="area"), ArgumentError, "'bicubic'"),
        (lambda: layers.UpSampling3D((2, 2)), ArgumentError, "size"),
        (lambda: layers.RepeatVector(0), ArgumentError, "positive"),
        (lambda: layers.RepeatVector(2.5), DTypeError, "integer"),
        (lambda: layers.SpatialDropout1D(0.5)(np.ones((2, 3))), ShapeError, "expected ndim=3"),
        (lambda: layers.SpatialDropout2D(1.5), ArgumentError, "between 0 and 1"),
        (lambda: layers.Resizing(0, 3), ArgumentError, "positive integers"),
        (lambda: layers.Resizing(2, 3, "area"), ArgumentError, "interpolation"),
        (
            lambda: layers.Resizing(2, 3, crop_to_aspect_ratio=True, pad_to_aspect_ratio=True),
            ArgumentError,
            "Only one of",
        ),
        (lambda: layers.CenterCrop(2.5, 3), ArgumentError, "positive integers"),
        (lambda: layers.CenterCrop(2, 3)(np.ones((2, 3))), ShapeError, "rank 3"),
    ],
)
def test_mistakes(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_signatures():
    for name in ("SpatialDropout1D", "SpatialDropout2D", "UpSampling2D", "Cropping2D", "ZeroPadding1D", "Resizing"):
        wanted = load("signatures")["keras.layers"][name].split("(", 2)[2].rstrip(")").split(", ")
        names = [w.split("=")[0] for w in wanted if not w.startswith("**") and "=" in w]
        ours = list(inspect.signature(getattr(layers, name).__init__).parameters)
        assert set(names) <= set(ours), name
