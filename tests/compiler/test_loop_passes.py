"""Rules that loops need: each fires where its formula says, and keeps what the oracle computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from gnomon.compiler import verify
from gnomon.compiler.graph import Item, Node, TensorType, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.control import SubGraph
from gnomon.compiler.ops.leaves import Input, fresh_input
from gnomon.compiler.ops.patches import Patches
from gnomon.compiler.ops.scan import COUNTER, Delayed, Scan
from gnomon.compiler.ops.shape import Broadcast, Pad, Slice
from gnomon.compiler.passes.loops import join_families, loops, read_in_place, undelayed
from gnomon.compiler.passes.parts import parts
from gnomon.compiler.passes.rewrite import Rules, observing
from gnomon.compiler.sizes import Dim, evaluate, symbol

T = symbol("steps")


def leaf(key: int, *shape: Dim) -> Node:
    return Input(6_000_000 + key, f"x{key}", "float64", shape)()


FIRST, ROWS, W, OTHER = leaf(1, 3, 4), leaf(2, T, 3, 4), leaf(3, T, 3, 5), leaf(4, 4, 5)
A, B, C, WHOLE = leaf(5, 2, 3), leaf(6, 2, 4), leaf(7, 2, T), leaf(8, 2, 7)
PICTURE, PICTURES = leaf(9, 6, 2), leaf(10, T, 6, 2)


def delayed(reverse: bool = False) -> Node:
    return Delayed(reverse)(FIRST, ROWS)


def pad(x: Node, low: Dim, high: Dim) -> Node:
    return build.pad(x, (0, low), (0, high))


@dataclass
class Case:
    """Where a rule must fire, and ops of which none is left afterwards."""

    rule: str
    rules: Rules
    make: Callable[[], Node]
    gone: tuple[type, ...] = ()


weight_gradient = Contract((0, 1, 2), (0, 1, 3), (2, 3))
CASES = [
    Case("delay_later", undelayed, lambda: build.transpose(delayed(), (0, 2, 1))),
    Case("delay_later", undelayed, lambda: build.reshape(delayed(True), (T, 12))),
    Case("delay_later", undelayed, lambda: build.broadcast(delayed(), (T, 3, 2, 4), (0, 1, 3))),
    Case("delay_later", undelayed, lambda: build.slice(delayed(), (0, 1, 0), (T, 2, 4))),
    Case("delay_later", undelayed, lambda: Patches(1, (3,), (1,), (1,))(Delayed()(PICTURE, PICTURES))),
    Case("multiply_in_place", undelayed, lambda: weight_gradient(delayed(), W), (Delayed,)),
    Case("multiply_in_place", undelayed, lambda: weight_gradient(delayed(True), W), (Delayed,)),
    Case("multiply_in_place", undelayed, lambda: Contract((0, 1, 3), (0, 1, 2), (3, 2))(W, delayed()), (Delayed,)),
    Case("sum_products", undelayed, lambda: build.sum(Contract((0, 1, 2), (0, 1, 3), (0, 2, 3))(ROWS, W), 0)),
    Case("join_pads", parts, lambda: build.add(pad(A, 0, 4), pad(B, 3, 0)), (Pad,)),
    Case("join_pads", parts, lambda: build.add(pad(B, 3, 0), pad(A, 0, 4)), (Pad,)),
    Case("join_pads", parts, lambda: build.add(build.add(pad(A, 0, 4 + T), pad(B, 3, T)), pad(C, 7, 0)), (Pad,)),
    Case("join_pads", parts, lambda: build.add(build.add(pad(A, 0, 4), WHOLE), pad(B, 3, 0)), (Pad,)),
]


def values_for(node: Node, steps: int) -> dict[Node, np.ndarray]:
    rng = np.random.default_rng(steps)
    leaves = [n for n in walk([node]) if isinstance(n.op, Input)]
    return {n: rng.standard_normal([evaluate(d, {"steps": steps}) for d in n.shape]) for n in leaves}


@pytest.mark.parametrize("case", CASES, ids=[f"{k}-{c.rule}" for k, c in enumerate(CASES)])
def test_a_rule_fires_and_keeps_the_value(case: Case) -> None:
    node = case.make()
    fired: list[str] = []
    with observing(lambda rule, before, after: fired.append(rule.__name__)):
        (after,) = case.rules([node])
    assert case.rule in fired
    verify.check_pass("test", [node], [after])
    assert not any(isinstance(n.op, case.gone) for n in walk([after]))
    for steps in (0, 1, 2, 5):
        values = values_for(node, steps)
        before, now = evaluate_graph([node, after], values, {"steps": steps})
        np.testing.assert_allclose(now, before, rtol=1e-12, atol=1e-12)


def test_every_rule_has_a_case() -> None:
    rules = {r for passes in (undelayed, parts) for found in passes.by_class.values() for r in found}
    assert {r.__name__ for r in rules} == {c.rule for c in CASES}
    assert all("->" in (r.__doc__ or "") for r in rules), "a rule's docstring is its formula"


@pytest.mark.parametrize(
    "make",
    [
        lambda: build.transpose(delayed(), (1, 0, 2)),
        lambda: build.reshape(delayed(), (T * 3, 4)),
        lambda: build.slice(delayed(), (1, 0, 0), (T - 1, 3, 4)),
        lambda: Contract((0, 1, 2), (2, 3), (0, 1, 3))(delayed(), OTHER),  # the steps are not summed over
        lambda: build.sum(Contract((0, 1, 2), (2, 3), (0, 1, 3))(ROWS, OTHER), 0),  # only one has them
        lambda: build.max(Contract((0, 1, 2), (0, 1, 3), (0, 2, 3))(ROWS, W), 0),
        lambda: build.add(pad(A, 0, 4), pad(B, 2, 1)),
        lambda: build.add(pad(A, 0, 4), pad(A, 0, 4)),
        lambda: build.add(pad(A, 0, 4), WHOLE),
        lambda: build.add(build.pad(A, (0, 0), (0, 4), value=1.0), pad(B, 3, 0)),
        lambda: build.multiply(pad(A, 0, 4), pad(B, 3, 0)),
        lambda: build.add(build.pad(A, (0, 0), (1, 4)), build.pad(B, (0, 3), (1, 0))),
    ],
)
def test_rules_leave_alone(make: Callable[[], Node]) -> None:
    node = make()
    assert undelayed([node]) == [node]
    assert parts([node]) == [node]


# ---- passes over loops


BODY = tuple(
    fresh_input(name, t)
    for name, t in (("t", COUNTER), ("h", TensorType("float64", (3, 4))), ("s", TensorType("float64", (3, 4))))
)


def running(first: Node, x: Node, rows: Callable[..., Sequence[Node]], **options: Any) -> Node:
    """h = h + x in each step; the same body for all loops."""
    t, h, s = BODY
    new = build.add(h, s)
    return Scan(SubGraph(BODY, (new, *rows(t, h, s, new))), T, 1, 1, **options)(first, x)


def scans(roots: Sequence[Node]) -> list[Node]:
    return [n for n in walk(roots) if isinstance(n.op, Scan)]


def same(before: Sequence[Node], after: Sequence[Node]) -> None:
    for steps in (0, 1, 4):
        values: dict[Node, np.ndarray] = {}
        for n in (*before, *after):
            values |= values_for(n, steps)
        sizes = {"steps": steps}
        for a, b in zip(evaluate_graph(before, values, sizes), evaluate_graph(after, values, sizes), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_wider_loops_of_one_body_are_one() -> None:
    plain = running(FIRST, ROWS, lambda t, h, s, new: [])
    wide = running(FIRST, ROWS, lambda t, h, s, new: [build.exp(s)])
    wider = running(FIRST, ROWS, lambda t, h, s, new: [new, build.exp(s)])
    roots = [Item(0)(plain), Item(1)(wide), Item(1)(wider), Item(2)(wider), Item(0)(wider)]
    after = join_families(roots)
    (only,) = scans(after)
    assert only.op.stacks == 2  # type: ignore[attr-defined]  # a Scan
    assert after[1] is after[3]
    same(roots, after)


def test_loops_that_differ_stay_two() -> None:
    plain = running(FIRST, ROWS, lambda t, h, s, new: [new])
    later = running(Item(0)(plain), ROWS, lambda t, h, s, new: [new])  # begins where the other ends
    fed = running(FIRST, Item(1)(plain), lambda t, h, s, new: [new])  # reads what the other gives
    turned = running(FIRST, ROWS, lambda t, h, s, new: [new], reverse=True)
    roots = [Item(k)(n) for n in (plain, later, fed, turned) for k in (0, 1)]
    assert join_families(roots) == roots


def test_sequences_are_read_where_they_lie() -> None:
    long = leaf(11, T + 2, 3, 4)
    part = build.slice(long, (2, 0, 0), (T, 3, 4))
    for x in (part, delayed(), delayed(True), build.slice(long, (0, 0, 0), (T, 3, 4))):
        roots = [Item(k)(running(FIRST, x, lambda t, h, s, new: [new])) for k in (0, 1)]
        after = read_in_place(roots)
        assert not any(isinstance(n.op, (Delayed, Slice)) for n in walk(after))
        same(roots, after)
    strided = Slice((0, 0, 0), (T, 3, 4), (2, 1, 1))(leaf(12, 2 * T, 3, 4))
    roots = [Item(0)(running(FIRST, strided, lambda t, h, s, new: []))]
    assert read_in_place(roots) == roots


def test_sums_over_steps_are_made_after_the_loop() -> None:
    """Of products, of sums, of what is moved, and of several of these; what the sum begins with is added."""
    t, total, s, c = (fresh_input(n, v) for n, v in (
        ("t", COUNTER), ("total", TensorType("float64", (4, 5))), ("s", TensorType("float64", (3, 4))),
        ("c", TensorType("float64", (3, 5))),
    ))  # fmt: skip
    product = Contract((0, 1), (0, 2), (1, 2))(s, build.tanh(c))
    turned = build.transpose(Contract((0, 1), (0, 2), (2, 1))(s, c), (1, 0))
    spread = Broadcast((4, 5), (1,))(build.sum(build.square(c), 0))
    term = build.subtract(build.add(product, turned), build.negative(spread))
    new = build.sin(build.add(c, build.sum(s)))
    body = SubGraph((t, total, c, s), (build.add(total, term), new))
    begin, c0 = leaf(13, 4, 5), leaf(14, 3, 5)
    whole = Scan(body, T, 2, 1)(begin, c0, ROWS)
    roots = [Item(0)(whole), Item(1)(whole)]
    after = loops(roots)
    (only,) = scans(after)
    assert only.op.carries == 1  # type: ignore[attr-defined]  # a Scan
    same(roots, after)


def test_a_carry_that_is_read_is_no_mere_sum() -> None:
    _, h, s = BODY
    body = SubGraph(BODY, (build.add(h, s), build.exp(h)))
    roots = [Item(k)(Scan(body, T, 1, 1)(FIRST, ROWS)) for k in (0, 1)]
    after = loops(roots)
    assert scans(after)[0].op.carries == 1  # type: ignore[attr-defined]  # a Scan
    same(roots, after)
