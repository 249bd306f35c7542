"""Masking, and masks on their way through models into layers, losses and metrics."""

import copy

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.compiler.errors import ArgumentError
from tests.frontend.layers.check import check_layer
from tests.recorded.load import load
from tests.recorded.playback import play

MODELS = load("recurrent")["models"]


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    """Masks go through models as in Keras and count in losses and metrics; recurrent layers learn the same."""
    case = copy.deepcopy(MODELS[name])
    gnomon.utils.clear_session()
    played = play(case, gnomon)
    history = played["result"].get("history", {})
    for metric in set(history) - {"loss"}:  # in training Keras on JAX, unlike when it evaluates, loses these masks
        del history[metric], case["result"]["history"][metric]
    compare(played["result"], case["result"])
    told, wanted = (r.get("warnings", []) for r in (played, case))
    assert [t.split(" attached")[0] for t in told] == [t.split(" attached")[0] for t in wanted]


def compare(ours, keras, path=""):
    if isinstance(keras, dict):
        assert set(ours) == set(keras), path
        for key in keras:
            compare(ours[key], keras[key], f"{path}/{key}")
    elif isinstance(keras, list):
        assert len(ours) == len(keras), path
        for k, (a, b) in enumerate(zip(ours, keras, strict=True)):
            compare(a, b, f"{path}/{k}")
    else:
        np.testing.assert_allclose(ours, keras, rtol=1e-4, atol=1e-5, err_msg=path)


def test_layer():
    check_layer(layers.Masking, (4, 3), mask_value=0.5)


def test_masked_steps_are_zero():
    x = np.random.default_rng(0).standard_normal((2, 3, 2)).astype("float32")
    x[0, 1] = x[1, 2] = -1
    x[1, 0, 0] = -1  # one feature of several: the step counts
    layer = layers.Masking(-1.0)
    counts = np.array([[1, 0, 1], [1, 1, 0]], bool)
    np.testing.assert_array_equal(layer(x), np.where(counts[..., None], x, 0))
    np.testing.assert_array_equal(layer.compute_mask(x), counts)
    symbol = layers.Input((None, 2))
    output = layer(symbol)
    np.testing.assert_array_equal(gnomon.function([symbol], output.mask)(x), counts)


def test_bad_value():
    for value in (None, "0", True):
        with pytest.raises(ArgumentError, match="mask_value"):
            layers.Masking(value)


def test_configuration_with_an_array():
    layer = layers.Masking(np.float32(2))
    again = layers.Masking.from_config(layer.get_config())
    x = np.full((1, 2, 3), 2, "float32")
    assert not again.compute_mask(x).any()


def test_layer_that_does_not_know_masks_warns():
    x = layers.Masking()(layers.Input((4, 3)))
    with pytest.warns(UserWarning, match="does not support masking"):
        assert layers.Flatten()(x).mask is None


class Shift(layers.Layer):
    """Drops the first step; its mask too."""

    def call(self, inputs, mask=None):
        self.seen = mask
        return inputs[:, 1:]

    def compute_mask(self, inputs, mask=None):
        return None if mask is None else mask[:, 1:]


def test_layers_of_ones_own():
    """A layer that has compute_mask supports masking, and is given masks by the name `mask`."""
    assert Shift().supports_masking
    symbol = layers.Input((None, 2))
    masked = layers.Masking()(symbol)
    layer = Shift()
    output = layer(masked)
    assert layer.seen is not None
    x = np.ones((1, 4, 2), "float32")
    x[0, 2] = 0
    np.testing.assert_array_equal(gnomon.function([symbol], output.mask)(x), [[True, False, True]])
    again = layers.Activation("relu")(layers.Dense(2)(output))
    assert again.mask is not None


def test_mask_of_a_model_reaches_the_layers_around_it():
    inner_input = layers.Input((None,), dtype="int32")
    inner = gnomon.Model(inner_input, layers.Dense(2)(layers.Embedding(4, 3, mask_zero=True)(inner_input)))
    ids = layers.Input((None,), dtype="int32")
    output = inner(ids)
    data = np.array([[1, 0, 3]], "int32")
    np.testing.assert_array_equal(gnomon.function([ids], output.mask)(data), data != 0)
    sequential = gnomon.Sequential([layers.Embedding(4, 3, mask_zero=True), layers.Dense(2)])
    np.testing.assert_array_equal(gnomon.function([ids], sequential(ids).mask)(data), data != 0)
