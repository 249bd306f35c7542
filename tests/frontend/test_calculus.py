"""Derivatives against finite differences in float64 and known formulas; conditions; functions of many slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import optimize

import gnomon
from gnomon import calculus, control, function, ops
from gnomon.compiler.errors import ArgumentError, DisconnectedError, DTypeError, GraphError, ShapeError
from gnomon.compiler.graph import Op, walk
from gnomon.compiler.ops.control import Cond
from gnomon.tensor import Tensor
from gnomon.variable import collecting_updates

rng = np.random.default_rng(1)


def differences(f: Callable[[np.ndarray], np.ndarray], at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The Jacobian of f by central differences: the axes of f, then those of `at`."""
    result = np.zeros((*np.shape(f(at)), *at.shape))
    for k in np.ndindex(*at.shape):
        up, down = at.copy(), at.copy()
        up[k] += step
        down[k] -= step
        result[(..., *k)] = (f(up) - f(down)) / (2 * step)
    return result


def close(got, expected, tolerance: float = 1e-7) -> None:
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


# ---- gradients


def test_gradient_of_one_and_of_several() -> None:
    x, w = gnomon.dmatrix("x"), gnomon.dvector("w")
    cost = ops.sum(ops.tanh(x @ w))
    one = function([x, w], gnomon.grad(cost, w))
    several = function([x, w], gnomon.grad(cost, [x, w]))
    as_tuple = gnomon.grad(cost, (x, w))
    assert isinstance(as_tuple, tuple)
    xs, ws = rng.standard_normal((4, 3)), rng.standard_normal(3)
    close(one(xs, ws), differences(lambda v: np.tanh(xs @ v).sum(), ws))
    gx, gw = several(xs, ws)
    close(gx, differences(lambda v: np.tanh(v @ ws).sum(), xs))
    close(gw, one(xs, ws))


def test_gradient_with_respect_to_a_variable_and_to_a_computed_value() -> None:
    w = gnomon.shared(np.array([1.0, 2.0]), "w")
    hidden = w * 3.0
    cost = ops.sum(hidden * hidden)
    assert function([], gnomon.grad(cost, w))().tolist() == [18.0, 36.0]
    assert function([], gnomon.grad(cost, hidden))().tolist() == [6.0, 12.0]


def test_second_and_third_derivative() -> None:
    x = gnomon.dscalar("x")
    y = x**4 + ops.sin(x)
    d1 = gnomon.grad(y, x)
    d2 = gnomon.grad(d1, x)
    d3 = gnomon.grad(d2, x)
    got = function([x], [d1, d2, d3])(0.7)
    close(got, [4 * 0.7**3 + np.cos(0.7), 12 * 0.7**2 - np.sin(0.7), 24 * 0.7 - np.cos(0.7)], 1e-12)


def test_constants_and_stops() -> None:
    x = gnomon.dscalar("x")
    square = x * x
    assert gnomon.grad(square * x, x, consider_constant=[square]).eval({x: 3.0}) == 9.0
    assert gnomon.grad(gnomon.stop_gradient(square) * x, x).eval({x: 3.0}) == 9.0
    assert gnomon.grad(calculus.zero_grad(square) * x, x).eval({x: 3.0}) == 9.0
    assert gnomon.grad(calculus.zero_grad(square), x).eval({x: 3.0}) == 0.0
    with pytest.raises(DisconnectedError):
        gnomon.grad(calculus.disconnected_grad(square), x)


def test_known_gradients() -> None:
    x = gnomon.dvector("x")
    y = x * 2.0
    g = gnomon.grad(None, x, known_grads={y: np.array([1.0, 10.0])})
    assert function([x], g, on_unused_input="ignore")(np.zeros(2)).tolist() == [2.0, 20.0]
    # what is known replaces what the cost would have sent
    mixed = gnomon.grad(ops.sum(y) + ops.sum(x), x, known_grads={y: np.array([0.0, 5.0])})
    assert function([x], mixed, on_unused_input="ignore")(np.zeros(2)).tolist() == [1.0, 11.0]


def test_a_disconnected_input_is_an_error_unless_asked_for() -> None:
    x, y = gnomon.dscalar("x"), gnomon.dvector("y")
    with pytest.raises(DisconnectedError, match=r"depend on <Tensor y float64\[y_0\]>.*disconnected_inputs='ignore'"):
        gnomon.grad(x * x, [x, y])
    with pytest.warns(UserWarning, match="does not depend on"):
        gnomon.grad(x * x, y, disconnected_inputs="warn")
    zero = gnomon.grad(x * x, y, disconnected_inputs="ignore")
    assert zero.node.type == y.node.type
    with pytest.raises(ArgumentError, match="disconnected_inputs must be"):
        gnomon.grad(x * x, y, disconnected_inputs="never")


def test_what_has_no_gradient() -> None:
    x, k = gnomon.dvector("x"), gnomon.iscalar("k")
    with pytest.raises(ShapeError, match=r"scalar cost, got float64\[x_0\].*test_calculus.py.*jacobian"):
        gnomon.grad(x * 2.0, x)
    with pytest.raises(DTypeError, match=r"float cost, got int32\[\]"):
        gnomon.grad(k * 2, k)
    with pytest.raises(GraphError, match="with respect to a Tensor or a Variable, got float"):
        gnomon.grad(ops.sum(x), 3.0)


def test_value_and_grad() -> None:
    x = gnomon.dscalar("x")
    cost, g = calculus.value_and_grad(x**3, x)
    assert function([x], [cost, g])(2.0) == [8.0, 12.0]


# ---- products with Jacobians


def test_rop_and_lop() -> None:
    x, w = gnomon.dvector("x"), gnomon.dmatrix("w")
    y = ops.sin(w @ x)
    v, m, u = gnomon.dvector("v"), gnomon.dmatrix("m"), gnomon.dvector("u")
    xs, ws = rng.standard_normal(3), rng.standard_normal((4, 3))
    vs, ms, us = rng.standard_normal(3), rng.standard_normal((4, 3)), rng.standard_normal(4)
    by_x = differences(lambda a: np.sin(ws @ a), xs)
    by_w = differences(lambda a: np.sin(a @ xs), ws)
    inputs, values = [x, w, v, m, u], (xs, ws, vs, ms, us)
    both = gnomon.Rop(y, [x, w], [v, m])
    close(function(inputs, both, on_unused_input="ignore")(*values), by_x @ vs + np.tensordot(by_w, ms, 2))
    left = gnomon.Lop(y, [x, w], u)
    gx, gw = function(inputs, left, on_unused_input="ignore")(*values)
    close(gx, us @ by_x)
    close(gw, np.tensordot(us, by_w, 1))
    several = gnomon.jvp([y, ops.sum(x)], x, v)
    first, second = function(inputs, several, on_unused_input="ignore")(*values)
    close(first, by_x @ vs)
    close(second, vs.sum())
    with pytest.raises(ShapeError, match="cannot be multiplied with the derivative"):
        gnomon.Rop(y, x, m)


def test_jvp_of_a_function_as_in_keras() -> None:
    value, product = ops.jvp(lambda a, b: a * b + 1, (2.0, 3.0), (1.0, 0.0))
    assert (float(value), float(product)) == (7.0, 3.0)
    value, product, extra = ops.jvp(lambda a: (a * a, "kept"), (np.array([1.0, 2.0]),), (np.ones(2),), has_aux=True)
    assert product.tolist() == [2.0, 4.0]
    assert extra == "kept"


# ---- Jacobians and Hessians

MAPS: dict[str, tuple[Callable, Callable, tuple[int, ...]]] = {
    "vector to vector": (lambda x: ops.tanh(x) * ops.sum(x), lambda x: np.tanh(x) * x.sum(), (4,)),
    "matrix to vector": (lambda x: ops.logsumexp(x, 1), lambda x: np.log(np.exp(x).sum(1)), (3, 2)),
    "matrix to matrix": (
        lambda x: ops.softmax(x), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), (2, 3)),
    "scalar to vector": (lambda x: ops.arange(3, dtype="float64") * x**2, lambda x: np.arange(3) * x**2, ()),
    "product": (lambda x: x @ ops.transpose(x), lambda x: x @ x.T, (3, 2)),
    "moving": (
        lambda x: ops.concatenate([ops.pad(x[1:], ((1, 0), (2, 1))), ops.flip(ops.pad(x, ((0, 0), (3, 0))), 1)]),
        lambda x: np.concatenate([np.pad(x[1:], ((1, 0), (2, 1))), np.pad(x, ((0, 0), (3, 0)))[:, ::-1]]), (2, 2)),
    "positions": (
        lambda x: ops.take(x, np.array([1, 0, 1]), 0) + ops.max(x), lambda x: x[[1, 0, 1]] + x.max(), (2, 3)),
    "order": (lambda x: ops.cumsum(ops.sort(x)), lambda x: np.cumsum(np.sort(x)), (5,)),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_jacobian_with_open_sizes(name: str) -> None:
    make, formula, shape = MAPS[name]
    x = Tensor(gnomon.theano.tensor_type("float64", (None,) * len(shape))("x").node)
    j = gnomon.jacobian(make(x), x)
    point = rng.standard_normal(shape)
    close(function([x], j)(point), differences(formula, point), 1e-6)


def test_jacobian_of_several_and_at_size_one() -> None:
    x, w = gnomon.dmatrix("x"), gnomon.dmatrix("w")
    y = ops.sin(x @ w)
    compiled = function([x, w], gnomon.jacobian(y, [x, w]))
    for n in (1, 3):
        xs, ws = rng.standard_normal((n, 2)), rng.standard_normal((2, 1))
        jx, jw = compiled(xs, ws)
        assert jx.shape == (n, 1, n, 2)
        close(jx, differences(lambda v, ws=ws: np.sin(v @ ws), xs))
        close(jw, differences(lambda v, xs=xs: np.sin(xs @ v), ws))


def test_hessian_is_the_derivative_of_the_gradient() -> None:
    x = gnomon.dvector("x")
    compiled = function([x], gnomon.hessian(optimize_rosen(x), x))
    for n in (2, 5):
        point = rng.standard_normal(n)
        close(compiled(point), optimize.rosen_hess(point), 1e-10)
    a, b = gnomon.dvector("a"), gnomon.dmatrix("b")
    blocks = gnomon.hessian(ops.sum(ops.exp(a)) + ops.sum(b * b) * a[0], [a, b])
    ha, hb = function([a, b], blocks)(np.zeros(2), np.ones((2, 2)))
    close(ha, np.eye(2))
    assert hb.shape == (2, 2, 2, 2)
    linear = gnomon.hessian(ops.sum(a * 3.0), a)
    assert not function([a], linear, on_unused_input="ignore")(np.ones(3)).any()


def optimize_rosen(x):
    return ops.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def test_hessian_vector_product() -> None:
    x, v = gnomon.dvector("x"), gnomon.dvector("v")
    product = function([x, v], gnomon.hessian_vector_product(optimize_rosen(x), x, v))
    point, direction = rng.standard_normal(6), rng.standard_normal(6)
    close(product(point, direction), optimize.rosen_hess_prod(point, direction), 1e-10)


# ---- many slices at once


def test_vectorized_map() -> None:
    x = rng.standard_normal((4, 3))
    close(ops.vectorized_map(lambda v: ops.sum(v) * v, x), x.sum(1, keepdims=True) * x)
    pairs = (x, np.array([2, 0, 1, 1]))
    close(ops.vectorized_map(lambda p: p[0][p[1]], pairs), x[range(4), pairs[1]])
    outputs = ops.vectorized_map(lambda d: {"sum": d["a"] + d["b"], "one": 1.0}, {"a": x, "b": x})
    close(outputs["sum"], 2 * x)
    assert outputs["one"].shape == (4,)
    matrices, vectors = rng.standard_normal((4, 2, 3)), rng.standard_normal((4, 3))
    close(ops.vectorized_map(lambda p: p[0] @ p[1], (matrices, vectors)), np.einsum("nij,nj->ni", matrices, vectors))
    with pytest.raises(ShapeError, match="first axes of the elements differ"):
        ops.vectorized_map(lambda p: p[0], (x, np.zeros(3)))


def test_vectorized_map_of_a_gradient_compiles_with_open_sizes() -> None:
    """Gradients of each example by itself."""
    w = gnomon.shared(np.array([1.0, -2.0]), "w")
    x, y = gnomon.dmatrix("x"), gnomon.dvector("y")

    def gradient(example):
        a, b = example
        return gnomon.grad((a @ w - b) ** 2, w)

    compiled = function([x, y], calculus.vectorized_map(gradient, (x, y)))
    for n in (1, 3):
        xs, ys = rng.standard_normal((n, 2)), rng.standard_normal(n)
        close(compiled(xs, ys), 2 * (xs @ [1.0, -2.0] - ys)[:, None] * xs)


def test_vectorize_as_in_numpy() -> None:
    larger = ops.vectorize(lambda a, b: ops.cond(a > b, lambda: a - b, lambda: a + b))
    close(larger(np.array([1.0, 2.0, 3.0]), 2.0), [3.0, 4.0, 1.0])
    dot = ops.vectorize(lambda a, b: ops.sum(a * b), signature="(n),(n)->()")
    a, b = rng.standard_normal((2, 1, 3)), rng.standard_normal((4, 3))
    close(dot(a, b), np.einsum("xyn,zn->xz", a, b))


def test_custom_gradient() -> None:
    @ops.custom_gradient
    def log1pexp(x):
        e = ops.exp(x)
        return ops.log(1 + e), lambda upstream: upstream * (1 - 1 / (1 + e))

    x = gnomon.dvector("x")
    g = function([x], gnomon.grad(ops.sum(log1pexp(x)), x))
    close(g(np.array([100.0, 0.0])), [1.0, 0.5])
    close(log1pexp(np.array([0.0])), [np.log(2)])

    @ops.custom_gradient
    def two(a, b):
        return (a * b, a + b), lambda g1, g2: (g1 * 10.0, g2 * 100.0)

    a, b = gnomon.dscalar("a"), gnomon.dscalar("b")
    product, total = two(a, b)
    gradients = function([a, b], gnomon.grad(product + 2.0 * total, [a, b]), on_unused_input="ignore")
    assert gradients(1.0, 1.0) == [10.0, 200.0]


# ---- conditions


@dataclass(frozen=True)
class Counting(Op):
    """The identity, which counts how often it is computed."""

    label: str
    counts = {"then": 0, "else": 0}

    def infer(self, x):
        return x

    def numpy(self, env, x):
        self.counts[self.label] += 1
        return x


@pytest.mark.parametrize("lazy", ["cond", "ifelse"])
def test_only_the_chosen_side_is_computed(lazy: str) -> None:
    x = gnomon.dvector("x")
    then = lambda: Tensor(Counting("then")(ops.exp(x).node))
    orelse = lambda: Tensor(Counting("else")(ops.sin(x).node))
    pred = ops.sum(x) > 0
    y = control.cond(pred, then, orelse) if lazy == "cond" else control.ifelse(pred, then(), orelse())
    Counting.counts.update(then=0, **{"else": 0})
    close(y.eval({x: np.ones(2)}), np.exp(np.ones(2)))
    assert Counting.counts == {"then": 1, "else": 0}
    close(y.eval({x: -np.ones(2)}), np.sin(-np.ones(2)))
    assert Counting.counts == {"then": 1, "else": 1}


@pytest.mark.parametrize("point", [np.array([0.5, 1.5]), np.array([-0.5, 0.2, -2.0])])
def test_conditions_compile_and_have_derivatives_of_all_kinds(point: np.ndarray) -> None:
    x = gnomon.dvector("x")
    hidden = ops.tanh(x)  # computed before the choice, for both sides
    pred = ops.sum(x) > 0
    lazy = ops.cond(pred, lambda: ops.sum(ops.sin(hidden) * x), lambda: ops.sum(hidden**3))
    eager = ops.where(pred, ops.sum(ops.sin(hidden) * x), ops.sum(hidden**3))
    v = np.arange(1.0, 1 + len(point))
    for derivative in (
        lambda y: y,
        lambda y: gnomon.grad(y, x),
        lambda y: gnomon.hessian(y, x),
        lambda y: gnomon.jvp(y, x, v),
        lambda y: gnomon.hessian_vector_product(y, x, v),
    ):
        chosen, both = derivative(lazy), derivative(eager)
        assert any(isinstance(n.op, Cond) for n in walk([chosen.node]))
        close(chosen.eval({x: point}), both.eval({x: point}), 1e-12)
        close(function([x], chosen)(point), both.eval({x: point}), 1e-12)


def test_a_condition_mapped_over_slices_chooses_for_each() -> None:
    x = rng.standard_normal((6, 2))
    got = ops.vectorized_map(lambda v: ops.cond(v[0] > 0, lambda: v * 2.0, lambda: v - 1.0), x)
    close(got, np.where(x[:, :1] > 0, x * 2, x - 1))
    flag = gnomon.scalar("flag", "bool")
    t = gnomon.dmatrix("t")
    whole = calculus.vectorized_map(lambda v: ops.cond(flag, lambda: ops.sum(v), lambda: v[0]), t)
    assert any(isinstance(n.op, Cond) for n in walk([whole.node]))
    compiled = function([t, flag], whole)
    close(compiled(x, True), x.sum(1))
    close(compiled(x, False), x[:, 0])


def test_conditions_return_structures_and_check_them() -> None:
    p, x = gnomon.dscalar("p"), gnomon.dvector("x")
    result = ops.cond(p > 0, lambda: {"a": x, "b": (p, 1)}, lambda: {"a": x * 2.0, "b": (p, 2)})
    assert set(result) == {"a", "b"}
    assert result["b"][1].eval({p: -1.0, x: np.zeros(2)}) == 2
    with pytest.raises(ArgumentError, match="one structure, got a tensor and tuple"):
        ops.cond(p > 0, lambda: x, lambda: (x, x))
    with pytest.raises(ShapeError, match=r"one shape, got float64\[x_0\] if true and float64\[\] if false"):
        ops.cond(p > 0, lambda: x, lambda: p)
    with pytest.raises(ShapeError, match="one bool.*gnomon.ops.where"):
        ops.cond(x > 0, lambda: x, lambda: x)
    assert ops.cond(True, lambda: "then", lambda: "else") == "then"


def test_an_assignment_counts_only_if_its_side_is_chosen() -> None:
    w = gnomon.Variable(np.array(1.0), dtype="float64", name="w")
    p = gnomon.dscalar("p")

    def step():
        w.assign(w + 10.0)
        return w * 1.0

    with collecting_updates() as updates:
        out = ops.cond(p > 0, step, lambda: w * 0.0)
    run = function([p], out, updates=updates)
    assert run(-1.0) == 0.0
    assert w.numpy() == 1.0
    assert run(1.0) == 11.0
    assert w.numpy() == 11.0


def test_switch() -> None:
    k, x = gnomon.iscalar("k"), gnomon.dscalar("x")
    branches = [lambda v: v, lambda v: v * v, lambda v: ops.exp(v)]
    compiled = function([k, x], ops.switch(k, branches, x))
    assert [float(compiled(i, 3.0)) for i in (-4, 0, 1)] == [3.0, 3.0, 9.0]
    close(compiled(7, 3.0), np.exp(3.0))
    assert ops.switch(1, branches, 4.0) == 16.0
