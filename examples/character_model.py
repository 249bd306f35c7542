"""The next character, again and again: a recurrent network learns to write like Shakespeare.

    python examples/character_model.py [--short] [--start "ROMEO:"]

The text is in the package. It is cut into 64 strands that are read side by side, 64 characters in each batch, and a
stateful GRU goes on where the batch before stopped. So it learns from all of a strand, however far back gradients go
(Karpathy 2015, "The unreasonable effectiveness of recurrent neural networks"). After four rounds the characters of
plays that it has not read cost it 1.64 nats each, where guessing by frequency costs 3.3; it finds 52 of 100.

The same layers with a batch of one sequence then write: one character at a time, drawn from what the network expects.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import gnomon as keras
from gnomon import layers
from gnomon.datasets import tinyshakespeare

STRANDS, STEPS = 64, 64


def strands(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Batches one after another, in each the next STEPS characters of all strands, and what follows each character."""
    batches = (len(numbers) - 1) // (STRANDS * STEPS)
    x, y = (numbers[k : k + batches * STRANDS * STEPS].reshape(STRANDS, batches, STEPS) for k in (0, 1))
    return tuple(part.swapaxes(0, 1).reshape(-1, STEPS) for part in (x, y))


def make(characters: int, units: int, batch: int = STRANDS) -> keras.Model:
    """Character numbers [batch, steps] to logits of the next ones [batch, steps, characters]."""
    text = keras.Input(batch_shape=(batch, None), dtype="int32", name="text")
    x = layers.Embedding(characters, 32)(text)
    x = layers.GRU(units, return_sequences=True, stateful=True, name="memory")(x)
    return keras.Model(text, layers.Dense(characters)(x), name="writer")


def write(model: keras.Model, alphabet: list[str], start: str, length: int, heat: float = 0.7, seed: int = 1) -> str:
    """`start`, and `length` characters more; the higher `heat`, the bolder."""
    random = np.random.default_rng(seed)
    model.get_layer("memory").reset_state()
    text = start
    fresh = start
    for _ in range(length):
        numbers = np.array([[alphabet.index(c) for c in fresh]], "int32")
        logits = model.predict(numbers, verbose=0)[0, -1] / heat
        chances = np.exp(logits - logits.max())
        fresh = alphabet[random.choice(len(alphabet), p=chances / chances.sum())]
        text += fresh
    return text


class Forget(keras.callbacks.Callback):
    """Each round through the text, and each test, begins with nothing read."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.get_layer("memory").reset_state()

    def on_test_begin(self, logs=None):
        self.model.get_layer("memory").reset_state()


def main(short: bool = False, start: str = "ROMEO:\n") -> dict[str, float]:
    """Train, report and write. Returns loss (nats a character) and accuracy on plays that were not read."""
    keras.utils.set_random_seed(1)
    read, unread = tinyshakespeare.load_data()
    if short:
        read, unread = read[:250_000], unread[:50_000]
    alphabet = sorted(set(read + unread + start))
    number = {character: k for k, character in enumerate(alphabet)}
    x, y = strands(np.array([number[c] for c in read], "int32"))
    x_test, y_test = strands(np.array([number[c] for c in unread], "int32"))

    units, epochs = (96, 2) if short else (192, 4)
    model = make(len(alphabet), units)
    rate = keras.optimizers.schedules.CosineDecay(0.006, decay_steps=epochs * (len(x) // STRANDS), alpha=0.05)
    model.compile(
        keras.optimizers.Adam(rate, clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.summary()
    began = time.perf_counter()
    model.fit(x, y, batch_size=STRANDS, epochs=epochs, shuffle=False, verbose=2, callbacks=[Forget()])
    seconds = time.perf_counter() - began

    results = model.evaluate(x_test, y_test, batch_size=STRANDS, verbose=0, return_dict=True, callbacks=[Forget()])
    print(f"Trained in {seconds:.1f} s. {results['loss']:.3f} nats a character, ", end="")
    print(f"{100 * results['accuracy']:.1f} % of the next characters found\n")

    writer = make(len(alphabet), units, batch=1)
    writer.set_weights(model.get_weights())
    print(write(writer, alphabet, start, 100 if short else 400))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A recurrent network that writes like Shakespeare")
    parser.add_argument("--short", action="store_true", help="a few seconds, on a quarter of the text")
    parser.add_argument("--start", default="ROMEO:\n", help="what the text begins with")
    options = parser.parse_args()
    main(options.short, options.start)
