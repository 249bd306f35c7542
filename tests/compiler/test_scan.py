"""Loops against plain Python loops: values, derivatives of both orders and both modes, many at once, and what is in a
compiled loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from gnomon import debug
from gnomon.compiler import verify
from gnomon.compiler.errors import CheckError, DTypeError, GraphError, ShapeError
from gnomon.compiler.grad import jvp, vjp
from gnomon.compiler.graph import Node, TensorType, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.control import SubGraph
from gnomon.compiler.ops.leaves import Input, fresh_input
from gnomon.compiler.ops.residuals import residuals
from gnomon.compiler.ops.scan import COUNTER, Delayed, Scan, checkpointed
from gnomon.compiler.passes import simplify
from gnomon.compiler.program import Copy, Launch, Repeat, Slot, all_steps
from gnomon.compiler.resize import resize
from gnomon.compiler.sizes import Dim, evaluate, symbol
from gnomon.compiler.vectorize import vectorize
from gnomon.functions import Function, function
from gnomon.loops import loop
from gnomon.tensor import Tensor

T, B = symbol("steps"), symbol("batch")
SIZES = ({"steps": 5, "batch": 3}, {"steps": 1, "batch": 1}, {"steps": 0, "batch": 2}, {"steps": 2, "batch": 1})
_keys = count(5_000_000)


def leaf(name: str, dtype: str, *shape: Dim) -> Node:
    return Input(next(_keys), name, dtype, shape)()


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


@dataclass(frozen=True)
class Case:
    """A loop: what it reads, what it is made of, and the same as a loop of Python over arrays."""

    name: str
    shapes: tuple[tuple[Dim, ...], ...]
    make: Callable[..., list[Node]]
    reference: Callable[..., list[np.ndarray]]

    def build(self, dtype: str, reverse: bool = False, **options: Any) -> tuple[list[Node], list[Node]]:
        inputs = [leaf(f"x{k}", dtype, *shape) for k, shape in enumerate(self.shapes)]
        return inputs, self.make(inputs, reverse, **options)

    def __repr__(self) -> str:
        return self.name


def steps_of(n: int, reverse: bool) -> Sequence[int]:
    return range(n)[::-1] if reverse else range(n)


def nodes(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step of nodes as `loop` takes it."""

    def wrapped(counter: Tensor, carries: list[Tensor], slices: list[Tensor]) -> Any:
        new, rows = step(counter.node, [c.node for c in carries], [s.node for s in slices])
        return [Tensor(n) for n in new], [Tensor(n) for n in rows], None, {}

    return wrapped


def run(step: Callable[..., Any], first: Any, sequences: Any, reverse: bool, steps: Dim = T, **options: Any) -> Any:
    found = loop(nodes(step), first, sequences, steps, reverse=reverse, **options)
    return [*found.last, *found.stacks]


def simple(inputs: list[Node], reverse: bool, **options: Any) -> list[Node]:
    x, h0, w, u, b = inputs

    def step(t: Node, c: list[Node], s: list[Node]) -> Any:
        z = build.add(build.add(build.matmul(s[0], w), build.matmul(c[0], u)), b)
        h = build.tanh(z)
        return [h], [h]

    return run(step, [h0], [x], reverse, **options)


def simple_reference(x: Any, h: Any, w: Any, u: Any, b: Any, reverse: bool) -> list[np.ndarray]:
    ys = np.zeros((len(x), *h.shape))
    for t in steps_of(len(x), reverse):
        h = np.tanh(x[t] @ w + h @ u + b)
        ys[t] = h
    return [h, ys]


def lstm(inputs: list[Node], reverse: bool, **options: Any) -> list[Node]:
    x, h0, c0, w, u, b, v = inputs
    n = h0.shape[1]

    def step(t: Node, c: list[Node], s: list[Node]) -> Any:
        z = build.add(build.add(build.matmul(s[0], w), build.matmul(c[0], u)), b)
        i, f, g, o = (build.slice(z, (0, k * n), (z.shape[0], n)) for k in range(4))
        cell = build.add(build.multiply(build.sigmoid(f), c[1]), build.multiply(build.sigmoid(i), build.tanh(g)))
        h = build.multiply(build.sigmoid(o), build.tanh(cell))
        return [h, cell], [build.matmul(h, v)]

    return run(step, [h0, c0], [x], reverse, **options)


def lstm_reference(x: Any, h: Any, c: Any, w: Any, u: Any, b: Any, v: Any, reverse: bool) -> list[np.ndarray]:
    ys = np.zeros((len(x), len(h), v.shape[1]))
    for t in steps_of(len(x), reverse):
        i, f, g, o = np.split(x[t] @ w + h @ u + b, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        ys[t] = h @ v
    return [h, c, ys]


def gated(inputs: list[Node], reverse: bool, **options: Any) -> list[Node]:
    """As a GRU: a product of what another product gates, gates from slices of a weight."""
    x, h0, u = inputs
    n = h0.shape[1]

    def step(t: Node, c: list[Node], s: list[Node]) -> Any:
        part = lambda k: build.slice(u, (0, k * n), (n, n))
        z = build.sigmoid(build.add(s[0], build.matmul(c[0], part(0))))
        r = build.sigmoid(build.add(s[0], build.matmul(c[0], part(1))))
        new = build.tanh(build.add(s[0], build.matmul(build.multiply(r, c[0]), part(2))))
        h = build.add(build.multiply(z, c[0]), build.multiply(build.subtract(1.0, z), new))
        return [h], []

    return run(step, [h0], [x], reverse, **options)


def gated_reference(x: Any, h: Any, u: Any, reverse: bool) -> list[np.ndarray]:
    a, b, c = np.split(u, 3, axis=1)
    for t in steps_of(len(x), reverse):
        z, r = sigmoid(x[t] + h @ a), sigmoid(x[t] + h @ b)
        h = z * h + (1 - z) * np.tanh(x[t] + (r * h) @ c)
    return [h]


def shifting(inputs: list[Node], reverse: bool, **options: Any) -> list[Node]:
    """Two carries, one of which is handed on as it is; the counter is read; a row is a carry as it was."""
    x, a0, b0 = inputs

    def step(t: Node, c: list[Node], s: list[Node]) -> Any:
        new = build.add(build.multiply(c[0], 0.5), build.sin(build.multiply(c[1], s[0])))
        row = build.multiply(new, build.cast(build.add(t, 1), x.dtype))
        return [c[1], new], [row, c[0], s[0]]

    return run(step, [a0, b0], [x], reverse, **options)


def shifting_reference(x: Any, a: Any, b: Any, reverse: bool) -> list[np.ndarray]:
    rows, old = np.zeros(x.shape), np.zeros(x.shape)
    for t in steps_of(len(x), reverse):
        old[t] = a
        a, b = b, a * 0.5 + np.sin(b * x[t])
        rows[t] = b * (t + 1)
    return [a, b, rows, old, x]


def mapped(inputs: list[Node], reverse: bool, **options: Any) -> list[Node]:
    """No carry at all."""
    x, w = inputs

    def step(t: Node, c: list[Node], s: list[Node]) -> Any:
        return [], [build.tanh(build.matmul(s[0], w)), build.sum(build.square(s[0]))]

    return run(step, [], [x], reverse, **options)


def mapped_reference(x: Any, w: Any, reverse: bool) -> list[np.ndarray]:
    return [np.tanh(x @ w), (x * x).sum((1, 2))]


def unfed(inputs: list[Node], reverse: bool, **options: Any) -> list[Node]:
    """No sequence; a sum that grows, a carry that nothing changes, one that nobody reads."""
    a, w = inputs

    def step(t: Node, c: list[Node], s: list[Node]) -> Any:
        v = build.matmul(c[0], w)
        total = build.add(c[1], build.sum(build.square(v)))
        return [build.multiply(v, build.cast(build.add(t, 1), a.dtype)), total, c[2], build.exp(c[3])], [v]

    zero = build.constant(0, a.dtype)
    found = run(step, [a, zero, a, zero], [], reverse, 3, **options)
    return [found[0], found[1], found[2], found[4]]


def unfed_reference(a: Any, w: Any, reverse: bool) -> list[np.ndarray]:
    first, total, rows = a, 0.0, np.zeros((3, *a.shape))
    for t in steps_of(3, reverse):
        v = a @ w
        total += (v * v).sum()
        a, rows[t] = v * (t + 1), v
    return [a, np.asarray(total), first, rows]


def nested(inputs: list[Node], reverse: bool, **options: Any) -> list[Node]:
    """A loop in each step of a loop."""
    x, h0, w = inputs

    def small(t: Node, c: list[Node], s: list[Node]) -> Any:
        new = build.tanh(build.add(build.multiply(c[0], w), s[0]))
        return [new], [build.multiply(new, new)]

    def step(t: Node, c: list[Node], s: list[Node]) -> Any:
        last, rows = run(small, c, [s[0]], False, B)
        return [last], [build.sum(rows, 0)]

    return run(step, [h0], [x], reverse, **options)


def nested_reference(x: Any, h: Any, w: Any, reverse: bool) -> list[np.ndarray]:
    ys = np.zeros((len(x), len(h)))
    for t in steps_of(len(x), reverse):
        for row in x[t]:
            h = np.tanh(h * w + row)
            ys[t] += h * h
    return [h, ys]


def convolving(inputs: list[Node], reverse: bool, **options: Any) -> list[Node]:
    """A convolution in each step."""
    x, h0, k = inputs

    def step(t: Node, c: list[Node], s: list[Node]) -> Any:
        windows = build.patches(build.pad(c[0], (0, 1, 0), (0, 1, 0)), 1, (3,), (1,), (1,))  # [batch, 6, 3, 2]
        h = build.tanh(build.add(Contract((0, 1, 2, 3), (2, 3, 4), (0, 1, 4))(windows, k), s[0]))
        return [h], [h]

    return run(step, [h0], [x], reverse, **options)


def convolving_reference(x: Any, h: Any, k: Any, reverse: bool) -> list[np.ndarray]:
    ys = np.zeros(x.shape)
    for t in steps_of(len(x), reverse):
        wide = np.pad(h, ((0, 0), (1, 1), (0, 0)))
        h = np.tanh(sum(wide[:, i : i + 6] @ k[i] for i in range(3)) + x[t])
        ys[t] = h
    return [h, ys]


CASES = [
    Case("simple", ((T, B, 3), (B, 4), (3, 4), (4, 4), (4,)), simple, simple_reference),
    Case("lstm", ((T, B, 3), (B, 5), (B, 5), (3, 20), (5, 20), (20,), (5, 2)), lstm, lstm_reference),
    Case("gated", ((T, B, 4), (B, 4), (4, 12)), gated, gated_reference),
    Case("shifting", ((T, B, 3), (B, 3), (B, 3)), shifting, shifting_reference),
    Case("mapped", ((T, B, 3), (3, 4)), mapped, mapped_reference),
    Case("unfed", ((B, 4), (4, 4)), unfed, unfed_reference),
    Case("nested", ((T, B, 3), (3,), (3,)), nested, nested_reference),
    Case("convolving", ((T, B, 6, 2), (B, 6, 2), (3, 2, 2)), convolving, convolving_reference),
]
every_case = pytest.mark.parametrize("case", CASES, ids=repr)
both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])


def arrays_for(inputs: Sequence[Node], sizes: dict[str, int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [0.7 * rng.standard_normal([evaluate(d, sizes) for d in x.shape]).astype(x.dtype) for x in inputs]


def compiled(inputs: Sequence[Node], outputs: Sequence[Node]) -> Function:
    fn = function([Tensor(x) for x in inputs], [Tensor(y) for y in outputs], on_unused_input="ignore")
    verify.check_program(fn.program, fn.stages.kernels)
    return fn


def close(found: Sequence[Any], expected: Sequence[Any], dtype: str, factor: float = 1) -> None:
    rtol = {"float32": 2e-5, "float64": 1e-11}[dtype] * factor
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@both_ways
@every_case
def test_a_loop_is_a_loop_of_python(case: Case, reverse: bool) -> None:
    for dtype in ("float32", "float64"):
        inputs, outputs = case.build(dtype, reverse)
        fn = compiled(inputs, outputs)
        for sizes in SIZES:
            arrays = arrays_for(inputs, sizes)
            wide = [a.astype(np.float64) for a in arrays]
            expected = case.reference(*wide, reverse=reverse)
            close(evaluate_graph(outputs, dict(zip(inputs, arrays, strict=True)), sizes), expected, dtype)
            close(fn(*arrays), expected, dtype)


def inner(a: Sequence[Any], b: Sequence[Any]) -> float:
    return sum(float(np.sum(x * y)) for x, y in zip(a, b, strict=True))


def differences(outputs: Any, inputs: Any, values: Any, direction: Any, sizes: Any) -> list[np.ndarray]:
    """The change of the outputs along a direction."""
    step = 1e-6
    ends = []
    for sign in (1, -1):
        moved = {x: values[x] + sign * step * d for x, d in zip(inputs, direction, strict=True)}
        ends.append(evaluate_graph(outputs, {**values, **moved}, sizes))
    return [(a - b) / (2 * step) for a, b in zip(*ends, strict=True)]


@both_ways
@every_case
def test_derivatives_are_those_of_finite_differences(case: Case, reverse: bool) -> None:
    """Backward mode, forward mode, and backward mode through both of them."""
    inputs, outputs = case.build("float64", reverse)
    seeds = [leaf("seed", "float64", *y.shape) for y in outputs]
    tangents = [leaf("tangent", "float64", *x.shape) for x in inputs]
    back = [build.full_like(x, 0) if g is None else g for g, x in zip(vjp(outputs, seeds, inputs), inputs, strict=True)]
    forward = jvp(outputs, inputs, tangents)
    zero = [build.full_like(x, 0) for x in inputs]
    second = [z if g is None else g for g, z in zip(vjp(back, tangents, inputs), zero, strict=True)]
    given = [*inputs, *seeds, *tangents]
    fn = compiled(given, [*back, *forward, *second])
    n, m = len(back), len(forward)
    for sizes in SIZES:
        arrays = arrays_for(given, sizes)
        values = dict(zip(given, arrays, strict=True))
        u, v = (arrays[len(inputs) :][: len(seeds)], arrays[len(inputs) + len(seeds) :])
        found = fn(*arrays)
        change = differences(outputs, inputs, values, v, sizes)
        for a, b in zip(found[n : n + m], change, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
        assert inner(found[:n], v) == pytest.approx(inner(change, u), 1e-6, 1e-7)
        moved = differences(back, inputs, values, v, sizes)  # how gradients change along v: the second derivative
        assert inner(found[n + m :], v) == pytest.approx(inner(moved, v), 1e-5, 1e-6)


@every_case
def test_compiled_gradients_are_the_interpreters(case: Case) -> None:
    inputs, outputs = case.build("float32")
    seeds = [leaf("seed", "float32", *y.shape) for y in outputs]
    back = [g for g in vjp(outputs, seeds, inputs) if g is not None]
    fn = compiled([*inputs, *seeds], [*outputs, *back])
    for sizes in SIZES:
        arrays = arrays_for([*inputs, *seeds], sizes)
        values = dict(zip([*inputs, *seeds], arrays, strict=True))
        close(fn(*arrays), evaluate_graph([*outputs, *back], values, sizes), "float32", 8)


@every_case
def test_many_loops_at_once_are_each_alone(case: Case) -> None:
    inputs, outputs = case.build("float64")
    sizes = {"steps": 4, "batch": 2}
    slices = [arrays_for(inputs, sizes, seed) for seed in range(3)]
    for mapped_ones in [set(inputs), *({x} for x in inputs)]:
        change = {x: leaf("many", x.dtype, 3, *x.shape) for x in inputs if x in mapped_ones}
        whole = vectorize(outputs, change, 3)
        values = {change[x]: np.stack([s[k] for s in slices]) for k, x in enumerate(inputs) if x in mapped_ones}
        values |= {x: slices[0][k] for k, x in enumerate(inputs) if x not in mapped_ones}
        given = [change.get(x, x) for x in inputs]
        found = compiled(given, whole)(*(values[x] for x in given))
        for i in range(3):
            one = [slices[i][k] if x in mapped_ones else slices[0][k] for k, x in enumerate(inputs)]
            close([f[i] for f in found], case.reference(*one, reverse=False), "float64")


@both_ways
@pytest.mark.parametrize("every", [1, 3, 9])
@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("simple", "shifting", "nested")], ids=repr)
def test_checkpoints_change_nothing(case: Case, every: int, reverse: bool) -> None:
    inputs, outputs = case.build("float64", reverse, checkpoint_every=every)
    plain = case.make(inputs, reverse)
    seeds = [leaf("seed", "float64", *y.shape) for y in outputs]
    both = [[*y, *(g for g in vjp(y, seeds, inputs) if g is not None)] for y in (outputs, plain)]
    fn = compiled([*inputs, *seeds], both[0])
    for steps in (7, 6, 1, 0):
        sizes = {"steps": steps, "batch": 2}
        arrays = arrays_for([*inputs, *seeds], sizes)
        values = dict(zip([*inputs, *seeds], arrays, strict=True))
        close(fn(*arrays), evaluate_graph(both[1], values, sizes), "float64")


def test_checkpoints_take_less_memory() -> None:
    sizes = {"steps": 100, "batch": 32}
    bytes_ = []
    for every in (0, 10):
        inputs, outputs = CASES[1].build("float32", checkpoint_every=every)
        cost = build.sum(build.square(outputs[0]))
        gradients = [g for g in vjp([cost], [build.constant(1.0)], inputs[3:6]) if g is not None]
        bytes_.append(compiled(inputs, gradients).executable.memory({**sizes}))
    assert bytes_[1] < bytes_[0] / 2


# ---- ends


def collatz(t: Node, carry: Node) -> Node:
    even = build.equal(build.mod(carry, 2), 0)
    return build.where(even, build.floor_divide(carry, 2), build.add(build.multiply(carry, 3), 1))


def ending(steps: Dim | None, limit: Node | None, first: Node, reverse: bool = False) -> Any:
    def step(counter: Tensor, carries: list[Tensor], slices: list[Tensor]) -> Any:
        new = collatz(counter.node, carries[0].node)
        rows = [] if steps is None else [Tensor(new), counter]
        return [Tensor(new)], rows, Tensor(build.equal(new, 1)), {}

    return loop(step, [first], [], steps, limit, reverse)


def test_a_loop_ends_after_the_step_that_says_so() -> None:
    first = leaf("first", "int64")
    found = ending(20, None, first)
    fn = compiled([first], [*found.last, *found.stacks, found.count])
    for begin, rows in ((6, [3, 10, 5, 16, 8, 4, 2, 1]), (2, [1]), (4, [2, 1])):
        expected = np.zeros(20), np.zeros(20)
        expected[0][: len(rows)], expected[1][: len(rows)] = rows, range(len(rows))
        last, values, counters, count = fn(np.int64(begin))
        assert (last, count) == (1, len(rows))
        np.testing.assert_array_equal(values, expected[0])
        np.testing.assert_array_equal(counters, expected[1])
        assert [a.tolist() for a in fn.interpret(np.asarray(begin))] == [a.tolist() for a in fn(np.int64(begin))]


def test_a_loop_without_a_number_of_steps() -> None:
    first, limit = leaf("first", "int64"), leaf("limit", "int64")
    found = ending(None, limit, first)
    fn = compiled([first, limit], [*found.last, found.count])
    assert [int(v) for v in fn(np.int64(27), np.int64(1000))] == [1, 111]
    assert [int(v) for v in fn(np.int64(7), np.int64(2))] == [11, 2]
    assert [int(v) for v in fn(np.int64(7), np.int64(0))] == [7, 0]
    assert [int(v) for v in fn(np.int64(7), np.int64(-3))] == [7, 0]
    x = leaf("x", "float32")
    looped = loop(nodes(lambda t, c, s: ([build.sin(c[0])], [])), [x], [], None, limit)
    with pytest.raises(GraphError, match="give the most steps it may take"):
        vjp(looped.last, [build.constant(1.0)], [x])


@pytest.mark.parametrize("reverse", [False, True])
def test_a_loop_of_as_many_steps_as_a_number_says(reverse: bool) -> None:
    x, h0, limit = leaf("x", "float64", T, 3), leaf("h", "float64", 3), leaf("limit", "int64")

    def step(t: Node, c: list[Node], s: list[Node]) -> Any:
        new = build.add(build.sin(c[0]), build.multiply(s[0], build.cast(t, "float64")))
        return [new], [new, build.cos(s[0])]

    found = loop(nodes(step), [h0], [x], T, limit, reverse)
    outputs = [*found.last, *found.stacks]
    seeds = [leaf("seed", "float64", *y.shape) for y in outputs]
    back = vjp(outputs, seeds, [x, h0])
    tangents = [leaf("tangent", "float64", *n.shape) for n in (x, h0)]
    second = vjp(back, tangents, [x, h0])
    given = [x, h0, *seeds, *tangents, limit]
    fn = compiled(given, [*outputs, *back, *second])
    for most in (0, 1, 3, 6, 9):
        sizes = {"steps": 6}
        arrays = arrays_for(given[:-1], sizes)
        values = dict(zip(given, [*arrays, np.asarray(most)], strict=True))
        h, rows, others = values[h0], np.zeros((6, 3)), np.zeros((6, 3))
        for t in steps_of(min(most, 6), reverse):
            h = np.sin(h) + values[x][t] * t
            rows[t], others[t] = h, np.cos(values[x][t])
        results = fn(*arrays, np.int64(most))
        close(results[:3], [h, rows, others], "float64")
        v = arrays[-2:]
        change = differences(outputs, [x, h0], values, v, sizes)
        assert inner(results[3:5], v) == pytest.approx(inner(change, arrays[2:5]), 1e-6, 1e-8)
        moved = differences(back, [x, h0], values, v, sizes)
        assert inner(results[5:], v) == pytest.approx(inner(moved, v), 1e-5, 1e-7)


def test_the_gradient_of_a_loop_that_ends_early() -> None:
    """x doubles until it is above 10: the gradient is the product of the steps that were done."""
    x = leaf("x", "float64")

    def step(counter: Tensor, carries: list[Tensor], slices: list[Tensor]) -> Any:
        new = carries[0] * carries[0] + 1.0
        return [new], [new], new > 10.0, {}

    found = loop(step, [x], [], 8)
    (g,) = vjp([found.last[0], build.sum(found.stacks[0])], [build.constant(1.0, "float64")] * 2, [x])
    fn = compiled([x], [*found.last, g])
    for begin in (0.5, 3.0, 20.0):
        value, rows = begin, []
        slope, total = 1.0, 0.0
        while not rows or rows[-1] <= 10:
            slope *= 2 * value
            value = value * value + 1
            total += slope
            rows.append(value)
        close(fn(np.float64(begin)), [value, slope + total], "float64")


def test_loops_that_end_at_different_steps_at_once() -> None:
    firsts = leaf("firsts", "int64", 4)
    first = leaf("first", "int64")
    found = ending(20, None, first)
    whole = vectorize([*found.last, *found.stacks, found.count], {first: firsts}, 4)
    begin = np.array([6, 1, 7, 16])
    last, values, counters, counts = compiled([firsts], whole)(begin)
    one = compiled([first], [*found.last, *found.stacks, found.count])
    for k, b in enumerate(begin):
        for a, e in zip((last[k], values[k], counters[k], counts[k]), one(b), strict=True):
            np.testing.assert_array_equal(a, e)


def test_limits_of_their_own_at_once() -> None:
    x, limit, limits = leaf("x", "float64", T, 2), leaf("limit", "int64"), leaf("limits", "int64", 3)
    first = build.full((2,), 1, "float64")
    found = loop(nodes(lambda t, c, s: ([build.add(c[0], s[0])], [c[0]])), [first], [x], T, limit)
    whole = vectorize([*found.last, *found.stacks], {limit: limits}, 3)
    one, many = compiled([x, limit], [*found.last, *found.stacks]), compiled([x, limits], whole)
    values = arrays_for([x], {"steps": 5})[0]
    last, rows = many(values, np.array([0, 3, 9]))
    for k, most in enumerate((0, 3, 9)):
        close((last[k], rows[k]), one(values, np.int64(most)), "float64")


@both_ways
@pytest.mark.parametrize("most", [1, 3, 9])
def test_truncated_gradients_go_through_the_last_steps_only(most: int, reverse: bool) -> None:
    case = CASES[0]
    inputs, outputs = case.build("float64", reverse, truncate=most)
    seeds = [leaf("seed", "float64", *y.shape) for y in outputs]
    back = vjp(outputs, seeds, inputs)
    fn = compiled([*inputs, *seeds], [g for g in back if g is not None])
    for steps in (5, 1, 0):
        sizes = {"steps": steps, "batch": 2}
        arrays = arrays_for([*inputs, *seeds], sizes)
        gradients = fn(*arrays)
        left = max(0, steps - most)
        # the same loop over the last steps, from the state in which the others left it
        early = slice(steps - left, steps) if reverse else slice(0, left)
        late = slice(0, steps - left) if reverse else slice(left, steps)
        x, h = arrays[0], arrays[1]
        middle = case.reference(x[early], h, *arrays[2:5], reverse=reverse)[0]
        plain_inputs, plain = case.build("float64", reverse)
        plain_seeds = [leaf("seed", "float64", *y.shape) for y in plain]
        plain_back = vjp(plain, plain_seeds, plain_inputs)
        values = dict(zip([*plain_inputs, *plain_seeds],
                          [x[late], middle, *arrays[2:5], arrays[5], arrays[6][late]], strict=True))  # fmt: skip
        expected = evaluate_graph(plain_back, values, {"steps": steps - left, "batch": 2})
        whole = np.zeros(x.shape)
        whole[late] = expected[0]
        first = expected[1] if not left else np.zeros(h.shape)
        close(gradients, [whole, first, *expected[2:]], "float64")


# ---- what is in a compiled loop


def repeats(fn: Function) -> list[Repeat]:
    return [s for s in all_steps(fn.program.steps) if isinstance(s, Repeat)]


def labels(steps: Any) -> list[str]:
    return [s.label for s in all_steps(steps) if isinstance(s, Launch)]


def train_step(steps: Dim, name: str = "lstm") -> Function:
    """A cost and its gradients."""
    case = next(c for c in CASES if c.name == name)
    plain, outputs = case.build("float32")
    inputs = [leaf(f"x{k}", "float32", *(steps if d == T else d for d in shape)) for k, shape in enumerate(case.shapes)]
    made = resize(outputs, {"steps": steps}, dict(zip(plain, inputs, strict=True)))
    cost = build.sum(build.square(made[0]))
    gradients = vjp([cost], [build.constant(1.0)], inputs)
    return compiled(inputs, [cost, *(g for g in gradients if g is not None)])


def test_a_loop_has_nothing_in_it_that_need_not_be() -> None:
    fn = train_step(T)
    forward, backward = repeats(fn)
    assert not any(isinstance(s, Copy) for r in (forward, backward) for s in all_steps(r.steps)), "nothing is copied"
    for steps in (forward.steps, backward.steps):
        products = [x for x in labels(steps) if x.startswith("contract") and "few rows" not in x]
        assert len(products) == 1, "h @ u alone, and its gradient towards h"
        assert not any("pack" in x for x in labels(steps)), "weights are packed before the loop"
    assert len([x for x in labels(forward.steps) if "few rows" not in x]) == 2


@pytest.mark.parametrize("name", ["simple", "lstm", "gated"])
def test_the_program_is_the_same_for_any_number_of_steps(name: str) -> None:
    few, many = train_step(100, name), train_step(1000, name)
    assert len(few.program.steps) == len(many.program.steps)
    assert len(few.program.slots) == len(many.program.slots)
    assert [s.kernel for s in all_steps(repeats(few)[0].steps) if isinstance(s, Launch)] == [
        s.kernel for s in all_steps(repeats(many)[0].steps) if isinstance(s, Launch)
    ]


def test_a_gradient_runs_the_loop_once() -> None:
    inputs, outputs = CASES[1].build("float32")
    roots = [outputs[0], *(g for g in vjp([build.sum(outputs[0])], [build.constant(1.0)], inputs) if g is not None)]
    loops = [n for n in walk(simplify(roots)) if isinstance(n.op, Scan)]
    assert [n.op.reverse for n in loops] == [False, True]  # type: ignore[attr-defined]  # Scans


def test_weights_get_their_gradient_after_the_loop() -> None:
    inputs, outputs = CASES[1].build("float32")
    back = vjp([build.sum(outputs[0])], [build.constant(1.0)], inputs[3:6])
    backward = next(n.op for n in walk(simplify([g for g in back if g])) if isinstance(n.op, Scan) and n.op.reverse)
    assert backward.carries == 2, "the gradients of h and c; none of a weight"


def test_a_loop_without_carries_is_no_loop() -> None:
    inputs, outputs = CASES[4].build("float32")
    assert not repeats(compiled(inputs, outputs))


def test_what_nobody_reads_is_not_computed() -> None:
    inputs, outputs = CASES[1].build("float32")
    (kept,) = [n for n in walk(simplify([outputs[0]])) if isinstance(n.op, Scan)]
    assert kept.op.stacks == 0  # type: ignore[attr-defined]  # a Scan
    inputs, outputs = CASES[5].build("float32")
    (kept,) = [n for n in walk(simplify(outputs[:1])) if isinstance(n.op, Scan)]
    assert kept.op.carries == 1  # type: ignore[attr-defined]  # a Scan


def test_sizes_of_a_loop_can_be_renamed() -> None:
    inputs, outputs = CASES[1].build("float32")
    renamed = [leaf("y", "float32", *(symbol("rows") if d == B else d for d in x.shape)) for x in inputs]
    made = resize(outputs, {"batch": symbol("rows")}, dict(zip(inputs, renamed, strict=True)))
    arrays = arrays_for(inputs, SIZES[0])
    close(compiled(renamed, made)(*arrays), compiled(inputs, outputs)(*arrays), "float32")


def test_the_debug_modes_look_into_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNOMON_CHECK", "1")
    monkeypatch.setenv("GNOMON_NAN", "1")
    fn = train_step(T, "simple")
    assert isinstance(fn.executable, debug.Watched)
    fn(*arrays_for(fn.graph.inputs, SIZES[0]))
    inputs, outputs = CASES[6].build("float32")
    compiled(inputs, outputs)(*arrays_for(inputs, SIZES[0]))


def test_views_fit_what_they_are_views_of() -> None:
    inputs, outputs = CASES[0].build("float32")
    fn = compiled(inputs, outputs)
    program, kernels = fn.program, fn.stages.kernels
    views = [k for k, s in enumerate(program.slots) if s.row is not None]
    assert views

    def broken(change: Callable[[Slot], Slot], match: str) -> None:
        slots = [change(s) if k in views else s for k, s in enumerate(program.slots)]
        with pytest.raises(CheckError, match=match):
            verify.check_program(replace(program, slots=tuple(slots)), kernels)

    broken(lambda s: replace(s, dtype="float64"), "is no row of")
    broken(lambda s: replace(s, row=replace(s.row, counter=program.inputs[0])), "is float32, but numbers rows of")
    broken(lambda s: replace(s, row=replace(s.row, edge=program.inputs[0])), "but has another shape")
    alone = [replace(s, steps=s.steps[:1]) if isinstance(s, Repeat) else s for s in program.steps]
    verify.check_program(replace(program, steps=tuple(alone)), kernels)
    with pytest.raises(CheckError, match="before anything is written to it"):
        verify.check_program(replace(program, steps=tuple(s.steps[0] for s in alone if isinstance(s, Repeat))), kernels)


# ---- what is kept


def test_residuals_are_what_is_cheapest_to_keep() -> None:
    x, w = leaf("x", "float32", B, 4), leaf("w", "float32", 4, 8)
    g = leaf("g", "float32", B, 8)
    product = build.matmul(x, w)
    shifted = build.add(product, 1.0)
    gate = build.tanh(shifted)
    square = build.square(shifted)
    back = build.multiply(build.multiply(g, gate), square)

    def kind(n: Node, inputs: Sequence[str]) -> str:
        if n is g or "later" in inputs:
            return "later"
        return "carry" if n is x or "carry" in inputs else "once"

    kept, made = residuals([back], kind)
    assert not made
    assert set(kept) == {gate, square}, "a tanh and a product are dearer to make than to read"
    kept, _ = residuals([build.multiply(g, build.add(square, build.multiply(product, 3.0)))], kind)
    assert kept == [build.add(square, build.multiply(product, 3.0))], "one value instead of what it is made of"
    kept, _ = residuals([build.multiply(build.multiply(g, square), build.add(product, 2.0))], kind)
    assert len(kept) == 1, "a square is made again"
    kept, made = residuals([build.multiply(g, build.broadcast(build.sum(build.exp(w), 0), (B, 8), [1]))], kind)
    assert (kept, made) == ([], [build.sum(build.exp(w), 0)]), "what is the same in all steps is made once"


def test_delayed_rows() -> None:
    first, rows = leaf("first", "float32", 2), leaf("rows", "float32", T, 2)
    for steps in (0, 1, 4):
        a, b = arrays_for([first, rows], {"steps": steps})
        got = compiled([first, rows], [Delayed()(first, rows), Delayed(True)(first, rows)])(a, b)
        np.testing.assert_array_equal(got[0], np.concatenate([a[None], b])[:steps])
        np.testing.assert_array_equal(got[1], np.concatenate([b, a[None]])[1:] if steps else b)


# ---- mistakes


def test_a_carry_keeps_its_type() -> None:
    t, h = fresh_input("t", COUNTER), fresh_input("h", TensorType("float32", (B, 3)))
    x = leaf("x", "float32", B, 3)
    with pytest.raises(DTypeError, match=r"begins as float32\[batch, 3\] and is float64\[batch, 3\] after a step"):
        Scan(SubGraph((t, h), (build.cast(h, "float64"),)), 3, 1, 0)(x)
    with pytest.raises(ShapeError, match=r"begins as float32\[batch, 3\] and is float32\[3, batch\] after a step"):
        Scan(SubGraph((t, h), (build.transpose(h, (1, 0)),)), 3, 1, 0)(x)


def test_sequences_are_as_long_as_the_loop() -> None:
    t, s = fresh_input("t", COUNTER), fresh_input("s", TensorType("float32", (3,)))
    with pytest.raises(ShapeError, match=r"4 steps needs as many slices of each sequence, got float32\[5, 3\]"):
        Scan(SubGraph((t, s), (s,)), 4, 0, 1)(leaf("x", "float32", 5, 3))
    h = fresh_input("h", TensorType("float32", ()))
    limit, y = leaf("n", "int64"), leaf("y", "float32")
    with pytest.raises(ShapeError, match="cannot stack"):
        Scan(SubGraph((t, h), (h, h)), None, 1, 0, limited=True)(limit, y)


def test_checkpoints_need_a_known_number_of_steps() -> None:
    first = leaf("first", "int64")
    found = ending(20, None, first)
    with pytest.raises(GraphError, match="known before they run"):
        checkpointed(found.last[0].inputs[0], 3)
