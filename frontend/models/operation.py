"""Expressions of tensors between the layers of a functional model: `layers.Dense(1)(ops.exp(x) + x)`.

Each function of tensors in them becomes an `Operation`, which a model calls and lists like a layer. They are found in
the graph of nodes, where the expressions are, not recorded while they are written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon import ops
from gnomon.compiler.errors import ArgumentError, GnomonError
from gnomon.compiler.graph import Node, inherit, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.elementwise import Cast, Elementwise
from gnomon.compiler.ops.leaves import Input, Parameter, SizeValue
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.ops.shape import Broadcast, Equate, Reshape, Transpose
from gnomon.compiler.sizes import Atom, Dim, Size, Symbol, substitute, symbols
from gnomon.layers.calls import Call, LayerOutput
from gnomon.layers.layer import Layer
from gnomon.naming import auto_name, to_snake_case
from gnomon.tensor import Tensor


class Operation(Layer):
    """A function of tensors that a model calls between layers.

    title     the name of its class in Keras: Exp, Matmul
    options   its arguments besides tensors
    """

    def __init__(self, title: str, options: dict[str, Any], name: str | None = None):
        super().__init__(name=name or auto_name(title), autocast=False)
        self.title, self.options = title, options
        self.built = True

    @property
    def module(self) -> str:
        """Where Keras has it."""
        name = to_snake_case(self.title)
        return "keras.src.ops." + next((m for m, names in _MODULES.items() if name in names), "numpy")

    def written_arguments(self, call: Call) -> Sequence[Any]:
        """The arguments of a call: Tensors, numbers and arrays."""
        return call.args

    def _check_positional(self, args: Sequence[Any]) -> None:
        """Numbers are operands like tensors."""

    def _pass_mask(self, inputs: Any, outputs: Any, mask: Any) -> None:
        """Expressions lose masks silently, as in Keras."""

    def get_config(self):
        return {"name": self.name, **self.options}


class NamedOperation(Operation):
    """A function of `gnomon.ops`, as a configuration names it."""

    def __init__(self, title: str, options: dict[str, Any], name: str | None = None):
        super().__init__(title, options, name)
        function = getattr(ops, to_snake_case(title), None)
        if function is None:
            raise ArgumentError(f"the configuration has the operation {title!r}, which gnomon.ops does not have")
        self.function = function

    def call(self, *args, **kwargs):
        return self.function(*args, **kwargs, **self.options)


class Expression(Operation):
    """A node of an expression; `sources` are the nodes that it takes from inputs, layers and other operations."""

    def __init__(self, node: Node, sources: Sequence[Node]):
        title, options, self._arguments = _as_function(node, sources)
        super().__init__(title, options)
        self._nodes = _Nodes(node, sources)

    def call(self, *values):
        change = {s: v.node for s, v in zip(self._nodes.sources, values, strict=True)}
        return Tensor(rebuilt(self._nodes.node, change))

    def written_arguments(self, call):
        if self._arguments is None:
            raise NotImplementedError(
                f"the expression {self.name!r} of the model cannot be written down: make a layer of it (a Lambda with "
                "a function defined by def, or a class of your own)"
            )
        return [call.inputs[a.k] if isinstance(a, _Source) else a for a in self._arguments]


@dataclass(frozen=True)
class _Nodes:
    """Holds nodes where they are not looked into."""

    node: Node
    sources: Sequence[Node]


@dataclass(frozen=True)
class _Source:
    """Stands for source number k among the arguments of a function."""

    k: int


_MODULES = {
    "nn": {"relu", "sigmoid", "softplus", "log_sigmoid"},
    "math": {"erf", "erfinv", "rsqrt", "logsumexp"},
}


def _as_function(node: Node, sources: Sequence[Node]) -> tuple[str, dict[str, Any], list[Any] | None]:
    """The function of Keras that a node is the result of: its name, options and arguments (None if there is none).

    Nodes are interned: whether a function gives this very node is seen by calling it.
    """
    places = {source: _Source(k) for k, source in enumerate(sources)}
    parts = [_argument(x, places) for x in node.inputs]
    values = [sources[p.k] if isinstance(p, _Source) else _node_of_array(p) for p in parts]
    title, options, again = _title(node), dict[str, Any](), None
    if all(p is not None for p in parts):
        with suppress(GnomonError):  # without the broadcasts between, some do not fit each other: then it is not theirs
            again, options = _called(node, values)
    return title, options, parts if again is node else None


def _called(node: Node, values: Sequence[Any]) -> tuple[Node | None, dict[str, Any]]:
    """What the function of Keras that a node is named after gives for these arguments, and its options."""
    again: Node | None = None
    options: dict[str, Any] = {}
    match node.op:
        case Elementwise(name=name):
            again = build.apply(name, *values)
        case Reduce(kind=kind, axes=axes):
            again, options = getattr(build, kind)(values[0], axes), {"axis": list(axes), "keepdims": False}
        case Contract() if all(isinstance(v, Node) and v.rank > 1 for v in values):
            fits = values[0].shape[-1] == values[1].shape[-2]
            again = build.matmul(*values) if fits else None
        case Transpose(axes=axes):
            again, options = build.transpose(values[0], axes), {"axes": list(axes)}
    return again, options


def _node_of_array(value: Any) -> Any:
    return build.constant(value) if isinstance(value, np.ndarray) else value


def _argument(x: Node, places: Mapping[Node, _Source]) -> Any:
    """A source, or the value of a constant, below casts and broadcasts; None for anything else."""
    while x not in places and _is_glue(x):
        x = x.inputs[0]
    if x in places:
        return places[x]
    nodes = walk([x])
    if any(isinstance(n.op, (Input, SizeValue, LayerOutput)) or any(map(symbols, n.shape)) for n in nodes):
        return None
    (value,) = evaluate_graph([x], {}, {})
    if value.ndim:
        return np.array(value)
    return float(str(value)) if value.dtype.kind == "f" else value.item()  # the shortest number: 0.1, not its float32


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
            layer = Expression(node, below)
            made[node] = Call(layer, tuple(inputs), {}, Tensor(node, layer.name), mark=False)
    return made


def _is_glue(node: Node) -> bool:
    """Casts and broadcasts that a user did not write."""
    return isinstance(node.op, (Broadcast, Cast, Equate, Reshape))


def _title(node: Node) -> str:
    """The name of the function as Keras writes it: Add, Exp, Matmul."""
    match node.op:
        case Elementwise(name=name):
            words = {"abs": "absolute"}.get(name, name)
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
