"""Every rule of the passes: it fires where its formula says, and keeps what the oracle computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import special

import gnomon
from gnomon.compiler import verify
from gnomon.compiler.graph import Item, Node, layer_scope, origins, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.control import Tuple, WithGradient
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.ops.remat import After
from gnomon.compiler.ops.shape import Broadcast, Reshape, Transpose
from gnomon.compiler.passes import PASSES, simplify
from gnomon.compiler.passes.algebra import algebra
from gnomon.compiler.passes.rewrite import Rules, observing
from gnomon.compiler.passes.split import split
from gnomon.compiler.passes.stabilize import stabilize
from gnomon.compiler.sizes import Dim, evaluate, symbol
from gnomon.functions import function
from gnomon.tensor import Tensor, new_input

n = symbol("n")
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 3.0, 1e-30, 80.0, -80.0, np.inf, -np.inf, np.nan]


def leaf(key: int, *shape: Dim, dtype: str = "float32") -> Node:
    return Input(4_000_000 + key, f"x{key}", dtype, shape)()


X, Y, Z = leaf(1, n, 4), leaf(2, n, 4), leaf(3, n, 4)
ROW, COLUMN, SCALAR = leaf(4, 4), leaf(5, n, 1), leaf(6)
WHOLE, FLAG = leaf(7, n, 4, dtype="int32"), leaf(8, n, 4, dtype="bool")
W, THIN, LINE = leaf(9, 4, 6), leaf(10, 1, 6), leaf(11, 100_000)
LARGE, PICTURES = leaf(12, n, 4, 50), leaf(13, n, 9, 8, 3)


def values_of(leaves: Sequence[Node], rows: int, seed: int, specials: bool) -> dict[Node, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = {}
    for x in leaves:
        shape = tuple(evaluate(d, {"n": rows}) for d in x.shape)
        if x.dtype == "bool":
            drawn = rng.integers(0, 2, shape).astype(bool)
        elif x.dtype == "int32":
            drawn = rng.integers(-9, 10, shape).astype(np.int32)
        else:
            drawn = rng.standard_normal(shape).astype(x.dtype)
            if specials:
                drawn = np.where(rng.random(shape) < 0.6, rng.choice(SPECIAL, shape), drawn).astype(x.dtype)
        values[x] = drawn
    return values


@dataclass
class Case:
    """Where a rule must fire, and what must be gone or left afterwards.

    rule    its name
    make    the node
    gone    functions and ops that are not there any more
    left    the number of nodes that are left, leaves included; 0 if it does not matter
    """

    rule: str
    make: Callable[[], Node]
    gone: str = ""
    left: int = 0


def broadcast(x: Node) -> Node:
    return build.broadcast_to(x, (n, 4))


ALGEBRA = [
    Case("fold_numbers", lambda: build.add(build.full((n, 4), 2.0), build.full((n, 4), 3.0)), "add"),
    Case("fold_numbers", lambda: build.exp(build.full((n, 4), 1.0)), "exp"),
    Case("fold_numbers", lambda: build.multiply(X, build.sqrt(build.full((n, 4), 4.0))), "sqrt"),
    Case("fold_casts", lambda: build.cast(build.full((n, 4), 2, "int32"), "float32"), "Cast"),
    Case("fold_casts", lambda: build.cast(build.cast(X, "float64"), "float32"), "Cast"),
    Case("fold_casts", lambda: build.cast(broadcast(ROW), "int32")),
    Case("drop_stop_signs", lambda: build.stop_gradient(X), "StopGradient", 1),
    Case("drop_given_gradients", lambda: WithGradient(lambda g: [g])(X, build.multiply(X, 3.0)), "WithGradient"),
    Case("take_from_tuples", lambda: Item(1)(Tuple()(X, Y)), "Tuple Item", 1),
    Case("wait_for_what_is_computed", lambda: After()(build.exp(X), build.full((n, 4), 1.0)), "After", 2),
    Case("wait_for_what_is_computed", lambda: After()(build.transpose(X, (1, 0)), build.exp(Y)), left=5),
    Case("use_neutral_elements", lambda: build.add(X, 0.0), "add", 1),
    Case("use_neutral_elements", lambda: build.add(0, WHOLE), "add", 1),
    Case("use_neutral_elements", lambda: build.subtract(X, 0.0), "subtract", 1),
    Case("use_neutral_elements", lambda: build.subtract(0.0, X), "subtract", 2),
    Case("use_neutral_elements", lambda: build.multiply(X, 1.0), "multiply", 1),
    Case("use_neutral_elements", lambda: build.multiply(1, WHOLE), "multiply", 1),
    Case("use_neutral_elements", lambda: build.multiply(-1.0, X), "multiply", 2),
    Case("use_neutral_elements", lambda: build.divide(X, 1.0), "divide", 1),
    Case("use_neutral_elements", lambda: build.divide(X, -1.0), "divide", 2),
    Case("move_signs", lambda: build.negative(build.negative(X)), "negative", 1),
    Case("move_signs", lambda: build.add(X, build.negative(Y)), "negative add", 3),
    Case("move_signs", lambda: build.add(build.negative(X), Y), "negative add", 3),
    Case("move_signs", lambda: build.subtract(X, build.negative(Y)), "negative subtract", 3),
    Case("move_signs", lambda: build.multiply(build.negative(X), build.negative(Y)), "negative", 3),
    Case("move_signs", lambda: build.divide(build.negative(X), build.negative(Y)), "negative", 3),
    Case("move_signs", lambda: build.multiply(build.negative(X), Y), left=4),
    Case("move_signs", lambda: build.divide(X, build.negative(Y)), left=4),
    Case("move_signs", lambda: build.negative(build.subtract(X, Y)), "negative", 3),
    Case("use_simple_powers", lambda: build.power(X, 2.0), "power", 2),
    Case("use_simple_powers", lambda: build.power(X, 1.0), "power", 1),
    Case("use_simple_powers", lambda: build.power(X, 0.0), "power"),
    Case("use_simple_powers", lambda: build.power(X, 3.0), "power", 3),
    Case("use_simple_powers", lambda: build.power(X, -1.0), "power"),
    Case("use_simple_powers", lambda: build.power(X, 0.5), "power"),
    Case("use_simple_powers", lambda: build.power(WHOLE, 2), "power", 2),
    Case("use_simple_powers", lambda: build.multiply(X, X), "multiply", 2),
    Case("choose_now", lambda: build.where(build.full((n, 4), True, "bool"), X, Y), "where", 1),
    Case("choose_now", lambda: build.where(build.full((n, 4), False, "bool"), X, Y), "where", 1),
    Case("choose_now", lambda: build.where(FLAG, X, X), "where", 1),
    Case("compute_before_repeating", lambda: build.exp(broadcast(ROW))),
    Case("compute_before_repeating", lambda: build.multiply(broadcast(ROW), 3.0)),
    Case("compute_before_repeating", lambda: build.subtract(broadcast(COLUMN), build.exp(broadcast(COLUMN)))),
    Case("join_broadcasts", lambda: build.broadcast(broadcast(ROW), (n, 4, 5), [0, 1]), left=2),
    Case("join_broadcasts", lambda: Broadcast((n, 4), (0, 1))(X), "Broadcast", 1),
    Case("join_reshapes", lambda: build.reshape(build.reshape(X, (n * 4,)), (n * 2, 2)), left=2),
    Case("join_reshapes", lambda: Reshape((n, 4))(X), "Reshape", 1),
    Case("join_reshapes", lambda: build.reshape(build.full((n, 4), 2.0), (n * 4,)), "Reshape"),
    Case("join_reshapes", lambda: build.reshape(broadcast(ROW), (n, 1, 4)), "Reshape"),
    Case("join_transposes", lambda: build.transpose(build.transpose(LARGE, [1, 2, 0]), [2, 0, 1]), "Transpose", 1),
    Case("join_transposes", lambda: build.transpose(build.transpose(LARGE, [1, 2, 0]), [0, 2, 1]), left=2),
    Case("join_transposes", lambda: Transpose((0, 1))(X), "Transpose", 1),
    Case("join_transposes", lambda: build.transpose(broadcast(ROW), [1, 0]), "Transpose", 2),
    Case("join_transposes", lambda: build.transpose(build.matmul(X, W), [1, 0]), "Transpose", 3),
    Case("contract_what_was_transposed", lambda: build.matmul(build.transpose(X, [1, 0]), Y), "Transpose", 3),
    Case("contract_what_was_transposed", lambda: build.matmul(X, build.transpose(Y, [1, 0])), "Transpose", 3),
    Case("multiply_columns_and_rows", lambda: build.matmul(COLUMN, THIN), "Contract"),
    Case("multiply_columns_and_rows", lambda: build.contract(ROW, THIN, [0], [1, 2], [2, 0]), "Contract"),
    Case("join_slices", lambda: build.slice(build.slice(X, [0, 1], [n, 3]), [0, 0], [n, 2], [1, 2]), left=2),
    Case("join_slices", lambda: build.slice(build.flip(X, [1]), [0, 1], [n, 2]), left=2),
    Case("join_slices", lambda: build.slice(build.full((n, 4), 2.0), [0, 1], [n, 2]), "Slice"),
    Case("reduce_less", lambda: build.sum(COLUMN, 1), "Reduce", 2),
    Case("reduce_less", lambda: build.max(build.reshape(X, (n, 1, 4)), [1, 2])),
    Case("reduce_less", lambda: build.sum(build.broadcast(X, (n, 4, 6), [0, 1]), 2), "Reduce"),
    Case("reduce_less", lambda: build.sum(broadcast(ROW), 0), "Reduce"),
    Case("reduce_less", lambda: build.max(build.broadcast(X, (n, 4, 6), [0, 1]), 2), "Reduce"),
    Case("reduce_less", lambda: build.min(build.broadcast(X, (n, 4, 6), [0, 1]), [1, 2])),
    Case("reduce_less", lambda: build.sum(build.sum(LARGE, 2), 1), left=2),
    Case("reduce_less", lambda: build.max(build.max(LARGE, 1), 1), left=2),
    Case("reduce_less", lambda: build.sum(build.transpose(X, [1, 0])), "Transpose"),
    Case("reduce_less", lambda: build.max(build.transpose(LARGE, [2, 0, 1]), 1), left=3),
    Case("reduce_less", lambda: build.sum(build.negative(X), 1), left=3),
    Case("reduce_less", lambda: build.sum(build.multiply(X, 2.0), 1)),
    Case("reduce_less", lambda: build.sum(build.multiply(build.broadcast_to(SCALAR, (n, 4)), X), 1)),
]  # fmt: skip


def softmax(x: Node) -> Node:
    e = build.exp(build.subtract(x, build.max(x, 1, True)))
    return build.divide(e, build.sum(e, 1, True))


def chosen(x: Node) -> Node:
    return build.gather_along(x, build.iota((n, 1), 1), 1)


STABILIZE = [
    Case("undo_exponentials", lambda: build.log(build.exp(X)), "log exp", 1),
    Case("undo_exponentials", lambda: build.log(softmax(X))),
    Case("undo_exponentials", lambda: build.log(build.sigmoid(X)), "sigmoid", 2),
    Case("undo_exponentials", lambda: build.log(build.subtract(1.0, build.sigmoid(X))), "sigmoid subtract", 3),
    Case("undo_exponentials", lambda: build.log(build.maximum(softmax(X), 1e-7))),
    Case("undo_exponentials", lambda: build.log(build.minimum(build.exp(X), 5.0)), "exp"),
    Case("undo_exponentials", lambda: build.log(chosen(softmax(X)))),
    Case("undo_exponentials", lambda: build.log(build.reshape(build.exp(X), (n * 4,))), "exp log", 2),
    Case("keep_digits_near_one", lambda: build.log(build.add(1.0, build.exp(X))), "exp log add", 2),
    Case("keep_digits_near_one", lambda: build.log(build.add(build.square(X), 1.0)), "log add", 3),
    Case("keep_digits_near_one", lambda: build.log(build.subtract(1.0, build.square(build.tanh(X)))), "log subtract"),
    Case("keep_digits_near_one", lambda: build.subtract(build.exp(X), 1.0), "exp subtract", 2),
    Case("see_through_ones", lambda: algebra([build.divide(softmax(X), build.sum(softmax(X), 1, True))])[0]),
]

SPLIT = [
    Case("split_rows", lambda: build.sum(LARGE)),
    Case("split_rows", lambda: build.max(LARGE)),
    Case("split_columns", lambda: build.sum(PICTURES, (0, 1, 2))),
    Case("split_columns", lambda: build.max(PICTURES, (0, 1, 2))),
    Case("split_vectors", lambda: build.sum(LINE)),
    Case("split_vectors", lambda: build.min(LINE)),
    Case("split_vectors", lambda: build.prod(LINE)),
]


def applied(rules: Rules, node: Node) -> tuple[Node, list[str]]:
    """What a pass makes of a node, and the names of the rules that fired."""
    fired: list[str] = []
    with observing(lambda rule, before, after: fired.append(rule.__name__)):
        (after,) = rules([node])
    verify.check_pass("test", [node], [after])
    return after, fired


def names(node: Node) -> set[str]:
    found = set()
    for x in walk([node]):
        found |= {type(x.op).__name__, x.op.name if isinstance(x.op, Elementwise) else ""}
    return found


def leaves_of(node: Node) -> list[Node]:
    return [x for x in walk([node]) if isinstance(x.op, Input)]


def evaluated(node: Node, values: dict[Node, np.ndarray], rows: int) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(evaluate_graph([node], values, {"n": rows})[0])


def fires(rules: Rules, case: Case) -> tuple[Node, Node]:
    node = case.make()
    after, fired = applied(rules, node)
    assert case.rule in fired
    assert not names(after) & set(case.gone.split())
    if case.left:
        assert len(walk([after])) == case.left, walk([after])
    return node, after


ids = [f"{k}-{c.rule}" for k, c in enumerate([*ALGEBRA, *STABILIZE, *SPLIT])]


@pytest.mark.parametrize("case", ALGEBRA, ids=ids[: len(ALGEBRA)])
def test_algebra_fires_and_keeps_every_value(case: Case) -> None:
    """NaN and infinities included, and where there are no rows."""
    node, after = fires(algebra, case)
    for rows in (0, 1, 3, 40):
        for specials in (False, True):
            values = values_of(leaves_of(node), rows, rows, specials)
            before = evaluated(node, values, rows)
            got = evaluated(after, values, rows)
            assert got.dtype == before.dtype
            scale = np.nanmax(np.abs(before[np.isfinite(before)]), initial=1) if before.dtype.kind == "f" else 1
            np.testing.assert_allclose(got, before, rtol=2e-6, atol=2e-7 * scale)


@pytest.mark.parametrize("case", STABILIZE, ids=ids[len(ALGEBRA) : len(ALGEBRA) + len(STABILIZE)])
def test_stabilizing_fires_and_keeps_what_was_a_number(case: Case) -> None:
    node, after = fires(stabilize, case)
    for rows in (1, 3, 40):
        values = values_of(leaves_of(node), rows, rows, False)
        np.testing.assert_allclose(evaluated(after, values, rows), evaluated(node, values, rows), rtol=1e-5, atol=1e-6)
        values = values_of(leaves_of(node), rows, rows, True)
        before, got = evaluated(node, values, rows), evaluated(after, values, rows)
        usable = np.isfinite(before) & (np.abs(before) > 1e-3) & (np.abs(before) < 10)
        np.testing.assert_allclose(got[usable], before[usable], rtol=1e-3)


@pytest.mark.parametrize("case", SPLIT, ids=ids[-len(SPLIT) :])
def test_splitting_fires_and_keeps_the_value(case: Case) -> None:
    node, after = fires(split, case)
    for rows in (1, 3, 300):
        values = values_of(leaves_of(node), rows, rows, False)
        before = evaluated(node, values, rows)
        np.testing.assert_allclose(evaluated(after, values, rows), before, rtol=1e-4, atol=1e-3)


def test_every_rule_has_a_case():
    tested = {c.rule for c in [*ALGEBRA, *STABILIZE, *SPLIT]}
    rules = {
        rule
        for passes in (algebra, stabilize, split)
        for found in passes.by_class.values()
        for rule in found
        if rule.__module__.startswith("gnomon.compiler.")
    }
    assert {r.__name__ for r in rules} == tested
    assert all("->" in (r.__doc__ or "") for r in rules), "a rule's docstring is its formula"


# ---- where rules must not fire


@pytest.mark.parametrize(
    "make",
    [
        lambda: build.multiply(X, 0.0),  # NaN and infinity stay
        lambda: build.subtract(X, X),
        lambda: build.divide(X, X),
        lambda: build.cast(build.cast(X, "int32"), "float32"),
        lambda: build.cast(build.cast(leaf(20, n, dtype="float64"), "float32"), "float64"),
        lambda: build.subtract(0, leaf(21, n, 4, dtype="uint8")),
        lambda: build.power(X, Y),
        lambda: build.prod(build.broadcast(X, (n, 4, 6), [0, 1]), 2),
        lambda: build.max(build.broadcast(ROW, (n, 4), [1]), 0),  # n may be 0
        lambda: build.matmul(X, W),
    ],
)
def test_algebra_leaves_alone(make) -> None:
    node = make()
    after, fired = applied(algebra, node)
    assert after is node, fired


# ---- the whole


def test_passes_are_in_order_and_observed():
    seen: list[str] = []
    simplify([build.add(X, 0.0)], lambda name, roots: seen.append(name))
    assert seen == [name for name, _ in PASSES]


def test_simplifying_twice_changes_nothing():
    x = softmax(build.add(build.multiply(X, 1.0), build.negative(build.negative(Y))))
    once = simplify([build.mean(build.log(x)), build.sum(x, 0)])
    assert simplify(once) == once


def test_origins_survive():
    with layer_scope("dense"):
        node = build.add(X, build.negative(build.exp(Y)))
    (after,) = simplify([node])
    assert after.op == Elementwise("subtract")
    assert origins(after) == origins(node)


# ---- digits

EXTREME = np.array(
    [[0, 0, 0, 0], [1e4, 0, -1e4, 3], [-1e4] * 4, [100, 99, -100, 0], [88, -88, 120, -120], [1e-8, 0, 1, -1]],
    "float32",
)  # fmt: skip


def logits() -> Tensor:
    return Tensor(new_input("logits", "float32", (symbol("batch"), 4)))


VALUES = {
    "log softmax": (lambda x: gnomon.ops.log(gnomon.ops.softmax(x)), special.log_softmax),
    "log sigmoid": (lambda x: gnomon.ops.log(gnomon.ops.sigmoid(x)), special.log_expit),
    "log of 1 - sigmoid": (lambda x: gnomon.ops.log(1 - gnomon.ops.sigmoid(x)), lambda x: special.log_expit(-x)),
    "log of 1 + exp": (lambda x: gnomon.ops.log(1 + gnomon.ops.exp(x)), lambda x: np.logaddexp(0, x)),
    "log of 1 + x": (lambda x: gnomon.ops.log(1 + x * x * 1e-9), lambda x: np.log1p(x * x * 1e-9)),
    "exp - 1": (lambda x: gnomon.ops.exp(x * 1e-6) - 1, lambda x: np.expm1(x * 1e-6)),
    "log of exp": (lambda x: gnomon.ops.log(gnomon.ops.exp(x)), lambda x: x),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_values_keep_their_digits_at_extremes(name: str) -> None:
    make, reference = VALUES[name]
    x = logits()
    got = function([x], make(x))(EXTREME)
    wide = EXTREME.astype(np.float64)
    wanted = special.log_softmax(wide, axis=1) if name == "log softmax" else reference(wide)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-12)


def _one_hot() -> np.ndarray:
    return np.eye(4, dtype="float32")[[0, 1, 2, 3, 0, 1]]


GRADIENTS = {
    "crossentropy of softmax": (
        lambda x, y: -gnomon.ops.sum(y * gnomon.ops.log(gnomon.ops.softmax(x))),
        lambda x, y: special.softmax(x, axis=1) - y,
    ),
    "crossentropy of log_softmax": (
        lambda x, y: -gnomon.ops.sum(y * gnomon.ops.log_softmax(x)),
        lambda x, y: special.softmax(x, axis=1) - y,
    ),
    "binary crossentropy of sigmoid": (
        lambda x, y: -gnomon.ops.sum(
            y * gnomon.ops.log(gnomon.ops.sigmoid(x)) + (1 - y) * gnomon.ops.log(1 - gnomon.ops.sigmoid(x))
        ),
        lambda x, y: special.expit(x) - y,
    ),
    "softplus": (
        lambda x, y: gnomon.ops.sum(y * gnomon.ops.log(1 + gnomon.ops.exp(x))),
        lambda x, y: y * special.expit(x),
    ),
    "log-sum-exp": (
        lambda x, y: gnomon.ops.sum(gnomon.ops.logsumexp(x, -1)),
        lambda x, y: special.softmax(x, axis=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_stay_finite_at_extreme_logits(name: str) -> None:
    make, reference = GRADIENTS[name]
    x, y = logits(), Tensor(new_input("y", "float32", (symbol("batch"), 4)))
    cost = make(x, y)
    got = function([x, y], gnomon.grad(cost, x), on_unused_input="ignore")(EXTREME, _one_hot())
    np.testing.assert_allclose(got, reference(EXTREME.astype(np.float64), _one_hot()), rtol=1e-5, atol=1e-6)


def test_a_gradient_by_an_inner_value_is_still_found():
    """Stabilising must not take away what is asked for."""
    x = logits()
    share = gnomon.ops.softmax(x)
    cost = gnomon.ops.sum(gnomon.ops.log(share))
    got = function([x], gnomon.grad(cost, share))(EXTREME[:1])
    np.testing.assert_allclose(got, 4.0)
