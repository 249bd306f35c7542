"""Expressions of tensors between the layers of a functional model: `layers.Dense(1)(ops.exp(x) + x)`.

Each function of tensors in them becomes an `Operation`, which a model calls and lists like a layer. They are found in
the graph of nodes, where the expressions are, not recorded while they are written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gnomon.compiler.graph import Node, inherit, walk
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.elementwise import Cast, Elementwise
from gnomon.compiler.ops.leaves import Input, Parameter
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.ops.shape import Broadcast, Equate, Reshape
from gnomon.compiler.sizes import Atom, Dim, Size, Symbol, substitute
from gnomon.layers.calls import Call, LayerOutput
from gnomon.layers.layer import Layer
from gnomon.naming import auto_name, to_snake_case
from gnomon.tensor import Tensor


class Operation(Layer):
    """A function of tensors that a model calls between layers. Made by the model, not by users."""

    def __init__(self, node: Node, sources: Sequence[Node]):
        self.title = _title(node)
        super().__init__(name=auto_name(self.title), autocast=False)
        self._expression, self._sources = _Expression(node), [_Expression(s) for s in sources]
        self.supports_masking = False
        self.built = True

    def call(self, *values):
        return Tensor(
            rebuilt(self._expression.node, {s.node: v.node for s, v in zip(self._sources, values, strict=True)})
        )

    def _pass_mask(self, inputs: Any, outputs: Any, mask: Any) -> None:
        """Expressions lose masks silently, as in Keras."""

    def get_config(self):
        raise NotImplementedError(
            f"the expression {self.name!r} of the model cannot be written down: make a layer of it (a Lambda with a "
            "function defined by def, or a class of your own)"
        )


class _Expression:
    """Holds a node where it is not looked into."""

    def __init__(self, node: Node):
        self.node = node


def operation_calls(outputs: Sequence[Node], boundary: set[Node], tensors: Mapping[Node, Tensor]) -> dict[Node, Call]:
    """The calls of Operations that lead from tensors of layers and inputs to `outputs`.

    boundary   nodes that are not looked through
    tensors    the Tensors of known nodes; those of marks and inputs are added to what the calls take
    """
    stop = lambda n: n in boundary or isinstance(n.op, (LayerOutput, Input))
    order = walk(outputs, stop=stop)
    moving: set[Node] = set()  # nodes that change with the model's inputs
    for node in order:
        if (stop(node) and not isinstance(node.op, Parameter)) or any(
            x in moving for x in node.inputs if not stop(node)
        ):
            moving.add(node)
    wanted = {n for n in outputs if not stop(n)}
    made: dict[Node, Call] = {}

    def sources(node: Node) -> list[Node]:
        """The nearest tensors below that are inputs of the model, outputs of layers or of Operations."""
        found: list[Node] = []
        for x in node.inputs:
            if x in moving:
                found.extend([x] if stop(x) or x in made else sources(x))
        return list(dict.fromkeys(found))

    for node in order:
        if node in moving and not stop(node) and (node in wanted or not _is_glue(node)):
            below = sources(node)
            inputs = [tensors[s] if s in tensors else made[s].outputs[0] if s in made else Tensor(s) for s in below]
            layer = Operation(node, below)
            made[node] = Call(layer, tuple(inputs), {}, Tensor(node, layer.name), mark=False)
    return made


def _is_glue(node: Node) -> bool:
    """Casts and broadcasts that a user did not write."""
    return isinstance(node.op, (Broadcast, Cast, Equate, Reshape))


def _title(node: Node) -> str:
    """The name of the function as Keras writes it: Add, Exp, Matmul."""
    match node.op:
        case Elementwise(name=name):
            words = name
        case Reduce(kind=kind):
            words = kind
        case Contract():
            words = "matmul"
        case op:
            words = to_snake_case(type(op).__name__)
    return "".join(w.capitalize() for w in words.split("_"))


def rebuilt(node: Node, change: Mapping[Node, Node]) -> Node:
    """`node` with the nodes in `change` replaced; sizes that differ between old and new are replaced with them."""
    sizes: dict[Atom, Dim] = {}
    for old, new in change.items():
        for a, b in zip(old.shape, new.shape, strict=True):
            atom = _symbol(a)
            if atom is not None and a != b:
                sizes[atom] = b
    known: dict[Node, Node] = dict(change)
    for n in walk([node], stop=lambda n: n in change):
        if n in known:
            continue
        inputs = tuple(known[x] for x in n.inputs)
        op = _resized(n.op, sizes) if sizes and not isinstance(n.op, Input) else n.op
        if op is n.op and all(a is b for a, b in zip(inputs, n.inputs, strict=True)):
            known[n] = n
        else:
            with inherit(n):
                known[n] = Node(op, inputs)
    return known[node]


def _symbol(size: Dim) -> Atom | None:
    if isinstance(size, Size) and len(size.terms) == 1:
        monomial, c = size.terms[0]
        if c == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
            return monomial[0]
    return None


def _resized(op: Any, sizes: dict[Atom, Dim]) -> Any:
    changed = {f.name: _with_sizes(getattr(op, f.name), sizes) for f in dataclasses.fields(op)}
    if all(value == getattr(op, name) for name, value in changed.items()):
        return op
    return dataclasses.replace(op, **changed)


def _with_sizes(value: Any, sizes: dict[Atom, Dim]) -> Any:
    if isinstance(value, Size):
        return substitute(value, sizes.get)
    return tuple(_with_sizes(v, sizes) for v in value) if type(value) is tuple else value
