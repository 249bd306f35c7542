"""A small convolutional network on handwritten digits: 99 of 100 that it has never seen are read right.

    python examples/mnist_convnet.py [--short]

The digits are in the package; nothing is downloaded. The learning rate falls to 0 along a cosine, so that six rounds
through the data are enough.
"""

from __future__ import annotations

import argparse
import time

import gnomon as keras
from gnomon import layers
from gnomon.datasets import mnist


def make() -> keras.Model:
    """Two convolutions, each followed by pooling; then a choice among ten."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(10, activation="softmax"),
        ],
        name="convnet",
    )


def main(short: bool = False) -> dict[str, float]:
    """Train and report. Returns loss and accuracy on the test set."""
    keras.utils.set_random_seed(1)
    (x, y), (x_test, y_test) = mnist.load_data()
    x, x_test = x[..., None], x_test[..., None]
    if short:
        x, y, x_test, y_test = x[:5000], y[:5000], x_test[:2000], y_test[:2000]

    epochs, batch = 2 if short else 6, 64
    rate = keras.optimizers.schedules.CosineDecay(0.002, decay_steps=epochs * -(-len(x) // batch))
    model = make()
    model.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.summary()
    began = time.perf_counter()
    model.fit(x, y, batch_size=batch, epochs=epochs, validation_data=(x_test, y_test), verbose=2)
    seconds = time.perf_counter() - began

    results = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    print(f"Trained in {seconds:.1f} s. Test accuracy {100 * results['accuracy']:.2f} %, loss {results['loss']:.4f}")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A convolutional network on MNIST")
    parser.add_argument("--short", action="store_true", help="a few seconds, on 5,000 images")
    main(parser.parse_args().short)
