"""Functions that AVX-512 has instructions for: the formulas in NumPy anywhere, the instructions where they are."""

from __future__ import annotations

import numpy as np
import pytest

import gnomon
from gnomon import ops
from gnomon.compiler.kernel import Local
from gnomon.compiler.ops import avx512
from gnomon.runtime.cpu import host_target

from .test_scalar import BY_DOUBLE, UNARY, distance, points, reference, value

BOUNDS = {"erf": 2.4, ("exp", "float32"): 1.1}
EACH = [(name, dtype) for name, of in avx512.EXPANSIONS.items() for dtype in of]


def bound(name: str, dtype: str) -> float:
    return BOUNDS.get((name, dtype)) or BOUNDS.get(name, UNARY[name][1][dtype == "float64"])


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_formulas(name: str, dtype: str) -> None:
    f, _, ranges = UNARY[name]
    x = np.concatenate([np.random.default_rng(9).uniform(a, b, 500) for a, b in ranges[-2:]]).astype(dtype)
    x = x[(np.abs(x) < 80) & (x != 0)]
    got = value(avx512.EXPANSIONS[name][dtype](Local("x", dtype)), {"x": x})
    assert got.dtype == dtype
    assert (distance(got, reference(f, dtype, x)) <= bound(name, dtype) + 2).all()  # products are rounded too


@pytest.mark.skipif(not host_target().avx512, reason="this machine has no AVX-512")
@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_instructions(name: str, dtype: str) -> None:
    """All magnitudes and all special numbers, in vectors of any number of lanes."""
    f, _, ranges = UNARY[name]
    x = points(dtype, ranges)
    want = f(x) if dtype == "float64" and name in BY_DOUBLE else reference(f, dtype, x)
    given = gnomon.Input(batch_shape=(None,), dtype=dtype)
    run = gnomon.function([given], getattr(ops, name)(given))
    assert "avx512" in run.show("llvm")
    got = run(x)
    units = distance(got, want)
    worst = int(np.argmax(units))
    assert units[worst] <= bound(name, dtype), (x[worst], got[worst], want[worst], units[worst])
    assert (np.signbit(got) == np.signbit(want))[(x == 0) & (want == 0)].all()
    for lanes in (1, 2, 3, 7, 15, 17, 33, 100):
        some = gnomon.Input(batch_shape=(lanes,), dtype=dtype)
        row = gnomon.Input(batch_shape=(), dtype=dtype)
        run = gnomon.function([some, row], [getattr(ops, name)(some), getattr(ops, name)(row)])
        several, one = run(x[:lanes], x[lanes].reshape(()))
        np.testing.assert_array_equal(several, got[:lanes])
        np.testing.assert_array_equal(one, got[lanes])
