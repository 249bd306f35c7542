"""A network with a memory to write into learns to copy, and then copies more than it ever saw.

    python examples/neural_turing_machine.py [--short]

A neural Turing machine (Graves, Wayne, Danihelka 2014) is shown rows of 8 random bits, then has to say them again. What
it learns is a program: write each row into the next cell of the memory, go back, read cell after cell. Trained on 1 to
10 rows, it is right on 20 rows, too: 99.9 % of their bits (99 to 100 from seed to seed), where guessing finds 50.

The machine is a cell of our own in `layers.RNN`. The numbers of rows differ from batch to batch; all run one program.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np

import gnomon as keras
from gnomon import layers, ops

BITS = 8


class TuringCell(layers.Layer):
    """One step of a machine with a memory of `cells` vectors of `width`, a head that writes and one that reads.

    inputs: [batch, features]   output: [batch, units + width], of the controller and from the memory
    state: memory [batch, cells, width], where the heads are [batch, cells] each, what was read [batch, width]
    The controller is a Dense layer. Equation numbers are those of the paper; the head reads what is in the memory after
    the other has written.
    """

    def __init__(self, units: int, cells: int, width: int, **options):
        super().__init__(**options)
        self.units, self.cells, self.width = units, cells, width
        self.state_size = [(cells, width), cells, cells, width]
        self.output_size = units + width
        head = width + 6  # a key; its strength, the gate, three shifts, the sharpness
        self.sizes = np.cumsum([head, head, width])  # writing, reading, what to erase, what to add
        self.controller = layers.Dense(units, activation="tanh")
        self.heads = layers.Dense(2 * head + 2 * width)

    def build(self, input_shape):
        self.controller.build((None, input_shape[-1] + self.width))
        self.heads.build((None, self.units))

    def get_initial_state(self, batch_size=None):
        """An empty memory, both heads on its first cell."""
        first = ops.one_hot(ops.zeros((batch_size,), "int32"), self.cells)
        memory = ops.full((batch_size, self.cells, self.width), 1e-3)
        return [memory, first, first, ops.zeros((batch_size, self.width))]

    def call(self, inputs, states):
        memory, written, read, seen = states
        thought = self.controller(ops.concatenate([inputs, seen], axis=-1))
        to_write, to_read, erase, add = ops.split(self.heads(thought), self.sizes, axis=-1)
        written = self.move(to_write, memory, written)
        read = self.move(to_read, memory, read)
        there = written[:, :, None]
        memory = memory * (1 - there * ops.sigmoid(erase)[:, None]) + there * ops.tanh(add)[:, None]  # 3, 4
        seen = ops.sum(read[:, :, None] * memory, axis=1)  # 2
        return ops.concatenate([thought, seen], axis=-1), [memory, written, read, seen]

    def move(self, head, memory, where):
        """The new place of a head, from what the controller says."""
        key, strength, gate, shift, sharpness = ops.split(head, self.width + np.array([0, 1, 2, 5]), axis=-1)
        key = ops.tanh(key)
        alike = ops.sum(memory * key[:, None], axis=-1)
        lengths = ops.sum(memory**2, axis=-1) * ops.sum(key**2, axis=-1, keepdims=True)
        fitting = ops.softmax(ops.softplus(strength) * alike / ops.sqrt(lengths + 1e-6))  # 5, 6
        gate = ops.sigmoid(gate)
        where = gate * fitting + (1 - gate) * where  # 7
        back, stay, on = ops.split(ops.softmax(shift), 3, axis=-1)
        where = back * ops.roll(where, -1, axis=-1) + stay * where + on * ops.roll(where, 1, axis=-1)  # 8
        return ops.softmax((1 + ops.softplus(sharpness)) * ops.log(where + 1e-6))  # 9: where**sharpness over its sum


def task(random: np.random.Generator, rows: int, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is shown [batch, steps, BITS + 2], what is to be said [batch, steps, BITS], and the steps that count.

    A sign in column BITS begins, one in the next column asks for the copy; then nothing is shown.
    """
    bits = random.integers(0, 2, (batch, rows, BITS)).astype("float32")
    x, y = np.zeros((batch, 2 * rows + 2, BITS + 2), "float32"), np.zeros((batch, 2 * rows + 2, BITS), "float32")
    x[:, 0, BITS] = x[:, rows + 1, BITS + 1] = 1
    x[:, 1 : rows + 1, :BITS] = bits
    y[:, rows + 2 :] = bits
    counts = np.zeros((batch, 2 * rows + 2), "float32")
    counts[:, rows + 2 :] = (2 * rows + 2) / rows  # so that the loss is the mean of these steps
    return x, y, counts


def tasks(most: int, batch: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches without end, of 1 to `most` rows."""
    random = np.random.default_rng(seed)
    while True:
        yield task(random, random.integers(1, most + 1), batch)


def make(units: int = 64, cells: int = 32, width: int = 16) -> keras.Model:
    """What is shown [batch, steps, BITS + 2] to logits of bits [batch, steps, BITS]."""
    shown = keras.Input((None, BITS + 2), name="shown")
    x = layers.RNN(TuringCell(units, cells, width, name="machine"), return_sequences=True)(shown)
    model = keras.Model(shown, layers.Dense(BITS)(x), name="turing")
    return model


def right(model: keras.Model, rows: int) -> float:
    """The share of bits that are right in 200 copies of so many rows."""
    x, y, _ = task(np.random.default_rng(rows), rows, 200)
    said = model.predict(x, verbose=0) > 0
    return float((said == y)[:, rows + 2 :].mean())


def main(short: bool = False) -> dict[int, float]:
    """Train and report. Returns the share of bits that are right, for numbers of rows."""
    keras.utils.set_random_seed(1)
    most, epochs, steps = (3, 4, 100) if short else (10, 12, 200)
    model = make()
    model.summary()
    rate = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=epochs * steps, alpha=0.02)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss)
    began = time.perf_counter()
    model.fit(tasks(most, 32, seed=1), steps_per_epoch=steps, epochs=epochs, verbose=2)
    print(f"Trained in {time.perf_counter() - began:.1f} s on 1 to {most} rows")
    reached = {rows: right(model, rows) for rows in ((1, 3, 6) if short else (5, 10, 20, 28))}
    for rows, share in reached.items():
        print(f"{rows} rows: {100 * share:.2f} % of the bits right")
    return reached


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A neural Turing machine that learns to copy")
    parser.add_argument("--short", action="store_true", help="a few seconds, on up to 3 rows")
    main(parser.parse_args().short)
