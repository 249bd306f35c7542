# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""The article's model on MNIST: ten epochs in the order of the file, from weights that a formula gives."""

import gzip
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np

FOLDER = Path(__file__).parents[3] / "frontend" / "datasets"


def record() -> dict[str, Any]:
    x, y = _images("train", 60000), _labels("train", 60000)
    x_test, y_test = _images("t10k", 10000), _labels("t10k", 10000)
    return {
        "made": {
            "weights": "rng = np.random.default_rng(0); for each layer of (784, 32), (32, 10): "
                       "limit = sqrt(6 / (n + m)), "
                       "kernel = rng.uniform(-limit, limit, (n, m)).astype('float32'), bias 0",
            "x": "pixels / 255 as float32, rows of 784", "y": "one-hot, float32",
            "model": "Dense(32, relu), Dense(10, softmax); RMSprop(0.001); batch 128; 10 epochs; shuffle=False; "
                     "validation_data is the test set",
            "first kernels": [w[:2, :5] for w in initial_weights()[::2]],
            "sum of pixels": [float(x.sum(dtype="float64")), float(x_test.sum(dtype="float64"))],
            "first labels": [y[:20].argmax(-1), y_test[:20].argmax(-1)],
        },
        "runs": {loss: _train(loss, x, y, x_test, y_test) for loss in ("categorical_crossentropy", "mse")},
    }  # fmt: skip


def initial_weights() -> list[np.ndarray]:
    random, weights = np.random.default_rng(0), []
    for n, m in ((784, 32), (32, 10)):
        limit = math.sqrt(6 / (n + m))
        weights += [random.uniform(-limit, limit, (n, m)).astype("float32"), np.zeros(m, "float32")]
    return weights


def _train(loss: str, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> dict[str, Any]:
    keras.utils.clear_session()
    model = keras.Sequential([
        keras.Input((784,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile(keras.optimizers.RMSprop(0.001), loss=loss, metrics=["accuracy"])
    model.set_weights(initial_weights())
    before = model.evaluate(x_test, y_test, batch_size=128, verbose=0)
    running: list[list[float]] = []

    def note(batch: int, logs: dict[str, Any]) -> None:
        if len(running) < 30:
            running.append([float(logs["loss"]), float(logs["accuracy"])])

    history = model.fit(
        x, y, batch_size=128, epochs=10, shuffle=False, verbose=0, validation_data=(x_test, y_test),
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note)],
    )  # fmt: skip
    return {
        "history": history.history,
        "test before": before,
        "test after": model.evaluate(x_test, y_test, batch_size=128, verbose=0),
        "running loss and accuracy of the first 30 steps": running,
        "predictions of the first 20 test rows": model.predict(x_test[:20], verbose=0),
        "norms of the weights": [float(np.linalg.norm(w)) for w in model.get_weights()],
        "biases": model.get_weights()[1::2],
    }


def _images(name: str, count: int) -> np.ndarray:
    data = gzip.decompress(_file(f"{name}-images-idx3-ubyte.gz").read_bytes())
    return (np.frombuffer(data, "uint8", offset=16).reshape(count, 784) / 255).astype("float32")


def _labels(name: str, count: int) -> np.ndarray:
    data = gzip.decompress(_file(f"{name}-labels-idx1-ubyte.gz").read_bytes())
    return np.eye(10, dtype="float32")[np.frombuffer(data, "uint8", offset=8)[:count]]


def _file(name: str) -> Path:
    """Where the repository ships the data set."""
    return next(FOLDER.rglob(name))
