"""Colour photos of hands that sign digits, varied by a Python generator while a network learns from them.

    python examples/sign_digits.py [--short]

The photos are in the package; nothing is downloaded. There are only 1662 to learn from, so none is shown twice alike:
each is moved by a few pixels, mirrored half of the time (hands are left or right), and made lighter or darker.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np

import gnomon as keras
from gnomon import layers
from gnomon.datasets import sign_digits


def varied(x: np.ndarray, y: np.ndarray, batch: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches without end, each round through the photos in another order."""
    rng = np.random.default_rng(seed)
    reach = 3
    wide = np.pad(x, [(0, 0), (reach, reach), (reach, reach), (0, 0)], mode="edge")
    height, width = x.shape[1:3]
    while True:
        order = rng.permutation(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            chosen = order[start : start + batch]
            photos = np.empty((batch, *x.shape[1:]), "float32")
            for photo, k in zip(photos, chosen, strict=True):
                down, right = rng.integers(0, 2 * reach + 1, 2)
                view = wide[k, down : down + height, right : right + width]
                photo[:] = view[:, ::-1] if rng.random() < 0.5 else view
            yield photos * rng.uniform(0.7, 1.1, (batch, 1, 1, 1)).astype("float32"), y[chosen]


def make() -> keras.Model:
    """Three convolutions, each with fewer places and more channels; the mean of each channel decides."""
    photo = keras.Input((32, 32, 3), name="photo")
    x = layers.Rescaling(1 / 127.5, offset=-1)(photo)
    for filters in (32, 64, 128):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(photo, layers.Dense(10)(x), name="hands")


def main(short: bool = False) -> dict[str, float]:
    """Train and report. Returns loss and accuracy on photos that were not learned from."""
    keras.utils.set_random_seed(1)
    (x, y), (x_test, y_test) = sign_digits.load_data()
    epochs, batch = 6 if short else 30, 32
    steps = len(x) // batch
    rate = keras.optimizers.schedules.CosineDecay(0.001, decay_steps=epochs * steps)

    model = make()
    model.compile(
        keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.summary()
    began = time.perf_counter()
    model.fit(varied(x, y, batch, seed=2), steps_per_epoch=steps, epochs=epochs, verbose=2)
    seconds = time.perf_counter() - began

    results = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    print(f"Trained in {seconds:.1f} s. Test accuracy {100 * results['accuracy']:.2f} %, loss {results['loss']:.4f}")
    wrong = np.flatnonzero(model.predict(x_test, verbose=0).argmax(axis=1) != y_test)
    print(f"{len(wrong)} of {len(y_test)} photos are misread; they show", *np.unique(y_test[wrong]))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A convolutional network on photos of signed digits")
    parser.add_argument("--short", action="store_true", help="a few seconds")
    main(parser.parse_args().short)
