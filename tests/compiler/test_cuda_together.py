"""Launches joined for CUDA: how many are left of the steps of models, and that several kernels in one do the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import debug
from gnomon.compiler import dtypes
from gnomon.compiler.compile import Request, Stages, compile
from gnomon.compiler.graph import Node
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.kernel import Alloc, Kernel, statements
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input, Parameter, key_of
from gnomon.compiler.program import Launch, Program, all_steps
from gnomon.compiler.render.cuda_launch import pooled
from gnomon.compiler.sizes import Dim, product, symbol
from gnomon.compiler.targets import CUDA
from gnomon.models.steps import Step
from tests.compiler.test_cuda_training import train
from tests.emulator import compiler, nvrtc
from tests.emulator.programs import Emulated, for_cuda, kernels
from tests.on_device import offer

layers = gnomon.layers
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")
needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")


def perceptron(*units: int) -> Any:
    """Dense layers before a softmax over ten classes."""
    hidden = [layers.Dense(n, activation="relu") for n in units]
    return gnomon.Sequential([layers.Input((784,)), *hidden, layers.Dense(10, activation="softmax")])


def convnet(side: int, filters: int, units: int) -> Any:
    """The network of Keras's MNIST example: two convolutions, a pool, dropout, two dense layers."""
    return gnomon.Sequential(
        [
            layers.Input((side, side, 1)),
            layers.Conv2D(filters, 3, activation="relu"),
            layers.Conv2D(2 * filters, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25, seed=3),
            layers.Flatten(),
            layers.Dense(units, activation="relu"),
            layers.Dropout(0.5, seed=4),
            layers.Dense(10, activation="softmax"),
        ]
    )


def recurrent() -> Any:
    return gnomon.Sequential([layers.Input((20,)), layers.Embedding(200, 32), layers.LSTM(32), layers.Dense(10)])


def transformer() -> Any:
    """Words that attend to each other, the mean over all positions."""
    words = layers.Input((16,))
    x = layers.Embedding(100, 32)(words)
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 16)(x, x)]))
    return gnomon.Model(words, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


def data(model: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    x = rng.random((rows, *model.input_shape[1:]), dtype=np.float32) * 9
    return x, rng.integers(0, 10, rows).astype(np.int32)


def step_of(model: Any, x: np.ndarray, y: np.ndarray, optimizer: Any = "adam") -> Step:
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model._step_program("train", (x, y, None))


MODELS: dict[str, Callable[[], Any]] = {
    "article": lambda: perceptron(32),
    "perceptron": lambda: perceptron(512, 512),
    "convnet": lambda: convnet(28, 32, 128),
    "recurrent": recurrent,
    "transformer": transformer,
}


@cache
def program_of(name: str) -> Program:
    """A model's train step with Adam."""
    model = MODELS[name]()
    return for_cuda(step_of(model, *data(model, 4)).function)


@pytest.mark.parametrize("name, most", [("article", 10), ("perceptron", 12), ("convnet", 16)])
def test_a_train_step_is_few_launches(name: str, most: int) -> None:
    program = program_of(name)
    assert len(kernels(program)) <= most, program.kernels.keys()
    assert {s.name for s in program.sources} == {"prelude", *kernels(program)}  # nothing that is not launched


def test_what_waits_for_all_gradients_is_one_launch() -> None:
    """Updates with clipped gradients: of all variables, whatever their shapes, when the norm is known."""
    model = perceptron(64, 32)
    optimizer = gnomon.optimizers.Adam(0.01, global_clipnorm=1.0)
    program = for_cuda(step_of(model, *data(model, 4), optimizer).function)
    variables = {slot for slot, _ in program.variables}
    weights = {k for k, s in enumerate(program.slots) if k in variables and s.name.endswith(("kernel", "bias"))}
    updating = [s for s in all_steps(program.steps) if isinstance(s, Launch) and weights <= set(s.buffers)]
    assert len(weights) == 6
    assert len(updating) == 1


@needs_compiler
def test_a_small_convnet_trains_as_on_the_cpu() -> None:
    gnomon.utils.set_random_seed(3)
    model = convnet(8, 4, 12)
    x, y = data(model, 14)
    step = step_of(model, x, y)
    train(for_cuda(step.function), step, [np.arange(14).reshape(2, 7), np.array([[5]])], [x, y], 6)


# ---- small graphs

n = symbol("n")
x, y = Input(1, "x", "float32", (n, 40))(), Input(2, "y", "float32", (7,))()
a, b = Parameter(3, "a", "float32", (7,))(), Parameter(4, "b", "float32", (500,))()


def joined(outputs: Sequence[Node], updates: Sequence[tuple[Node, Node]] = ()) -> tuple[Program, Stages]:
    stages = Stages()
    return compile(Request("f", [x, y], outputs, updates), CUDA, stages), stages


@needs_compiler
@pytest.mark.parametrize("order", [0, 4])
@pytest.mark.parametrize("rows", [1, 90])
def test_independent_kernels_of_different_forms_are_one(rows: int, order: int) -> None:
    """A loop over elements, rows by blocks, one block alone, products."""
    outputs = [build.exp(y), build.sum(build.exp(x), 1), build.max(x), build.matmul(build.transpose(x, [1, 0]), x)]
    program, _ = joined(outputs, [(a, build.add(a, 1.0)), (b, build.multiply(b, 2.0))])
    assert len(kernels(program)) < 5
    rng = np.random.default_rng(0)
    values = {v: rng.standard_normal(s).astype(np.float32) for v, s in ((x, (rows, 40)), (y, 7), (a, 7), (b, 500))}
    state = [values[{3: a, 4: b}[key]].copy() for _, key in program.variables]
    got = Emulated(program)([values[x], values[y]], state, order)
    for g, want in zip(got, evaluate_graph(outputs, values), strict=True):
        np.testing.assert_allclose(g, want, rtol=2e-5, atol=1e-5)
    for (_, key), new in zip(program.variables, state, strict=True):
        np.testing.assert_allclose(new, values[a] + 1 if key == key_of(a) else values[b] * 2)


def test_what_depends_on_each_other_stays_in_order() -> None:
    """A sum, what is made of it, and a variable that is overwritten when both have read it."""
    total = build.sum(build.exp(x))
    program, _ = joined([build.matmul(x, build.transpose(x, [1, 0])), total], [(a, build.add(build.sin(a), total))])
    launches = [s for s in program.steps if isinstance(s, Launch)]
    (variable,) = (slot for slot, _ in program.variables)
    (of_sum,) = (k for k, s in enumerate(launches) if program.outputs[1] in s.buffers and variable not in s.buffers)
    (of_variable,) = (k for k, s in enumerate(launches) if variable in s.buffers)
    assert of_sum < of_variable


def test_bodies_have_their_shared_memory_in_common() -> None:
    """Of several bodies a block does one: a launch asks for as much as the one that needs most."""
    graphs = {"rows": [build.max(x, 1)], "product": [build.matmul(build.transpose(x, [1, 0]), x)]}
    alone = {name: sum(map(shared_bytes, joined(graph)[1].kernels.values())) for name, graph in graphs.items()}
    program, stages = joined([*graphs["rows"], *graphs["product"]])
    (launch,) = (s for s in program.steps if isinstance(s, Launch))
    assert launch.shared == max(alone.values())
    (kernel,) = stages.kernels.values()
    assert shared_bytes(kernel) == sum(alone.values())
    assert pooled(kernel)[1] == launch.shared


def shared_bytes(kernel: Kernel) -> Dim:
    shared = [s.buffer for s in statements(kernel.body) if isinstance(s, Alloc) and s.buffer.space == "shared"]
    return sum(product(b.shape) * dtypes.named(b.dtype).bytes for b in shared)


def test_long_kernels_are_not_joined() -> None:
    """There is nothing to gain, and memory to lose: what runs earlier is kept longer."""
    big = Input(5, "big", "float32", (1 << 12, 1 << 12))()
    program = compile(Request("f", [big], [build.exp(big), build.sum(big, 1)]), CUDA)
    assert len(kernels(program)) == 2


@needs_compiler
def test_all_that_a_joined_launch_computes_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """By GNOMON_CHECK=1: each group before and after the launch that it shares with others."""
    offer(monkeypatch)
    monkeypatch.setenv("GNOMON_CHECK", "1")
    checked = []
    check = debug._Inspector._check_writes
    monkeypatch.setattr(debug._Inspector, "_check_writes", lambda self, group, arrays: (
        checked.append(id(group)), check(self, group, arrays)))  # fmt: skip
    table, row = gnomon.matrix("table"), gnomon.vector("row")
    count = gnomon.Variable(np.zeros(5, np.float32))
    outputs = [gnomon.ops.sum(gnomon.ops.exp(table), 1), gnomon.ops.sin(row)]
    f = gnomon.function([table, row], outputs, updates={count: count + 1.0}, device="emulator")
    sums, sines = f(np.ones((9, 40), np.float32), np.ones(3, np.float32))
    np.testing.assert_allclose(sums, 40 * np.exp(np.ones(9)), rtol=1e-5)
    np.testing.assert_allclose(sines, np.sin(np.ones(3)), rtol=1e-6)
    groups = [g for g in f.stages.lowered if g.launches]
    assert len(groups) == 3
    assert len({id(g.launches[0]) for g in groups}) == 1
    assert set(checked) == {id(g) for g in groups}
