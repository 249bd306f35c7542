"""The faces of loops: Theano's scan and its kin, and Keras's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import ops, random
from gnomon.compiler.errors import ArgumentError, DTypeError, GraphError, ShapeError
from gnomon.compiler.program import Repeat, all_steps
from gnomon.tensor import Array
from gnomon.variable import collecting_updates

RNG = np.random.default_rng(7)


def array(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def loops_in(fn: Any) -> int:
    return sum(isinstance(s, Repeat) for s in all_steps(fn.program.steps))


# ---- Theano's


def test_powers_with_the_exponent_as_an_argument() -> None:
    k, a = gnomon.iscalar("k"), gnomon.vector("a")
    result, updates = gnomon.scan(lambda prior, a: prior * a, None, ops.ones_like(a), a, k)
    fn = gnomon.function([a, k], [result, result[-1], gnomon.grad(ops.sum(result[-1]), a)], updates=updates)
    values = np.array([1, 2, 3], np.float32)
    for exponent in (1, 4, 2, 4):
        rows, last, slope = fn(values, exponent)
        np.testing.assert_allclose(rows, [values**n for n in range(1, exponent + 1)])
        np.testing.assert_allclose(last, values**exponent)
        np.testing.assert_allclose(slope, exponent * values ** (exponent - 1))
    assert fn.interpret(values, np.int32(3))[0].shape == (3, 3)
    assert fn.device.apart or loops_in(fn) == 2  # elsewhere a kernel may go through all rounds
    with pytest.raises(gnomon.compiler.errors.DataError):
        fn(values, -1)


def test_polynomials_over_two_sequences() -> None:
    coefficients, x = gnomon.vector("coefficients"), gnomon.scalar("x")
    powers = ops.arange(5)
    terms, _ = gnomon.scan(lambda c, power, x: c * x**power, [coefficients, powers], None, x)
    fn = gnomon.function([coefficients, x], ops.sum(terms))
    assert fn(np.array([1, 0, 2, 0, 1], np.float32), 3.0) == 1 + 2 * 9 + 81


def test_outputs_looked_back_at() -> None:
    """A recurrent network that sees its input now, two before and one behind, and its output one and three back."""
    u, y0 = gnomon.matrix("u", dtype="float64"), gnomon.matrix("y0", dtype="float64")
    w = gnomon.shared(array(2, 2, dtype="float64"), "w")

    def step(before: Any, now: Any, later: Any, y3: Any, y1: Any) -> Any:
        return [ops.tanh(ops.matmul(before + 0.5 * later, w) + 0.1 * y3 - y1), now * 2.0]

    (y, z), _ = gnomon.scan(step, dict(input=u, taps=[-2, 0, 1]), [dict(initial=y0, taps=[-3, -1]), None])
    fn = gnomon.function([u, y0], [y, z, gnomon.grad(ops.sum(y[-1]), y0)])
    values, begin = array(9, 2, dtype="float64"), array(3, 2, dtype="float64")
    rows = list(begin)
    for t in range(2, 8):
        rows.append(np.tanh((values[t - 2] + 0.5 * values[t + 1]) @ w.get_value() + 0.1 * rows[-3] - rows[-1]))
    got, double, slope = fn(values, begin)
    np.testing.assert_allclose(got, rows[3:], rtol=1e-12)
    np.testing.assert_allclose(double, 2 * values[2:8])
    step_size, numeric = 1e-6, np.zeros(begin.shape)
    for place in np.ndindex(*begin.shape):
        moved = [begin.copy(), begin.copy()]
        moved[0][place] += step_size
        moved[1][place] -= step_size
        ends = [fn(values, m)[0][-1].sum() for m in moved]
        numeric[place] = (ends[0] - ends[1]) / (2 * step_size)
    np.testing.assert_allclose(slope, numeric, rtol=1e-5, atol=1e-8)


def test_fibonacci() -> None:
    rows, _ = gnomon.scan(lambda a, b: a + b, None, dict(initial=np.array([0, 1]), taps=[-2, -1]), n_steps=8)
    assert rows.eval().tolist() == [1, 2, 3, 5, 8, 13, 21, 34]


def test_a_loop_that_ends_itself() -> None:
    most = gnomon.scalar("most")
    doubled, _ = gnomon.scan(
        lambda p, m: (p * 2.0, gnomon.scan.until(p * 2.0 > m)), outputs_info=1.0, non_sequences=most, n_steps=100
    )
    fn = gnomon.function([most], [doubled, doubled[-1], doubled[2], gnomon.grad(doubled[-1] * most, most)])
    rows, last, third, _ = fn(45.0)
    assert rows.tolist() == [2, 4, 8, 16, 32, 64]
    assert (last, third) == (64, 8)
    assert fn(3.0)[0].tolist() == [2, 4]
    alone = gnomon.function([most], doubled)
    assert alone(1.0).tolist() == [2]
    assert gnomon.function([most], {"rows": [doubled]})(5.0)["rows"][0].tolist() == [2, 4, 8]
    backwards, _ = gnomon.scan(lambda x: (x, gnomon.until(x < 3)), np.arange(6), go_backwards=True)
    assert gnomon.function([], backwards)().tolist() == [5, 4, 3, 2]


def test_variables_that_a_step_changes() -> None:
    total = gnomon.shared(np.float32(10.0), "total")
    x = gnomon.vector("x")

    def step(value: Any) -> Any:
        return value * total, {total: total + value}

    rows, updates = gnomon.scan(step, x)
    assert list(updates) == [total]
    fn = gnomon.function([x], rows, updates=updates)
    np.testing.assert_allclose(fn(np.array([1, 2, 3], np.float32)), [10, 2 * 11, 3 * 13])
    assert total.get_value() == 16
    steps, updates = gnomon.scan(lambda: {total: total * 2.0}, n_steps=3)
    assert steps is None
    gnomon.function([], [], updates=updates)()
    assert total.get_value() == 128
    with pytest.raises(ArgumentError, match="updates of a loop are of variables"):
        gnomon.scan(lambda v: (v, {"total": v}), x)


def test_backwards_and_some_of_the_steps() -> None:
    x = gnomon.vector("x")
    add = lambda v, s: s + v
    for n_steps in (None, 3):
        rows, _ = gnomon.scan(add, x, 0.0, n_steps=n_steps, go_backwards=True)
        values = np.array([1, 10, 100, 1000, 10000], np.float32)
        expected = np.cumsum(values[::-1])[:n_steps]
        np.testing.assert_allclose(gnomon.function([x], rows)(values), expected)
    rows, _ = gnomon.scan(add, x, 0.0, n_steps=2)
    np.testing.assert_allclose(gnomon.function([x], rows)(values), [1, 11])


def test_map_reduce_and_folds() -> None:
    x = gnomon.matrix("x")
    values = array(4, 3)
    squares, _ = gnomon.map(lambda row, y: row * row + y, x, 1.0)
    total, _ = gnomon.reduce(lambda row, s: s + row, x, ops.zeros(3))
    left, _ = gnomon.foldl(lambda row, s: 0.5 * s + row, x, ops.zeros(3))
    right, _ = gnomon.foldr(lambda row, s: 0.5 * s + row, x, ops.zeros(3))
    fn = gnomon.function([x], [squares, total, left, right])
    found = fn(values)
    np.testing.assert_allclose(found[0], values**2 + 1, rtol=1e-6)
    np.testing.assert_allclose(found[1], values.sum(0), rtol=1e-5)
    weights = 0.5 ** np.arange(4)[:, None]
    np.testing.assert_allclose(found[2], (weights[::-1] * values).sum(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[3], (weights * values).sum(0), rtol=1e-5, atol=1e-6)


def test_only_what_is_given_to_a_strict_scan() -> None:
    x, w = gnomon.vector("x"), gnomon.shared(np.float32(2.0), "w")
    gnomon.scan(lambda v, w: v * w, x, None, [w], strict=True)
    gnomon.scan(lambda v, w: v * w, x, None, [w * 2.0], strict=True)
    with pytest.raises(GraphError, match="'w'.*is not among its non_sequences"):
        gnomon.scan(lambda v: v * w, x, strict=True)


def test_nested_scans() -> None:
    x, w = gnomon.tensor3("x"), gnomon.shared(array(3), "w")

    def inner(row: Any, h: Any) -> Any:
        return ops.tanh(row * w + h)

    def outer(rows: Any, h: Any) -> Any:
        found, _ = gnomon.scan(inner, rows, h)
        return found[-1]

    states, _ = gnomon.scan(outer, x, ops.zeros(3))
    cost = ops.sum(states[-1] ** 2)
    fn = gnomon.function([x], [cost, gnomon.grad(cost, w)])
    values = array(2, 4, 3)

    def reference(v: np.ndarray) -> float:
        h = np.zeros(3)
        for row in values.reshape(8, 3):
            h = np.tanh(row * v + h)
        return float((h * h).sum())

    got, slope = fn(values)
    weights = w.get_value().astype(np.float64)
    assert got == pytest.approx(reference(weights), rel=1e-5)
    steps = np.eye(3) * 1e-6
    numeric = [(reference(weights + d) - reference(weights - d)) / 2e-6 for d in steps]
    np.testing.assert_allclose(slope, numeric, rtol=1e-4, atol=1e-6)


def test_gradients_go_through_the_last_steps_only() -> None:
    x, w = gnomon.vector("x"), gnomon.shared(np.float32(0.5), "w")
    rows, _ = gnomon.scan(lambda v, s: s * w + v, x, 0.0, truncate_gradient=2)
    fn = gnomon.function([x], gnomon.grad(rows[-1], x))
    np.testing.assert_allclose(fn(np.ones(5, np.float32)), [0, 0, 0, 0.5, 1])


def test_checkpoints_give_the_same() -> None:
    x, w = gnomon.matrix("x", dtype="float64"), gnomon.shared(array(3, 3, dtype="float64"), "w")
    slopes = []
    for every in (0, 3):
        begin = ops.zeros(3, "float64")
        rows, _ = gnomon.scan(lambda v, s: ops.tanh(s @ w + v), x, begin, checkpoint_every=every)
        slopes.append(gnomon.grad(ops.sum(rows[-1]), w))
    plain, saving = gnomon.function([x], slopes)(array(10, 3, dtype="float64"))
    np.testing.assert_allclose(plain, saving, rtol=1e-12)


def test_streams_of_random_numbers_go_on() -> None:
    stream = gnomon.RandomStream(seed=5)
    draws, updates = gnomon.scan(lambda: stream.normal((2,)), n_steps=4)
    fn = gnomon.function([], draws, updates=updates)
    first, second = fn(), fn()
    assert len(np.unique(np.concatenate([first.ravel(), second.ravel()]))) == 16


def test_mistakes_of_theanos_scan() -> None:
    x, y = gnomon.matrix("x"), gnomon.shared(array(3, 2))
    z = gnomon.shared(array(4, 2))
    with pytest.raises(ArgumentError, match="needs sequences or n_steps"):
        gnomon.scan(lambda s: s, outputs_info=1.0)
    with pytest.raises(ShapeError, match="have different lengths, 3 and 4"):
        gnomon.scan(lambda a, b: a + b, [y, z])
    with pytest.raises(ShapeError, match="a scan of 5 steps needs as many slices of each sequence, one has 3"):
        gnomon.scan(lambda a: a, y, n_steps=5)
    with pytest.raises(ShapeError, match=r"output 0 of a loop.*begins as float32\[2\], and a step makes float32\[3\]"):
        gnomon.scan(lambda a, s: ops.zeros(3), y, ops.zeros(2))
    with pytest.raises(DTypeError, match=r"begins as int32\[\], and a step makes float32\[\]"):
        gnomon.scan(lambda a, s: s + ops.sum(a), y, 0)
    with pytest.raises(ArgumentError, match="returns 2 outputs, but outputs_info has 1"):
        gnomon.scan(lambda a, s: [s, a], x, ops.zeros(2))
    with pytest.raises(ArgumentError, match="they are below 0"):
        gnomon.scan(lambda s: s, outputs_info=dict(initial=y, taps=[0]), n_steps=2)
    with pytest.raises(ShapeError, match=r"looks back 4 steps, so its initial needs 4 rows: got float32\[3, 2\]"):
        gnomon.scan(lambda s: s, outputs_info=dict(initial=y, taps=[-4]), n_steps=2)
    with pytest.raises(ShapeError, match="has no axis to go along"):
        gnomon.scan(lambda s: s, gnomon.scalar("q"))
    with pytest.raises(ShapeError, match="must be known"):
        gnomon.scan(lambda s: s, outputs_info=1.0, n_steps=ops.cast(ops.sum(x), "int32"))
    with pytest.raises(ShapeError, match="must be one bool"):
        gnomon.scan(lambda a: (a, gnomon.until(a > 0)), y)


# ---- Keras's


def test_scan_of_arrays_is_done_at_once() -> None:
    xs = array(5, 2)
    carry, ys = ops.scan(lambda c, x: (c + x, c * x), np.zeros(2, np.float32), xs)
    assert isinstance(carry, Array)
    before = np.concatenate([np.zeros((1, 2)), np.cumsum(xs, 0)[:-1]])
    np.testing.assert_allclose(carry, xs.sum(0), rtol=1e-5)
    np.testing.assert_allclose(ys, before * xs, rtol=1e-5, atol=1e-6)


def test_structures_go_through_a_scan() -> None:
    init = {"a": np.float32(1.0), "b": (np.zeros(2, np.float32), None)}
    xs = (array(4), [array(4, 2)])

    def step(carry: Any, x: Any) -> Any:
        a, (b, nothing) = carry["a"], carry["b"]
        assert nothing is None
        return {"b": (b + x[1][0], None), "a": a * x[0]}, {"sum": ops.sum(b), "none": None}

    carry, ys = ops.scan(step, init, xs)
    assert carry["b"][1] is None
    assert ys["none"] is None
    np.testing.assert_allclose(carry["a"], np.prod(xs[0]), rtol=1e-5)
    np.testing.assert_allclose(carry["b"][0], xs[1][0].sum(0), rtol=1e-5)
    assert ys["sum"].shape == (4,)
    empty, ys = ops.scan(step, init, (array(0), [array(0, 2)]))
    assert (empty["a"], ys["sum"].shape) == (1.0, (0,))


@pytest.mark.parametrize("unroll", [1, 4, True])
def test_scan_backwards_and_by_length(unroll: Any) -> None:
    xs = np.arange(1, 5, dtype=np.float32)
    carry, ys = ops.scan(lambda c, x: (c * 10 + x, c), np.float32(0.0), xs, reverse=True, unroll=unroll)
    assert (float(carry), ys.tolist()) == (4321.0, [432.0, 43.0, 4.0, 0.0])
    carry, ys = ops.scan(lambda c, x: (c * 2, c), 1, length=5, unroll=unroll)
    assert (int(carry), ys.tolist()) == (32, [1, 2, 4, 8, 16])


def test_scan_with_weights_from_outside() -> None:
    w = gnomon.Variable(array(3, 3), name="w")
    x = gnomon.layers.Input((None, 3))
    begin = ops.zeros((ops.shape(x)[0], 3))
    _, ys = ops.scan(lambda h, x: (ops.tanh(x + h @ w),) * 2, begin, ops.transpose(x, (1, 0, 2)))
    cost = ops.sum(ys**2)
    fn = gnomon.function([x], [ys, gnomon.grad(cost, w)])
    for batch, steps in ((2, 4), (1, 1), (3, 0), (5, 7)):
        values = array(batch, steps, 3)
        rows, slope = fn(values)
        h, expected = np.zeros((batch, 3)), []
        for t in range(steps):
            h = np.tanh(values[:, t] + h @ w.numpy())
            expected.append(h)
        np.testing.assert_allclose(rows, np.reshape(expected, (steps, batch, 3)), rtol=1e-5, atol=1e-6)
        assert np.isfinite(slope).all()
    assert len(fn.program.sizes) == 2


def test_map() -> None:
    xs = {"a": array(4, 3), "b": array(4)}
    found = ops.map(lambda x: ops.sum(x["a"]) * x["b"], xs)
    np.testing.assert_allclose(found, xs["a"].sum(1) * xs["b"], rtol=1e-5)
    t = gnomon.matrix("t")
    np.testing.assert_allclose(gnomon.function([t], ops.map(ops.sum, t))(xs["a"]), xs["a"].sum(1), rtol=1e-5)


def test_while_loop() -> None:
    i, total = ops.while_loop(lambda i, s: i < 5, lambda i, s: (i + 1, s + i), (0, 0))
    assert (int(i), int(total)) == (5, 10)
    assert int(ops.while_loop(lambda n: n < 100, lambda n: n * 3, 1)) == 243
    found = ops.while_loop(lambda n, *_: n > 0, lambda n, v: [n - 1, v], [3, {"k": np.ones(2)}], maximum_iterations=2)
    assert isinstance(found, list)
    assert int(found[0]) == 1
    n = gnomon.iscalar("n")
    steps, last = ops.while_loop(
        lambda k, v: v != 1, lambda k, v: (k + 1, ops.where(v % 2 == 0, v // 2, 3 * v + 1)), (ops.zeros((), "int32"), n)
    )
    fn = gnomon.function([n], [steps, last])
    assert [int(fn(v)[0]) for v in (1, 27, 7)] == [0, 111, 16]


def test_the_gradient_of_a_while_loop() -> None:
    x = gnomon.dscalar("x")
    _, value = ops.while_loop(
        lambda k, v: v < 100.0, lambda k, v: (k + 1, v * v), (ops.zeros((), "int32"), x), maximum_iterations=20
    )
    fn = gnomon.function([x], [value, gnomon.grad(value, x)])
    for begin, power in ((2.0, 8), (3.0, 8), (200.0, 1), (11.0, 2)):
        np.testing.assert_allclose(fn(begin), [begin**power, power * begin ** (power - 1)])
    with pytest.raises(GraphError, match="maximum_iterations"):
        gnomon.grad(ops.while_loop(lambda v: v < 100.0, lambda v: v * v, x), x)


def test_fori_loop() -> None:
    assert int(ops.fori_loop(2, 6, lambda i, v: v + i, 0)) == 14
    assert int(ops.fori_loop(6, 2, lambda i, v: v + i, 7)) == 7
    x, n = gnomon.dscalar("x"), gnomon.iscalar("n")
    power = ops.fori_loop(0, 4, lambda i, v: v * x, ops.ones_like(x))
    assert gnomon.function([x], gnomon.grad(power, x))(3.0) == 4 * 27
    summed = ops.fori_loop(1, n, lambda i, v: v + i, 0)
    assert int(gnomon.function([n], summed)(5)) == 10
    m = gnomon.matrix("m")
    rows = ops.fori_loop(0, ops.shape(m)[0], lambda i, v: v + m[i], ops.zeros_like(m[0]))
    values = array(4, 3)
    np.testing.assert_allclose(gnomon.function([m], rows)(values), values.sum(0), rtol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan(reverse: bool) -> None:
    xs = array(2, 11, 3)
    turned = xs[:, ::-1] if reverse else xs
    expected = np.cumsum(turned, 1)
    expected = expected[:, ::-1] if reverse else expected
    np.testing.assert_allclose(
        ops.associative_scan(lambda a, b: a + b, xs, reverse=reverse, axis=1), expected, rtol=1e-5, atol=1e-5
    )
    x = gnomon.tensor3("x")
    fn = gnomon.function([x], ops.associative_scan(lambda a, b: a + b, x, reverse=reverse, axis=-2))
    np.testing.assert_allclose(fn(xs), expected, rtol=1e-5, atol=1e-5)

    def affine(f: Any, g: Any) -> Any:  # x -> a x + b, one after the other
        return {"a": f["a"] * g["a"], "b": f["b"] * g["a"] + g["b"]}

    maps = {"a": array(6), "b": array(6)}
    found = ops.associative_scan(affine, maps)
    value = 0.0
    for k in range(6):
        value = value * maps["a"][k] + maps["b"][k]
        assert float(found["b"][k]) == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_many_scans_at_once() -> None:
    xs = array(3, 5, 2)
    found = ops.vectorized_map(lambda x: ops.scan(lambda c, v: (c + v, c), ops.zeros(2), x)[0], xs)
    np.testing.assert_allclose(found, xs.sum(1), rtol=1e-5)
    x = gnomon.vector("x")
    _, ys = ops.scan(lambda c, v: (c * v, c * v), 1.0, x)
    fn = gnomon.function([x], gnomon.jacobian(ys, x))
    values = np.array([2, 3, 5], np.float32)
    np.testing.assert_allclose(fn(values), [[1, 0, 0], [3, 2, 0], [15, 10, 6]])


def test_second_derivatives_of_a_scan() -> None:
    x = gnomon.dscalar("x")
    carry, _ = ops.scan(lambda c, _: (c * x, None), ops.ones_like(x), length=4)
    fn = gnomon.function([x], [gnomon.hessian(carry, x), gnomon.jvp(carry, x, 2.0 * ops.ones_like(x))])
    np.testing.assert_allclose(fn(3.0), [12 * 9, 2 * 4 * 27])


def test_random_numbers_differ_from_step_to_step() -> None:
    seed = random.SeedGenerator(3)
    with collecting_updates() as updates:
        _, rows = ops.scan(lambda c, _: (None, random.uniform((2,), seed=seed)), None, length=6)
    fn = gnomon.function([], rows, updates=updates)
    first, second = fn(), fn()
    assert len(np.unique(np.concatenate([first, second]))) == 24
    assert seed.state.numpy()[1] == 2, "one draw a call, whatever the number of steps"
    _, rows = ops.scan(lambda c, _: (None, random.uniform((2,), seed=5)), None, length=3)
    assert len(np.unique(rows)) == 2, "an integer gives the same numbers each time"
    _, at_once = ops.scan(lambda c, _: (None, random.normal((2,), seed=seed)), None, length=3)
    assert len(np.unique(at_once)) == 6


def test_dropout_in_a_loop_is_another_in_each_step() -> None:
    drop = gnomon.layers.Dropout(0.5, seed=1)
    with collecting_updates() as updates:
        _, rows = ops.scan(lambda c, _: (None, drop(ops.ones(64), training=True)), None, length=4)
    kept = gnomon.function([], rows, updates=updates)() > 0
    assert all((kept[i] != kept[j]).any() for i in range(4) for j in range(i))


def test_gradients_see_the_same_random_numbers() -> None:
    seed = random.SeedGenerator(3)
    w = gnomon.Variable(np.ones(8, "float32"))
    with collecting_updates() as updates:
        carry, _ = ops.scan(lambda c, _: (c + w * random.uniform((8,), seed=seed), None), ops.zeros(8), length=5)
        cost = ops.sum(carry)
        slope = gnomon.grad(cost, w)
    carry, slope = gnomon.function([], [carry, slope], updates=updates)()
    np.testing.assert_allclose(carry, slope, rtol=1e-6)


def test_variables_assigned_in_a_loop() -> None:
    count, total = gnomon.Variable(0, dtype="int32"), gnomon.Variable(1.0)
    factors = gnomon.shared(np.arange(1, 5, dtype=np.float32))
    with collecting_updates() as updates:

        def step(carry: Any, x: Any) -> Any:
            count.assign_add(1)
            total.assign(total * x)
            return carry + total, count * 1

        carry, rows = ops.scan(step, 0.0, factors)
        after = total * 1.0
    fn = gnomon.function([], [carry, rows, after], updates=updates)
    carry, rows, after = fn()
    assert (float(carry), rows.tolist(), float(after)) == (1 + 2 + 6 + 24, [1, 2, 3, 4], 24.0)
    assert (count.numpy(), total.numpy()) == (4, 24.0)


def test_conditions_in_a_loop() -> None:
    x = gnomon.vector("x")
    carry, _ = ops.scan(lambda c, v: (ops.cond(v > 0, lambda: c * 2.0, lambda: c + v), c), 1.0, x)
    fn = gnomon.function([x], [carry, gnomon.grad(carry, x)])
    values, slopes = fn(np.array([1, -3, 2, -1], np.float32))
    assert values == (1 * 2 - 3) * 2 - 1
    assert slopes.tolist() == [0, 2, 0, 1]


def test_switch_and_cond() -> None:
    i = gnomon.iscalar("i")
    fn = gnomon.function([i], ops.switch(i, [lambda v: v + 1.0, lambda v: v * 10.0, lambda v: -v], np.float32(3)))
    assert [float(fn(k)) for k in (-1, 0, 1, 2, 9)] == [4, 4, 30, -3, -3]


def test_mistakes_of_keras_loops() -> None:
    xs = array(3, 2)
    with pytest.raises(ArgumentError, match="scan needs xs or length"):
        ops.scan(lambda c, x: (c, c), 1.0)
    with pytest.raises(ArgumentError, match="scan needs a function"):
        ops.scan(None, 1.0, xs)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="equally long, and as long as its length: got 3 and 4"):
        ops.scan(lambda c, x: (c, None), 1.0, (xs, array(4)))
    with pytest.raises(ShapeError, match="got 7 and 3"):
        ops.scan(lambda c, x: (c, None), 1.0, xs, length=7)
    with pytest.raises(ArgumentError, match=r"returns \(carry, y\)"):
        ops.scan(lambda c, x: c, 1.0, xs)
    with pytest.raises(ShapeError, match=r"carry\['h'\].*begins as float32\[2\], and a step makes float32\[1, 2\]"):
        ops.scan(lambda c, x: ({"h": c["h"][None]}, None), {"h": ops.zeros(2)}, xs)
    with pytest.raises(DTypeError, match=r"begins as float32\[2\], and a step makes float64\[2\]"):
        ops.scan(lambda c, x: (ops.cast(c, "float64"), None), ops.zeros(2), xs)
    with pytest.raises(ArgumentError, match="must keep its structure"):
        ops.scan(lambda c, x: ((c, c), None), 1.0, xs)
    with pytest.raises(ShapeError, match="goes along the first axis"):
        ops.scan(lambda c, x: (c, None), 1.0, np.float32(1.0))
    with pytest.raises(ShapeError, match="condition of while_loop must be one bool"):
        ops.while_loop(lambda v: v > 0, lambda v: v, ops.zeros(2))
    with pytest.raises(ArgumentError, match="must keep its structure"):
        ops.while_loop(lambda a, b: a > 0, lambda a, b: (a, b, b), (1, 2))
    with pytest.raises(DTypeError, match="begins as int32"):
        ops.while_loop(lambda a: a > 0, lambda a: a * 0.5, 3)
