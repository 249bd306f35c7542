"""Updates in place: whoever needs an old value gets it, whatever the order the kernels run in."""

import numpy as np
import pytest

from gnomon.compiler.program import Launch
from gnomon.functions import function
from gnomon.tensor import Tensor, as_dims, new_input
from gnomon.variable import Variable

X = np.linspace(-1, 1, 35, dtype="float32").reshape(7, 5)


def variable(*shape: int) -> Variable:
    return Variable(np.random.default_rng(sum(shape)).normal(size=shape).astype("float32"))


def swap():
    a, b = variable(5), variable(5)
    return {a: b, b: a}, []


def chain():
    a, b = variable(5), variable(5)
    return {a: b, b: b - 1}, []


def chain_the_other_way():
    a, b = variable(5), variable(5)
    return {b: b - 1, a: b}, []


def old_value_is_an_output():
    a = variable(5)
    return {a: a * 2}, [a, a + 1, (a * a).sum()]


def product_reads_what_it_updates(x):
    w = variable(5, 5)
    y = x @ w
    return {w: w - x.T @ y}, [(w * w).sum(), y]


def column_sum_updates(x):
    a, b = variable(5), variable(5)
    new = a - x.sum(axis=0) * 0.1
    return {a: new, b: b + (new * new).sum() + (a * a).sum()}, [new, a * 2]


def rows_read_at_another_place():
    a = variable(64, 40)
    centred = a - a.max(axis=1, keepdims=True)
    return {a: centred / (centred * centred).sum(axis=1, keepdims=True) + a.sum(axis=0)}, []


def later_stage_needs_the_old_value():
    a, b = variable(8, 6), variable(8, 6)
    total = a.sum(axis=1, keepdims=True)
    new = a - total
    return {a: new, b: a * new.max(axis=1, keepdims=True)}, []


CASES = [swap, chain, chain_the_other_way, old_value_is_an_output, rows_read_at_another_place,
         later_stage_needs_the_old_value, product_reads_what_it_updates, column_sum_updates]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_updates_are_computed_from_old_values(case):
    x = Tensor(new_input("x", "float32", as_dims((None, 5), "x")))
    takes = case.__code__.co_argcount == 1
    updates, outputs = case(x) if takes else case()
    f = function([x] if takes else [], outputs, updates=updates)
    arrays = [X] if takes else []
    g = function([x] if takes else [], [*outputs, *updates.values()])
    expected = g.interpret(*arrays)
    got = [*f.run(arrays), *(v.numpy() for v in updates)]
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_elementwise_update_is_in_place():
    a = variable(100)
    f = function([], [], updates={a: a * 2})
    assert len([s for s in f.program.steps if isinstance(s, Launch)]) == 1
    assert not [s for s in f.program.slots if s.kind == "temporary"]
