"""Arrays put together from parts: what gradients of slices add up to."""

from __future__ import annotations

from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.shape import Pad
from gnomon.compiler.passes.rewrite import Rules, is_number
from gnomon.compiler.sizes import Dim

parts = Rules()

MOST = 64
"""Terms of a sum that are looked at."""


@parts.watch(Elementwise)
def join_pads(node: Node) -> Node | None:
    """pad(x, 0, b) + pad(y, a, 0) -> concat(x, y), where the parts fill the whole, each place once."""
    if not _is_add(node):
        return None
    terms = _terms(node)
    for axis in dict.fromkeys(a for t in terms if (a := _padded_axis(t)) is not None):
        of_axis = {t.op.low[axis]: t for t in terms if _padded_axis(t) == axis}  # type: ignore[attr-defined]  # Pads
        joined: list[Node] = []
        end: Dim = 0
        while end in of_axis:
            joined.append(of_axis[end])
            end = _end(of_axis[end], axis)
            if end == node.shape[axis]:
                break
        if len(joined) < 2 or end != node.shape[axis]:
            continue
        whole = build.concat([t.inputs[0] for t in joined], axis)
        for t in terms:
            if t not in joined:
                whole = build.add(whole, t)
        return whole
    return None


def _is_add(node: Node) -> bool:
    return isinstance(node.op, Elementwise) and node.op.name == "add"


def _terms(node: Node) -> list[Node]:
    """What is added up, in order."""
    found: list[Node] = []
    waiting = [node]
    while waiting:
        x = waiting.pop()
        if _is_add(x) and len(found) + len(waiting) < MOST:
            waiting += reversed(x.inputs)
        else:
            found.append(x)
    return found


def _padded_axis(node: Node) -> int | None:
    """The only axis along which something is padded with zeros outside; None if it is not of this form."""
    op = node.op
    if not isinstance(op, Pad) or any(op.interior) or not is_number(node.inputs[1], 0):
        return None
    axes = [k for k, ends in enumerate(zip(op.low, op.high, strict=True)) if ends != (0, 0)]
    return axes[0] if len(axes) == 1 else None


def _end(node: Node, axis: int) -> Dim:
    assert isinstance(node.op, Pad)
    return node.op.low[axis] + node.inputs[0].shape[axis]
