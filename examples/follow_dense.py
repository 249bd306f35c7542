"""Follows one Dense layer with relu, and one step of its training, from the call of the layer to machine code.

    python examples/follow_dense.py [--short | --full]

Each stage is printed as `show` gives it, after a sentence or two: its first lines, few with --short, all with --full.
"""

from __future__ import annotations

import argparse

import numpy as np

import gnomon
from gnomon import layers, ops


def title(number: int, name: str, words: str) -> None:
    print(f"\n==== {number}. {name}\n{words}\n")


class FirstLines:
    """Prints the first lines of a text and how many are left out."""

    def __init__(self, short: bool, full: bool):
        self.short, self.full = short, full

    def __call__(self, text: str, most: int = 40) -> None:
        lines = text.splitlines()
        most = len(lines) if self.full else min(most, 8) if self.short else most
        shown = lines[:most] + [f"... {len(lines) - most} more lines"] * (len(lines) > most)
        print("\n".join("    " + line for line in shown))


def main(short: bool = False, full: bool = False) -> None:
    show = FirstLines(short, full)

    title(
        1,
        "Layers",
        "Calling layers on symbolic tensors defines a model. Nothing is computed: `batch` has no value yet.",
    )
    inputs = layers.Input((4,), name="features")
    outputs = layers.Dense(3, activation="relu", name="dense")(inputs)
    model = gnomon.Model(inputs, outputs, name="follow")
    show(model.show("layers"))

    title(2, "Graph", "The layer's call, written out in the few ops the compiler knows; each keeps its layer and line.")
    show(model.show("graph"))

    title(
        3,
        "Derivatives",
        "A squared error, its gradients by the weights, and what gradient descent makes of them: a function with\n"
        "updates. The derivatives are nodes like all others; those of dense carry its name.",
    )
    dense = model.get_layer("dense")
    x, y = inputs, gnomon.matrix("y")
    loss = ops.mean(ops.square(outputs - y))
    weights = [dense.kernel, dense.bias]
    gradients = gnomon.grad(loss, weights)
    updates = {w: w - 0.1 * g for w, g in zip(weights, gradients, strict=True)}
    step = gnomon.function([x, y], loss, updates=updates, name="step")
    show(step.show("graph"), 60)

    title(
        4,
        "Simplified graph",
        "Rewrites take out what needs no computing: here the difference, lines with - are gone, lines with + came.",
    )
    show(step.show("graph", diff="simplified"), 60)

    title(
        5,
        "Row programs",
        "What shares its outer loops becomes one kernel. The first is the product; bias, relu and the gradient\n"
        "follow on each number while it is still in a register. The last write the weights themselves, in place.",
    )
    show(step.show("rows"), 60)

    title(
        6,
        "Kernels",
        "Loops over numbers, tiled and vectorised for this machine's registers: `parallel` is shared among threads,\n"
        "`vector` is one register. The same kernels are also written in CUDA C++ for GPUs.",
    )
    show(step.show("kernels"))

    title(7, "Program", "The kernels in order, over slots of memory. One program serves every batch size.")
    show(step.show("program"))

    title(
        8,
        "LLVM IR",
        "Each kernel as text, with explicit vectors: what is compiled, and the key under which it is cached.",
    )
    show(step.show("llvm"))

    title(9, "Assembly", "What the processor runs.")
    show(step.show("assembly"), 30)

    title(
        10,
        "Running",
        "The same program for two batch sizes; the loss falls. Then where the time goes, kernel by kernel.",
    )
    rng = np.random.default_rng(0)
    for rows in (64, 7):
        data = rng.standard_normal((rows, 4)).astype("float32")
        target = np.abs(data[:, :3])
        losses = [float(step(data, target)) for _ in range(50)]
        print(f"    {rows} rows: loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    show(repr(step.profile(data, target)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="print few lines of each stage")
    parser.add_argument("--full", action="store_true", help="print every line of each stage")
    options = parser.parse_args()
    main(options.short, options.full)
