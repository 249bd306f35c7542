"""What comes next in a film? A convolutional LSTM watches digits that fly about and draws the next picture.

    python examples/video.py [--short]

The films are made here from the digits of MNIST, halved in size: two in each film, of 28 x 28 pixels, fly straight on
and bounce off the walls (after Srivastava, Mansimov, Salakhutdinov 2015, "Unsupervised learning of video
representations using LSTMs"). ConvLSTM2D sees one picture after another and says what the next will be; where things
are going it has to keep in its state. Its squared error is 62 % less than that of repeating the last picture.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import gnomon as keras
from gnomon import layers
from gnomon.datasets import mnist

SIZE, DIGIT, PICTURES = 28, 14, 10
KNOWN = 3
"""Pictures after which the flight of digits can be known; what is drawn earlier is not judged."""


def films(images: np.ndarray, count: int, seed: int) -> np.ndarray:
    """float32[count, PICTURES, SIZE, SIZE, 1] from 0 to 1: two digits in each film."""
    random = np.random.default_rng(seed)
    small = images.reshape(-1, DIGIT, 2, DIGIT, 2).mean(axis=(2, 4)) / 255
    free = SIZE - DIGIT
    made = np.zeros((count, PICTURES, SIZE, SIZE, 1), "float32")
    for film in made:
        for digit in small[random.integers(len(small), size=2)]:
            start, speed = random.integers(0, free + 1, 2), random.choice([-2, -1, 1, 2], 2)
            for k, picture in enumerate(film):
                down, right = free - abs((start + k * speed) % (2 * free) - free)  # to the wall and back
                part = picture[down : down + DIGIT, right : right + DIGIT, 0]
                np.maximum(part, digit, out=part)
    return made


def make(filters: int) -> keras.Model:
    """Pictures [batch, steps, SIZE, SIZE, 1] to the logits of the picture after each."""
    film = keras.Input((None, SIZE, SIZE, 1), name="film")
    x = layers.ConvLSTM2D(filters, 5, padding="same", return_sequences=True)(film)
    x = layers.TimeDistributed(layers.Conv2D(1, 5, padding="same"))(x)
    return keras.Model(film, x, name="next_picture")


def drawn(*pictures: np.ndarray) -> str:
    """Pictures side by side, in letters."""
    shades = np.array(list(" .:*#"))
    rows = [shades[(4.999 * p[:, :, 0].clip(0, 1)).astype(int)] for p in pictures]
    return "\n".join(" | ".join("".join(row) for row in side) for side in zip(*rows, strict=True))


def main(short: bool = False) -> dict[str, float]:
    """Train and report. Returns mean squared errors of the network, and of repeating the last picture."""
    keras.utils.set_random_seed(1)
    (images, _), (test_images, _) = mnist.load_data()
    training = films(images, 256 if short else 2_000, seed=1)
    test = films(test_images, 64 if short else 200, seed=2)
    epochs, batch = (3, 8) if short else (3, 8)

    model = make(8 if short else 12)
    rate = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=epochs * (len(training) // batch), alpha=0.05)
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), keras.losses.BinaryCrossentropy(from_logits=True))
    model.summary()
    began = time.perf_counter()
    model.fit(training[:, :-1], training[:, 1:], batch_size=batch, epochs=epochs, verbose=2)
    seconds = time.perf_counter() - began

    said = 1 / (1 + np.exp(-model.predict(test[:, :-1], batch_size=batch, verbose=0)))
    last, true = test[:, KNOWN - 1 : -1], test[:, KNOWN:]
    reached = float(((said[:, KNOWN - 1 :] - true) ** 2).mean())
    repeated = float(((last - true) ** 2).mean())
    print("The last picture seen, what the network says comes next, and what comes:\n")
    print(drawn(test[0, -2], said[0, -1], test[0, -1]))
    less = 100 * (1 - reached / repeated)
    print(f"\nTrained in {seconds:.1f} s. Squared error {reached:.4f}, ", end="")
    print(f"of repeating the last picture {repeated:.4f}: {less:.1f} % less")
    return {"network": reached, "repeated": repeated}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A convolutional LSTM on films of MNIST digits")
    parser.add_argument("--short", action="store_true", help="a few seconds, on 256 films")
    main(parser.parse_args().short)
