"""A small transformer that learns to write like Shakespeare, letter by letter.

    python examples/transformer_text.py [--short]

Each position of a text sees those before it (causal attention: Vaswani et al. 2017, "Attention is all you need", with
normalization before each part: Xiong et al. 2020, "On layer normalization in the transformer architecture") and says
which letter comes next. The text is in the package; of letters in a part that it was not trained on, it foresees 46 of
100. One program serves all lengths: training sees 64 letters at a time, writing begins with a few.
"""

from __future__ import annotations

import argparse

import numpy as np

import gnomon as keras
from gnomon import layers, ops
from gnomon.datasets import tinyshakespeare

SPAN, SIZE, HEADS, BLOCKS = 64, 64, 4, 2


class Positions(layers.Layer):
    """Vectors [batch, time, features] with a vector for each time added, which is learned."""

    def build(self, input_shape):
        self.vectors = self.add_weight((SPAN, input_shape[-1]), "random_normal", name="vectors")

    def call(self, x):
        return x + self.vectors[: ops.shape(x)[1]]


def block(x):
    """Attention and a dense part, each added to what it is made of."""
    normal = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(HEADS, SIZE // HEADS)(normal, normal, use_causal_mask=True)
    wide = layers.Dense(4 * SIZE, activation="gelu")(layers.LayerNormalization()(x))
    return x + layers.Dense(SIZE)(wide)


def make(letters: int, steps: int) -> keras.Model:
    """The model, compiled for so many steps of training."""
    inputs = keras.Input((None,), dtype="int32")
    x = Positions()(layers.Embedding(letters, SIZE)(inputs))
    for _ in range(BLOCKS):
        x = block(x)
    scores = layers.Dense(letters)(layers.LayerNormalization()(x))
    model = keras.Model(inputs, scores, name="writer")
    rate = keras.optimizers.schedules.CosineDecay(1e-4, steps, warmup_target=5e-3, warmup_steps=steps // 10)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.01, clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def spans(numbers: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` pieces of SPAN letters, and the letters that follow each of theirs."""
    starts = np.random.default_rng(seed).integers(len(numbers) - SPAN, size=count)
    places = starts[:, None] + np.arange(SPAN)
    return numbers[places], numbers[places + 1]


def write(model: keras.Model, alphabet: list[str], start: str, count: int, temperature: float = 0.7) -> str:
    """`start` and `count` letters after it, each drawn from what the model expects."""
    random = np.random.default_rng(4)
    text = [alphabet.index(letter) for letter in start]
    for _ in range(count):
        scores = model.predict(np.array([text[-SPAN:]], "int32"), verbose=0)[0, -1].astype(float) / temperature
        chances = np.exp(scores - scores.max())
        text.append(int(random.choice(len(alphabet), p=chances / chances.sum())))
    return "".join(alphabet[k] for k in text)


def main(short: bool = False) -> dict[str, float]:
    """Train, report and write. Returns loss and accuracy on text that was not seen."""
    keras.utils.set_random_seed(1)
    training, test = tinyshakespeare.load_data()
    alphabet = sorted(set(training))
    letters = layers.StringLookup(vocabulary=alphabet, num_oov_indices=0)
    x, y = spans(letters(list(training)).astype("int32"), 3_200 if short else 12_800, seed=1)
    x_test, y_test = spans(letters(list(test)).astype("int32"), 1_000, seed=2)
    epochs = 2 if short else 3
    model = make(len(alphabet), epochs * len(x) // 32)
    print(f"{model.count_params():,} weights")
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=2)
    results = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    print(f"Letters foreseen: {100 * results['accuracy']:.1f} %, loss {results['loss']:.3f}")
    print(write(model, alphabet, "KING RICHARD:\n", 100 if short else 400))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A small transformer that writes like Shakespeare")
    parser.add_argument("--short", action="store_true", help="some seconds, on a sixth of the text")
    main(parser.parse_args().short)
