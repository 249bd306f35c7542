"""What is made of variables alone is kept from call to call, until any variable changes."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon import ops
from gnomon.compiler.program import Changed, Launch, Prepare
from gnomon.compiler.sizes import symbol
from gnomon.functions import function
from gnomon.runtime.buffer import CLOCK
from gnomon.tensor import Tensor, new_input
from gnomon.variable import Variable


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


@pytest.fixture
def layer():
    """A product by a weight of several panels, scaled by what is computed from variables."""
    x = Tensor(new_input("x", "float32", (symbol("batch"), 30)))
    w, s = Variable(random(30, 80, seed=1), name="w"), Variable(np.abs(random(80, seed=2)) + 0.5, name="s")
    f = function([x], (x @ w) * (s / ops.sqrt(s * s + 1e-3)))
    wanted = lambda a: (a @ w.numpy()) * (s.numpy() / np.sqrt(s.numpy() ** 2 + 1e-3))
    return f, w, s, x, wanted


def test_packing_is_among_what_is_kept(layer):
    f, *_ = layer
    (prepare,) = (s for s in f.program.steps if isinstance(s, Prepare))
    assert any("pack" in s.label for s in prepare.steps if isinstance(s, Launch))
    assert {"lanes", "seen"} <= {s.name for s in f.program.slots if s.kind == "kept"}


def test_each_change_of_a_variable_is_seen(layer):
    f, w, s, x, wanted = layer
    a = random(9, 30, seed=3)
    near = lambda: np.testing.assert_allclose(f(a), wanted(a), rtol=2e-5, atol=2e-5)
    near()
    near()
    w.assign(w.numpy() * 2)
    near()
    s.set_value(s.numpy() + 1)
    near()
    step = function([x], ops.sum(x), updates={w: w * 0.5})
    assert isinstance(step.program.steps[-1], Changed)
    step(a)
    near()
    memory = w.get_value(borrow=True)  # may change at any time from now on
    for _ in range(2):
        memory *= 0.5
        near()
    CLOCK[...] = 1 << 40  # nobody else's variable does


def test_a_program_that_writes_a_variable_keeps_nothing_made_of_it():
    x = Tensor(new_input("x", "float32", (symbol("batch"), 30)))
    w = Variable(random(30, 80), name="w")
    f = function([x], x @ w, updates={w: w * 0.9})
    assert not any(isinstance(s, Prepare) for s in f.program.steps)
    a, before = random(5, 30, seed=1), w.numpy()
    np.testing.assert_allclose(f(a), a @ before, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(f(a), a @ (before * np.float32(0.9)), rtol=2e-5, atol=2e-5)


def test_step_by_step_is_the_same(layer):
    f, w, _, _, wanted = layer
    a = random(4, 30, seed=5)
    f.profile(a)
    w.assign(-w.numpy())
    f.profile(a)
    np.testing.assert_allclose(f(a), wanted(a), rtol=2e-5, atol=2e-5)
