"""ConvLSTM: Keras's numbers, masks, errors."""

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.compiler.errors import ArgumentError, DataError, ShapeError
from tests.frontend.layers.check import check_layer
from tests.frontend.layers.sequences import check_case
from tests.recorded.load import load

CASES = {k: case for k, case in load("recurrent")["cases"].items() if k.startswith("ConvLSTM")}


@pytest.mark.parametrize("name", CASES)
def test_recorded(name):
    check_case(CASES[name], compiled=name in ("ConvLSTM1D, sequences", "ConvLSTM2D, from a state"))


def video(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def test_layer():
    check_layer(layers.ConvLSTM1D, (2, 4, 1), filters=2, kernel_size=2, return_sequences=True, padding="same")


def test_a_window_of_one_is_an_lstm_at_each_place():
    layer, plain = layers.ConvLSTM2D(3, 1), layers.LSTM(3)
    x = video(2, 4, 2, 3, 5)
    layer(x)
    places = x.transpose(0, 2, 3, 1, 4).reshape(-1, 4, 5)
    plain(places)
    kernel, recurrent, bias = plain.get_weights()
    layer.set_weights([kernel[None, None], recurrent[None, None], bias])
    np.testing.assert_allclose(layer(x), plain(places).reshape(2, 2, 3, 3), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("picture", [False, True])
def test_masks(picture):
    """A video whose end is masked gives what its beginning gives; a mask of pixels counts where one of them does."""
    x, lengths = video(3, 4, 5, 2), [4, 2, 1]
    mask = np.arange(4) < np.array(lengths)[:, None]
    layer = layers.ConvLSTM1D(2, 3, return_sequences=True)
    given = np.repeat(mask[..., None], 5, -1) if picture else mask
    found = layer(x, mask=given)
    for k, n in enumerate(lengths):
        alone = layer(x[k : k + 1, :n])[0]
        np.testing.assert_allclose(found[k, :n], alone, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(found[k, n:], np.repeat(alone[-1:], 4 - n, 0), rtol=2e-5, atol=2e-6)
    symbol = layers.Input((None, 5, 2))
    output = layers.ConvLSTM1D(2, 3, return_sequences=True)(layers.Masking()(symbol))
    assert gnomon.function([symbol], output)(x).shape == (3, 4, 3, 2)


def test_dropout():
    layer = layers.ConvLSTM2D(2, 2, dropout=0.3, recurrent_dropout=0.3, seed=1)
    x = video(2, 3, 4, 4, 1)
    np.testing.assert_array_equal(layer(x), layer(x))
    assert (layer(x, training=True) != layer(x, training=True)).any()


def test_stateful():
    x = video(2, 6, 4, 1)
    whole, parts = layers.ConvLSTM1D(2, 2), layers.ConvLSTM1D(2, 2, stateful=True)
    expected = whole(x)
    parts(x[:, :2])
    parts.set_weights(whole.get_weights())
    parts.reset_state()
    parts(x[:, :2])
    np.testing.assert_allclose(parts(x[:, 2:]), expected, rtol=2e-5, atol=2e-6)


def test_all_lengths_are_one_program():
    model = gnomon.Sequential([layers.Input((None, 4, 4, 1)), layers.ConvLSTM2D(2, 3)])
    model.predict(video(2, 3, 4, 4, 1), verbose=0)
    before = len(gnomon.compile_events())
    for steps in (1, 5):
        assert model.predict(video(3, steps, 4, 4, 1), verbose=0).shape == (3, 2, 2, 2)
    assert len(gnomon.compile_events()) == before
    with pytest.raises(DataError, match="at least one step"):
        model.predict(np.zeros((2, 0, 4, 4, 1)), verbose=0)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: layers.ConvLSTM2D(0, 2), ArgumentError, r"ConvLSTM2D\(filters\) is a positive integer"),
        (lambda: layers.ConvLSTM2D(2, (2, 2, 2)), ArgumentError, "kernel_size"),
        (lambda: layers.ConvLSTM2D(2, 2, padding="causal"), ArgumentError, "padding"),
        (lambda: layers.ConvLSTM1D(2, 2, strides=2, dilation_rate=2), ArgumentError, "not both"),
        (lambda: layers.ConvLSTM2D(2, 2)(video(2, 3, 4, 1)), ShapeError, "expected ndim=5, found ndim=4"),
        (lambda: layers.ConvLSTM1D(2, 5)(video(2, 3, 4, 1)), ShapeError, "do not fit"),
        (lambda: layers.ConvLSTM1D(2, 2)(layers.Input((3, None, 1))), ShapeError, "need to know the spatial sizes"),
    ],
)
def test_errors(make, error, text):
    with pytest.raises(error, match=text):
        make()
