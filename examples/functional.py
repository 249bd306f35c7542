"""Two digits at once: a model with two inputs, a tower that both share, and two outputs that learn together.

    python examples/functional.py [--short]

Shown two handwritten digits, it says whether they are the same one, and which digit the first is. Both images go
through the same layers, so what one teaches serves the other; each output has its own loss, weight and metric.
"""

from __future__ import annotations

import argparse

import numpy as np

import gnomon as keras
from gnomon import layers, ops
from gnomon.datasets import mnist


class Sparse(layers.Layer):
    """Scales each feature by a factor that it learns, and asks that few of them are on: mean |x| joins the loss."""

    def __init__(self, strength=1e-3, **options):
        super().__init__(**options)
        self.strength = strength

    def build(self, input_shape):
        self.factor = self.add_weight((input_shape[-1],), initializer="ones", name="factor")

    def call(self, x):
        y = x * self.factor
        self.add_loss(self.strength * ops.mean(ops.abs(y)))
        return y


def pairs(images: np.ndarray, labels: np.ndarray, count: int, seed: int) -> tuple[dict, dict]:
    """Inputs and targets of `count` pairs, every other one of equal digits."""
    rng = np.random.default_rng(seed)
    by_digit = [np.flatnonzero(labels == d) for d in range(10)]
    first = rng.integers(len(labels), size=count)
    second = rng.integers(len(labels), size=count)
    for k in range(0, count, 2):
        second[k] = rng.choice(by_digit[labels[first[k]]])
    flat = images.reshape(-1, 784).astype("float32") / 255
    same = (labels[first] == labels[second]).astype("float32")[:, None]
    return {"left": flat[first], "right": flat[second]}, {"same": same, "digit": labels[first].astype("int32")}


def make() -> keras.Model:
    """The model, compiled."""
    tower = keras.Sequential(
        [
            keras.Input((784,)), layers.Dense(128, activation="relu"), layers.Dropout(0.2),
            layers.Dense(64, activation="relu"), Sparse(name="sparse"),
        ],
        name="tower",
    )  # fmt: skip
    left, right = keras.Input((784,), name="left"), keras.Input((784,), name="right")
    a, b = tower(left), tower(right)
    both = layers.Concatenate()([a * b, abs(a - b)])  # expressions between layers are part of the model
    hidden = layers.Dense(32, activation="relu", kernel_regularizer="l2")(both)
    same = layers.Dense(1, activation="sigmoid", name="same")(hidden)
    digit = layers.Dense(10, activation="softmax", name="digit")(a)
    model = keras.Model(inputs={"left": left, "right": right}, outputs={"same": same, "digit": digit}, name="pairs")
    model.compile(
        optimizer=keras.optimizers.Adam(0.002),
        loss={"same": "binary_crossentropy", "digit": "sparse_categorical_crossentropy"},
        loss_weights={"same": 1.0, "digit": 0.5},
        metrics={"same": ["accuracy"], "digit": ["accuracy"]},
    )
    return model


def main(short: bool = False) -> dict[str, float]:
    """Train and report. Returns losses and metrics on pairs of test digits."""
    keras.utils.set_random_seed(1)
    (images, labels), (test_images, test_labels) = mnist.load_data()
    x, y = pairs(images, labels, 6_000 if short else 60_000, seed=1)
    x_test, y_test = pairs(test_images, test_labels, 5_000, seed=2)
    model = make()
    model.summary()
    model.fit(x, y, batch_size=128, epochs=2 if short else 6, validation_split=0.1, verbose=2)
    results = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    print(
        f"Same or not: {100 * results['same_accuracy']:.2f} % right. "
        f"Which digit: {100 * results['digit_accuracy']:.2f} % right."
    )
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Two inputs, a shared tower, two outputs")
    parser.add_argument("--short", action="store_true", help="a few seconds, on 6,000 pairs")
    main(parser.parse_args().short)
