"""Running totals and ranks: exactly NumPy's, in all layouts, by work that grows with the axis and not its square."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.compiler.graph import Node
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.ops.order import Cumulate, Rank
from gnomon.compiler.program import Launch
from gnomon.compiler.sizes import Dim, evaluate, symbol
from gnomon.functions import Function, function
from gnomon.tensor import Tensor
from tests.emulator import compiler
from tests.emulator.programs import Batch

n, m = symbol("n"), symbol("m")


def leaf(*shape: Dim, dtype: str = "float32") -> Node:
    return Input(5_200_000, "x", dtype, shape)()


def compiled(x: Node, output: Node) -> Function:
    return function(Tensor(x), Tensor(output), on_unused_input="ignore")


SHAPES = [(n,), (n, m), (7, 33), (n, 64), (2, n, m), (3, 40, 100)]
SIZES = ({"n": 1, "m": 1}, {"n": 5, "m": 70})


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_running_totals_are_exact_along_every_axis(shape: tuple[Dim, ...], reverse: bool) -> None:
    rng = np.random.default_rng(3)
    for axis in range(len(shape)):
        for kind, running in (("sum", np.cumsum), ("prod", np.cumprod)):
            x = leaf(*shape)
            fn = compiled(x, Cumulate(kind, axis, reverse)(x))
            for sizes in SIZES:
                value = rng.uniform(0.5, 1.5, [evaluate(d, sizes) for d in shape]).astype(np.float32)
                turned = np.flip(value, axis) if reverse else value
                want = running(turned, axis, dtype=np.float32)
                np.testing.assert_array_equal(fn(value), np.flip(want, axis) if reverse else want)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "uint8", "int64"])
def test_totals_of_other_numbers(dtype: str) -> None:
    """float16 is added up in float32; integers wrap around."""
    x = leaf(n, m, dtype=dtype)
    value = (np.random.default_rng(4).uniform(0, 9, (3, 90))).astype(dtype)
    wide = np.float32 if dtype == "float16" else dtype
    want = np.cumsum(value, 1, dtype=wide).astype(dtype)
    np.testing.assert_array_equal(compiled(x, Cumulate("sum", 1)(x))(value), want)


def test_of_nothing_nothing() -> None:
    x = leaf(n, m)
    fn = compiled(x, Cumulate("sum", 0)(x))
    assert fn(np.zeros((0, 3), np.float32)).shape == (0, 3)
    assert fn(np.zeros((3, 0), np.float32)).shape == (3, 0)


def test_a_running_total_is_one_pass() -> None:
    """Its arithmetic doubles when the axis does."""
    x = leaf(n)
    (launch,) = (s for s in compiled(x, Cumulate("sum", 0)(x)).program.steps if isinstance(s, Launch))
    assert evaluate(launch.flops, {"n": 2000}) == 2 * evaluate(launch.flops, {"n": 1000})


# ---- ranks


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of which many are equal, with all that floats have besides."""
    rng = np.random.default_rng(5)
    drawn = rng.integers(-100, 100, shape)
    if np.dtype(dtype).kind != "f":
        wide = drawn * (1 << (np.dtype(dtype).itemsize * 8 - 8)) if dtype != "bool" else drawn % 2
        return wide.astype(dtype)
    special = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-5, -1e-5])
    return np.where(rng.random(shape) < 0.3, rng.choice(special, shape), drawn / 8).astype(dtype)


def ranks(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """By Python's sort, which is stable: NaN is above all."""
    found = np.empty(x.shape, np.int32)
    for where in np.ndindex(*x.shape[:axis], *x.shape[axis + 1 :]):
        at = (*where[:axis], slice(None), *where[axis:])
        row = [(bool(v != v), v if v == v else 0) for v in x[at].tolist()]
        order = sorted(range(len(row)), key=row.__getitem__, reverse=False)
        if descending:
            order = sorted(range(len(row)), key=lambda k, row=row: (-row[k][0], -row[k][1]))
        found[at][order] = np.arange(len(row))
    return found


RANKED = ["float32", "float64", "float16", "int32", "int64", "int8", "uint16", "uint64", "bool"]


@pytest.mark.parametrize("dtype", RANKED)
@pytest.mark.parametrize("descending", [False, True])
def test_ranks_are_those_of_a_stable_sort(dtype: str, descending: bool) -> None:
    x = leaf(n, m, dtype=dtype)
    for axis in (0, 1):
        fn = compiled(x, Rank(axis, descending)(x))
        for shape in ((1, 1), (3, 130), (90, 2)):
            value = values(dtype, shape)
            np.testing.assert_array_equal(fn(value), ranks(value, axis, descending), err_msg=f"{axis}, {shape}")


@pytest.mark.parametrize("extent", [1, 3, 64, 65, 300])
def test_ranks_along_axes_of_known_length(extent: int) -> None:
    x = leaf(n, extent)
    value = values("float32", (5, extent))
    np.testing.assert_array_equal(compiled(x, Rank(1)(x))(value), ranks(value, 1, False))


def test_ranking_grows_with_the_length_and_not_its_square() -> None:
    x = leaf(n)
    (launch,) = (s for s in compiled(x, Rank(0)(x)).program.steps if isinstance(s, Launch))
    assert evaluate(launch.flops, {"n": 2_000_000}) < 2.1 * evaluate(launch.flops, {"n": 1_000_000})


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")
def test_a_gpu_ranks_as_a_cpu_does() -> None:
    batch, wanted = Batch(), {}
    for dtype in ("float32", "float64", "uint8"):
        x = leaf(n, m, 2, dtype=dtype)
        batch.add(dtype, [x], [Rank(1)(x), Rank(1, True)(x)])
        wanted[dtype] = values(dtype, (2, 700, 2))
    for dtype, value in wanted.items():
        for order in (0, 3):
            up, down = batch.run(dtype, [value], order)
            np.testing.assert_array_equal(up, ranks(value, 1, False))
            np.testing.assert_array_equal(down, ranks(value, 1, True))
