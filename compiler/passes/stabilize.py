"""Rewrites that lose fewer digits: logarithms that meet the exponential they undo, sums with 1 under a logarithm."""

from __future__ import annotations

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.index import GatherAlong
from gnomon.compiler.ops.shape import Broadcast, Reshape
from gnomon.compiler.passes.rewrite import Rules, is_number, number

stabilize = Rules()
watch = stabilize.watch


def _is(node: Node, *names: str) -> bool:
    return isinstance(node.op, Elementwise) and node.op.name in names


def gains(x: Node, depth: int = 6) -> bool:
    """Whether the logarithm of `x` is known in a better way than by taking it."""
    if depth == 0:
        return False
    if _is(x, "exp", "sigmoid"):
        return True
    if _is(x, "divide"):
        return gains(x.inputs[0], depth - 1)
    if _is(x, "maximum", "minimum"):
        return any(
            number(b) is not None and number(b) > 0 and gains(a, depth - 1) for a, b in (x.inputs, x.inputs[::-1])
        )
    if _is(x, "subtract"):
        return is_number(x.inputs[0], 1) and _is(x.inputs[1], "sigmoid")
    return isinstance(x.op, (GatherAlong, Reshape)) and gains(x.inputs[0], depth - 1)


@watch(Elementwise)
def undo_exponentials(node: Node) -> Node | None:
    """log(exp(x)) -> x;  log(exp(x) / y) -> x - log(y);  log(sigmoid(x)) -> log_sigmoid(x);
    log(1 - sigmoid(x)) -> log_sigmoid(-x);  log(max(x, 2)) -> max(log(x), log(2)) and the like where log(x) is one of
    these."""
    if not _is(node, "log"):
        return None
    (x,) = node.inputs
    if not gains(x):
        return None
    if _is(x, "exp"):
        return x.inputs[0]
    if _is(x, "sigmoid"):
        return build.log_sigmoid(x.inputs[0])
    if _is(x, "divide"):
        return build.subtract(build.log(x.inputs[0]), build.log(x.inputs[1]))
    if _is(x, "subtract"):
        return build.log_sigmoid(build.negative(x.inputs[1].inputs[0]))
    if _is(x, "maximum", "minimum"):
        a, b = x.inputs if number(x.inputs[1]) is not None else x.inputs[::-1]
        limit = np.log(np.asarray(number(b), dtypes.named(x.dtype).numpy).astype(np.float64))
        return build.apply(x.op.name, build.log(a), float(limit))  # type: ignore[attr-defined]
    if isinstance(x.op, GatherAlong):
        return GatherAlong(x.op.axis)(build.log(x.inputs[0]), x.inputs[1])
    if isinstance(x.op, Reshape):
        return build.reshape(build.log(x.inputs[0]), x.shape)
    return None


@watch(Elementwise)
def keep_digits_near_one(node: Node) -> Node | None:
    """log(1 + exp(x)) -> softplus(x);  log(1 + x) -> log1p(x);  log(1 - x) -> log1p(-x);  exp(x) - 1 -> expm1(x)."""
    if _is(node, "log"):
        (x,) = node.inputs
        if _is(x, "add"):
            for a, b in (x.inputs, x.inputs[::-1]):
                if is_number(a, 1):
                    return build.softplus(b.inputs[0]) if _is(b, "exp") else build.log1p(b)
        if _is(x, "subtract") and is_number(x.inputs[0], 1):
            return build.log1p(build.negative(x.inputs[1]))
    if _is(node, "subtract") and is_number(node.inputs[1], 1) and _is(node.inputs[0], "exp"):
        return build.expm1(node.inputs[0].inputs[0])
    return None


@watch(Elementwise)
def see_through_ones(node: Node) -> Node | None:
    """exp(x) / sum(exp(x)) / sum of that -> without the second division: the sum is 1 where the axes are the same."""
    if not _is(node, "divide"):
        return None
    a, b = node.inputs
    if _is(a, "divide") and isinstance(b.op, Broadcast) and _sums_to_one(a, b):
        return a
    return None


def _sums_to_one(share: Node, total: Node) -> bool:
    """Whether `total` is the broadcast sum of `share` = e / (broadcast sum of e): 1 but for rounding."""
    from gnomon.compiler.ops.reduce import Reduce

    e, s = share.inputs
    if not isinstance(s.op, Broadcast) or not isinstance(total.op, Broadcast) or s.op != total.op:
        return False
    inner, outer = s.inputs[0], total.inputs[0]
    return (
        _is(e, "exp")
        and isinstance(inner.op, Reduce)
        and isinstance(outer.op, Reduce)
        and inner.op == outer.op
        and inner.op.kind == "sum"
        and inner.inputs[0] is e
        and outer.inputs[0] is share
    )
