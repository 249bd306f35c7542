"""Loops as single launches, on the emulator: a few blocks that run at once and wait for each other."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import ops
from gnomon.compiler import compile as compile_module
from gnomon.compiler.compile import Request, Stages, compile
from gnomon.compiler.grad import vjp
from gnomon.compiler.graph import Node
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.lowering import cuda_apart, cuda_together
from gnomon.compiler.ops import build
from gnomon.compiler.program import Branch, Launch, Program, Repeat, all_steps
from gnomon.compiler.targets import CUDA
from gnomon.compiler.verify import check_bounds, check_program
from gnomon.control import ifelse
from gnomon.functions import Function
from tests.compiler.test_cuda_training import train
from tests.compiler.test_scan import CASES, SIZES, B, T, arrays_for, close, ending, leaf, run
from tests.emulator import compiler, nvrtc
from tests.emulator.programs import Emulated, for_cuda, kernels

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")


def lowered(name: str, inputs, outputs) -> Program:
    """A program for CUDA, looked through."""
    stages = Stages()
    program = compile(Request(name, inputs, outputs), CUDA, stages)
    check_program(program, stages.kernels)
    for kernel in stages.kernels.values():
        check_bounds(kernel, dict.fromkeys(kernel.sizes, 3))
    return program


def loops(program: Program) -> list[Launch]:
    """The launches that are loops. There are none of the host's."""
    assert not any(isinstance(s, Repeat) for s in all_steps(program.steps))
    return [s for s in all_steps(program.steps) if isinstance(s, Launch) and s.kernel.startswith("loop_of")]


def by_rows(program: Program) -> list[bool]:
    """Of each loop whether its blocks have rows of their own. The others' wait for each other."""
    found = ["by rows" in s.label for s in loops(program)]
    assert [s.cooperative for s in loops(program)] == [not alone for alone in found]
    return found


def agrees(f: Function, *arguments: Any, order: int = 0) -> Program:
    """What the CPU computes is what the emulator does."""
    program = for_cuda(f)
    arrays = [np.asarray(a, x.dtype) for a, x in zip(arguments, f.graph.inputs, strict=True)]
    for got, want in zip(Emulated(program)(arrays, order=order), f.run(arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)
    return program


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_a_loop_and_its_gradients(case, reverse) -> None:
    inputs, outputs = case.build("float32", reverse)
    seeds = [leaf("seed", "float32", *y.shape) for y in outputs]
    back = [g for g in vjp(outputs, seeds, inputs) if g is not None]
    given, wanted = [*inputs, *seeds], [*outputs, *back]
    program = lowered(case.name, given, wanted)
    assert loops(program) or case.name == "mapped"  # which needs no loop
    emulated = Emulated(program)
    for order, sizes in enumerate(SIZES):
        arrays = [np.asarray(a) for a in arrays_for(given, sizes)]
        expected = evaluate_graph(wanted, dict(zip(given, arrays, strict=True)), sizes)
        close(emulated(arrays, order=order), expected, "float32", 8)


# ---- what ends a loop, and what is decided in it


def test_a_loop_that_ends_itself() -> None:
    first = leaf("first", "int64")
    found = ending(9, None, first)
    program = lowered("collatz", [first], [*found.last, *found.stacks, found.count])
    assert by_rows(program) == [False]
    for order in (0, 1, 5):
        last, rows, counters, count = Emulated(program)([np.asarray(6)], order=order)
        assert (last, count) == (1, 8)
        assert rows.tolist() == [3, 10, 5, 16, 8, 4, 2, 1, 0]
        assert counters.tolist() == [*range(8), 0]


def test_a_loop_without_a_number_of_steps() -> None:
    first, limit = leaf("first", "int64"), leaf("limit", "int64")
    found = ending(None, limit, first)
    emulated = Emulated(lowered("collatz", [first, limit], [*found.last, found.count]))
    for begin, most, expected in ((27, 1000, [1, 111]), (7, 2, [11, 2]), (7, 0, [7, 0]), (7, -3, [7, 0])):
        assert [int(v) for v in emulated([np.asarray(begin), np.asarray(most)])] == expected


def test_a_condition_in_a_loop_is_looked_at_on_the_device() -> None:
    x, h = gnomon.matrix("x"), gnomon.vector("h")

    def step(row, before):
        return ifelse(ops.sum(row) > 0.0, ops.tanh(before + row), before * 0.5)

    rows, _ = gnomon.scan(step, x, h)
    f = gnomon.function([x, h], [rows, rows[-1], gnomon.grad(ops.sum(rows * rows), h)])
    program = agrees(f, np.random.default_rng(0).normal(size=(7, 5)), np.ones(5), order=3)
    assert not any(isinstance(s, Branch) for s in all_steps(program.steps))
    assert by_rows(program) == [False, False]


# ---- rows that a step reads and leaves


@pytest.mark.parametrize("backwards", [False, True])
def test_steps_that_look_back_and_ahead(backwards: bool) -> None:
    u, y = gnomon.matrix("u"), gnomon.matrix("y")

    def step(before, now, later, third, last):
        return [ops.tanh(before + 0.5 * later + 0.1 * third - last), now * 2.0]

    found, _ = gnomon.scan(
        step, dict(input=u, taps=[-2, 0, 1]), [dict(initial=y, taps=[-3, -1]), None], go_backwards=backwards
    )
    f = gnomon.function([u, y], [*found, found[0][-1], gnomon.grad(ops.sum(found[0][-1]), [u, y])[0]])
    rng = np.random.default_rng(1)
    for rows in (4, 9):
        agrees(f, rng.normal(size=(rows, 3)), rng.normal(size=(3, 3)), order=rows)


def test_a_loop_begins_with_what_another_leaves() -> None:
    """A last state is a row that only the first loop knows; the second one, its gradient and the caller read it."""
    x, h, w = leaf("x", "float32", T, B, 4), leaf("h", "float32", B, 4), leaf("w", "float32", 4, 4)

    def step(t: Node, c: list[Node], s: list[Node]) -> Any:
        return [build.tanh(build.add(build.matmul(c[0], w), s[0]))], []

    (first,) = run(step, [h], [x], False)
    (second,) = run(step, [first], [x], True)
    wanted = [first, second, *(g for g in vjp([second], [build.full_like(second, 1.0)], [x, h, w]) if g is not None)]
    program = lowered("two", [x, h, w], wanted)
    assert by_rows(program) == [True] * 4
    emulated = Emulated(program)
    for order, sizes in enumerate(SIZES):
        arrays = arrays_for([x, h, w], sizes)
        expected = evaluate_graph(wanted, dict(zip([x, h, w], arrays, strict=True)), sizes)
        close(emulated(arrays, order=order), expected, "float32", 8)


@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("simple", "nested")], ids=repr)
def test_a_loop_of_kernels_that_keep_the_device_busy_stays_the_hosts(case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_together, "BRIEF_BYTES", -1)  # as if these did
    inputs, outputs = case.build("float32", True)
    program = compile(Request(case.name, inputs, outputs), CUDA)
    assert any(isinstance(s, Repeat) for s in program.steps)
    emulated = Emulated(program)
    for sizes in SIZES:
        arrays = arrays_for(inputs, sizes)
        close(emulated(arrays), evaluate_graph(outputs, dict(zip(inputs, arrays, strict=True)), sizes), "float32", 8)


# ---- recurrent layers in training


class Normalized(gnomon.layers.Layer):
    """A cell of nobody's: its state is normalized over its features, so that a row is folded in each step."""

    def __init__(self, units: int, **options: Any):
        super().__init__(**options)
        self.units = self.state_size = units
        self.inner = gnomon.layers.Dense(units, use_bias=False)
        self.norm = gnomon.layers.LayerNormalization()

    def build(self, shape: Any) -> None:
        self.inner.build((shape[0], shape[1] + self.units))
        self.norm.build((shape[0], self.units))
        self.built = True

    def call(self, inputs: Any, states: Any) -> Any:
        new = self.norm(ops.tanh(self.inner(ops.concatenate([inputs, states[0]], axis=-1))))
        return new, [new]


RECURRENT = {
    "GRU": lambda n: gnomon.layers.GRU(n),
    "old GRU": lambda n: gnomon.layers.GRU(n, reset_after=False),
    "LSTM": lambda n: gnomon.layers.LSTM(n),
    "SimpleRNN": lambda n: gnomon.layers.SimpleRNN(n),
    "custom": lambda n: gnomon.layers.RNN(Normalized(n)),
    "both ways": lambda n: gnomon.layers.Bidirectional(gnomon.layers.LSTM(n)),
}


def recurrent(name: str, units: int, rows: int = 14, steps: int = 6, features: int = 5) -> tuple[Any, list[np.ndarray]]:
    """A model's train step, and the data it takes its batches from."""
    gnomon.utils.set_random_seed(3)
    model = gnomon.Sequential(
        [gnomon.layers.Input(shape=(None, features)), RECURRENT[name](units), gnomon.layers.Dense(4)]
    )
    loss = gnomon.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=gnomon.optimizers.SGD(0.05, momentum=0.9), loss=loss)
    rng = np.random.default_rng(units)
    x = rng.normal(size=(rows, steps, features)).astype("float32")
    y = rng.integers(0, 4, rows).astype(np.int32)
    return model._step_program("train", (x, y, None)), [x, y]


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_train_as_on_the_cpu(name: str) -> None:
    step, arrays = recurrent(name, 9)
    program = for_cuda(step.function)
    train(program, step, [np.arange(10).reshape(2, 5), np.array([[13]])], arrays, 7)


def test_both_directions_are_gone_through_at_once() -> None:
    """Two loops of a kind that do not wait for each other are one launch."""
    program = for_cuda(recurrent("both ways", 9)[0].function)
    found = [s for s in all_steps(program.steps) if isinstance(s, Launch) and "loop of" in s.label]
    assert len(found) == 2


@pytest.mark.parametrize("name", ["GRU", "custom"])
def test_recurrent_layers_whose_weights_are_too_many_for_a_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_apart, "MOST_HELD", -1)
    step, arrays = recurrent(name, 9)
    program = for_cuda(step.function)
    found = [s.cooperative for s in all_steps(program.steps) if isinstance(s, Launch) and "loop of" in s.label]
    assert found == [True, True]
    train(program, step, [np.arange(10).reshape(2, 5)], arrays, 2)


MOST_KERNELS = 13
"""Launches of a recurrent train step, however many steps there are: forwards and backwards it has one loop each."""


@cache
def large(name: str) -> Program:
    return for_cuda(recurrent(name, 128, 64, 200, 32)[0].function)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_a_recurrent_train_step_is_few_launches(name: str) -> None:
    program = large(name)
    (whole,) = program.steps
    assert isinstance(whole, Repeat), "the loop over batches"
    assert len(kernels(program)) <= MOST_KERNELS
    assert not any(isinstance(s, Repeat) for s in all_steps(whole.steps))
    found = [s for s in whole.steps if isinstance(s, Launch) and s.kernel.startswith("loop_of")]
    assert ["by rows" in s.label for s in found] == [True, True]


@pytest.mark.skipif(nvrtc.library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_loops_compile_to_cubin_without_spills(arch: str) -> None:
    programs = [large("GRU"), large("LSTM")]
    for case in (CASES[3], CASES[6]):  # blocks that wait for each other, a loop in a loop
        programs.append(compile(Request(case.name, *case.build("float32")), CUDA))
    wanted = {s.name: s for p in programs for s in p.sources if s.name == "prelude" or s.name.startswith("loop_of")}
    used = nvrtc.compile("\n".join(s.text for s in wanted.values()), arch)
    assert len(used) == len(wanted) - 1 == 6
    assert not {name: u for name, u in used.items() if u.spilled or u.stack}
    threads = {s.kernel: s.block[0] for p in programs for s in all_steps(p.steps) if isinstance(s, Launch)}
    assert all(-(-u.registers // 8) * 8 * threads[name] <= 1 << 16 for name, u in used.items())
    assert max(u.shared for u in used.values()) <= 48 << 10


@pytest.mark.parametrize("room", [0, 20 << 10])
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_weights_that_do_not_fit_are_read_again(name: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are in several pieces; of the weights of some steps along them none or some are kept."""
    monkeypatch.setattr(compile_module, "room", lambda arch: room)
    step, arrays = recurrent(name, 40, steps=3)
    program = for_cuda(step.function)
    texts = [text for kernel, text in program.kernels.items() if kernel.startswith("loop_of")]
    assert len(texts) == 2
    assert all(("alloc weights" in text) == (room > 0) for text in texts)
    train(program, step, [np.arange(6).reshape(2, 3)], arrays, 4)
