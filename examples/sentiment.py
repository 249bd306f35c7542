"""Do sentences on films praise or not? Two recurrent networks read them word by word.

    python examples/sentiment.py [--short] [--data FOLDER]

The 10,662 sentences of Pang and Lee (2005) are not in the package, for their authors state no licence: FOLDER holds
rt-polarity.pos and rt-polarity.neg; without it they are fetched once. Either an LSTM reads the vectors of the words, or
a GRU from both ends. On a tenth of the sentences, not learned from, both are right 74 to 77 times of 100. There is
little to learn from: counting words (naive Bayes) is right 78 times, vectors of words from a large text would help.

With --short and no FOLDER it reads sentences made up here, some with a "not", and learns what that does.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import gnomon as keras
from gnomon import layers
from gnomon.datasets import polarity

WORDS, LONGEST = 8_000, 40
RARE = 1
"""The number of all words that are not among the WORDS most frequent ones; 0 stands for no word."""


def made_up(folder: Path) -> None:
    """Write two files in the form of the data: a sentence a line, its words parted by blanks."""
    openings = "", "honestly , ", "in the end , ", "for all its charm , "
    things = "the plot", "the cast", "this film", "the music", "the script", "every scene"
    praising, blaming = ("good", "fresh", "moving", "clever"), ("bad", "dull", "stale", "silly")
    lines: dict[str, list[str]] = {"pos": [], "neg": []}
    for opening, thing, word in itertools.product(openings, things, praising + blaming):
        kind, other = ("pos", "neg") if word in praising else ("neg", "pos")
        lines[kind] += [f"{opening}{thing} {said} {word} .\n" for said in ("is", "looks rather")]
        lines[other].append(f"{opening}{thing} is not {word} .\n")
    for kind, sentences in lines.items():
        (folder / f"rt-polarity.{kind}").write_text("".join(sentences), encoding="utf-8")


def as_numbers(sentences: np.ndarray, number: dict[str, int]) -> np.ndarray:
    """int32[sentence, word]: numbers of words; shorter sentences end in 0."""
    read = [[number.get(word, RARE) for word in sentence.split()] for sentence in sentences]
    return keras.utils.pad_sequences(read, LONGEST, padding="post", truncating="post")


def make(reader: layers.Layer, name: str, dropped: float = 0.5, rate: float = 0.002) -> keras.Model:
    """Word numbers to the chance that the sentence praises. What fills sentences up is masked."""
    words = keras.Input((None,), dtype="int32", name="words")
    x = layers.Embedding(WORDS, 64, mask_zero=True)(words)
    x = layers.SpatialDropout1D(dropped)(x)
    x = layers.Dropout(dropped)(reader(x))
    model = keras.Model(words, layers.Dense(1, activation="sigmoid")(x), name=name)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def main(short: bool = False, data: str | None = None) -> dict[str, float]:
    """Train both networks and report. Returns the accuracy of each on sentences not learned from."""
    if short and data is None:
        with tempfile.TemporaryDirectory() as folder:
            made_up(Path(folder))
            (x, y), (x_test, y_test) = polarity.load_data(folder, test_split=0.2, check=False)
    else:
        (x, y), (x_test, y_test) = polarity.load_data(data)
    counts = Counter(word for sentence in x for word in sentence.split())
    number = {word: k for k, (word, _) in enumerate(counts.most_common(WORDS - 2), start=RARE + 1)}
    sentences, (x, x_test) = x_test, (as_numbers(part, number) for part in (x, x_test))

    reached = {}
    for name in ("LSTM", "Bidirectional GRU"):
        keras.utils.set_random_seed(1)
        reader = layers.LSTM(64) if name == "LSTM" else layers.Bidirectional(layers.GRU(48))
        model = make(reader, name.lower().replace(" ", "_"), *((0.1, 0.01) if short else ()))
        began = time.perf_counter()
        model.fit(x, y, batch_size=64, epochs=8 if short else 4, verbose=2)
        seconds = time.perf_counter() - began
        reached[name] = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
        print(f"{name}: trained in {seconds:.1f} s, {100 * reached[name]:.1f} % of new sentences right\n")

    chances = model.predict(x_test, verbose=0)[:, 0]
    for k in np.argsort(chances)[[0, 1, -2, -1]]:
        print(f"{100 * chances[k]:5.1f} % praise: {sentences[k]}")
    return reached


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Recurrent networks on sentences from reviews of films")
    parser.add_argument("--short", action="store_true", help="a few seconds, on sentences made up here")
    parser.add_argument("--data", help="folder with rt-polarity.pos and rt-polarity.neg")
    options = parser.parse_args()
    main(options.short, options.data)
