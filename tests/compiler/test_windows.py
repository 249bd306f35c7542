"""Convolutions and pooling as the passes leave them: what the oracle computes, in the forms that cost least.

Numbers are small integers in float64, so that sums are exact and results are compared for equality.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import count, product

import numpy as np
import pytest

from gnomon import ops
from gnomon.compiler import verify
from gnomon.compiler.grad import jvp, vjp
from gnomon.compiler.graph import Node, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.ops.patches import FirstMax, Patches, Unpatch
from gnomon.compiler.ops.shape import Pad, Slice
from gnomon.compiler.passes import simplify
from gnomon.compiler.passes.rewrite import observing
from gnomon.compiler.passes.transposed import as_contract
from gnomon.compiler.passes.windows import cuts, forms, windows
from gnomon.compiler.sizes import Dim, evaluate, symbol
from gnomon.functions import function
from gnomon.tensor import Tensor

n, h = symbol("n"), symbol("h")
_keys = count(6_000_000)


def leaf(*shape: Dim, dtype: str = "float64") -> Node:
    key = next(_keys)
    return Input(key, f"x{key}", dtype, shape)()


def values_of(nodes: Sequence[Node], sizes: dict[str, int], low: int = -4, high: int = 5) -> dict[Node, np.ndarray]:
    rng = np.random.default_rng(len(nodes))
    return {
        x: rng.integers(low, high, [evaluate(d, sizes) for d in x.shape]).astype(x.dtype)
        for x in walk(nodes) if isinstance(x.op, Input)
    }  # fmt: skip


def agree(roots: Sequence[Node], after: Sequence[Node], sizes: dict[str, int]) -> None:
    values = values_of(roots, sizes)
    for a, b in zip(evaluate_graph(roots, values, sizes), evaluate_graph(after, values, sizes), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=str(sizes))


def having(roots: Sequence[Node], *classes: type) -> list[Node]:
    return [x for x in walk(roots) if isinstance(x.op, classes)]


def products_laid_out(roots: Sequence[Node]) -> list[Node]:
    """What a convolution's gradient must not be: products that are stored to be added where they overlap."""
    return [x for x in having(roots, Unpatch) if as_contract(x.inputs[0]) is not None]


def gradients(y: Node, wrt: Sequence[Node]) -> list[Node]:
    """y, its gradients, and those of the first of them."""
    seed = leaf(*y.shape)
    first = vjp([y], [seed], wrt)
    assert all(isinstance(g, Node) for g in first)
    again = leaf(*wrt[0].shape)
    second = vjp([first[0]], [again], [seed, *wrt[1:]])
    return [y, *(g for g in (*first, *second) if isinstance(g, Node))]


def check(y: Node, wrt: Sequence[Node], *sizes: dict[str, int]) -> list[Node]:
    """That both derivatives keep their values, and are convolutions. Returns them, simplified."""
    roots = gradients(y, wrt)
    after = windows(roots)
    verify.check_pass("windows", roots, after)
    simple = simplify(roots)
    for some in sizes:
        agree(roots, after, some)
        agree(roots, simple, some)
    assert not products_laid_out(after)
    assert not having(simple, Unpatch, FirstMax)
    return simple


# ---- convolution


def conv(x: Node, w: Node, *options, op: Callable = ops.conv) -> Node:
    return op(Tensor(x), Tensor(w), *options).node


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_derivatives_of_a_convolution_are_convolutions(stride: int, dilation: int, window: int, padding: str) -> None:
    """Sizes that are known, and open ones."""
    for length in (7, 8, 9, h):
        x, w = leaf(n, length, 2), leaf(window, 2, 3)
        sizes = [{"n": 2, "h": 11}, {"n": 1, "h": 8}, {"n": 1, "h": 7}]
        check(conv(x, w, stride, padding, "channels_last", dilation), [x, w], *sizes[: 3 if length is h else 1])


@pytest.mark.parametrize("form", ["plain", "channels_first", "grouped", "depthwise", "transposed", "one filter"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (3, 2), (2, 2)])
def test_all_kinds_of_convolution(form: str, padding: str, strides: tuple[int, int]) -> None:
    x, op, layout = leaf(n, 7, 6, 4), ops.conv, "channels_last"
    w = leaf(3, 2, 4, 2)
    if form == "channels_first":
        x, layout = leaf(n, 4, 7, 6), "channels_first"
    elif form == "grouped":
        w = leaf(3, 2, 2, 6)
    elif form == "depthwise":
        op = ops.depthwise_conv
        w = leaf(3, 2, 4, 1)
    elif form == "transposed":
        w = leaf(3, 2, 3, 4)
        y = ops.conv_transpose(Tensor(x), Tensor(w), strides, padding, None, layout).node
        check(y, [x, w], {"n": 1})
        return
    elif form == "one filter":
        w = leaf(3, 2, 4, 1)
    check(conv(x, w, strides, padding, layout, op=op), [x, w], {"n": 1}, {"n": 2})


def test_three_axes() -> None:
    x, w = leaf(n, 5, 4, 6, 2), leaf(2, 3, 3, 2, 3)
    check(conv(x, w, (1, 2, 3), "same"), [x, w], {"n": 1})
    check(conv(x, w, 1, "valid", None, (1, 1, 2)), [x, w], {"n": 2})


def test_phases_multiply_no_zeros() -> None:
    """As many products as taps meet elements, strides being 1 or not."""
    for window, stride in ((3, 1), (3, 2), (5, 2), (4, 2), (4, 4), (2, 3), (7, 3)):
        x, w = leaf(1, 24, 1), leaf(window, 1, 1)
        y = conv(x, w, stride, "same")
        (g,) = vjp([y], [leaf(*y.shape)], [x])
        after = windows([g])
        found = 0
        for node in having(after, Contract):
            x, w = node.inputs
            extent = dict(zip(node.op.x + node.op.w, x.shape + w.shape, strict=True))
            found += evaluate(build.product(extent.values()), {})
        # ceil(24 / stride) groups, each met by all taps; at most one group more where groups begin elsewhere
        groups = -(-24 // stride)
        assert groups * window <= found <= (groups + 1) * window, (window, stride, found)


def test_many_phases_fill_the_kernel_up(monkeypatch) -> None:
    monkeypatch.setattr(import_module("gnomon.compiler.passes.transposed"), "MOST_PHASES", 2)
    x, w = leaf(n, 9, 8, 2), leaf(3, 5, 2, 3)
    after = check(conv(x, w, (2, 3), "same"), [x, w], {"n": 1})
    assert not having(after, Unpatch)
    y = conv(x, w, (2, 3), "same", None, (2, 2))  # taps that are apart cannot be filled up: left as they are
    roots = gradients(y, [x, w])
    agree(roots, windows(roots), {"n": 2})
    assert products_laid_out(windows(roots))


def test_an_input_is_padded_once_for_all_phases() -> None:
    x, w = leaf(n, 8, 8, 2), leaf(3, 3, 2, 3)
    y = conv(x, w, 2, "same")
    (g,) = vjp([y], [leaf(*y.shape)], [x])
    assert len(having(simplify([g]), Pad)) == 1


def test_one_contraction_where_all_phases_are_alike() -> None:
    for window, stride in ((1, 1), (3, 1), (2, 2), (4, 2), (6, 3), (2, 3), (1, 2)):
        x, w = leaf(n, 12, 12, 2), leaf(window, window, 2, 3)
        y = conv(x, w, stride, "same")
        (g,) = vjp([y], [leaf(*y.shape)], [x])
        assert len(having(simplify([g]), Contract)) == 1, (window, stride)


def test_windows_of_one_element_are_plain_products() -> None:
    for stride in (1, 2, 3):
        x, w = leaf(n, 7, 9, 4), leaf(1, 1, 4, 5)
        after = check(conv(x, w, stride, "same"), [x, w], {"n": 1})
        assert not having(after, Patches, Unpatch)
        assert all(v.rank <= 4 for c in having(after, Contract) for v in c.inputs)


def test_windows_side_by_side_are_plain_products() -> None:
    x, w = leaf(n, 9, 8, 3), leaf(2, 4, 3, 5)
    after = check(conv(x, w, (2, 4)), [x, w], {"n": 1}, {"n": 3})
    assert not having(after, Patches, Unpatch)


def test_a_kernel_for_each_slice_and_a_shared_input() -> None:
    """What is not just one convolution: windows that two kernels share, kernels that differ from slice to slice."""
    x, w, v = leaf(n, 9, 2), leaf(3, 2, 3), leaf(3, 2, 4)
    y = build.concat([conv(x, w, 2, "same"), conv(x, v, 2, "same")], 2)
    check(y, [x, w, v], {"n": 2})
    x, w = leaf(n, 9, 2), leaf(n, 3, 2, 3)
    p = build.patches(build.pad(x, [0, 1, 0], [0, 1, 0]), 1, [3], [2])
    check(build.contract(p, w, [0, 1, 2, 3], [0, 2, 3, 4], [0, 1, 4]), [x, w], {"n": 2})


def test_places_that_stand_apart() -> None:
    """What is spread has its axes in another order than the windows."""
    a, b = leaf(6, n, 5, 2), leaf(3, 4, 2)
    p = build.contract(a, b, [2, 0, 1, 5], [3, 4, 5], [0, 1, 2, 3, 4])
    root = build.unpatch(p, 1, [7, 9], [1, 1])
    after = windows([root])
    assert not having(after, Unpatch)
    agree([root], after, {"n": 2})


def test_what_is_no_convolution_stays() -> None:
    a, b = leaf(n, 5, 3), leaf(n, 3, 4)  # the windows are in both
    root = build.unpatch(build.contract(a, b, [0, 1, 2], [0, 2, 3], [0, 1, 2, 3]), 1, [7], [1])
    assert windows([root]) == [root]
    a, b = leaf(n, 5, 3, 2), leaf(2, 4)  # one has the places and the windows
    root = build.unpatch(build.contract(a, b, [0, 1, 2, 3], [3, 4], [0, 1, 2, 4]), 1, [7], [1])
    assert windows([root]) == [root]


# ---- pooling


def first_wins(x: np.ndarray, g: np.ndarray, window: int, stride: int, low: int) -> np.ndarray:
    """By definition, for x[batch, h, w, c] and square windows."""
    out = np.zeros_like(x)
    for b, i, j, c in np.ndindex(*g.shape):
        best, place = -np.inf, None
        rows, columns = (range(k * stride - low, k * stride - low + window) for k in (i, j))
        for p, q in product(rows, columns):
            if 0 <= p < x.shape[1] and 0 <= q < x.shape[2] and x[b, p, q, c] > best:
                best, place = x[b, p, q, c], (p, q)
        out[b, place[0], place[1], c] += g[b, i, j, c]
    return out


@pytest.mark.parametrize(("window", "stride", "padding", "low"), [
    (2, 2, "valid", 0), (3, 2, "valid", 0), (3, 1, "same", 1), (3, 2, "same", 1), (2, 1, "valid", 0),
    (2, 3, "valid", 0),
])  # fmt: skip
def test_the_gradient_of_a_maximum_goes_to_the_first(window: int, stride: int, padding: str, low: int) -> None:
    """In row-major order of each window, ties being many; and no element is scattered."""
    x = leaf(n, 7, 7, 2, dtype="float32")
    y = ops.max_pool(Tensor(x), window, stride, padding).node
    seed = leaf(*y.shape, dtype="float32")
    (g,) = vjp([y], [seed], [x])
    after = simplify([g])
    assert not having(after, FirstMax)
    compiled = function([Tensor(x), Tensor(seed)], [Tensor(y), Tensor(g)])
    for batch in (1, 3):
        values = values_of([g], {"n": batch}, 0, 3)
        expected = first_wins(values[x], values[seed], window, stride, low)
        np.testing.assert_array_equal(evaluate_graph([g], values, {"n": batch})[0], expected)
        np.testing.assert_array_equal(evaluate_graph(after, values, {"n": batch})[0], expected)
        np.testing.assert_array_equal(compiled(values[x], values[seed])[1], expected)


def test_maxima_of_nan_and_infinity() -> None:
    x = leaf(1, 6, 1, dtype="float32")
    y = ops.max_pool(Tensor(x), 2).node
    (g,) = vjp([y], [leaf(*y.shape, dtype="float32")], [x])
    seed = next(v for v in walk([g]) if isinstance(v.op, Input) and v is not x)
    array = np.array([np.nan, 1, -np.inf, -np.inf, 2, np.nan], np.float32).reshape(1, 6, 1)
    values = {x: array, seed: np.array([1, 2, 3], np.float32).reshape(1, 3, 1)}
    for roots in ([y, g], simplify([y, g])):
        top, got = evaluate_graph(roots, values, {})
        np.testing.assert_array_equal(top.ravel(), [np.nan, -np.inf, np.nan])
        np.testing.assert_array_equal(got.ravel(), [1, 0, 2, 0, 0, 3])


@pytest.mark.parametrize("pool", [ops.max_pool, ops.average_pool])
@pytest.mark.parametrize("shape", [(n, 6, 8, 2), (n, 7, 9, 2), (n, h, 4, 2)])
def test_pooling_side_by_side_is_a_reshape(pool: Callable, shape: tuple[Dim, ...]) -> None:
    x = leaf(*shape)
    roots = gradients(pool(Tensor(x), 2).node, [x])
    after = simplify(roots)
    assert not having(after, Patches, Unpatch)
    agree(roots, after, {"n": 1, "h": 5})
    agree(roots, after, {"n": 2, "h": 6})


@pytest.mark.parametrize("pool", [ops.max_pool, ops.average_pool])
def test_pooling_has_both_derivatives(pool: Callable) -> None:
    for window, stride, padding in product((1, 2, 3, 4), (1, 2, 3), ("valid", "same")):
        x = leaf(n, h, 2)
        roots = gradients(pool(Tensor(x), window, stride, padding).node, [x])
        after = simplify(roots)
        values = values_of(roots, {"n": 1, "h": 7}, 0, 3)
        before = evaluate_graph(roots, values, {"n": 1, "h": 7})
        for a, b in zip(before, evaluate_graph(after, values, {"n": 1, "h": 7}), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


# ---- each rule


@dataclass
class Case:
    """Where a rule must fire, and what must be gone afterwards."""

    rule: str
    make: Callable[[], Node]
    gone: tuple[type, ...] = ()


def _spread(start: int) -> Node:
    p = build.contract(leaf(n, 5, 2), leaf(3, 4, 2), [0, 1, 4], [2, 3, 4], [0, 1, 2, 3])
    whole = build.unpatch(p, 1, [7], [1])
    return build.slice(whole, [0, start, 0], [n, 4, 4]) if start else whole


PADDED = leaf(n, 4)
CASES = [
    Case("convolve_for_a_part", lambda: _spread(2), (Unpatch,)),
    Case("convolve_with_the_kernel_turned", lambda: _spread(0), (Unpatch,)),
    Case("add_what_is_convolved",
         lambda: build.unpatch(build.add(_spread(0).inputs[0], leaf(n, 5, 3, 4)), 1, [7], [1])),
    Case("forget_which_maximum_is_first", lambda: build.first_max(leaf(n, 4), [1]), (FirstMax,)),
    Case("take_windows_apart", lambda: build.patches(leaf(n, 7, 2), 1, [3], [3]), (Patches,)),
    Case("take_windows_apart", lambda: build.patches(leaf(n, h, 2), 1, [3], [3]), (Patches,)),
    Case("take_windows_apart", lambda: build.patches(leaf(n, h, 2), 1, [1], [2]), (Patches,)),
    Case("take_windows_apart", lambda: build.patches(leaf(n, 4, 2), 1, [1], [1], [3]), (Patches, Slice)),
    Case("put_windows_together", lambda: build.unpatch(leaf(n, 2, 3, 2), 1, [8], [3]), (Unpatch,)),
    Case("put_windows_together", lambda: build.unpatch(leaf(n, 2, 2, 3, 2), 1, [6, 4], [3, 2]), (Unpatch, Pad)),
    Case("contract_less",
         lambda: build.contract(build.reshape(leaf(n, 4), (n, 1, 4)), leaf(1, 4, 3), [0, 1, 2], [1, 2, 3], [0, 3])),
    Case("contract_less",
         lambda: build.contract(build.reshape(leaf(n, 4), (n, 1, 4)), leaf(n, 3), [0, 1, 2], [0, 3], [1, 2, 3])),
    Case("join_pads", lambda: build.pad(build.pad(PADDED, [1, 0], [0, 2]), [2, 1], [0, 1])),
    Case("join_pads", lambda: build.pad(build.pad(PADDED, [1, 0], [0, 2], [0, 2]), [2, 1], [0, 1])),
    Case("join_pads", lambda: Pad((0, 0), (0, 0), (0, 0))(PADDED, build.constant(0.0, "float64")), (Pad,)),
    Case("join_pads", lambda: build.pad(build.full((n, 4), 2.0, "float64"), [1, 1], [0, 0], value=2.0), (Pad,)),
    Case("slice_what_was_padded", lambda: build.slice(build.pad(PADDED, [0, 2], [0, 3]), [0, 2], [n, 4]), (Pad, Slice)),
    Case("slice_what_was_padded",
         lambda: build.slice(build.pad(PADDED, [0, 2], [0, 3]), [0, 3], [n, 2], [1, 2]), (Pad,)),
    Case("slice_what_was_padded",
         lambda: build.slice(build.pad(PADDED, [1, 0], [0, 3]), [1, 3], [n, 2], [1, -2]), (Pad,)),
    Case("slice_what_was_padded", lambda: build.slice(build.pad(PADDED, [0, 2], [0, 3], value=5), [0, 6], [n, 3]),
         (Pad, Slice)),
    Case("slice_what_was_padded", lambda: build.slice(build.pad(PADDED, [0, 2], [0, 3]), [0, 0], [n, 2]), (Pad, Slice)),
    Case("slice_what_was_padded",
         lambda: build.slice(build.pad(PADDED, [0, 1], [0, 3], [0, 2]), [0, 1], [n, 3], [1, 3]), (Pad,)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{k}-{c.rule}" for k, c in enumerate(CASES)])
def test_a_rule_fires_and_keeps_every_value(case: Case) -> None:
    node = case.make()
    fired: list[str] = []
    with observing(lambda rule, before, after: fired.append(rule.__name__)):
        after = windows([node])
    verify.check_pass("windows", [node], after)
    assert case.rule in fired
    assert not having(after, *case.gone)
    for rows in (1, 3):
        agree([node], after, {"n": rows, "h": 7})


def test_every_rule_has_a_case() -> None:
    rules = {rule for passes in (cuts, forms) for found in passes.by_class.values() for rule in found}
    assert {r.__name__ for r in rules} == {c.rule for c in CASES}
    assert all("->" in (r.__doc__ or "") for r in rules), "a rule's docstring is its formula"


@pytest.mark.parametrize("make", [
    lambda: build.slice(build.pad(PADDED, [0, 2], [0, 3]), [0, 1], [n, 5]),  # of both
    lambda: build.pad(build.pad(PADDED, [0, 1], [0, 1]), [0, 1], [0, 1], value=3),
    lambda: build.pad(build.pad(PADDED, [0, 1], [0, 1]), [0, 1], [0, 1], [0, 1]),
    lambda: build.slice(build.pad(PADDED, [0, 0], [0, 0], [0, 2]), [0, 0], [n, 5], [1, 2]),
    lambda: build.patches(leaf(n, 7), 1, [3], [2]),
    lambda: build.patches(leaf(n, 7), 1, [2], [2], [3]),
    lambda: build.contract(leaf(n, 4), leaf(4, 1), [0, 1], [1, 2], [0, 2]),
    lambda: build.unpatch(leaf(n, 3, 3), 1, [7], [2]),
])  # fmt: skip
def test_windows_leave_alone(make: Callable[[], Node]) -> None:
    node = make()
    assert windows([node]) == [node]


# ---- all together


def network(rng: np.random.Generator, length: Dim) -> tuple[Node, list[Node]]:
    """Some layers one after the other, along one axis, and what they are made from."""
    x = y = leaf(n, length, 2)
    kernels: list[Node] = []
    for _ in range(4):
        channels, window, stride = y.shape[2], int(rng.integers(1, 5)), int(rng.integers(1, 4))
        padding = ("valid", "same")[int(window > 2 or rng.integers(2))]
        kind = int(rng.integers(6))
        if kind < 2:
            kernels.append(leaf(window, channels, 3))
            y = conv(y, kernels[-1], stride, padding, None, 1 + int(rng.integers(2)))
        elif kind == 2:
            kernels.append(leaf(window, 2, channels))
            y = conv(y, kernels[-1], stride, padding, op=ops.conv_transpose)
        elif kind == 3:
            kernels.append(leaf(window, channels, 1))
            y = conv(y, kernels[-1], stride, padding, op=ops.depthwise_conv)
        elif kind == 4:
            y = ops.max_pool(Tensor(y), window, stride, padding).node
        else:
            y = build.add(y, build.square(y))
    return y, [x, *kernels]


@pytest.mark.parametrize("seed", range(24))
def test_random_networks_keep_their_derivatives(seed: int) -> None:
    for length in (23, h):
        y, wrt = network(np.random.default_rng(seed), length)
        roots = gradients(y, wrt)
        after = simplify(roots)
        assert not products_laid_out(after)
        for sizes in ({"n": 1, "h": 23}, {"n": 2, "h": 24}):
            values = values_of(roots, sizes, -1, 2)
            before = evaluate_graph(roots, values, sizes)
            for a, b in zip(before, evaluate_graph(after, values, sizes), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-9 * (1 + np.abs(a).max(initial=0)))


# ---- forward mode and compiled code


def test_forward_mode_is_a_convolution_too() -> None:
    x, w = leaf(n, 9, 2), leaf(3, 2, 3)
    y = conv(x, w, 2, "same")
    roots = jvp([y], [x, w], [leaf(*x.shape), leaf(*w.shape)])
    after = simplify(roots)
    assert not having(after, Unpatch)
    agree(roots, after, {"n": 2})


def test_compiled_gradients_agree_with_the_oracle() -> None:
    for window, stride, dilation, padding in (
        (3, 2, 1, "same"), (3, 1, 2, "valid"), (4, 2, 1, "same"), (2, 2, 1, "same"),
    ):  # fmt: skip
        x, w = leaf(n, 9, 8, 3, dtype="float32"), leaf(window, window, 3, 4, dtype="float32")
        y = conv(x, w, stride, padding, "channels_last", dilation)
        seed = leaf(*y.shape, dtype="float32")
        roots = [y, *(g for g in vjp([y], [seed], [x, w]) if isinstance(g, Node))]
        compiled = function([Tensor(v) for v in (x, w, seed)], [Tensor(r) for r in roots])
        for batch in (1, 3):
            values = values_of(roots, {"n": batch})
            for a, b in zip(
                compiled(values[x], values[w], values[seed]), evaluate_graph(roots, values, {"n": batch}), strict=True
            ):
                np.testing.assert_array_equal(a, b)
