"""Loops as single launches, on the emulator: a few blocks that run at once and wait for each other."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.compiler.compile import Request, Stages, compile
from gnomon.compiler.grad import vjp
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.program import Launch, Program, Repeat, all_steps
from gnomon.compiler.targets import CUDA
from gnomon.compiler.verify import check_bounds, check_program
from tests.compiler.test_scan import CASES, SIZES, arrays_for, close, ending, leaf
from tests.emulator import compiler
from tests.emulator.programs import Emulated

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


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_a_loop_and_its_gradients(case, reverse) -> None:
    inputs, outputs = case.build("float32", reverse)
    seeds = [leaf("seed", "float32", *y.shape) for y in outputs]
    back = [g for g in vjp(outputs, seeds, inputs) if g is not None]
    given, wanted = [*inputs, *seeds], [*outputs, *back]
    program = lowered(case.name, given, wanted)
    assert loops(program) or case.name == "mapped"  # which needs no loop
    run = Emulated(program)
    for order, sizes in enumerate(SIZES):
        arrays = [np.asarray(a) for a in arrays_for(given, sizes)]
        expected = evaluate_graph(wanted, dict(zip(given, arrays, strict=True)), sizes)
        close(run(arrays, order=order), expected, "float32", 8)


def test_a_loop_that_ends_itself() -> None:
    first = leaf("first", "int64")
    found = ending(9, None, first)
    program = lowered("collatz", [first], [*found.last, *found.stacks, found.count])
    assert len(loops(program)) == 1
    last, rows, counters, count = Emulated(program)([np.asarray(6)])
    assert (last, count) == (1, 8)
    assert rows.tolist() == [3, 10, 5, 16, 8, 4, 2, 1, 0]
    assert counters.tolist() == [*range(8), 0]
