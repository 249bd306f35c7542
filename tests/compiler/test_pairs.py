"""Short rows are done two at a time: each comes out as by itself."""

from __future__ import annotations

import numpy as np
import pytest

import gnomon
from gnomon import ops
from gnomon.compiler import lower
from gnomon.compiler.lowering import cpu


@pytest.fixture(autouse=True)
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever registers this machine has; and nothing is taken from programs of other tests."""
    monkeypatch.setattr(cpu, "REGISTERS", 1)
    monkeypatch.setattr(lower, "_kernels", lower.Remembered())
    monkeypatch.setenv("GNOMON_CACHE", "0")


def softmax(x):
    return [ops.softmax(x, axis=-1)]


def log_softmax_and_sum(x):
    y = ops.log_softmax(x, axis=-1)
    return [y, ops.sum(y, axis=-1)]


def normalized(x):
    mean = ops.mean(x, axis=-1, keepdims=True)
    d = x - mean
    return [d / ops.sqrt(ops.mean(ops.square(d), axis=-1, keepdims=True) + 1e-3)]


def by_numpy(f, x):
    x = x.astype("float64")
    if f is normalized:
        d = x - x.mean(-1, keepdims=True)
        return [d / np.sqrt((d * d).mean(-1, keepdims=True) + 1e-3)]
    e = np.exp(x - x.max(-1, keepdims=True))
    total = e.sum(-1, keepdims=True)
    y = x - x.max(-1, keepdims=True) - np.log(total)
    return [e / total] if f is softmax else [y, y.sum(-1)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [33, 128, 509])
@pytest.mark.parametrize("f", [softmax, log_softmax_and_sum, normalized])
def test_rows_are_what_they_are_alone(f, width, dtype):
    x = gnomon.Input(batch_shape=(None, width), dtype=dtype)
    run = gnomon.function([x], f(x))
    assert any("pair" in repr(k) for k in run.program.kernels.values())
    rng = np.random.default_rng(0)
    for rows in (1, 2, 3, 8, 101):
        a = rng.standard_normal((rows, width)).astype(dtype) * 3
        got = run(a)
        tolerance = np.finfo(dtype).eps * 40
        for y, want in zip(got if isinstance(got, list) else [got], by_numpy(f, a), strict=True):
            np.testing.assert_allclose(y, want, rtol=tolerance, atol=tolerance * width)
        for y, alone in zip(np.atleast_1d(run(a[-1:])[0]), np.atleast_1d(got[0])[-1:], strict=True):
            np.testing.assert_array_equal(y, alone)  # beside another row or without one


def test_nan_stays_in_its_row():
    x = gnomon.Input(batch_shape=(None, 40))
    run = gnomon.function([x], ops.softmax(x, axis=-1))
    a = np.ones((6, 40), "float32")
    a[2, 7], a[5, 0] = np.nan, np.nan
    y = run(a)
    np.testing.assert_array_equal(np.isnan(y).all(-1), [False, False, True, False, False, True])
    np.testing.assert_allclose(y[[0, 1, 3, 4]], 1 / 40, rtol=1e-6)


def test_rows_that_are_changed_in_place():
    w = gnomon.Variable(np.arange(5 * 48, dtype="float32").reshape(5, 48) / 100, name="w")
    before = w.numpy()
    step = gnomon.function([], updates={w: normalized(w)[0]})
    step()
    np.testing.assert_allclose(w.numpy(), by_numpy(normalized, before)[0], rtol=1e-4, atol=1e-5)


def test_long_rows_and_single_folds_are_not_paired():
    for shape, f in (((None, 2000), softmax), ((None, 64), lambda x: [ops.sum(ops.exp(x), axis=-1)])):
        x = gnomon.Input(batch_shape=shape)
        run = gnomon.function([x], f(x))
        assert not any("pair" in repr(k) for k in run.program.kernels.values())
