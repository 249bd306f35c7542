"""Rows on CUDA: who shares them, how their folds are made, what is read once and as one; that all comes out right."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from gnomon.compiler.compile import Request, Stages, compile
from gnomon.compiler.graph import Node
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.lowering import cuda
from gnomon.compiler.lowering.cuda_rows import team_of
from gnomon.compiler.ops import build
from gnomon.compiler.program import Launch
from gnomon.compiler.render.cuda import render
from gnomon.compiler.render.cuda_reach import reach
from gnomon.compiler.sizes import evaluate, product, symbol
from gnomon.compiler.targets import CUDA
from gnomon.runtime import gpu_run
from tests.compiler.test_cuda_ops import given, layer_normalize, softmax
from tests.emulator import compiler, nvrtc
from tests.emulator.programs import Batch, Emulated, kernels

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")
needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")
b, m = symbol("b"), symbol("m")


def with_its_mirror(x: Node) -> Node:
    """Exponentials and, beside each, the one that another thread has stored."""
    weights = softmax(x)
    return build.subtract(weights, build.multiply(build.flip(weights, [1]), 0.5))


def cumulative_distribution(x: Node) -> Node:
    return build.divide(build.max(build.square(x), 0), build.sum(build.exp(x), 0))


def everything(x: Node) -> list[Node]:
    return [build.sum(x, 1), build.max(x, 1), build.min(x, 1), build.prod(build.cos(x), 1)]


def truth(x: Node) -> list[Node]:
    return [build.any(x, 1), build.all(x, 1), build.any(x, 0)]


CASES: dict[str, tuple[Callable[..., Node | list[Node]], Node]] = {
    "short": (softmax, given(b, 10)),
    "of_a_warp": (softmax, given(b, 96)),
    "odd": (layer_normalize, given(b, 257)),
    "of_a_block": (softmax, given(b, 1000)),
    "of_a_large_block": (layer_normalize, given(b, 6000)),
    "long": (softmax, given(3, 20_000)),
    "symbolic": (layer_normalize, given(b, m)),
    "few_symbolic": (softmax, given(3, m)),
    "columns": (cumulative_distribution, given(b, 70)),
    "few_columns": (cumulative_distribution, given(m, 6)),
    "whole": (lambda x: [build.sum(x), build.max(x)], given(b, m)),
    "several": (everything, given(b, m)),
    "shared": (with_its_mirror, given(b, 50)),
    "shared_by_a_block": (with_its_mirror, given(b, 300)),
    "integers": (everything, given(b, 40, dtype="int64")),
    "bytes": (everything, given(b, 24, dtype="int8")),
    "truth": (truth, given(b, 33, dtype="bool")),
    "double": (layer_normalize, given(b, 64, dtype="float64")),
    "half": (softmax, given(b, 128, dtype="float16")),
}
SIZES = [{"b": 1, "m": 1}, {"b": 5, "m": 67}, {"b": 66, "m": 300}]


@cache
def batch() -> Batch:
    graphs = Batch()
    for name, (function, x) in CASES.items():
        out = function(x)
        graphs.add(name, [x], out if isinstance(out, list) else [out])
    return graphs


def text(name: str) -> str:
    """The kernels of a case, without what stands in front."""
    return "".join(s.text for s in batch().programs[name].sources if s.name != "prelude")


def value(x: Node, sizes: dict[str, int]) -> np.ndarray:
    shape = tuple(evaluate(d, sizes) for d in x.shape)
    rng = np.random.default_rng(len(sizes))
    if x.dtype == "bool":
        return rng.random(shape) < 0.1
    return (rng.standard_normal(shape) * 2).astype(x.dtype)


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_rows_agree_with_the_oracle_in_any_order_of_threads(name: str) -> None:
    x = CASES[name][1]
    for sizes in SIZES[: 3 if name != "of_a_large_block" else 2]:
        array = value(x, sizes)
        outputs = batch().stages[name].graph
        wanted = evaluate_graph(outputs, {x: array}, sizes)
        runs = [batch().run(name, [array], order) for order in (0, 5)]
        for got, again, want in zip(*runs, wanted, strict=True):
            np.testing.assert_array_equal(again, got)  # every fold has a fixed shape
            other = {"float64": 1e-11, "float16": 2e-3}
            tolerance = other.get(want.dtype.name, 3e-5) if want.dtype.kind == "f" else 0
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def teams(name: str) -> list[tuple[str, int, int] | None]:
    found = [team_of(rows) for _, rows in batch().stages[name].rows]
    return [t if t is None else (t.form, t.rows, t.size) for t in found]


def test_who_shares_a_row() -> None:
    assert teams("short") == [("warp", 32, 8)]
    assert teams("of_a_warp") == [("warp", 16, 16)]  # vectors, two for each thread
    assert teams("odd") == [("block", 1, 256)]
    assert teams("of_a_large_block") == [("block", 1, 512)]
    assert teams("long") == [("block", 1, 1024)]
    assert teams("symbolic") == [("warp", 8, 32)]
    assert teams("few_symbolic") == [("block", 1, 256)]
    assert teams("columns") == [("columns", 32, 8)]
    assert teams("few_columns") == [("columns", 8, 32)]


def test_threads_of_a_warp_wait_for_no_other() -> None:
    for name in ("short", "of_a_warp", "symbolic"):
        assert "__syncthreads" not in text(name)
        assert "__shared__" not in text(name)
        assert "__shfl_xor_sync" in text(name)


def test_a_block_meets_once_for_each_fold() -> None:
    assert text("of_a_block").count("__syncthreads") == 2
    assert sum(map(int, re.findall(r"__shared__ float \w+\[(\d+)\]", text("of_a_block")))) == 2 * 8


@pytest.mark.parametrize("name", ["of_a_warp", "of_a_block"])
def test_a_row_is_read_once_and_written_once(name: str) -> None:
    """From then on it is in registers; four neighbours at a time."""
    (launch,) = (s for s in batch().programs[name].steps if isinstance(s, Launch))
    assert len(launch.buffers) == 2
    assert text(name).count("gn_load<gn_vector<float, 4>>(m0") == 1
    assert text(name).count("gn_store(m1") == 1
    assert not re.search(r"\bm[01]\[", text(name))


def test_what_other_threads_have_stored_is_waited_for() -> None:
    assert "__syncwarp" in text("shared")
    assert text("shared_by_a_block").count("__syncthreads") == 2  # where the sum is made all have stored as well


# ---- elements


def elementwise(function: Callable[..., Node], *inputs: Node, aligned: bool = True) -> str:
    stages = Stages()
    compile(Request("f", inputs, [function(*inputs)]), CUDA, stages)
    ((_, rows),) = stages.rows
    kernel, _ = cuda.kernel(rows, aligned=aligned)
    return render(kernel, "k")


def wide(code: str) -> tuple[int, int]:
    """Loads and stores of four elements."""
    return code.count("gn_load<"), code.count("gn_store(")


def test_neighbouring_elements_are_read_and_written_as_one() -> None:
    add = build.add
    assert wide(elementwise(add, given(b, 64), given(64))) == (2, 1)  # a row's vectors, and those of the bias
    assert wide(elementwise(add, given(b, m), given(b, m))) == (2, 1)  # the last elements may be fewer than four
    assert wide(elementwise(add, given(b, 10), given(10))) == (0, 0)  # no vector lies within a row of ten
    assert wide(elementwise(build.exp, given(100))) == (0, 0)  # little to do: a thread for each
    assert wide(elementwise(build.exp, given(b, 64), aligned=False)) == (0, 0)


def test_no_tail_where_all_elements_are_in_vectors() -> None:
    assert elementwise(build.exp, given(b, 64)).count("lane <") == 1
    assert elementwise(build.exp, given(b, m)).count("lane <") == 2


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_rows_stay_in_registers(arch: str) -> None:
    usage = nvrtc.compile(batch().text(), arch)
    assert usage.keys() == {k for p in batch().programs.values() for k in kernels(p)}
    assert not {name: used for name, used in usage.items() if used.spilled > 16 or used.stack > 32}
    assert max(used.registers for used in usage.values()) <= 64  # a block of 1024 threads can have so many
    assert max(used.shared for used in usage.values()) <= 48 << 10


# ---- indices


def test_indices_are_computed_in_as_many_bits_as_sizes_need() -> None:
    code = elementwise(build.exp, given(b, 64))
    assert "gn_int" in code
    assert "long long" not in code.replace("long long b_given", "")
    large = elementwise(build.exp, given(1 << 20, 1 << 12))
    assert "gn_int" not in large  # 2**32 elements in any case


@pytest.mark.parametrize("name", ["whole", "few_columns", "several"])
def test_reach_is_above_all_that_is_computed(name: str) -> None:
    kernels_ = batch().stages[name].kernels.values()
    found = [d for k in kernels_ for d in reach(k) or ()]
    assert found
    for sizes in ({"b": 1, "m": 1}, {"b": 1000, "m": 777}):
        elements = evaluate(product(CASES[name][1].shape), sizes)
        assert max(evaluate(d, sizes) for d in found) >= elements


@needs_compiler
def test_large_arrays_get_kernels_that_count_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_run, "NARROW", 5000)
    x = given(b, m)
    program = compile(Request("f", [x], [softmax(x), build.sum(x, 0)]), CUDA)
    emulated = Emulated(program)
    for rows, is_wide in ((3, False), (400, True), (3, False)):
        array = value(x, {"b": rows, "m": 40})
        wanted = evaluate_graph([softmax(x), build.sum(x, 0)], {x: array})
        for got, want in zip(emulated([array]), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        narrow = emulated.executable.module_for({"b": rows, "m": 40}) is emulated.executable.module
        assert narrow != is_wide
