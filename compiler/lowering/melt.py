"""Element rules written into one another: the expression of one element of a node, its producers melted in."""

from __future__ import annotations

from collections.abc import Callable

from gnomon.compiler.graph import Node, Shape, TensorType
from gnomon.compiler.kernel import Expr
from gnomon.compiler.sizes import Dim, index


def outer_index(shape: Shape) -> tuple[Dim, ...]:
    """The index of an element: one loop index `o<k>` for each axis; an axis of one element needs none."""
    return tuple(index(f"o{k}", d) if d != 1 else 0 for k, d in enumerate(shape))


class Melter:
    """`read(node, index)` gives the expression of an element that is not to be melted, None if it is."""

    def __init__(self, read: Callable[[Node, tuple[Dim, ...]], Expr | None]):
        self.read = read
        self.known: dict[tuple[Node, tuple[Dim, ...]], Expr] = {}

    def element(self, node: Node, index: tuple[Dim, ...]) -> Expr:
        """The element of `node` itself, by its rule."""
        return node.op.element(index, node.type, *(_Operand(self, x) for x in node.inputs))

    def value(self, node: Node, index: tuple[Dim, ...]) -> Expr:
        """The element of a node that is read: loaded, or melted in."""
        key = (node, index)
        found = self.known.get(key)
        if found is None:
            found = self.read(node, index)
            if found is None:
                found = self.element(node, index)
            self.known[key] = found
        return found


class _Operand:
    """One input of an op while its element rule is written."""

    def __init__(self, melter: Melter, node: Node):
        self.melter, self.node = melter, node

    @property
    def type(self) -> TensorType:
        return self.node.type

    def __call__(self, *index: Dim) -> Expr:
        return self.melter.value(
            self.node, tuple(0 if d == 1 else i for i, d in zip(index, self.node.shape, strict=True))
        )
