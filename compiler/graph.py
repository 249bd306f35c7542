"""Level 1: the tensor graph.

A `Node` is an op applied to nodes; it has a type and nothing else. Nodes are interned: the same op on the same inputs
is the same object, so common subexpressions vanish by construction and rules compare with `is`. Names, layers and
values are not on it; where it was first made is in a side table (`origins`).

An op is one frozen dataclass in `gnomon.compiler.ops`; its fields are its static attributes. All that is true of it
stands in its class: type rule, NumPy meaning, gradient, element rule.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from gnomon.compiler.dtypes import named
from gnomon.compiler.interning import Interned
from gnomon.compiler.sizes import Dim, Size

if TYPE_CHECKING:
    from gnomon.compiler.kernel import Buffer, Expr, Kernel
    from gnomon.compiler.targets import Target

Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class TensorType:
    """dtype and shape: all that a rule may look at. Prints as `float32[batch, 784]`."""

    dtype: str
    shape: Shape

    def __post_init__(self):
        named(self.dtype)
        assert all(isinstance(d, (int, Size)) for d in self.shape), self.shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class TupleType:
    """The type of an op with several results; `Item(k)` takes one."""

    items: tuple[TensorType, ...]

    def __repr__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


class Accessor(Protocol):
    """One input of an op, while a kernel is written: `x(i, j)` is the scalar expression of that element."""

    @property
    def type(self) -> TensorType: ...

    def __call__(self, *index: Dim) -> Expr: ...


class Env:
    """What an op's NumPy meaning may ask besides its inputs: the values of named sizes."""

    def __init__(self, values: Mapping[str, int]):
        self.values = values

    def size(self, dim: Dim) -> int:
        from gnomon.compiler.sizes import evaluate

        return evaluate(dim, self.values)

    def shape(self, dims: Iterable[Dim]) -> tuple[int, ...]:
        return tuple(self.size(d) for d in dims)


class Op:
    """Base of all ops: a frozen dataclass whose fields are static attributes (strings, integers, sizes, tuples, ops).

    infer(*types) -> type                   raises ShapeError or DTypeError naming what it was given
    numpy(env, *arrays) -> array            the meaning; a tuple of arrays if the type is a TupleType
    grad(g, out, *inputs) -> nodes          one gradient per input, None where there is none; g has out's type
    push(out, tangents, *inputs) -> node    forward mode; tangents may hold None; by default made from `grad` twice
    batch(size, inputs, mapped) -> node     the op on `size` slices at once: `mapped` inputs have one more, first axis
    element(index, out, *inputs) -> Expr    element `index` of the result; inputs are Accessors, `out` the type
    kernel(target, out, *inputs) -> Kernels  for what no element rule says well: kernels that run in order, on Buffers.
                                             Other buffers in them are memory that they want for the time between
    stands_alone(out, *inputs) -> bool      of an op with both rules: whether it is `kernel` for these types
    read(inputs) -> inputs                  those whose values it looks at; others must only be there before
    over                                    the number of the input over which `kernel` can write the result (both are
                                             one Buffer then), if there is one
    An op with neither an element rule nor kernels is a step of the program (`Cond`).
    """

    over: ClassVar[int | None] = None

    def infer(self, *types: TensorType) -> TensorType | TupleType:
        raise NotImplementedError(type(self).__name__)

    def numpy(self, env: Env, *arrays: np.ndarray) -> Any:
        raise NotImplementedError(type(self).__name__)

    def grad(self, g: Node, out: Node, *inputs: Node) -> tuple[Node | None, ...]:
        raise NotImplementedError(type(self).__name__)

    def batch(self, size: Dim, inputs: tuple[Node, ...], mapped: tuple[bool, ...]) -> Node:
        raise NotImplementedError(type(self).__name__)

    def element(self, index: tuple[Dim, ...], out: TensorType, *inputs: Accessor) -> Expr:
        raise NotImplementedError(type(self).__name__)

    def kernel(self, target: Target, out: Buffer, *inputs: Buffer) -> tuple[Kernel, ...]:
        raise NotImplementedError(type(self).__name__)

    def stands_alone(self, out: TensorType, *inputs: TensorType) -> bool:
        return True

    def read(self, inputs: tuple[Node, ...]) -> tuple[Node, ...]:
        return inputs

    def essence(self) -> tuple[Any, ...]:
        """The fields that what is compiled depends on."""
        return tuple(getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]  # every op is a dataclass

    def identity(self) -> Any:
        """What stands for the op in the table of living nodes: one that leads to other objects gives a mere equal."""
        return self

    @property
    def has_element(self) -> bool:
        return type(self).element is not Op.element

    @property
    def has_kernel(self) -> bool:
        return type(self).kernel is not Op.kernel

    def __call__(self, *inputs: Node) -> Node:
        return Node(self, inputs)


class _Remembering(Interned):
    """Interning that notes who asks again: a node that two layers share belongs to both."""

    def __call__(cls, *fields):
        before = Node._count
        node = super().__call__(*fields)
        if Node._count == before:
            _note_reuse(node)
        return node


class Node(metaclass=_Remembering):
    """An op applied to nodes. `type` follows from both."""

    __slots__ = ("op", "inputs", "type", "serial", "__weakref__")
    op: Op
    inputs: tuple[Node, ...]
    type: Any  # TensorType, or TupleType for ops with several results
    _count = 0

    def __init__(self, op: Op, inputs: tuple[Node, ...]):
        self.op, self.inputs = op, inputs
        self.type = op.infer(*(x.type for x in inputs))
        Node._count += 1
        self.serial = Node._count  # increases along every edge: a topological order, and a name to print
        _note_origin(self)

    @classmethod
    def key(cls, op: Op, inputs: tuple[Node, ...]) -> tuple:
        # not the inputs themselves: the table would hold them from outside, and of a model that is discarded the
        # collector could only see that the last layer is garbage, at the next collection the one before
        return (type(op), op.identity(), *map(id, inputs))

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def rank(self) -> int:
        return len(self.type.shape)

    def __repr__(self) -> str:
        return f"%{self.serial} = {self.op}({', '.join(f'%{x.serial}' for x in self.inputs)}) : {self.type}"


@dataclass(frozen=True)
class Item(Op):
    """Result number `k` of an op with several results. The reverse walk of `grad` gathers its gradient."""

    k: int

    def infer(self, whole):
        return whole.items[self.k]

    def numpy(self, env, whole):
        return whole[self.k]

    def batch(self, size, inputs, mapped):
        return self(*inputs)


def walk(outputs: Iterable[Node], stop: Callable[[Node], bool] | None = None) -> list[Node]:
    """All nodes that `outputs` depend on, each once, inputs before users. No recursion: graphs are deep.

    Nodes for which `stop(node)` is true are included but not looked through.
    """
    done: set[Node] = set()
    order: list[Node] = []
    stack: list[tuple[Node, bool]] = [(n, False) for n in reversed(list(outputs))]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready or not node.inputs or (stop is not None and stop(node)):
            done.add(node)
            order.append(node)
            continue
        stack.append((node, True))
        stack.extend((x, False) for x in reversed(node.inputs) if x not in done)
    return order


def users(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """For each node, the nodes among `nodes` that read it (once per reading)."""
    table: dict[Node, list[Node]] = {}
    for node in nodes:
        table.setdefault(node, [])
        for x in node.inputs:
            table.setdefault(x, []).append(node)
    return table


def replace(outputs: Iterable[Node], change: Mapping[Node, Node]) -> list[Node]:
    """`outputs` with each node in `change` replaced wherever it is read. Origins carry over to rebuilt nodes."""
    outputs = list(outputs)
    new: dict[Node, Node] = dict(change)
    for node in walk(outputs, stop=lambda n: n in change):
        if node in new:
            continue
        inputs = tuple(new[x] for x in node.inputs)
        if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            new[node] = node
        else:
            with inherit(node):
                new[node] = Node(node.op, inputs)
    return [new[o] for o in outputs]


# ---- where a node came from


@dataclass(frozen=True)
class Origin:
    """The layer a node was made in ('' for none) and the user's own source line ('' if not known)."""

    layer: str
    file: str
    line: int

    def __repr__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file else ""
        text = " ".join(p for p in (self.layer, f"({place})" if place else "") if p)
        known = _numbered.get()
        return f"\x02{known.setdefault(self, len(known))}\x03" if text and known is not None else text


_numbered: ContextVar[dict[Origin, int] | None] = ContextVar("numbered", default=None)
_NUMBER = re.compile("\x02(\\d+)\x03")


@contextmanager
def numbered_origins(known: dict[Origin, int]) -> Iterator[None]:
    """Inside, origins print as their numbers in `known`, where new ones are entered: see `with_origins`."""
    token = _numbered.set(known)
    try:
        yield
    finally:
        _numbered.reset(token)


def with_origins(text: str, names: Sequence[str]) -> str:
    """A text that was made with origins numbered, with their names instead."""
    return _NUMBER.sub(lambda found: names[int(found[1])], text) if "\x02" in text else text


_origins: WeakKeyDictionary[Node, tuple[Origin, ...]] = WeakKeyDictionary()
_layer: ContextVar[str] = ContextVar("layer", default="")
_inherited: ContextVar[tuple[Origin, ...] | None] = ContextVar("inherited", default=None)
_OWNERS = 4  # interning merges nodes of several layers; this many owners are remembered


def origins(node: Node) -> tuple[Origin, ...]:
    """Who made this node first, and who asked for it again."""
    return _origins.get(node, ())


@contextmanager
def layer_scope(name: str) -> Iterator[None]:
    """Nodes made inside belong to the layer `name` (nested: 'outer/inner')."""
    outer = _layer.get()
    token = _layer.set(f"{outer}/{name}" if outer else name)
    try:
        yield
    finally:
        _layer.reset(token)


@contextmanager
def inherit(*nodes: Node) -> Iterator[None]:
    """Nodes made inside take over the origins of `nodes`: what a rewrite or a gradient makes."""
    found = tuple(dict.fromkeys(o for n in nodes for o in origins(n)))[:_OWNERS]
    token = _inherited.set(found)
    try:
        yield
    finally:
        _inherited.reset(token)


_again: ContextVar[tuple[Any, tuple[str, int]] | None] = ContextVar("again", default=None)


@contextmanager
def made_again(place: tuple[str, int]) -> Iterator[None]:
    """Inside, what was asked for at `place`, a user's file and line, is made again: nodes keep that line, unless user
    code that runs inside makes them."""
    token = _again.set((sys._getframe(2), place))  # 0 is this generator, 1 its context manager
    try:
        yield
    finally:
        _again.reset(token)


def user_line() -> tuple[str, int]:
    """File and line of the innermost frame that is not gnomon's own; ('', 0) if there is none."""
    frame = sys._getframe(1)
    outer, place = _again.get() or (None, ("", 0))
    while frame is not None:
        if frame is outer:
            return place
        module = frame.f_globals.get("__name__", "")
        if not (module == "gnomon" or module.startswith("gnomon.") or module in ("contextlib", "functools")):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]  # None at the outermost frame ends the loop
    return "", 0


def _note_origin(node: Node) -> None:
    inherited = _inherited.get()
    if inherited is not None:
        _origins[node] = inherited
    else:
        _origins[node] = (Origin(_layer.get(), *user_line()),)


def _note_reuse(node: Node) -> None:
    """Remember that the layer now in scope also asked for this node."""
    layer = _layer.get()
    if not layer or _inherited.get() is not None:
        return
    known = _origins.get(node, ())
    if len(known) < _OWNERS and all(o.layer != layer for o in known):
        _origins[node] = (*known, Origin(layer, *user_line()))
