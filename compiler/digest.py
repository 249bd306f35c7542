"""A name for what is to be compiled: equal requests have equal digests, in every process, whatever layers are called.

Two graphs are equal here if the same ops read each other in the same way. Inputs and variables are told apart by the
order in which they are met, not by keys or names; where nodes came from counts only as far as which of them have the
same origins, and not for numbers and the like, which all models of a process share. So the program made for one serves
the other, once it has the other's leaves, names and places.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from gnomon.compiler.graph import Node, Op, Origin, origins, walk
from gnomon.compiler.ops.control import SubGraph
from gnomon.compiler.ops.leaves import Input, Parameter
from gnomon.compiler.sizes import Dim, Size


class Unnamed(Exception):
    """An op holds what has no name that another process would know."""


@dataclass(frozen=True)
class Digest:
    """What a request is called, and what is its own: leaves and origins in the order in which they are met."""

    name: str
    leaves: tuple[Node, ...]
    origins: tuple[Origin, ...]


def digest(
    inputs: Sequence[Node],
    outputs: Sequence[Node],
    updates: Sequence[tuple[Node, Node]],
    repeat: tuple[Node, Dim] | None,
    prepare: bool,
    tables: bool = False,
) -> Digest | None:
    """The digest of a `compile.Request`, whose fields these are; None if it cannot be told from others."""
    counter = [] if repeat is None else [repeat[0]]
    roots = [*inputs, *counter, *(p for p, _ in updates), *outputs, *(value for _, value in updates)]
    writer = _Writer({})
    try:
        numbers = writer.graph(roots)
        writer.write(f"{len(inputs)} {len(updates)} {prepare} {tables} {writer.text(repeat and repeat[1])}")
    except Unnamed:
        return None
    writer.numbers(numbers[r] for r in roots)
    return Digest(writer.hash.hexdigest(), tuple(writer.leaves), tuple(writer.places))


class _Writer:
    """Writes a graph into a hash. `places` are the origins met so far, which graphs inside ops share."""

    def __init__(self, places: dict[Origin, int]):
        self.hash = hashlib.sha256()
        self.places = places
        self.leaves: list[Node] = []
        self.ops: dict[tuple[type, Op], int] = {}

    def write(self, value: str) -> None:
        data = value.encode()
        self.hash.update(b"%d:" % len(data))
        self.hash.update(data)

    def numbers(self, values: Iterable[int]) -> None:
        self.hash.update(array("q", values).tobytes())

    def graph(self, roots: Sequence[Node]) -> dict[Node, int]:
        """Write all nodes that `roots` depend on. The number of each."""
        number: dict[Node, int] = {}
        written = array("q")
        own: set[Node] = set()  # what depends on leaves
        for node in walk(roots):
            is_leaf = isinstance(node.op, Input)
            if is_leaf or any(x in own for x in node.inputs):
                own.add(node)
            op = self._leaf(node) if is_leaf else self._op(node.op)
            found = origins(node) if node in own else ()
            written.extend((op, len(node.inputs), len(found)))
            written.extend([number[x] for x in node.inputs])
            written.extend([self._place(o) for o in found])
            number[node] = len(number)
        self.hash.update(written.tobytes())
        return number

    def _leaf(self, node: Node) -> int:
        op = node.op
        assert isinstance(op, Input), op
        kind = "parameter" if isinstance(op, Parameter) else "input"
        self.write(f"{kind} {op.dtype} {self.text(op.shape)}")
        self.leaves.append(node)
        return -len(self.leaves)

    def _op(self, op: Op) -> int:
        key = (type(op), op)
        known = self.ops.get(key)
        if known is None:
            known = self.ops[key] = len(self.ops)
            self.write(self.text(op))
        return known

    def _place(self, origin: Origin) -> int:
        known = self.places.get(origin)
        if known is None:
            known = self.places[origin] = len(self.places)
            self.write("somewhere" if repr(origin) else "nowhere")
        return known

    def text(self, value: Any) -> str:
        """What an op's field is, in words. Raises Unnamed for functions and the like."""
        match value:
            case None | bool() | int() | str():
                return repr(value)
            case float():
                return value.hex()
            case Size():
                return f"<{value}>"
            case tuple():
                return f"({','.join(map(self.text, value))})"
            case bytes():
                return hashlib.sha256(value).hexdigest()
            case np.generic():
                return f"{value.dtype}:{value.tobytes().hex()}"
            case SubGraph():
                return self._inner(value)
            case Op():
                return f"{type(value).__module__}.{type(value).__qualname__}{self.text(value.essence())}"
        if is_dataclass(value) and not isinstance(value, type):
            return f"{type(value).__qualname__}{self.text(tuple(getattr(value, f.name) for f in fields(value)))}"
        raise Unnamed(type(value).__name__)

    def _inner(self, graph: SubGraph) -> str:
        inner = _Writer(self.places)
        numbers = inner.graph([*graph.inputs, *graph.outputs])
        inner.numbers(numbers[n] for n in (*graph.inputs, *graph.outputs))
        if len(inner.leaves) > len(graph.inputs):
            raise Unnamed("a graph that reads leaves of the one around it")
        return f"graph of {len(graph.inputs)}: {inner.hash.hexdigest()}"


__all__ = ["Digest", "digest"]
