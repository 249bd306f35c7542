"""Convolutions: every layer by `check_layer`, Keras's numbers, second gradients, mistakes."""

import numpy as np
import pytest

import gnomon
from gnomon import layers
from tests.frontend.layers.check import check_layer

FIRST = {"data_format": "channels_first"}
CASES = [
    (layers.Conv1D, (7, 2), {"filters": 3, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}),
    (layers.Conv1D, (4, 7), {"filters": 4, "kernel_size": 2, "strides": 2, "groups": 2, **FIRST}),
    (layers.Conv2D, (5, 6, 2), {"filters": 3, "kernel_size": (3, 2), "padding": "same", "activation": "tanh"}),
    (layers.Conv2D, (3, 7, 5), {"filters": 2, "kernel_size": 3, "strides": (2, 1), "use_bias": False, **FIRST}),
    (layers.Conv2D, (5, 7, 4), {"filters": 6, "kernel_size": 2, "dilation_rate": (1, 3), "groups": 2}),
    (layers.Conv3D, (3, 4, 3, 2), {"filters": 2, "kernel_size": 2, "strides": 2, "padding": "same"}),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "shape", "arguments"), CASES, ids=lambda c: c.__name__ if isinstance(c, type) else "")
def test_layer(cls, shape, arguments):
    check_layer(cls, shape, **arguments)


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
