"""What nobody reads is not computed: a slice of a product is the product of slices.

    slice(relu(x w + b))  ->  relu(slice(x) w + b)

if nothing else reads what is sliced: a convolution of 1x1 in steps of two asks for a quarter of the convolutions before
it, and the last position of a sequence for one row of the layers that look at each position by itself.

First it is found what of each node its readers ask for, from the roots to the leaves; then nodes of which all ask for
the same part are made of the parts of their inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gnomon.compiler.graph import Node, Op, Shape, inherit, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.elementwise import Cast, Elementwise
from gnomon.compiler.ops.patches import Patches, places, reach
from gnomon.compiler.ops.shape import Broadcast, Slice, Transpose
from gnomon.compiler.sizes import Dim


@dataclass(frozen=True)
class _Part:
    """Of each axis: the first element asked for, how many, and by which step (positive)."""

    start: tuple[Dim, ...]
    size: Shape
    step: tuple[int, ...]

    def along(self, axes: Sequence[int | None], shape: Shape) -> _Part:
        """The part of an operand of `shape` each of whose axes is one of these, or (None) asked for as a whole."""
        pick = lambda own, whole: tuple(w if a is None else own[a] for a, w in zip(axes, whole, strict=True))
        return _Part(pick(self.start, (0,) * len(shape)), pick(self.size, shape), pick(self.step, (1,) * len(shape)))

    def of(self, x: Node) -> Node:
        if self == whole(x):
            return x
        if isinstance(x.op, Broadcast) and x.inputs[0].rank == 0:
            return build.broadcast(x.inputs[0], self.size, ())
        return build.slice(x, self.start, self.size, self.step)


def whole(x: Node) -> _Part:
    return _Part((0,) * x.rank, x.shape, (1,) * x.rank)


def narrowed(roots: Sequence[Node]) -> list[Node]:
    """`roots` with products narrowed to what is read of them."""
    order = walk(roots)
    if not any(isinstance(n.op, Slice) and _is_small(n) for n in order):
        return list(roots)
    parts = _asked(order, roots)
    pays = _around_products(order, parts)
    if not pays:
        return list(roots)
    done: dict[Node, Node] = {}
    for node in order:
        with inherit(node):
            if node in pays:
                wanted = _inputs(node, parts[node])
                assert wanted is not None
                inputs = [
                    done[x] if x in pays and parts[x] == part else part.of(done[x])
                    for x, part in zip(node.inputs, wanted[1], strict=True)
                ]
                done[node] = wanted[0](*inputs)
            elif isinstance(node.op, Slice) and node.inputs[0] in pays:
                done[node] = done[node.inputs[0]]
            else:
                inputs = [done[x] for x in node.inputs]
                done[node] = node if tuple(inputs) == node.inputs else Node(node.op, tuple(inputs))
    return [done[r] for r in roots]


def _asked(order: Sequence[Node], roots: Sequence[Node]) -> dict[Node, _Part]:
    """The nodes of which all readers ask for the same part, and that can be made of parts; with the part."""
    asked: dict[Node, _Part | None] = dict.fromkeys(roots)  # None: all of it, or different parts
    found: dict[Node, _Part] = {}
    for node in reversed(order):
        part = asked.get(node)
        made = None if part is None else _inputs(node, part)
        if part is not None and made is not None:
            found[node] = part
            wanted: Sequence[_Part | None] = made[1]
        elif isinstance(node.op, Slice) and _is_small(node):
            wanted = [_Part(node.op.start, node.op.size, node.op.step)]
        else:
            wanted = [None] * len(node.inputs)
        for x, want in zip(node.inputs, wanted, strict=True):
            asked[x] = want if x not in asked or asked[x] == want else None
    return found


def _around_products(order: Sequence[Node], parts: Mapping[Node, _Part]) -> set[Node]:
    """Products among nodes that can be made of parts, with those that they read, and that read them, and so on."""
    found = {node for node in order if node in parts and isinstance(node.op, Contract)}
    before = -1
    while before != len(found):
        before = len(found)
        for node in order:
            if node in parts and any(x in found for x in node.inputs):
                found.add(node)
        for node in reversed(order):
            if node in found:
                found.update(x for x in node.inputs if x in parts)
    return found


def _is_small(node: Node) -> bool:
    """Whether a slice is surely a good deal smaller than what it is of, and not empty: no windows are."""
    op = node.op
    assert isinstance(op, Slice)
    if any(step < 1 for step in op.step) or 0 in op.size:
        return False
    pairs = zip(op.size, node.inputs[0].shape, strict=True)
    return any(
        5 * size <= 4 * have if isinstance(size, int) and isinstance(have, int) else size == 1 for size, have in pairs
    )


def _inputs(node: Node, part: _Part) -> tuple[Op, list[_Part]] | None:
    """The op that makes `part` of a node, and of which parts of its inputs; None if there is none."""
    op = node.op
    if isinstance(op, (Elementwise, Cast)):
        return op, [part] * len(node.inputs)
    if isinstance(op, Broadcast):
        (x,) = node.inputs
        return replace(op, shape=part.size), [part.along(op.axes, x.shape)]
    if isinstance(op, Transpose):
        (x,) = node.inputs
        return op, [part.along([op.axes.index(a) for a in range(x.rank)], x.shape)]
    if isinstance(op, Contract):
        at = {label: k for k, label in enumerate(op.out)}
        sides = zip(node.inputs, (op.x, op.w), strict=True)
        return op, [part.along([at.get(label) for label in labels], x.shape) for x, labels in sides]
    if isinstance(op, Patches):
        return _windows(node, op, part)
    return None


def _windows(node: Node, op: Patches, part: _Part) -> tuple[Patches, list[_Part]] | None:
    """Every second window is a window that moves by two steps."""
    (x,) = node.inputs
    rank, axis = len(op.windows), op.axis
    inside = range(axis + rank, axis + 2 * rank)
    if any((part.start[k], part.size[k], part.step[k]) != (0, node.shape[k], 1) for k in inside):
        return None
    start, size, strides = [], [], []
    for k in range(rank):
        stride, step = op.strides[k], part.step[axis + k]
        strides.append(stride * step)
        start.append(part.start[axis + k] * stride)
        count, have = part.size[axis + k], x.shape[axis + k]
        fits = start[-1] == 0 and places(have, op.windows[k], strides[-1], op.dilations[k]) == count
        size.append(have if fits else (count - 1) * strides[-1] + reach(op.windows[k], op.dilations[k]))
    end = axis + 2 * rank
    of = lambda own, inner: (*own[:axis], *inner, *own[end:])
    source = _Part(of(part.start, start), of(part.size, size), of(part.step, (1,) * rank))
    return replace(op, strides=tuple(strides)), [source]
