"""Requests that are to give one program have one digest, and no others."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.calculus import custom_gradient
from gnomon.compiler.digest import digest
from gnomon.compiler.graph import Op, Origin, layer_scope, numbered_origins, with_origins
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input, Parameter
from gnomon.compiler.sizes import symbol

N, M = symbol("n"), symbol("m")
_keys = iter(range(7_000_000, 8_000_000))


def leaf(name="x", shape=(N, 4), dtype="float32", kind=Input):
    return kind(next(_keys), name, dtype, shape)()


def name_of(make, inputs=2, updates=(), repeat=None, prepare=True, tables=False, **options):
    xs = [leaf(f"x{k}", **options) for k in range(inputs)]
    outputs = make(*xs)
    found = digest(xs, outputs if isinstance(outputs, list) else [outputs], updates, repeat, prepare, tables)
    return found.name


def plain(x, y):
    return build.add(build.multiply(x, 2.0), build.exp(y))


def test_equal_graphs_of_other_leaves():
    assert name_of(plain) == name_of(plain)
    x, y = leaf("anything"), leaf("else")
    found = digest([x, y], [plain(x, y)], (), None, True)
    assert found.name == name_of(plain)
    assert found.leaves == (x, y)


@pytest.mark.parametrize(
    "other",
    [
        lambda: name_of(lambda x, y: plain(y, x)),
        lambda: name_of(lambda x, y: build.add(build.multiply(x, 2.5), build.exp(y))),
        lambda: name_of(lambda x, y: build.add(build.exp(y), build.multiply(x, 2.0))),
        lambda: name_of(lambda x, y: build.add(build.multiply(x, 2.0), build.exp(x))),
        lambda: name_of(lambda x, y: [plain(x, y), x]),
        lambda: name_of(plain, inputs=2, prepare=False),
        lambda: name_of(plain, inputs=2, tables=True),
        lambda: name_of(plain, shape=(N, 5)),
        lambda: name_of(plain, shape=(M, 4)),
        lambda: name_of(plain, dtype="float64"),
        lambda: name_of(plain, kind=Parameter),
    ],
)
def test_other_graphs_have_other_names(other):
    assert other() != name_of(plain)


def test_fields_of_ops_count():
    names = [
        name_of(lambda x, y: build.reduce("sum", x, [0])),
        name_of(lambda x, y: build.reduce("sum", x, [1])),
        name_of(lambda x, y: build.reduce("max", x, [0])),
        name_of(lambda x, y: build.add(x, 0.0)),
        name_of(lambda x, y: build.add(x, -0.0)),
        name_of(lambda x, y: build.add(x, np.float32([1, 2, 3, 4]))),
        name_of(lambda x, y: build.add(x, np.float32([1, 2, 3, 5]))),
        name_of(lambda x, y: build.cast(x, "int32")),
        name_of(lambda x, y: build.cast(x, "int64")),
    ]
    assert len(set(names)) == len(names)


def test_updates_and_rounds_count():
    x, v, w = leaf(), leaf("v", (4,), kind=Parameter), leaf("w", (4,), kind=Parameter)
    counter, count = leaf("k", (), "int64"), symbol("steps")
    new = build.add(v, build.reduce("sum", x, [0]))
    names = [
        digest([x], [], [(v, new)], None, True).name,
        digest([x], [], [(w, new)], None, True).name,
        digest([x], [new], [], None, True).name,
        digest([x], [], [(v, new), (w, v)], None, True).name,
        digest([x], [], [(w, v), (v, new)], None, True).name,
        digest([x], [], [(v, new)], (counter, count), True).name,
        digest([x], [], [(v, new)], (counter, count + 1), True).name,
    ]
    assert len(set(names)) == len(names)


def test_graphs_inside_ops_count():
    def looped(step):
        x = gnomon.matrix("x", dtype="float32")
        last, _ = ops.scan(lambda h, row: (step(h, row), row), ops.zeros(4), x)
        return digest([x.node], [last.node], (), None, True).name

    assert looped(lambda h, row: h + row) == looped(lambda h, row: h + row)
    assert looped(lambda h, row: h + row) != looped(lambda h, row: h * row)

    def chosen(a, b):
        x = gnomon.vector("x", dtype="float32")
        y = gnomon.cond(ops.sum(x) > 0, lambda: a(x), lambda: b(x))
        return digest([x.node], [y.node], (), None, True).name

    assert chosen(ops.exp, ops.sin) == chosen(ops.exp, ops.sin)
    assert chosen(ops.exp, ops.sin) != chosen(ops.sin, ops.exp)


def test_gradients_of_ones_own_do_not_count():
    @custom_gradient
    def f(x):
        return ops.exp(x), lambda upstream: upstream

    def name():
        x = gnomon.vector("x", dtype="float32")
        return digest([x.node], [f(x).node], (), None, True).name

    assert name() == name()


def test_names_of_layers_do_not_count_but_which_share_one():
    def made(layer, f, x):
        with layer_scope(layer):
            return f(x)

    def name(first, second):
        x = leaf()
        return digest([x], [made(second, build.sin, made(first, build.exp, x))], (), None, True)

    assert name("a", "b").name == name("c", "d").name
    assert name("a", "b").name != name("a", "a").name
    assert [o.layer for o in name("a", "b").origins][-2:] == ["a", "b"]


def test_numbers_are_shared_by_all_models():
    def name(layer):
        x = leaf()
        with layer_scope(layer):
            two = build.full((N, 4), 2.0)
        with layer_scope("there"):
            return digest([x], [build.multiply(x, two)], (), None, True).name

    kept = build.full((N, 4), 2.0)
    assert name("one") == name("another")
    assert kept.shape == (N, 4)


def test_models_of_other_names_have_one_digest():
    def request():
        inputs = layers.Input((8,))
        x = layers.Dense(4, activation="relu")(inputs)
        x = layers.Dropout(0.5)(x)
        model = gnomon.Model(inputs, layers.Dense(2)(x))
        model.compile("adam", "mse")
        model.memory(4)
        (step,) = model._trainer_state().programs.values()
        r = step.function._request
        return model.name, digest(r.inputs, r.outputs, r.updates, r.repeat, r.prepare).name

    (one, a), (other, b) = request(), request()
    assert one != other
    assert a == b


def test_origins_print_as_numbers_and_back():
    here, there = Origin("here", "a.py", 3), Origin("there", "b.py", 4)
    known = {here: 0}
    with numbered_origins(known):
        text = f"{there!r} and {here!r}"
        assert repr(Origin("", "", 0)) == ""
    assert list(known) == [here, there]
    assert with_origins(text, ["x (c.py:1)", "y"]) == "y and x (c.py:1)"
    assert with_origins("nothing", []) == "nothing"


@dataclass(frozen=True)
class Applied(Op):
    """An op that holds what only this process knows."""

    fn: Callable

    def infer(self, x):
        return x


def test_what_cannot_be_named_has_no_digest():
    x = leaf()
    assert digest([x], [Applied(print)(x)], (), None, True) is None
