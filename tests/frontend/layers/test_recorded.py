"""Layers give Keras's numbers, gradients, shapes, masks, paths and configurations."""

import inspect

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.layers.layer import KERAS_ONLY
from gnomon.tensor import Tensor, node_of
from gnomon.utils import clear_session
from tests.frontend.layers.recorded import CLOSE, check_recorded, check_shape, plain
from tests.recorded.load import load

RECORDED = load("layers")
CASES = [name for name, case in RECORDED["cases"].items() if hasattr(layers, case["class"])]


@pytest.mark.parametrize("name", CASES)
def test_layer(name):
    check_recorded(RECORDED["cases"][name])


@pytest.mark.parametrize("case", RECORDED["shapes"], ids=lambda c: f"{c['class']} {c['input']}")
def test_shapes(case):
    layer = getattr(layers, case["class"])(**case["arguments"])
    several = isinstance(case["input"][0], (list, tuple))
    shape = [tuple(s) for s in case["input"]] if several else tuple(case["input"])
    check_shape(layer.compute_output_shape(shape), case["compute_output_shape"])
    inputs = [layers.Input(batch_shape=s) for s in shape] if several else layers.Input(batch_shape=shape)
    check_shape(getattr(layers, case["class"])(**case["arguments"])(inputs).shape, case["called"])


def masked(array, mask):
    tensor = Tensor(node_of(array))
    tensor.mask = None if mask is None else Tensor(node_of(mask))
    return tensor


@pytest.mark.parametrize("name", [n for n, c in RECORDED["masks"].items() if hasattr(layers, c["class"])])
def test_masks(name):
    case = RECORDED["masks"][name]
    layer = getattr(layers, case["class"])(**case["arguments"])
    if "argument" in case:
        np.testing.assert_allclose(layer(case["inputs"], mask=case["argument"]), case["output"], **CLOSE)
        return
    if "inputs" in case:
        output = layer(masked(case["inputs"], None)) if "masks" not in case else layer(
            [masked(x, m) for x, m in zip(case["inputs"], case["masks"], strict=True)]
        )
        np.testing.assert_allclose(output.numpy(), case["output"], **CLOSE)
    else:
        assert layer.supports_masking == case["supports_masking"]
        if not layer.supports_masking:
            with pytest.warns(UserWarning, match="does not support masking"):
                output = layer(masked(np.ones((2, 3, 4), "float32"), case["masks"]))
        else:
            output = layer(masked(np.ones((2, 3, 4), "float32"), case["masks"]))
    if case["mask"] is None:
        assert output.mask is None
    else:
        np.testing.assert_array_equal(output.mask.numpy(), case["mask"])


@pytest.mark.parametrize("name", list(RECORDED["functional"]))
def test_merging_functions(name):
    case = RECORDED["functional"][name]
    output = getattr(layers, name)(case["inputs"], **case.get("arguments", {}))
    np.testing.assert_allclose(output, case["output"], **CLOSE)


def test_dropout_drops_what_keras_drops():
    x = np.ones((200, 300), "float32")
    for case in RECORDED["dropout"].values():
        if "values" in case:
            y = layers.Dropout(case["rate"], seed=1)(x, training=True)
            np.testing.assert_allclose(np.unique(y), case["values"], rtol=1e-6)
            assert abs((y != 0).mean() - (1 - case["rate"])) < 0.01
    y = layers.Dropout(0.5, noise_shape=(None, 1), seed=1)(x, training=True)
    assert (y == y[:, :1]).all()
    recorded = RECORDED["dropout"]["variables"]
    layer = layers.Dropout(0.5, seed=3)
    assert [list(v.shape) for v in layer.variables] == recorded["shapes"]
    assert [v.dtype for v in layer.variables] == recorded["dtypes"]
    assert layer.weights == recorded["weights"]
    for config in RECORDED["dropout"]["configs"].values():
        assert plain(layers.Dropout.from_config(config).get_config()) == plain(config)


def test_constructors_have_the_arguments_of_keras():
    signatures = load("signatures")["keras.layers"]
    for name in layers.__all__:
        if name not in signatures or name in ("Layer", "DTypePolicy"):
            continue
        target = getattr(layers, name)
        ours = list(inspect.signature(target.__init__ if inspect.isclass(target) else target).parameters)
        theirs = eval(
            "lambda " + signatures[name].split("(", 2 if "class" in signatures[name] else 1)[-1].rstrip(")") + ": 0"
        )
        missing = (
            set(inspect.signature(theirs).parameters) - set(ours) - KERAS_ONLY
        )
        assert not missing, name


def test_layer_is_used_by_theano_style_functions():
    clear_session()
    x = layers.Input((4,))
    y = layers.Dropout(0.5)(layers.Dense(3)(x), training=True)
    f = gnomon.function([x], y)
    data = np.ones((50, 4), "float32")
    assert (f(data) != f(data)).any()
