"""Taps of convolutions that meet nothing but padding are left out, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.compiler.graph import TensorType
from gnomon.compiler.kernel import Apply, Buffer, Load, Local
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.taps import Edge, edges
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import fresh_input
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import Index, Size, symbol
from gnomon.functions import function
from gnomon.tensor import Tensor

LANES = 32


def convolved(shape, kernel, strides, dilations, low, high, dtype="float32"):
    """A function of pictures [batch, *shape] and filters, padded by `low` and `high` zeros along each axis."""
    rank = len(kernel)
    x = fresh_input("x", TensorType(dtype, (symbol("batch"), *shape)))
    w = fresh_input("w", TensorType(dtype, (*kernel, shape[-1], LANES)))
    p = build.patches(build.pad(x, (0, *low, 0), (0, *high, 0)), 1, kernel, strides, dilations)
    places, taps = tuple(range(rank + 1)), tuple(range(rank + 1, 2 * rank + 2))
    out = 2 * rank + 2
    y = build.contract(p, w, (*places, *taps), (*taps, out), (*places, out))
    return function([Tensor(x), Tensor(w)], Tensor(y))


def by_sums(x, w, strides, dilations, low, high):
    """The same in NumPy, tap by tap, in float64."""
    x = np.pad(x.astype("float64"), [(0, 0), *zip(low, high, strict=True), (0, 0)])
    kernel = w.shape[: len(strides)]
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    outs = [(n - r) // s + 1 for n, r, s in zip(x.shape[1:-1], reach, strides, strict=True)]
    total = np.zeros((x.shape[0], *outs, w.shape[-1]))
    for tap in np.ndindex(*kernel):
        how = tap, dilations, outs, strides
        at = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(*how, strict=True))
        total += x[(slice(None), *at)] @ w[tap].astype("float64")
    return total


CASES = {
    "a tile is a line": ((7, 7, 16), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    "a line is two tiles": ((14, 14, 16), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    "four tiles": ((6, 28, 16), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    "no tile fits": ((5, 9, 16), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    "far taps": ((8, 8, 16), (7, 5), (1, 1), (1, 1), (3, 2), (3, 2)),
    "more zeros than taps": ((4, 6, 16), (3, 3), (1, 1), (1, 1), (4, 5), (1, 5)),
    "in steps": ((16, 16, 16), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1)),
    "in steps, one side": ((14, 28, 16), (3, 3), (2, 2), (1, 1), (0, 0), (1, 1)),
    "spread": ((8, 8, 16), (3, 3), (1, 1), (2, 3), (2, 3), (2, 3)),
    "only zeros": ((1, 1, 16), (3, 3), (1, 1), (1, 1), (8, 8), (8, 8)),
    "one axis": ((16, 16), (5,), (1,), (1,), (2,), (2,)),
    "one axis, causal": ((24, 16), (4,), (1,), (2,), (6,), (0,)),
    "three axes": ((3, 4, 8, 16), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "few channels": ((8, 8, 3), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_sums_are_those_of_all_taps(name, dtype, monkeypatch):
    monkeypatch.setenv("GNOMON_WINOGRAD", "0")
    shape, kernel, *how = CASES[name]
    f = convolved(shape, kernel, *how, dtype=dtype)
    rng = np.random.default_rng(0)
    w = rng.standard_normal((*kernel, shape[-1], LANES)).astype(dtype)
    for batch in (1, 3):
        x = rng.standard_normal((batch, *shape)).astype(dtype)
        want = by_sums(x, w, *how)
        np.testing.assert_allclose(f(x, w), want, rtol=0, atol=np.abs(want).max() * np.finfo(dtype).eps * 100)


def test_what_meets_padding_is_not_multiplied(monkeypatch):
    """An infinite weight makes NaN of every zero that it is multiplied with."""
    monkeypatch.setenv("GNOMON_WINOGRAD", "0")
    f = convolved((8, 8, 16), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
    x = np.ones((2, 8, 8, 16), "float32")
    for tap, first in (((0, 1), (0, slice(None))), ((1, 0), (slice(None), 0)), ((1, 2), (slice(None), 7))):
        w = np.ones((3, 3, 16, LANES), "float32")
        w[tap] = np.inf
        y = f(x, w)
        edge = np.zeros((8, 8), bool)
        edge[first] = True
        assert np.isfinite(y[:, edge]).all(), tap
        assert np.isposinf(y[:, ~edge]).all(), tap


def test_edges_of_a_product():
    o, lanes, tap, c = Index("o", 10), Index("n", LANES), Index("t", 3), Index("c", 16)
    m, w = Buffer("m", "float32", (21, 16)), Buffer("w", "float32", (3, 16, LANES))
    y, total = Buffer("y", "float32", (10, LANES)), Local("v", "float32")
    left = Load(m, (Size.of(o) * 2 + Size.of(tap), Size.of(c)))
    right = Load(w, (Size.of(tap), Size.of(c), Size.of(lanes)))
    fold = Stage((tap, c), [(total, "sum", Apply(scalar("multiply"), (left, right)))])
    store = Stage((), stores=[(y, (Size.of(o), Size.of(lanes)), total)])
    rows = RowProgram((o, lanes), (fold, store), (), (m, w), (y,))
    assert edges(rows, []) == ()
    (edge,) = edges(rows, [("m", (1, 0), (2, 0))])
    assert edge == Edge(o, tap, stride=2, dilation=1, low=1, high=19)
    assert [edge.before(t, 4) for t in range(3)] == [1, 0, 0]
    assert [edge.after(t, 4) for t in range(3)] == [0, 1, 1]
    assert edge.share() == pytest.approx(3 / 30)
