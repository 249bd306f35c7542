"""Activations that a convolution has padded are read from there: kept once, not twice.

A product over windows stores its padded input. Whoever else reads the input element by element (the gradient of a relu,
the addition behind a residual block, what is computed again) reads the middle of that, and the input needs no memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gnomon.compiler.graph import Node, inherit, users, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.leaves import Array, Input, Literal
from gnomon.compiler.ops.patches import Patches
from gnomon.compiler.ops.remat import After
from gnomon.compiler.ops.shape import Broadcast, Equate, Pad, Reshape, Slice, Transpose
from gnomon.compiler.sizes import non_negative

VIEWS = (Broadcast, Equate, Patches, Reshape, Slice, Transpose)


def read_padded(roots: Sequence[Node]) -> list[Node]:
    """f(x), patches(pad(x)) @ w -> f(slice(pad(x))), patches(pad(x)) @ w."""
    order = walk(roots)
    chosen = _chosen(order, set(roots))
    if not chosen:
        return list(roots)
    done: dict[Node, Node] = {}
    whole: dict[Node, Node] = {}  # the middle of something padded -> that
    of: dict[Node, Pad] = {}  # the same -> how it was padded
    zero = {pad.op: pad.inputs[1] for pad in chosen.values()}

    def middle(kept: Node, pad: Pad, like: Node) -> Node:
        shown = build.slice(kept, pad.low, like.shape)
        whole[shown], of[shown] = kept, pad
        return shown

    for node in order:
        inputs = tuple(done[x] for x in node.inputs)
        first = inputs[0] if inputs else None
        with inherit(node):
            if first in whole and isinstance(node.op, Pad) and node.op == of[first] and inputs[1] is zero[node.op]:
                made = whole[first]
            elif first in whole and isinstance(node.op, After):
                made = middle(Node(node.op, (whole[first], *inputs[1:])), of[first], node)
            else:
                same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
                made = node if same else Node(node.op, inputs)
        if node in chosen and made not in whole:
            pad = chosen[node]
            assert isinstance(pad.op, Pad)
            with inherit(pad):
                made = middle(Node(pad.op, (made, pad.inputs[1])), pad.op, node)
        done[node] = made
    return [done[r] for r in roots]


def _chosen(order: Sequence[Node], roots: set[Node]) -> dict[Node, Node]:
    """What is padded for a product, and read by others besides: with how it is padded."""
    readers = users(order)
    chosen: dict[Node, Node] = {}
    for pad in order:
        if not isinstance(pad.op, Pad) or not isinstance(pad.inputs[1].op, Literal) or any(pad.op.interior):
            continue
        x = pad.inputs[0]
        if x in chosen or x in roots or isinstance(x.op, (Input, Array, *VIEWS)):
            continue
        if not all(map(non_negative, (*pad.op.low, *pad.op.high))) or not _is_operand(pad, readers):
            continue
        others = [n for n in readers[x] if n is not pad]
        if others and all(_reads_elements(n, readers) for n in others):
            chosen[x] = pad
    return chosen


def _reads_elements(node: Node, readers: Mapping[Node, Sequence[Node]]) -> bool:
    """Whether a node looks at each element by itself, wherever it lies; or waits for it."""
    if isinstance(node.op, VIEWS):
        return not _is_operand(node, readers)
    return isinstance(node.op, After) or (node.op.has_element and not isinstance(node.op, Contract))


def _is_operand(x: Node, readers: Mapping[Node, Sequence[Node]]) -> bool:
    """Whether a product reads a node as it is or in another form: it has rows and columns of its own."""
    waiting = [x]
    while waiting:
        for n in readers[waiting.pop()]:
            if isinstance(n.op, Contract):
                return True
            if isinstance(n.op, VIEWS):
                waiting.append(n)
    return False
