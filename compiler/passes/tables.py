"""Rows of a table that are multiplied by weights are rows of the table multiplied by the weights.

    gather(t, i) w + b  ->  gather(t w + b, i)

The right side is made once and the product costs nothing afterwards, where table and weights stay as they are from call
to call: an Embedding before a recurrent or dense layer, at inference (Chen and Manning 2014, "A fast and accurate
dependency parser using neural networks", section 3.4, keep such products of frequent words).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Node, inherit, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.index import Gather
from gnomon.compiler.ops.shape import Broadcast
from gnomon.compiler.passes.folding import lasting
from gnomon.compiler.sizes import Dim

MOST_BYTES = 64 << 20
"""That all tables of a program take which are made here."""
MOST_ADDED = 2 << 30
"""Products that are added for all of them: some 20 ms on two cores, each time that weights have changed."""


@dataclass(frozen=True)
class _Rows:
    """gather(table, indices), its axes in some order.

    axes   of each axis of the value: the axis of gather(table, indices)
    made   whether the table is a product, and not one of the caller's
    """

    table: Node
    indices: Node
    axes: tuple[int, ...]
    made: bool = False

    def place(self, axis: int) -> bool:
        """Whether an axis of the value is one of the indices."""
        return self.axes[axis] < self.indices.rank

    def of_table(self, axis: int) -> int:
        """The axis of the table that an axis of the value is."""
        return self.axes[axis] - self.indices.rank + 1


def tabled(roots: Sequence[Node], written: set[Node]) -> list[Node]:
    """`roots` with rows of products instead of products of rows; `written`: the variables that change."""
    order = walk(roots)
    fixed = lasting(order, written)
    uses = dict.fromkeys(roots, 2)  # a caller sees them
    for node in order:
        for x in node.inputs:
            uses[x] = uses.get(x, 0) + 1
    forms: dict[Node, _Rows] = {}
    inner: set[Node] = set()  # what a longer form has taken in
    left = [MOST_BYTES, MOST_ADDED]
    for node in order:
        if node in fixed:
            continue
        with inherit(node):
            found = _gathered(node, fixed) or _multiplied(node, forms, fixed, left)
            found = found or _changed(node, forms, fixed, uses)
        if found is not None:
            forms[node] = found
            if found.made:
                inner.update(x for x in node.inputs if x in forms)
    if not any(form.made for form in forms.values()):
        return list(roots)
    done: dict[Node, Node] = {}
    for node in order:
        form = forms.get(node)
        inputs = tuple([done[x] for x in node.inputs])
        with inherit(node):
            if form is not None and form.made and (node not in inner or uses[node] > 1):
                done[node] = _rows(form, done)
            else:
                done[node] = node if inputs == node.inputs else Node(node.op, inputs)
    return [done[r] for r in roots]


def _gathered(node: Node, fixed: set[Node]) -> _Rows | None:
    if not isinstance(node.op, Gather) or node.op.axis != 0 or not dtypes.is_float(node.dtype):
        return None
    table, indices = node.inputs
    return _Rows(table, indices, tuple(range(node.rank))) if table in fixed else None


def _multiplied(node: Node, forms: Mapping[Node, _Rows], fixed: set[Node], left: list[int]) -> _Rows | None:
    """A product of rows, as rows of a product, if there is still room for its table."""
    if not isinstance(node.op, Contract):
        return None
    op = node.op
    sides = [(node.inputs[0], op.x, node.inputs[1], op.w), (node.inputs[1], op.w, node.inputs[0], op.x)]
    for rows, own, weights, other in sides:
        form = forms.get(rows)
        if form is None or weights not in fixed:
            continue
        places = {label: form.axes[k] for k, label in enumerate(own) if form.place(k)}
        if any(label in other or label not in op.out for label in places):
            continue
        if not any(label in other and label not in op.out for label in own):
            continue
        row = max((*own, *other)) + 1
        labels = {form.of_table(k): label for k, label in enumerate(own) if not form.place(k)}
        kept = [label for label in op.out if label not in places]
        of_table = (row, *(labels[k] for k in range(1, form.table.rank)))
        extents = dict(zip((*of_table, *other), _known(*form.table.shape, *weights.shape), strict=True))
        taken = math.prod(extents[a] for a in (row, *kept)) * dtypes.named(node.dtype).bytes
        added = math.prod(extents.values())
        if left[0] < taken or left[1] < added:
            continue
        left[:] = left[0] - taken, left[1] - added
        made = Contract(of_table, other, (row, *kept))(form.table, weights)
        depth = form.indices.rank
        axes = tuple(places[label] if label in places else depth + kept.index(label) for label in op.out)
        return _Rows(made, form.indices, axes, made=True)
    return None


def _known(*shape: Dim) -> list[int]:
    return [d for d in shape if isinstance(d, int)]


def _changed(node: Node, forms: Mapping[Node, _Rows], fixed: set[Node], uses: Mapping[Node, int]) -> _Rows | None:
    """What is computed of each number of a product's row, and of what stays, as rows of a table of it."""
    if not isinstance(node.op, Elementwise) or not dtypes.is_float(node.dtype):
        return None
    inputs = [x for x in dict.fromkeys(node.inputs) if x in forms]
    if len(inputs) != 1 or uses[inputs[0]] > node.inputs.count(inputs[0]):
        return None
    form = forms[inputs[0]]
    if not form.made:
        return None
    operands = []
    for x in node.inputs:
        if x in forms:
            operands.append(form.table)
            continue
        if not isinstance(x.op, Broadcast) or x.inputs[0] not in fixed or any(form.place(a) for a in x.op.axes):
            return None
        operands.append(Broadcast(form.table.shape, tuple(form.of_table(a) for a in x.op.axes))(x.inputs[0]))
    return _Rows(node.op(*operands), form.indices, form.axes, made=True)


def _rows(form: _Rows, done: Mapping[Node, Node]) -> Node:
    """The value of a form: with its axes in the wanted order by the order of the indices, where that will do."""
    indices = done[form.indices]
    depth = indices.rank
    first = form.axes[:depth]
    if all(a < depth for a in first) and form.axes[depth:] == tuple(range(depth, len(form.axes))):
        return Gather(0)(form.table, build.transpose(indices, list(first)))
    return build.transpose(Gather(0)(form.table, indices), list(form.axes))
