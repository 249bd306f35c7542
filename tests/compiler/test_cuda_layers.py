"""Layers on the emulator, or a card: Keras's numbers and gradients from the kernels that a GPU would run.

Recurrent layers are in test_cuda_loops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from gnomon import layers
from gnomon.calculus import grad
from gnomon.compiler.ops.leaves import key_of
from gnomon.runtime.device import gpu_problem
from gnomon.tensor import Tensor, node_of
from gnomon.utils import tree
from gnomon.variable import collecting_updates
from tests.emulator import Module, compiler
from tests.emulator.programs import Batch, Emulated
from tests.frontend.layers.recorded import made
from tests.recorded.load import load

Recorded = dict[str, Any]

TOPICS: dict[str, tuple[str, int]] = {
    "layers": ("cases", 1),
    "convolution": ("cases", 2),
    "spatial": ("layers", 1),
    "normalization": ("cases", 2),
    "attention": ("cases", 2),
}
"""Where Keras's numbers are, and of how many cases of a class programs are made."""


@dataclass
class Case:
    """A layer: its arrays, and what Keras has for its outputs and for the gradients of its weights and inputs."""

    inputs: list[Tensor]
    arrays: list[np.ndarray]
    outputs: list[Tensor]
    wanted: list[np.ndarray]
    weights: list[Any]


def chosen() -> Iterator[tuple[str, str, Recorded]]:
    """Topic, name and record of each case."""
    for topic, (part, most) in TOPICS.items():
        seen: Counter[str] = Counter()
        for name, case in load(topic)[part].items():
            plain = "arguments" in case and hasattr(layers, case["class"])
            if plain and not any(word in name for word in ("16", "mixed", "far")):  # tolerances of their own
                seen[case["class"]] += 1
                if seen[case["class"]] <= most:
                    yield topic, name, case


CASES = {f"{topic}: {name}": (topic, case) for topic, name, case in chosen()}


def of_layer(case: Recorded) -> Case:
    layer, given = made(case), case["inputs"]
    arrays = tree.flatten(given)
    inputs = [layers.Input(a.shape[1:], dtype=a.dtype.name) for a in arrays]
    output = layer(list(inputs) if isinstance(given, list) else inputs[0])
    layer.set_weights([case["weights"][w.name] for w in layer.weights])
    cost = (output * case["weight"]).sum()
    wanted = [case["weight gradients"][w.name] for w in layer.trainable_weights]
    return with_gradients(layer, inputs, arrays, [output], [case["output"]], cost, [*wanted, case["input gradients"]])


def of_normalization(case: Recorded) -> Case:
    layer = made(case)
    given = layers.Input(case["x"].shape[1:], dtype=case["x"].dtype.name)
    with collecting_updates():
        output = layer(given, **case["options"])
    for weight in layer.weights:
        weight.assign(case["weights"][weight.name])
    cost = (output * case["weight"]).sum()
    wanted = [*(case["weight gradients"][w.name] for w in layer.trainable_weights), case["input gradient"]]
    return with_gradients(layer, [given], [case["x"]], [output], [case["output"]], cost, wanted)


def of_attention(case: Recorded) -> Case:
    layer = made(case)
    inputs = [layers.Input(x.shape[1:]) for x in case["inputs"]]
    for tensor, mask in zip(inputs, case["masks"], strict=False):
        tensor.mask = None if mask is None else Tensor(node_of(mask))
    outputs = tree.flatten(layer(inputs, **case["call"]) if case["listed"] else layer(*inputs, **case["call"]))
    layer.set_weights(list(case["weights"].values()))
    cost = sum((t * f).sum() for t, f in zip(outputs, case["factors"], strict=True))
    wanted = case["weight gradients"] + case["input gradients"]
    return with_gradients(layer, inputs, case["inputs"], outputs, case["outputs"], cost, wanted)


def with_gradients(
    layer: Any, inputs: list[Tensor], arrays: list[np.ndarray], outputs: list[Tensor], values: list[np.ndarray],
    cost: Any, gradients: Any,
) -> Case:  # fmt: skip
    found = grad(cost, [*layer.trainable_weights, *inputs], disconnected_inputs="zero")
    return Case(inputs, arrays, [*outputs, *found], [*values, *tree.flatten(gradients)], layer.weights)


MAKERS: dict[str, Callable[[Recorded], Case]] = {"normalization": of_normalization, "attention": of_attention}


@cache
def batch() -> tuple[Batch, dict[str, Case]]:
    """All layers with their gradients: one module."""
    programs, cases = Batch(), {}
    for name, (topic, case) in CASES.items():
        cases[name] = made_case = MAKERS.get(topic, of_layer)(case)
        programs.add(name, [node_of(t) for t in made_case.inputs], [node_of(t) for t in made_case.outputs])
    programs.module = Module(programs.text())
    return programs, cases


def check(name: str, device: str | None = None) -> None:
    programs, cases = batch()
    case, program = cases[name], programs.programs[name]
    values = {key_of(w.node): w.numpy() for w in case.weights}
    variables = [np.array(values[key]) for _, key in program.variables]
    run = Emulated(program, programs.module if device is None else None, device)
    largest = max([np.abs(w).max() for w in case.wanted if np.size(w)], default=1.0)
    for found, wanted in zip(run(case.arrays, variables), case.wanted, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=5e-6 * max(1.0, largest))


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")
@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_keras_s_on_cuda(name: str) -> None:
    check(name)


CARDS = [] if gpu_problem() else ["gpu:0"]


@pytest.mark.gpu
@pytest.mark.parametrize("device", CARDS)
@pytest.mark.parametrize("name", CASES if CARDS else [])
def test_a_layer_is_keras_s_on_a_card(name: str, device: str) -> None:
    check(name, device)
