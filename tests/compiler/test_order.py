"""Running totals: exact order of additions, all layouts, and one pass instead of one search for each element."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.compiler.graph import Node
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.ops.order import Cumulate
from gnomon.compiler.program import Launch
from gnomon.compiler.sizes import Dim, evaluate, symbol
from gnomon.functions import Function, function
from gnomon.tensor import Tensor

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
