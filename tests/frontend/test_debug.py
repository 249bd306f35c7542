"""The debug modes find what is planted for them, name it, and raise no false alarm."""

from __future__ import annotations

import numpy as np
import pytest

import gnomon
from gnomon import ops
from gnomon.compiler.compile import _Plan
from gnomon.compiler.errors import ArgumentError, CheckError, DataError, NumericError
from gnomon.compiler.graph import layer_scope
from gnomon.compiler.ops import build
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.scalar import SCALAR
from gnomon.compiler.passes.algebra import algebra
from gnomon.compiler.passes.rewrite import number
from gnomon.compiler.passes.stabilize import stabilize
from gnomon.compiler.sizes import symbol
from gnomon.functions import function
from gnomon.tensor import Tensor, new_input
from gnomon.variable import Variable

RNG = np.random.default_rng(7)


def tensor(name: str, *shape, dtype: str = "float32") -> Tensor:
    return Tensor(new_input(name, dtype, shape), name)


def rows(name: str = "x", width: int = 6) -> Tensor:
    return tensor(name, symbol("batch"), width)


def random(*shape, dtype: str = "float32") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def logistic() -> tuple[gnomon.Function, Variable]:
    """A training step: a product, a row program, updates in place."""
    x, y = rows(), rows("y", 4)
    w = Variable(RNG.standard_normal((6, 4)).astype("float32"), name="w")
    b = Variable(np.zeros(4, "float32"), name="b")
    loss = ops.mean(-ops.sum(y * ops.log_softmax(x @ w + b), -1))
    gw, gb = gnomon.grad(loss, [w, b])
    return function([x, y], loss, {w: w - 0.1 * gw, b: b - 0.1 * gb}, name="step"), w


@pytest.fixture
def check(monkeypatch):
    monkeypatch.setenv("GNOMON_CHECK", "1")


@pytest.fixture
def nan(monkeypatch):
    monkeypatch.setenv("GNOMON_NAN", "1")


# ---- GNOMON_CHECK


def test_what_is_right_passes(check):
    step, w = logistic()
    one_hot = np.eye(4, dtype="float32")
    before = w.numpy()
    for n in (1, 5, 64):
        wanted = step.interpret(x := random(n, 6), y := one_hot[RNG.integers(0, 4, n)])
        np.testing.assert_allclose(step(x, y), wanted[0], rtol=1e-5)
    assert (w.numpy() != before).any()


def test_sums_that_cancel_and_comparisons_on_the_edge_are_no_false_alarms(check):
    x = rows(width=500)
    centred = x - ops.mean(x, -1, keepdims=True)
    outputs = [
        ops.sum(centred, -1), ops.sum(centred), ops.floor(x * 0.1 * 10.0), ops.argmax(x * 3.0, -1),
        ops.var(x, -1), ops.log(1 - ops.sigmoid(x * 8)), ops.exp(x * 100), ops.log(ops.exp(x * 100)),
    ]  # fmt: skip
    f = function([x], outputs)
    data = random(9, 500)
    data[:, :50] = RNG.integers(-3, 4, (9, 50))
    f(data)


def test_a_wrong_rewrite_is_named_with_its_formula(check, monkeypatch):
    def halve_doubles(node):
        """x + x -> x."""
        x, y = node.inputs if len(node.inputs) == 2 else (None, node)
        return x if node.op.name == "add" and x is y else None

    monkeypatch.setitem(algebra.by_class, Elementwise, [halve_doubles, *algebra.by_class[Elementwise]])
    x = rows()
    with layer_scope("twice"):
        y = x + x
    f = function([x], ops.exp(y), name="planted")
    with pytest.raises(CheckError) as caught:
        f(np.full((3, 6), 1.5, "float32"))
    message = str(caught.value)
    assert "'halve_doubles'" in message
    assert "x + x -> x." in message
    assert "largest difference 1.5 at [0, 0]: 1.5 instead of 3; 18 of 18 elements differ" in message
    assert "add(float32[batch, 6], float32[batch, 6])" in message
    assert "twice (" in message
    assert "test_debug.py:" in message


def test_the_first_wrong_rewrite_is_named_of_several(check, monkeypatch):
    def lose_signs(node):
        """-x -> x."""
        return node.inputs[0] if node.op.name == "negative" else None

    monkeypatch.setitem(algebra.by_class, Elementwise, [*algebra.by_class[Elementwise], lose_signs])
    x = rows()
    f = function([x], ops.exp(-ops.sin(x)))
    with pytest.raises(CheckError, match="'lose_signs'"):
        f(random(3, 6))


def test_an_algebraic_rewrite_must_keep_nan(check, monkeypatch):
    def zero_times_anything(node):
        """x * 0 -> 0, which is wrong for infinities."""
        zeros = [x for x in node.inputs if number(x) == 0]
        return zeros[0] if node.op.name == "multiply" and zeros else None

    monkeypatch.setitem(algebra.by_class, Elementwise, [*algebra.by_class[Elementwise], zero_times_anything])
    x = rows()
    f = function([x], x * 0.0)
    f(random(3, 6))
    with pytest.raises(CheckError, match="zero_times_anything.*\n.*"):
        f(np.full((3, 6), np.inf, "float32"))


def test_a_stabilising_rewrite_may_give_numbers_for_infinities(check):
    x = rows()
    f = function([x], ops.log(ops.exp(x)))
    np.testing.assert_array_equal(f(np.full((2, 6), 1e4, "float32")), 1e4)


def test_a_wrong_stabilising_rewrite_is_found(check, monkeypatch):
    def forget_a_divisor(node):
        """log(x / y) -> log(x)."""
        inner = node.inputs[0]
        if node.op.name == "log" and isinstance(inner.op, Elementwise) and inner.op.name == "divide":
            return build.log(inner.inputs[0])
        return None

    monkeypatch.setitem(stabilize.by_class, Elementwise, [forget_a_divisor])
    x = rows()
    f = function([x], ops.log(x / (x + 1)))
    with pytest.raises(CheckError, match="'forget_a_divisor'"):
        f(np.abs(random(3, 6)) + 1)


def test_a_wrong_kernel_is_named_with_its_nodes(check, monkeypatch):
    monkeypatch.setitem(SCALAR["add"].llvm, "f", SCALAR["subtract"].llvm["f"])
    x, y = rows(), rows("y")
    with layer_scope("block"), layer_scope("sum"):
        total = x + y
    f = function([x, y], ops.tanh(total), name="broken")
    with pytest.raises(CheckError) as caught:
        f(random(4, 6), random(4, 6))
    message = str(caught.value)
    assert "the kernel 'tanh' (tanh_" in message
    assert "of function 'broken' differs from NumPy: largest difference" in message
    assert "of 24 elements differ" in message
    assert "block/sum" in message or "tanh(float32[batch, 6])" in message
    assert "test_debug.py:" in message


def test_memory_that_is_overwritten_too_early_is_found(check, monkeypatch):
    def always(plan, parameter, value):
        return value in plan.of and not plan.of[value].special

    monkeypatch.setattr(_Plan, "_may_overwrite", always)
    a, b = (Variable(random(5, 5), name=name) for name in "ab")
    x = tensor("x", 5, 5)
    f = function([x], ops.sum(x), {a: ops.exp(b), b: ops.sin(a)})  # each needs the other's old value
    with pytest.raises(CheckError, match=r"'[ab]' was overwritten before the kernel"):
        f(random(5, 5))


def test_variables_are_as_they_were_after_an_error(nan):
    v = Variable(np.array([1.0, -1.0], "float32"), name="v")
    f = function([], [], {v: ops.log(v)})
    with pytest.raises(NumericError):
        f()
    np.testing.assert_array_equal(v.numpy(), [1.0, -1.0])


def test_loops_are_checked_round_by_round(check):
    counter = tensor("k", dtype="int64")
    data = tensor("data", symbol("steps"), 3)
    v = Variable(np.ones(3, "float32"), name="v")
    new = v * 0.5 + data[counter]
    f = function([data], ops.sum(new), {v: new}, repeat=(counter, symbol("steps")))
    wanted = np.ones(3)
    for row in (rows_ := random(4, 3)):
        wanted = wanted * 0.5 + row
    f(rows_)
    np.testing.assert_allclose(v.numpy(), wanted, rtol=1e-5)
    assert f(np.zeros((0, 3), "float32")) is not None


def test_both_sides_of_a_condition_are_checked(check, monkeypatch):
    def lose_signs(node):
        """-x -> x."""
        return node.inputs[0] if node.op.name == "negative" else None

    x, c = rows(), tensor("c", dtype="bool")
    f = function([c, x], gnomon.cond(c, lambda: ops.exp(x), lambda: -ops.sin(x)))
    for value in (True, False):
        f(np.array(value), random(2, 6))
    monkeypatch.setitem(algebra.by_class, Elementwise, [*algebra.by_class[Elementwise], lose_signs])
    f = function([c, x], gnomon.cond(c, lambda: ops.exp(x), lambda: -ops.sin(x)))
    with pytest.raises(CheckError, match="'lose_signs'"):
        f(np.array(False), random(2, 6))


def test_wrong_arguments_are_still_told_as_such(check):
    step, _ = logistic()
    with pytest.raises(DataError, match="axis 1 must"):
        step(random(2, 5), random(2, 4))


# ---- GNOMON_NAN


def test_the_op_that_makes_nan_is_named(nan):
    x = rows()
    with layer_scope("block"), layer_scope("logarithm"):
        y = ops.log(x)
    f = function([x], ops.exp(y) * 2, name="forward")
    data = np.abs(random(3, 6)) + 0.1
    f(data)
    data[1, 2] = -4
    with pytest.raises(NumericError) as caught:
        f(data)
    message = str(caught.value)
    assert message.startswith("NaN from log in block/logarithm (")
    assert "test_debug.py:" in message
    assert "1 of 18 elements, the first at [1, 2]" in message
    assert "it was made of   -4.0" in message
    assert "of function 'forward', which computes" in message


def test_an_infinity_is_found_where_it_first_appears(nan):
    x = rows()
    f = function([x], ops.sum(ops.exp(x), -1) + 1)
    with pytest.raises(NumericError, match="infinity from exp.*"):
        f(np.full((2, 6), 100, "float32"))


def test_the_kernel_where_it_first_appears_is_named(nan):
    x = rows()
    w, v = Variable(random(6, 6), name="w"), Variable(random(6, 6), name="v")
    hidden = ops.sqrt(x @ w)
    f = function([x], hidden @ v)
    with pytest.raises(NumericError, match="NaN from sqrt.*"):
        f(random(8, 6))


def test_nan_in_arguments_and_variables_is_told_as_such(nan):
    x = rows()
    v = Variable(np.array([np.nan] * 6, "float32"), name="weights")
    with pytest.raises(NumericError, match="NaN in the argument 'x' of function 'sums'"):
        function([x], ops.sum(x, -1), name="sums")(np.full((1, 6), np.nan, "float32"))
    with pytest.raises(NumericError, match="NaN in the variable 'weights'"):
        function([x], x * v)(random(1, 6))


def test_infinities_that_the_user_wrote_are_his(nan):
    x = rows()
    f = function([x], [ops.where(x > 0, x, -np.inf), ops.max(ops.where(x > 0, x, -np.inf), -1), ops.isnan(x)])
    low, top, _ = f(np.array([[1.0, -1, 2, -3, 0.5, -0.1]], "float32"))
    assert low[0, 1] == -np.inf
    assert top == 2


def test_nan_that_is_chosen_away_is_no_error(nan):
    x = rows()
    f = function([x], ops.where(x > 0, ops.log(x), 0.0))
    assert np.isfinite(f(random(2, 6))).all()


def test_the_round_of_a_loop_is_named(nan):
    counter = tensor("k", dtype="int64")
    data = tensor("data", symbol("steps"), 3)
    v = Variable(np.ones(3, "float32"), name="v")
    f = function([data], [], {v: v + ops.log(data[counter])}, repeat=(counter, symbol("steps")), name="loop")
    values = np.ones((5, 3), "float32")
    values[3, 1] = 0
    with pytest.raises(NumericError, match="infinity from log.*\n.*\n.*\n.*round 3"):
        f(values)
    np.testing.assert_array_equal(v.numpy(), np.ones(3))


# ---- GNOMON_SHOW


def test_stages_are_printed_when_compiled(monkeypatch, capsys):
    monkeypatch.setenv("GNOMON_SHOW", "graph, kernels")
    x = rows()
    f = function([x], ops.exp(x) + 1, name="shown")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "---- graph of shown\n%0 = Input(x) : float32[batch, 6]" in printed.err
    assert "---- kernels of shown\n; " in printed.err
    np.testing.assert_allclose(f(np.zeros((1, 6), "float32")), 2)
    monkeypatch.setenv("GNOMON_SHOW", "grap")
    with pytest.raises(ArgumentError, match="no stage 'grap'. Did you mean 'graph'"):
        function([x], x + 1)


def test_nothing_is_watched_unless_asked(monkeypatch):
    monkeypatch.setenv("GNOMON_CHECK", "0")
    x = rows()
    assert type(function([x], x + 1).executable).__name__ == "Executable"
