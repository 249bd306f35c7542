"""Questions about pictures: two inputs, an image and words, and answers that take both.

    python examples/visual_question_answering.py [--short]

Each picture shows four handwritten digits of MNIST. Questions are "which digit is top left?", "is there a seven?" and
"which digit is right of the three?". Convolutions make a vector of each region of the picture; a question looks at the
regions, with what it found looks again and again (stacked attention: Yang, He, Gao, Deng, Smola 2016, "Stacked
attention networks for image question answering", section 3.3), and a softmax over words gives the answer. That it has
to look for the three first, and then beside it, the network finds out by itself, of a sudden, after some epochs. Of
questions about pictures of new digits it answers 98 of 100 right.
"""

from __future__ import annotations

import argparse

import numpy as np

import gnomon as keras
from gnomon import layers
from gnomon.datasets import mnist

NAMES = "zero one two three four five six seven eight nine".split()
PLACES = ["top left", "top right", "bottom left", "bottom right"]
NEXT = {"right of": (0, 1), "left of": (0, -1), "below": (1, 0), "above": (-1, 0)}
ANSWERS = [*NAMES, "yes", "no"]
KINDS = ("which digit is there", "is there such a digit", "which digit is beside it")
QUESTIONS = 6  # of each picture, so that its regions are computed once for all of them
SIZE, LONGEST = 56, 7


def question(digits: np.ndarray, kind: int, random: np.random.Generator) -> tuple[str, str]:
    """A question about four digits, two beside two, and the answer."""
    if kind == 1:
        asked = digits[random.integers(4)] if random.random() < 0.5 else random.integers(10)
        article = "an" if NAMES[asked] == "eight" else "a"
        return f"is there {article} {NAMES[asked]}", "yes" if asked in digits else "no"
    once = [k for k in range(4) if (digits == digits[k]).sum() == 1]
    if kind == 0 or not once:
        place = random.integers(4)
        return f"which digit is {PLACES[place]}", NAMES[digits[place]]
    start = once[random.integers(len(once))]
    row, column = divmod(start, 2)
    way = ("below", "above")[row] if random.random() < 0.5 else ("right of", "left of")[column]
    down, right = NEXT[way]
    return f"which digit is {way} the {NAMES[digits[start]]}", NAMES[digits[2 * (row + down) + column + right]]


def make_data(
    images: np.ndarray, labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Pictures, QUESTIONS of each in words, one after another, and the numbers of the answers [count, QUESTIONS]."""
    random = np.random.default_rng(seed)
    chosen = random.integers(len(labels), size=(count, 2, 2))
    pictures = images[chosen].transpose(0, 1, 3, 2, 4).reshape(count, SIZE, SIZE)
    digits = labels[chosen].reshape(count, 4)
    asked = [question(row, k % 3, random) for row in digits for k in range(QUESTIONS)]
    answers = np.array([ANSWERS.index(answer) for _, answer in asked], "int32")
    return pictures, [text for text, _ in asked], answers.reshape(count, QUESTIONS)


class Places(layers.Layer):
    """Regions [batch, regions, features], each with a vector for its place added, which is learned."""

    def build(self, input_shape):
        self.place = self.add_weight(input_shape[1:], keras.initializers.RandomNormal(stddev=0.5), name="place")

    def call(self, regions):
        return regions + self.place


def make(words: int, size: int = 64, hops: int = 3) -> keras.Model:
    """The network, compiled."""
    image = keras.Input((SIZE, SIZE), name="picture")
    asked = keras.Input((QUESTIONS, LONGEST), dtype="int32", name="question")
    x = layers.Reshape((SIZE, SIZE, 1))(layers.Rescaling(1 / 255)(image))
    x = layers.Conv2D(32, 5, strides=4, padding="same", activation="relu")(x)
    x = layers.Conv2D(size, 7, strides=7, activation="relu")(x)  # a region is as large as a digit
    regions = Places()(layers.Dense(size, activation="relu")(layers.Reshape((-1, size))(x)))

    order = layers.Reshape((QUESTIONS, -1))(layers.Embedding(words, size // 2, name="words")(asked))
    state = layers.Dense(size, activation="tanh", name="meaning")(order)
    for hop in range(hops):
        found = layers.MultiHeadAttention(2, size // 2, name=f"look_{hop}")(state, regions)
        state = layers.LayerNormalization()(state + found)
        thought = layers.Dense(size)(layers.Dense(2 * size, activation="relu")(state))
        state = layers.LayerNormalization()(state + thought)
    answer = layers.Dense(len(ANSWERS), activation="softmax", name="answer")(state)
    model = keras.Model({"picture": image, "question": asked}, answer, name="vqa")
    model.compile(keras.optimizers.Adam(0.002), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(short: bool = False) -> dict[str, float]:
    """Train and report. Returns the share of right answers, of all and of each kind of question."""
    keras.utils.set_random_seed(1)
    (images, labels), (test_images, test_labels) = mnist.load_data()
    pictures, questions, answers = make_data(images, labels, 4_000 if short else 12_000, seed=1)
    new_pictures, new_questions, new_answers = make_data(test_images, test_labels, 1_000, seed=2)

    words = layers.TextVectorization(output_sequence_length=LONGEST)
    words.adapt(questions)

    def numbers(texts: list[str]) -> np.ndarray:
        return words(texts).astype("int32").reshape(-1, QUESTIONS, LONGEST)

    model = make(words.vocabulary_size())
    slower = keras.callbacks.LearningRateScheduler(lambda epoch: 0.002 * min(1, 0.6 ** (epoch - 9)))
    model.fit(
        {"picture": pictures, "question": numbers(questions)}, answers, batch_size=64, epochs=6 if short else 14,
        verbose=2, callbacks=[slower],
    )  # fmt: skip

    given = model.predict({"picture": new_pictures, "question": numbers(new_questions)}, verbose=0).argmax(-1)
    right = given == new_answers
    reached = {"all": float(right.mean())}
    reached |= {kind: float(right[:, k::3].mean()) for k, kind in enumerate(KINDS)}
    for kind, share in reached.items():
        print(f"Answered right, {kind}: {100 * share:.1f} %")
    for k in range(QUESTIONS):
        wrong = "" if right[0, k] else f", but it is {ANSWERS[new_answers[0, k]]}"
        print(f"    {new_questions[k]}? {ANSWERS[given[0, k]]}{wrong}")
    return reached


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Visual question answering on pictures of MNIST digits")
    parser.add_argument("--short", action="store_true", help="a few seconds, on 4,000 pictures")
    main(parser.parse_args().short)
