"""Scales and shifts after a product with weights that stay the same become part of the weights and of one shift.

    (x w + b - m) s + t  ->  x (w s) + ((b - m) s + t)        b, m, s, t along an axis of w

A batch normalization at inference is of this form, and then costs one addition for each element. Only where the weights
and all the others stay as they are from call to call: they are combined once, when variables have changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Node, TensorType, inherit, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.leaves import Array, Literal, Parameter
from gnomon.compiler.ops.shape import Broadcast


@dataclass(frozen=True)
class _Scaled:
    """contract(x, w) * scale + shift, both along `axis` of the result; None: 1, or 0."""

    product: Node
    axis: int
    scale: Node | None = None
    shift: Node | None = None


def folded(roots: Sequence[Node], written: set[Node]) -> list[Node]:
    """`roots` with what can be folded into weights; `written`: the variables that change."""
    order = walk(roots)
    fixed = lasting(order, written)
    uses = dict.fromkeys(roots, 1)
    for node in order:
        for x in node.inputs:
            uses[x] = uses.get(x, 0) + 1
    ends = set(roots)
    alone = {node for node in order if uses[node] == 1 and node not in ends}
    forms: dict[Node, _Scaled] = {}
    inner: set[Node] = set()  # what a longer form has taken in
    for node in order:
        found = _form(node, forms, fixed, alone)
        if found is not None:
            forms[node] = found[1]
            inner.add(found[0])
    done: dict[Node, Node] = {}
    for node in order:
        form = forms.get(node)
        inputs = tuple([done[x] for x in node.inputs])
        with inherit(node):
            if form is not None and form.scale is not None and node not in inner:
                done[node] = _made(form, done)
            else:
                done[node] = node if inputs == node.inputs else Node(node.op, inputs)
    return [done[r] for r in roots]


def lasting(order: Sequence[Node], written: set[Node]) -> set[Node]:
    """What is of known size and made of literals and of variables that are not `written`: the same at each call."""
    fixed: set[Node] = set()
    for node in order:
        if not isinstance(node.type, TensorType) or not all(isinstance(d, int) for d in node.shape):
            continue
        if isinstance(node.op, (Parameter, Array, Literal)):
            if node not in written:
                fixed.add(node)
        elif node.inputs and all(x in fixed for x in node.inputs):
            fixed.add(node)
    return fixed


def _form(
    node: Node, forms: dict[Node, _Scaled], fixed: set[Node], alone: set[Node]
) -> tuple[Node, _Scaled] | None:
    """What a sum, difference or product of a scaled product is, and the operand that it takes in."""
    if not isinstance(node.op, Elementwise) or node.op.name not in ("add", "subtract", "multiply"):
        return None
    if not dtypes.is_float(node.dtype):
        return None
    pairs = [node.inputs] if node.op.name == "subtract" else [node.inputs, node.inputs[::-1]]
    for x, other in pairs:
        if x not in alone or not isinstance(other.op, Broadcast) or len(other.op.axes) != 1:
            continue
        (value,), (axis,) = other.inputs, other.op.axes
        form = forms.get(x) or _product(x, axis, fixed)
        if form is None or form.axis != axis or value not in fixed:
            continue
        scale, shift = form.scale, form.shift
        if node.op.name == "multiply":
            scale = value if scale is None else build.multiply(scale, value)
            shift = None if shift is None else build.multiply(shift, value)
        elif node.op.name == "add":
            shift = value if shift is None else build.add(shift, value)
        else:
            shift = build.negative(value) if shift is None else build.subtract(shift, value)
        return x, _Scaled(form.product, axis, scale, shift)
    return None


def _product(node: Node, axis: int, fixed: set[Node]) -> _Scaled | None:
    """A product as a form, if it is one with weights that stay, and these have the axis."""
    if not isinstance(node.op, Contract) or node.inputs[1] not in fixed or node.inputs[0] in fixed:
        return None
    return _Scaled(node, axis) if node.op.out[axis] in node.op.w else None


def _made(form: _Scaled, done: dict[Node, Node]) -> Node:
    op = form.product.op
    assert isinstance(op, Contract)
    assert form.scale is not None
    x, w = (done[n] for n in form.product.inputs)
    along = op.w.index(op.out[form.axis])
    weights = build.multiply(w, Broadcast(w.shape, (along,))(form.scale))
    made = op(x, weights)
    return made if form.shift is None else build.add(made, Broadcast(made.shape, (form.axis,))(form.shift))
