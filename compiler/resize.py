"""Giving named sizes other values in a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from gnomon.compiler.graph import Node, Op, inherit, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.control import SubGraph
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.sizes import Dim, Size, Symbol, substitute


def resize(outputs: Sequence[Node], sizes: Mapping[str, Dim], given: Mapping[Node, Node]) -> list[Node]:
    """`outputs` with each named size of `sizes` replaced, and nodes replaced by those `given` for them.

    given   {node: its replacement, whose shape has the new sizes}
    Other leaves stay what they are; where their sizes are renamed, that they agree is checked at each call.
    """

    def swap(value: Any) -> Any:
        match value:
            case Size():
                return substitute(value, lambda a: sizes.get(a.name) if isinstance(a, Symbol) else None)
            case tuple():
                return tuple(map(swap, value))
            case SubGraph():
                leaves = {x: Node(_changed(x.op, swap), ()) for x in value.inputs}
                return SubGraph(tuple(leaves.values()), tuple(resize(value.outputs, sizes, leaves)))
        return value

    new: dict[Node, Node] = dict(given)
    for node in walk(outputs, stop=lambda n: n in given):
        if node in new:
            continue
        with inherit(node):
            if isinstance(node.op, Input):
                new[node] = build.equate(node, swap(node.shape))
            else:
                new[node] = Node(_changed(node.op, swap), tuple(new[x] for x in node.inputs))
    return [new[o] for o in outputs]


def _changed(op: Op, swap: Callable[[Any], Any]) -> Op:
    """`op` with the sizes in its fields swapped."""
    before = {f.name: getattr(op, f.name) for f in fields(op)}  # type: ignore[arg-type]  # every op is a dataclass
    after = {name: swap(value) for name, value in before.items()}
    changed = {name: value for name, value in after.items() if value is not before[name] and value != before[name]}
    return replace(op, **changed) if changed else op  # type: ignore[type-var]  # as above
