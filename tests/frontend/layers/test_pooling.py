"""Pooling: every layer by `check_layer`, Keras's numbers, derivatives, masks."""

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.compiler.errors import ArgumentError
from gnomon.tensor import Tensor, node_of
from tests.frontend.layers.check import check_layer
from tests.frontend.layers.derivatives import check_derivatives
from tests.frontend.layers.recorded import check_recorded
from tests.recorded.load import load

RECORDED = load("convolution")
FIRST = {"data_format": "channels_first"}
CASES = [
    (layers.MaxPooling1D, (7, 2), {}),
    (layers.MaxPooling1D, (2, 7), {"pool_size": 3, "strides": 2, "padding": "same", **FIRST}),
    (layers.MaxPooling2D, (5, 6, 2), {"pool_size": (2, 3), "strides": 1}),
    (layers.MaxPooling2D, (5, 7, 1), {"padding": "same"}),
    (layers.MaxPooling3D, (3, 4, 3, 2), {"pool_size": 2, "strides": (1, 2, 1)}),
    (layers.AveragePooling1D, (7, 2), {"pool_size": 3, "strides": 2, "padding": "same"}),
    (layers.AveragePooling2D, (2, 5, 6), {"pool_size": (2, 3), **FIRST}),
    (layers.AveragePooling3D, (3, 4, 3, 2), {"pool_size": 2, "padding": "same"}),
    (layers.GlobalMaxPooling1D, (5, 3), {"keepdims": True}),
    (layers.GlobalMaxPooling2D, (3, 4, 5), FIRST),
    (layers.GlobalMaxPooling3D, (3, 2, 2, 3), {}),
    (layers.GlobalAveragePooling1D, (5, 3), {}),
    (layers.GlobalAveragePooling2D, (3, 4, 5), {"keepdims": True, **FIRST}),
    (layers.GlobalAveragePooling3D, (3, 2, 2, 3), {}),
    (layers.AdaptiveAveragePooling1D, (7, 2), {"output_size": 3}),
    (layers.AdaptiveAveragePooling2D, (2, 6, 5), {"output_size": (3, 2), **FIRST}),
    (layers.AdaptiveAveragePooling3D, (4, 3, 5, 2), {"output_size": 2}),
    (layers.AdaptiveMaxPooling1D, (2, 7), {"output_size": 3, **FIRST}),
    (layers.AdaptiveMaxPooling2D, (6, 4, 2), {"output_size": (3, 2)}),
    (layers.AdaptiveMaxPooling3D, (4, 3, 5, 2), {"output_size": (2, 3, 1)}),
]
NAMES = lambda c: c.__name__ if isinstance(c, type) else ""


@pytest.mark.parametrize(("cls", "shape", "arguments"), CASES, ids=NAMES)
def test_layer(cls, shape, arguments):
    check_layer(cls, shape, **arguments)


@pytest.mark.parametrize(("cls", "shape", "arguments"), CASES, ids=NAMES)
def test_derivatives(cls, shape, arguments):
    check_derivatives(cls(**arguments, dtype="float64"), shape, batch=1 if arguments.get("padding") else 2)


@pytest.mark.parametrize("name", [n for n, c in RECORDED["cases"].items() if "Pooling" in c["class"]])
def test_recorded(name):
    check_recorded(RECORDED["cases"][name])


@pytest.mark.parametrize("name", RECORDED["masks"])
def test_mean_of_the_steps_that_a_mask_leaves(name):
    case = RECORDED["masks"][name]
    layer = layers.GlobalAveragePooling1D(**case["arguments"])
    np.testing.assert_allclose(layer(case["inputs"], mask=case["mask"]), case["output"], rtol=1e-6)
    if name == "attached":
        x = Tensor(node_of(case["inputs"]))
        x.mask = Tensor(node_of(case["mask"]))
        y = layer(x)
        assert y.mask is None
        np.testing.assert_allclose(y.numpy(), case["output"], rtol=1e-6)


def test_the_first_of_equal_elements_has_the_gradient():
    x = layers.Input((4, 4, 1))
    y = layers.MaxPooling2D()(x)
    g = gnomon.function([x], gnomon.grad(y.sum(), x))(np.zeros((1, 4, 4, 1), "float32"))
    wanted = np.zeros((4, 4))
    wanted[::2, ::2] = 1
    np.testing.assert_array_equal(g[0, :, :, 0], wanted)


def test_what_padding_adds_is_no_maximum_and_not_counted():
    x = -np.ones((1, 3, 3, 1), "float32")
    for cls in (layers.MaxPooling2D, layers.AveragePooling2D):
        np.testing.assert_array_equal(cls(2, padding="same")(x), -np.ones((1, 2, 2, 1)))


def test_integers_have_maxima():
    x = np.arange(8, dtype="int32").reshape(1, 4, 2)
    assert layers.MaxPooling1D(dtype="int32")(x).tolist() == [[[2, 3], [6, 7]]]


def test_open_sizes():
    assert layers.AdaptiveMaxPooling2D(2)(layers.Input((None, None, 3))).shape == (None, 2, 2, 3)
    assert layers.GlobalMaxPooling2D()(layers.Input((None, None, 3))).shape == (None, 3)
    x = layers.Input((None, 2))
    f = gnomon.function([x], layers.AveragePooling1D(3, 2, "same")(x))
    for steps in (1, 4, 9):
        data = np.random.default_rng(steps).normal(size=(2, steps, 2)).astype("float32")
        np.testing.assert_allclose(f(data), layers.AveragePooling1D(3, 2, "same")(data), rtol=1e-6)


def test_strides_of_zero_are_refused():
    with pytest.raises(ArgumentError, match="strides must be an integer of at least 1"):
        layers.MaxPooling2D(2, strides=0)


def test_names_of_keras():
    for short, long in (("MaxPool", "MaxPooling"), ("AvgPool", "AveragePooling"), ("GlobalMaxPool", "GlobalMaxPooling"),
                        ("GlobalAvgPool", "GlobalAveragePooling")):  # fmt: skip
        for rank in (1, 2, 3):
            assert getattr(layers, f"{short}{rank}D") is getattr(layers, f"{long}{rank}D")
