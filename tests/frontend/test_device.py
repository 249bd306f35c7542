"""Models on a GPU, or the emulator of one: what the CPU computes, without a line of the script changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import layers
from tests.on_device import where  # noqa: F401  # a fixture

RNG = np.random.default_rng(4)


def perceptron() -> Any:
    """Dropout's random stream is a variable of the program, and the optimizer's state is."""
    return gnomon.Sequential(
        [
            layers.Input((12,)),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.2, seed=1),
            layers.Dense(3, activation="softmax"),
        ]
    )


def convolutional() -> Any:
    """Batch normalization's moving averages are variables too, and dropout draws in every step."""
    return gnomon.Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.Conv2D(4, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Dropout(0.25, seed=2),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def recurrent() -> Any:
    words = layers.Input((None,), dtype="int32")
    h = layers.LSTM(5)(layers.Embedding(11, 4, mask_zero=True)(words))
    return gnomon.Model(words, layers.Dense(3, activation="softmax")(h))


def attentive() -> Any:
    x = layers.Input((5, 8))
    h = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    return gnomon.Model(x, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(h)))


X, LABELS = RNG.random((38, 12), dtype=np.float32), RNG.integers(0, 3, 38)


def adam() -> Any:
    return gnomon.optimizers.Adam(0.01)


def momentum() -> Any:
    """Where a gradient is nothing but rounding (of a bias before a normalization), Adam would make much of it."""
    return gnomon.optimizers.SGD(0.1, momentum=0.9, nesterov=True)


def trained(make: Any, x: Any, y: Any, optimizer: Any = adam, **options: Any) -> dict[str, Any]:
    """What a model tells when it is trained, tested and asked on the present device, and its weights afterwards."""
    gnomon.utils.set_random_seed(7)
    model = make()
    model.compile(optimizer=optimizer(), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=9, epochs=2, verbose=0, **options)  # the last batch is smaller
    return {
        "history": {k: np.array(v) for k, v in history.history.items()},
        "evaluated": np.array(model.evaluate(x, y, batch_size=16, verbose=0)),
        "predicted": model.predict(x, verbose=0),
        "weights": model.get_weights(),
        "model": model,
    }


def agree(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted["history"].items():
        np.testing.assert_allclose(found["history"][name], value, rtol=2e-4, err_msg=name)
    for name in ("evaluated", "predicted"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-3, atol=1e-5, err_msg=name)
    for k, (a, b) in enumerate(zip(found["weights"], wanted["weights"], strict=True)):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5, err_msg=f"weight {k}")


def test_a_perceptron_learns_what_it_learns_on_the_cpu(where: str) -> None:  # noqa: F811
    wanted = trained(perceptron, X, LABELS, validation_split=0.2)
    with gnomon.device(where):
        found = trained(perceptron, X, LABELS, validation_split=0.2)
        assert gnomon.current_device() == where
    agree(found, wanted)
    assert gnomon.current_device() == "cpu"
    model = found["model"]  # trained there, asked here, trained here, asked there
    np.testing.assert_allclose(model.predict(X, verbose=0), found["predicted"], rtol=1e-4, atol=1e-6)
    model.fit(X, LABELS, batch_size=9, verbose=0)
    here = model.predict(X, verbose=0)
    assert not np.allclose(here, found["predicted"], atol=1e-4)
    with gnomon.device(where):
        np.testing.assert_allclose(model.predict(X, verbose=0), here, rtol=1e-4, atol=1e-6)
        model.set_weights([w * 0 for w in model.get_weights()])
        np.testing.assert_allclose(model.predict(X, verbose=0), 1 / 3, rtol=1e-5)


@pytest.mark.parametrize(
    "make, x",
    [
        (convolutional, RNG.random((20, 6, 6, 1), dtype=np.float32)),
        (recurrent, RNG.integers(0, 11, (20, 7)).astype(np.int32)),
        (attentive, RNG.random((20, 5, 8), dtype=np.float32)),
    ],
    ids=["convolutional", "recurrent", "attentive"],
)
def test_other_models_learn_what_they_learn_on_the_cpu(where: str, make: Any, x: Any) -> None:  # noqa: F811
    wanted = trained(make, x, LABELS[:20], momentum)
    with gnomon.device(where):
        found = trained(make, x, LABELS[:20], momentum)
    agree(found, wanted)


def test_one_compilation_serves_ragged_batches(where: str) -> None:  # noqa: F811
    model = perceptron()
    with gnomon.device(where):
        before = len(gnomon.compile_events())
        for rows in (1, 2, 9, 38):
            assert model.predict(X[:rows], verbose=0).shape == (rows, 3)
        assert len(gnomon.compile_events()) == before + 1


def test_unknown_devices_are_refused_at_once() -> None:
    from gnomon.compiler.errors import DeviceError

    with pytest.raises(DeviceError, match="There is no device 'tpu'"):
        gnomon.device("tpu")
    with pytest.raises(DeviceError, match="no device 'emulator'"):
        gnomon.set_device("emulator")
