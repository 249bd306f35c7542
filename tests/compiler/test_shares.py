"""Loops that threads go through with rows of their own: which ones, and that nothing but the time changes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import ops
from gnomon.compiler.program import Launch, Repeat, all_steps

UNITS, STEPS = 24, 7
W = np.random.default_rng(0).normal(size=(UNITS, UNITS)).astype("float32") / 5


def product(h: Any, x: Any) -> Any:
    return ops.tanh(ops.matmul(h, W) + x)


def twice(h: Any, x: Any) -> Any:
    return ops.matmul(ops.tanh(ops.matmul(h, W) * x), W) - h


def weighted(h: Any, x: Any) -> Any:
    """A product for each row of the batch, and a sum along the row."""
    return ops.squeeze(ops.matmul(ops.expand_dims(h, 1), x[:, :, None] * W), 1) / ops.sum(ops.abs(x), 1, keepdims=True)


def turned(h: Any, x: Any) -> Any:
    return ops.roll(h, 1, axis=0) + x


def averaged(h: Any, x: Any) -> Any:
    return h - ops.mean(h, axis=0) + x


def compiled(body: Callable[[Any, Any], Any], reverse: bool = False, batch: int | None = None) -> Any:
    x = gnomon.Input(batch_shape=(batch, STEPS, UNITS), name="x")
    xs = ops.transpose(x, (1, 0, 2))
    last, all_ = ops.scan(lambda h, x: 2 * (body(h, x),), ops.zeros_like(x[:, 0]), xs, reverse=reverse)
    return gnomon.function([x], [last, all_])


def loop_of(function: Any) -> Repeat:
    return next(s for s in all_steps(function.program.steps) if isinstance(s, Repeat))


def expected(body: Callable[[Any, Any], Any], x: np.ndarray, reverse: bool) -> np.ndarray:
    """The last state, by NumPy in float64."""
    w = W.astype("float64")
    h = np.zeros((len(x), UNITS))
    for t in reversed(range(STEPS)) if reverse else range(STEPS):
        now = x[:, t].astype("float64")
        if body is product:
            h = np.tanh(h @ w + now)
        elif body is twice:
            h = np.tanh(h @ w * now) @ w - h
        else:
            h = np.einsum("bi,bij->bj", h, now[:, :, None] * w) / np.abs(now).sum(1, keepdims=True)
    return h


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("body", [product, twice, weighted])
def test_rows_of_their_own(body: Callable[[Any, Any], Any], reverse: bool) -> None:
    function = compiled(body, reverse)
    loop = loop_of(function)
    assert loop.shares != 0
    assert all(isinstance(s, Launch) and s.share != 0 for s in loop.steps)
    assert "in shares of rows" in function.show("program")
    for batch in (1, 2, 7, 8, 9, 16, 17, 31, 33, 40, 100):
        x = np.random.default_rng(batch).normal(size=(batch, STEPS, UNITS)).astype("float32")
        last, all_ = function(x)
        np.testing.assert_allclose(last, expected(body, x, reverse), rtol=2e-4, atol=2e-5)
        np.testing.assert_array_equal(all_[0 if reverse else -1], last)
        alone = [function(x[k : k + 1])[0] for k in range(0, batch, 5)]
        np.testing.assert_allclose(np.concatenate(alone), last[::5], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("body", [turned, averaged])
def test_rows_that_ask_for_each_other(body: Callable[[Any, Any], Any]) -> None:
    function = compiled(body)
    assert loop_of(function).shares == 0
    x = np.random.default_rng(1).normal(size=(20, STEPS, UNITS)).astype("float32")
    np.testing.assert_allclose(function(x)[0], function.interpret(x)[0], rtol=1e-4, atol=1e-5)


def test_a_batch_of_known_size_and_one_too_small() -> None:
    assert loop_of(compiled(product, batch=40)).shares != 0
    assert loop_of(compiled(product, batch=4)).shares == 0


def test_gradients() -> None:
    """The loop that goes back is in shares too, and the gradient is that of the loop as NumPy runs it."""
    x = gnomon.Input(batch_shape=(None, STEPS, UNITS), name="x")
    last, _ = ops.scan(lambda h, x: 2 * (product(h, x),), ops.zeros_like(x[:, 0]), ops.transpose(x, (1, 0, 2)))
    function = gnomon.function([x], gnomon.grad(ops.sum(last * last), x))
    loops = [s for s in all_steps(function.program.steps) if isinstance(s, Repeat)]
    assert len(loops) == 2
    assert all(s.shares != 0 for s in loops)
    value = np.random.default_rng(3).normal(size=(19, STEPS, UNITS)).astype("float32")
    np.testing.assert_allclose(function(value), function.interpret(value)[0], rtol=1e-3, atol=1e-5)


def test_the_number_of_threads_changes_no_bit() -> None:
    script = (
        "import hashlib, numpy as np; from tests.compiler.test_shares import *;"
        "f = compiled(product); g = compiled(twice, True);"
        "x = np.random.default_rng(5).normal(size=(77, STEPS, UNITS)).astype('float32');"
        "print(hashlib.sha256(b''.join(r.tobytes() for h in (f, g) for r in h(x))).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "GNOMON_THREADS": n, "PYTHONPATH": os.getcwd()},
            check=True, capture_output=True, text=True,
        ).stdout
        for n in ("1", "2", "3")
    }  # fmt: skip
    assert len(found) == 1
