"""What makes inference of convolutions cheap: padding in place, normalizations folded into weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.compiler.program import Launch, Prepare
from gnomon.inspecting import function_of


def launched(model: Any) -> list[str]:
    """Labels of the kernels of a prediction, without what is done once."""
    steps = function_of(model, "predict").program.steps
    assert not any(isinstance(s, Prepare) for s in steps[1:])
    return [s.label for s in steps if isinstance(s, Launch)]


def unsettled(model: Any, seed: int = 0) -> None:
    """Weights and statistics that are not what they begin as."""
    rng = np.random.default_rng(seed)
    sizes = [(w.shape, max(1, w.size) ** 0.25) for w in model.get_weights()]
    model.set_weights([(rng.uniform(0.5, 1.5, shape) / by).astype("float32") for shape, by in sizes])


def by_layers(model: Any, x: np.ndarray) -> np.ndarray:
    """Each layer by itself, without the compiler knowing of the others."""
    for layer in model.layers:
        x = np.asarray(layer(x))
    return x


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("shape", "conv", "kernel"),
    [((19, 8), layers.Conv1D, 5), ((9, 11, 8), layers.Conv2D, (3, 4)), ((5, 6, 7, 4), layers.Conv3D, 3)],
)
def test_products_into_their_padded_place(shape: tuple[int, ...], conv: Any, kernel: Any, batch: int) -> None:
    model = gnomon.Sequential(
        [
            layers.Input(shape),
            conv(33, kernel, activation="relu"),
            conv(20, kernel, padding="same", activation="tanh"),
            conv(40, kernel, padding="same", strides=2),
            conv(5, 1),
        ]
    )
    unsettled(model)
    x = np.random.default_rng(1).normal(size=(batch, *shape)).astype("float32")
    np.testing.assert_allclose(model.predict(x, verbose=0), by_layers(model, x), rtol=1e-4, atol=1e-4)
    labels = launched(model)
    assert "border" in labels
    assert "pad" not in labels


def test_padding_that_others_read_too() -> None:
    inputs = layers.Input((8, 8, 16))
    a = layers.Conv2D(32, 3)(inputs)
    b = layers.Conv2D(32, 3, padding="same")(a)
    model = gnomon.Model(inputs, [layers.Add()([a, b]), a])
    unsettled(model)
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 16)).astype("float32")
    total, first = model.predict(x, verbose=0)
    np.testing.assert_allclose(first, np.asarray(model.layers[1](x)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(total, first + np.asarray(model.layers[2](first)), rtol=1e-4, atol=1e-4)


def normalized(trainable: bool = True) -> Any:
    model = gnomon.Sequential(
        [
            layers.Input((8, 9, 16)),
            layers.Conv2D(24, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(40, 3, use_bias=False),
            layers.BatchNormalization(scale=False),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(center=False),
            layers.GlobalAveragePooling2D(),
            layers.Dense(33),
            layers.BatchNormalization(),
        ]
    )
    unsettled(model)
    if not trainable:
        for layer in model.layers[:3]:
            layer.trainable = False
    return model


def test_normalizations_become_weights() -> None:
    model = normalized()
    x = np.random.default_rng(1).normal(size=(3, 8, 9, 16)).astype("float32")
    np.testing.assert_allclose(model.predict(x, verbose=0), by_layers(model, x), rtol=2e-4, atol=1e-4)
    text = function_of(model, "predict").show("rows")
    products = [part for part in text.split("; ") if part.startswith("contract")]
    assert len(products) == 4
    assert not any("subtract" in part for part in products)
    unsettled(model, seed=2)  # what was folded follows its variables
    np.testing.assert_allclose(model.predict(x, verbose=0), by_layers(model, x), rtol=2e-4, atol=1e-4)


def test_what_is_trained_is_not_folded() -> None:
    """Training sees the variables as they are; what is frozen may be folded, and the results are the same."""
    x = np.random.default_rng(1).normal(size=(6, 8, 9, 16)).astype("float32")
    y = np.random.default_rng(2).normal(size=(6, 33)).astype("float32")
    for trainable in (True, False):
        model = normalized(trainable)
        model.compile("sgd", "mse")
        before = model.get_weights()
        losses = [float(model.train_on_batch(x, y)) for _ in range(4)]
        assert losses[-1] < losses[0]
        frozen = sum(len(layer.get_weights()) for layer in model.layers[:3])
        same = [np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
        assert all(same[:frozen]) is not trainable
        np.testing.assert_allclose(model.predict(x, verbose=0), by_layers(model, x), rtol=2e-4, atol=1e-4)
