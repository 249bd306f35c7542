"""Questions about stories, answered by a memory that is looked into several times.

    python examples/memory_network.py [--short]

A story tells who went where and who took what; the question is where a thing is. No sentence says it: one has to find
who took the thing, and then where that person went last. An end-to-end memory network (Sukhbaatar, Szlam, Weston,
Fergus 2015, sections 2.1 and 2.2, with the weights of neighbouring hops shared) looks at all sentences at once, takes
what fits the question, and with that looks again. Looking once, it answers 42 of 100 questions, hardly better than
guessing one of the places that the story names; looking three times, all of them.
"""

from __future__ import annotations

import argparse

import numpy as np

import gnomon as keras
from gnomon import layers, ops

PEOPLE = "mary john daniel sandra".split()
PLACES = "kitchen garden office bathroom hallway bedroom".split()
THINGS = "ball apple milk".split()
WORDS = ["", "went", "took", "where", *PEOPLE, *PLACES, *THINGS]  # number 0 is no word
SENTENCES = 12
NUMBER = {word: k for k, word in enumerate(WORDS)}

Story = tuple[list[tuple[str, ...]], tuple[str, ...], str]


def story(random: np.random.Generator) -> Story:
    """Sentences, a question, and the answer."""
    while True:
        sentences, at, holder = [], {}, {}
        for _ in range(random.integers(5, SENTENCES + 1)):
            person = PEOPLE[random.integers(len(PEOPLE))]
            free = [thing for thing in THINGS if thing not in holder]
            if person in at and free and random.random() < 0.3:
                thing = free[random.integers(len(free))]
                holder[thing] = person
                sentences.append((person, "took", thing))
            else:
                at[person] = PLACES[random.integers(len(PLACES))]
                sentences.append((person, "went", at[person]))
        if holder:
            thing = list(holder)[random.integers(len(holder))]
            return sentences, ("where", thing), at[holder[thing]]


def as_numbers(stories: list[Story]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Word numbers of sentences, the latest first, and of questions; the answers."""
    memory = np.zeros((len(stories), SENTENCES, 3), "int32")
    question = np.zeros((len(stories), 2), "int32")
    for k, (sentences, asked, _) in enumerate(stories):
        for place, sentence in enumerate(reversed(sentences)):
            memory[k, place] = [NUMBER[word] for word in sentence]
        question[k] = [NUMBER[word] for word in asked]
    answers = np.array([PLACES.index(answer) for *_, answer in stories], "int32")
    return {"memory": memory, "question": question}, answers


class Sentences(layers.Layer):
    """Word numbers [..., words] as sums of vectors, one for each word at each place; no word is 0.

    With `ages` sentences [batch, sentences, words] also get a vector for how long ago they were said.
    """

    def __init__(self, size: int, ages: int | None = None, **options):
        super().__init__(**options)
        self.size, self.ages = size, ages

    def build(self, input_shape):
        self.words = self.add_weight((len(WORDS), self.size), "random_normal", name="words")
        self.order = self.add_weight((input_shape[-1], self.size), "ones", name="order")
        if self.ages:
            self.age = self.add_weight((self.ages, self.size), "random_normal", name="age")

    def call(self, numbers):
        there = ops.cast(numbers != 0, "float32")[..., None]
        vectors = ops.sum(ops.take(self.words, numbers, axis=0) * self.order * there, axis=-2)
        return vectors + self.age * ops.max(there, axis=-2) if self.ages else vectors


def make(hops: int, size: int = 32) -> keras.Model:
    """The network: in hop k memory is read as key[k] and answers as key[k + 1]."""
    memory = keras.Input((SENTENCES, 3), dtype="int32", name="memory")
    question = keras.Input((2,), dtype="int32", name="question")
    keys = [Sentences(size, SENTENCES, name=f"memory_{k}")(memory) for k in range(hops + 1)]
    state = Sentences(size, name="ask")(question)
    for k in range(hops):
        fits = layers.Softmax(name=f"look_{k}")(layers.Dot((2, 1))([keys[k], state]))
        found = layers.Dot((1, 1))([fits, keys[k + 1]])
        state = layers.Add(name=f"hop_{k}")([layers.Dense(size, use_bias=False)(state), found])
    answer = layers.Dense(len(PLACES), activation="softmax", name="answer")(state)
    model = keras.Model([memory, question], answer, name=f"memory_network_{hops}")
    model.compile(keras.optimizers.Adam(0.01, clipnorm=1.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(short: bool = False) -> dict[int, float]:
    """Train with one and with three hops. Returns the accuracy of each on new stories."""
    random = np.random.default_rng(1)
    told = [story(random) for _ in range(5_000 if short else 20_000)]
    x, y = as_numbers(told)
    new = [story(random) for _ in range(2_000)]
    x_new, y_new = as_numbers(new)
    reached = {}
    for hops in (1, 3):
        keras.utils.set_random_seed(hops)
        model = make(hops)
        slower = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 * 0.85**epoch)
        model.fit(x, y, batch_size=64, epochs=8 if short else 20, verbose=0, callbacks=[slower])
        reached[hops] = model.evaluate(x_new, y_new, verbose=0, return_dict=True)["accuracy"]
        print(f"{hops} hop{'s' * (hops > 1)}: {100 * reached[hops]:.1f} % right")

    sentences, question, answer = new[0]
    looked = keras.Model(model.inputs, [model.get_layer(f"look_{k}").output for k in range(3)])
    weights = looked.predict({name: values[:1] for name, values in x_new.items()}, verbose=0)
    print(f"\n{' '.join(question)}? {answer}. How much each sentence was looked at, hop by hop:")
    for place, sentence in enumerate(sentences):
        shares = [f"{100 * w[0, len(sentences) - 1 - place]:5.0f} %" for w in weights]
        print(f"    {' '.join(sentence):24}", *shares)
    return reached


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A memory network with hops on generated stories")
    parser.add_argument("--short", action="store_true", help="a few seconds, on 5,000 stories")
    main(parser.parse_args().short)
