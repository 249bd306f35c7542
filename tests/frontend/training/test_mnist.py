"""The article's model on MNIST, from the weights and in the order that Keras was recorded with."""

import math

import numpy as np
import pytest

import gnomon
from gnomon import layers
from tests.recorded.load import load

RUNS = load("mnist")["runs"]


def initial_weights() -> list[np.ndarray]:
    random, weights = np.random.default_rng(0), []
    for n, m in ((784, 32), (32, 10)):
        limit = math.sqrt(6 / (n + m))
        weights += [random.uniform(-limit, limit, (n, m)).astype("float32"), np.zeros(m, "float32")]
    return weights


def article(loss: str) -> gnomon.Sequential:
    model = gnomon.Sequential(
        [gnomon.Input((784,)), layers.Dense(32, activation="relu"), layers.Dense(10, activation="softmax")]
    )
    model.compile(gnomon.optimizers.RMSprop(0.001), loss=loss, metrics=["accuracy"])
    model.set_weights(initial_weights())
    return model


@pytest.fixture(scope="module")
def digits():
    (x, y), (x_test, y_test) = gnomon.datasets.mnist.load_data()
    flat = [(images.reshape(-1, 784) / 255).astype("float32") for images in (x, x_test)]
    one_hot = [np.eye(10, dtype="float32")[labels] for labels in (y, y_test)]
    return flat[0], one_hot[0], flat[1], one_hot[1]


@pytest.mark.parametrize("loss", RUNS)
def test_it_learns_as_in_keras(loss, digits):
    """Thirty steps one by one, then what is left of the first epoch."""
    x, y, x_test, y_test = digits
    run, model = RUNS[loss], article(loss)
    np.testing.assert_allclose(model.evaluate(x_test, y_test, batch_size=128, verbose=0), run["test before"], rtol=1e-5)
    seen = []
    note = gnomon.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: seen.append((logs["loss"], logs["accuracy"]))
    )
    model.fit(x, y, batch_size=128, shuffle=False, verbose=0, steps_per_epoch=30, callbacks=[note])
    np.testing.assert_allclose(seen, run["running loss and accuracy of the first 30 steps"], rtol=1e-4)
    model.fit(x[30 * 128 :], y[30 * 128 :], batch_size=128, shuffle=False, verbose=0)
    wanted = [run["history"][f"val_{name}"][0] for name in ("loss", "accuracy")]
    np.testing.assert_allclose(model.evaluate(x_test, y_test, batch_size=128, verbose=0), wanted, rtol=2e-3)
