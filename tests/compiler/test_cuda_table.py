"""Every row of the op table for CUDA: lowered, compiled to cubin, and run on the emulator against the oracle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from gnomon.compiler import dtypes
from gnomon.compiler.grad import vjp
from gnomon.compiler.graph import Node
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops.leaves import fresh_input
from gnomon.runtime.device import gpu_problem
from tests.emulator import compiler, nvrtc
from tests.emulator.programs import Batch, kernels
from tests.op_table import ROWS, Row, generator, names

REACHED = [r for r in ROWS if not r.guarded]
SMOOTH = [r for r in REACHED if r.smooth and "float64" in r.dtypes]
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")
ORDERS = (0, 3)  # threads forward, and shuffled


@dataclass
class Case:
    """A row in one dtype: its outputs, or their gradients, which need `seeds` for the outputs `of`."""

    inputs: list[Node]
    outputs: list[Node]
    of: list[Node]
    seeds: list[Node]


@cache
def batch() -> tuple[Batch, dict[str, Case]]:
    """All rows in all dtypes, and gradients in float32: one module."""
    programs, cases = Batch(), {}
    for row in REACHED:
        for dtype in row.dtypes:
            cases[f"{row.name}, {dtype}"] = Case(*row.build(dtype), [], [])
    for row in SMOOTH:
        inputs, outputs = row.build("float32")
        of = [y for y in outputs if dtypes.is_float(y.dtype)]
        seeds = [fresh_input("seed", y.type) for y in of]
        found = [g for g in vjp(of, seeds, [x for x in inputs if dtypes.is_float(x.dtype)]) if g is not None]
        cases[f"{row.name}, gradient"] = Case([*inputs, *seeds], found, of, seeds)
    for name, case in cases.items():
        programs.add(name, case.inputs, case.outputs)
    return programs, cases


def check(row: Row, what: str, dtype: str, factor: float, device: str | None = None) -> None:
    rng = generator(row)
    programs, cases = batch()
    name = f"{row.name}, {what}"
    case = cases[name]
    for sizes in row.sizes:
        arrays = row.arrays(sizes, dtype, rng)
        if case.seeds:
            plain = dict(zip(case.inputs, arrays, strict=False))
            shapes = [np.shape(y) for y in evaluate_graph(case.of, plain, sizes)]
            arrays += [rng.standard_normal(s).astype(dtype) for s in shapes]
        values = dict(zip(case.inputs, arrays, strict=True))
        want = [np.asarray(e) for e in evaluate_graph(case.outputs, values, sizes)]
        for order in ORDERS if device is None else (0,):
            row.check(programs.run(name, arrays, order, device), want, dtype, sizes, factor)


@needs_compiler
@pytest.mark.parametrize("row", REACHED, ids=names(REACHED))
def test_cuda_agrees_with_the_oracle(row: Row) -> None:
    for dtype in row.dtypes:
        check(row, dtype, dtype, factor=2)  # both sides may be wrong by the tolerance


@needs_compiler
@pytest.mark.parametrize("row", SMOOTH, ids=names(SMOOTH))
def test_cuda_gradients_agree_with_the_oracle(row: Row) -> None:
    check(row, "gradient", "float32", factor=16)  # a few more operations than the row itself


CARDS = [] if gpu_problem() else ["gpu:0"]


@pytest.mark.gpu
@pytest.mark.parametrize("device", CARDS)
@pytest.mark.parametrize("row", REACHED if CARDS else [], ids=names(REACHED) if CARDS else None)
def test_a_card_agrees_with_the_oracle(row: Row, device: str) -> None:
    for dtype in row.dtypes:
        check(row, dtype, dtype, 2, device)
    if row in SMOOTH:
        check(row, "gradient", "float32", 16, device)


@pytest.mark.skipif(nvrtc.library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_row_compiles_to_cubin(arch: str) -> None:
    programs, cases = batch()
    usage = nvrtc.compile(programs.text(list(cases)), arch)
    printed = {k: p.kernels[k] for p in map(programs.programs.get, cases) if p for k in kernels(p)}
    assert usage.keys() == printed.keys()
    # in float64 the device's own functions keep some numbers around their slow paths; all else must be in registers
    allowed = {name: 192 if "float64" in text else 16 for name, text in printed.items()}
    assert not {name: used for name, used in usage.items() if used.spilled > allowed[name]}
    assert not {name: used for name, used in usage.items() if used.stack > 40}
    assert max(used.registers for used in usage.values()) <= 96
    assert max(used.shared for used in usage.values()) <= 48 << 10
