"""The model of the Keras article on real handwritten digits: define, compile, train, evaluate, predict.

    python examples/mnist_mlp.py [--short]

The digits are in the package; nothing is downloaded. It reads 96 of 100 digits right that it has never seen.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import gnomon as keras
from gnomon.datasets import mnist
from gnomon.layers import Dense
from gnomon.models import Sequential
from gnomon.optimizers import RMSprop


def load(rows: int) -> tuple[np.ndarray, ...]:
    """Images as rows of 784 numbers between 0 and 1, labels as rows of ten with a 1 at the digit."""
    (x, y), (x_test, y_test) = mnist.load_data()
    one_hot = np.eye(10, dtype="float32")
    flat = lambda images: images.reshape(-1, 784).astype("float32") / 255
    return flat(x[:rows]), one_hot[y[:rows]], flat(x_test), one_hot[y_test]


def main(short: bool = False) -> dict[str, float]:
    """Train and report. Returns loss and accuracy on the test set."""
    keras.utils.set_random_seed(1)
    x, y, x_test, y_test = load(6_000 if short else 60_000)

    model = Sequential([keras.Input((784,)), Dense(32, activation="relu"), Dense(10, activation="softmax")])
    model.compile(optimizer=RMSprop(learning_rate=0.001), loss="categorical_crossentropy", metrics=["accuracy"])
    model.summary()
    began = time.perf_counter()
    model.fit(x, y, batch_size=128, epochs=2 if short else 10, verbose=2)
    seconds = time.perf_counter() - began

    results = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    print(f"Trained in {seconds:.1f} s. Test accuracy {100 * results['accuracy']:.2f} %, loss {results['loss']:.4f}")
    digits = model.predict(x_test[:10], verbose=0).argmax(axis=1)
    print("The first ten test images are read as", *digits, "and show", *y_test[:10].argmax(axis=1))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A small network on MNIST, in Keras's words")
    parser.add_argument("--short", action="store_true", help="a few seconds, on 6,000 images")
    main(parser.parse_args().short)
