"""Loops on the emulator: launches inside a loop of the host, on rows of arrays."""

import numpy as np
import pytest

from gnomon.compiler.compile import Request, compile
from gnomon.compiler.grad import vjp
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.targets import CUDA
from tests.compiler.test_scan import CASES, SIZES, arrays_for, close, ending, leaf
from tests.emulator import compiler
from tests.emulator.programs import Emulated

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")


@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("simple", "shifting", "nested")], ids=repr)
def test_loops_and_their_gradients(case) -> None:
    inputs, outputs = case.build("float32")
    seeds = [leaf("seed", "float32", *y.shape) for y in outputs]
    back = [g for g in vjp(outputs, seeds, inputs) if g is not None]
    given, wanted = [*inputs, *seeds], [*outputs, *back]
    run = Emulated(compile(Request(case.name, given, wanted), CUDA))
    for sizes in SIZES[:3]:
        arrays = arrays_for(given, sizes)
        close(run(arrays), evaluate_graph(wanted, dict(zip(given, arrays, strict=True)), sizes), "float32", 8)


def test_a_loop_that_ends_itself() -> None:
    first = leaf("first", "int64")
    found = ending(9, None, first)
    run = Emulated(compile(Request("collatz", [first], [*found.last, *found.stacks, found.count]), CUDA))
    last, rows, counters, count = run([np.asarray(6)])
    assert (last, count) == (1, 8)
    assert rows.tolist() == [3, 10, 5, 16, 8, 4, 2, 1, 0]
    assert counters.tolist() == [*range(8), 0]
