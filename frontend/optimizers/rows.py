"""Gradients that are a few rows of a table: those of an embedding.

The gradient of rows that were read from a variable is `ScatterAdd`, zeros with a row added for each that was read. An
optimizer whose rule leaves a weight alone where its gradient is 0 needs no more than these rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.index import ScatterAdd
from gnomon.compiler.ops.rows import FirstEqual
from gnomon.compiler.ops.shape import Broadcast
from gnomon.compiler.sizes import product
from gnomon.tensor import Tensor
from gnomon.variable import Variable

MANY = 8192
"""Rows of a table from which on its update goes by rows: of fewer, to look at all costs about as little."""


@dataclass(frozen=True)
class GradientRows:
    """A gradient of which only some rows are not 0.

    indices   int[n], which rows: each once, and -1 for what is left
    sums      float[n, ...], the gradient in these rows, 0 in what is left
    """

    indices: Node
    sums: Node

    @classmethod
    def of(cls, gradient: Any) -> GradientRows | None:
        """The rows of a gradient that consists of nothing else; None for any other.

        What was added to the same row is summed in the order it comes in: the sums are those of the whole gradient, to
        the last bit where it is one ScatterAdd.
        """
        parts = _parts(gradient.node) if isinstance(gradient, Tensor) else None
        if parts is None:
            return None
        length = gradient.node.shape[0]
        flat = []
        for indices, _ in parts:
            inside = build.maximum(build.minimum(build.cast(indices, "int64"), build.size(length - 1, "int64")), 0)
            flat.append(build.reshape(inside, (product(indices.shape),)))
        at = build.concat(flat, 0)
        first = FirstEqual(length)(at)
        if len(parts) == 1:
            indices, updates = parts[0]
            sums = build.scatter_add(build.reshape(first, indices.shape), updates, at.shape[0])
        else:
            each = [build.reshape(u, (product(i.shape), *u.shape[i.rank :])) for i, u in parts]
            sums = build.scatter_add(first, build.concat(each, 0), at.shape[0])
        alone = build.apply("equal", first, build.iota(first.shape, 0))
        return cls(build.where(alone, at, build.constant(-1, "int64")), sums)


def worth_it(rows: GradientRows, variable: Variable) -> bool:
    """Whether to look at the rows alone is less work than to look at the whole table."""
    length, count = variable.buffer.shape[0], rows.indices.shape[0]
    return length >= MANY and not (isinstance(count, int) and count >= length)


def _parts(node: Node) -> list[tuple[Node, Node]] | None:
    """(indices, updates) of the rows that a gradient is the sum of, perhaps multiplied; None for another gradient."""
    found: list[tuple[Node, Node]] = []
    waiting: list[tuple[Node, list[Node]]] = [(node, [])]  # with the numbers by which it is multiplied, or divided
    while waiting:
        x, factors = waiting.pop()
        match x.op:
            case ScatterAdd(axis=0):
                indices, updates = x.inputs
                for scaled in reversed(factors):
                    updates = _scaled(scaled, updates)
                found.append((indices, updates))
            case Elementwise(name="add"):
                waiting += [(a, factors) for a in reversed(x.inputs)]
            case Elementwise(name="divide") if _number(x.inputs[1]) is not None:
                waiting.append((x.inputs[0], [*factors, x]))
            case Elementwise(name="multiply") if _number(x.inputs[1]) is not None:
                waiting.append((x.inputs[0], [*factors, x]))
            case Elementwise(name="multiply") if _number(x.inputs[0]) is not None:
                waiting.append((x.inputs[1], [*factors, x]))
            case _:
                return None
    return found


def _number(x: Node) -> Node | None:
    """The scalar that x repeats."""
    while isinstance(x.op, Broadcast):
        (x,) = x.inputs
    return x if x.rank == 0 else None


def _scaled(product_or_quotient: Node, updates: Node) -> Node:
    """Rows multiplied or divided as their sum was."""
    x = product_or_quotient
    numbers = [_number(a) for a in x.inputs]
    assert isinstance(x.op, Elementwise), x
    return build.apply(x.op.name, *(updates if n is None else n for n in numbers))
