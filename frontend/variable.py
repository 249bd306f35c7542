"""State that outlives a call: weights, optimizer slots, metric totals, random streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import GraphError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Parameter
from gnomon.compiler.ops.rows import WriteRows
from gnomon.runtime.buffer import Buffer, shown
from gnomon.surroundings import autocast
from gnomon.tensor import Tensor, new_parameter, node_of

_variables: WeakValueDictionary[Node, Variable]
_updates: ContextVar[dict[Variable, Node] | None] = ContextVar("updates", default=None)


class Variable(Tensor):
    """An array that compiled functions read and update in place.

    initializer   an array or number, or a function `(shape, dtype) -> array`
    shape, dtype  needed with a function; else those of the array (floats become float32 unless dtype says otherwise)
    trainable     whether optimizers change it
    constraint, regularizer   functions of the value, used by optimizers and models
    default_update   the node of its next value, used by every function that reads it and does not update it (Theano)
    """

    __slots__ = ("trainable", "constraint", "regularizer", "buffer", "path", "autocast", "aggregation",
                 "default_update",
                 "initializer")  # fmt: skip

    def __init__(
        self,
        initializer: Any,
        shape: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        name: str | None = None,
        constraint: Any = None,
        regularizer: Any = None,
        autocast: bool = True,
        aggregation: str = "none",
    ):
        if callable(initializer) and not isinstance(initializer, Tensor):
            if shape is None:
                raise ShapeError("a Variable made by an initializer function needs a shape")
            dtype = dtypes.canonical(dtype or "float32")
            zero = getattr(type(initializer).__call__, "gives_zeros", False)
            value = _zeros(tuple(shape), dtype) if zero else np.asarray(initializer(tuple(shape), dtype=dtype))
        else:
            zero = False
            value = np.asarray(initializer)
            if dtype is None:
                known = isinstance(initializer, (np.ndarray, np.generic, Tensor)) and value.dtype != np.float64
                dtype = value.dtype if known else build.promote(value.ravel()[0].item() if value.size else 0.0)
            dtype = dtypes.canonical(dtype)
            if shape is not None and tuple(shape) != value.shape:
                value = np.broadcast_to(value, tuple(shape))
        super().__init__(new_parameter(name or "variable", dtype, value.shape), name or "variable")
        self.trainable, self.constraint, self.regularizer = trainable, constraint, regularizer
        self.autocast, self.aggregation, self.path = autocast, aggregation, self.name
        self.default_update: Node | None = None
        self.initializer = initializer if callable(initializer) else None
        self.buffer = Buffer(value.shape, dtype)  # zeroed by the system, which gives its pages when they are first used
        if not zero:
            self.buffer.set(dtypes.rounded(dtype, value))
        _variables[self.node] = self

    def __gnomon_node__(self) -> Node:
        """The value that an expression written now reads: what was assigned in this scope, else the state itself.

        Inside a layer that computes in another dtype it is cast to that (mixed precision).
        """
        scope, wanted = _updates.get(), autocast()
        node = self.node if scope is None else scope.get(self, self.node)
        if wanted is None or not self.autocast or not dtypes.is_float(node.dtype):
            return node
        return build.cast(node, wanted)

    @property
    def value(self) -> Tensor:
        return Tensor(self.__gnomon_node__(), self.name)

    def numpy(self) -> np.ndarray:
        """A copy of the present value."""
        return self.buffer.numpy()

    def get_value(self, borrow: bool = False) -> np.ndarray:
        """The present value: a copy, or with `borrow` the memory itself (Theano). Without ml_dtypes the memory of a
        bfloat16 variable cannot be seen from NumPy, and it is a copy all the same."""
        return shown(self.dtype, self.buffer.lend()) if borrow else self.buffer.numpy()

    def set_value(self, value: Any, borrow: bool = False) -> None:
        """Replace the value. Raises ShapeError for another shape."""
        array = np.asarray(value)
        if array.shape != self.buffer.shape:
            raise ShapeError(
                f"variable {self.path!r} has the shape {self.buffer.shape}, got a value of shape {array.shape}"
            )
        self.buffer.set(dtypes.rounded(self.dtype, array))

    def assign(self, value: Any) -> Any:
        """Give a new value: at once for arrays; while a model is traced, as an update of the program."""
        scope = _updates.get()
        if scope is None:
            if isinstance(value, Tensor) and not isinstance(value, Variable):
                value = value.numpy()
            self.set_value(np.asarray(value))
            return self
        node, shape = build.cast(node_of(value), self.dtype), scope.get(self, self.node).shape
        if node.shape != shape:
            node = build.broadcast_to(node, shape)
        scope[self] = node
        return Tensor(node)

    def assign_add(self, value: Any) -> Any:
        return self.assign(self.value + value if _updates.get() is not None else self.numpy() + np.asarray(value))

    def assign_sub(self, value: Any) -> Any:
        return self.assign(self.value - value if _updates.get() is not None else self.numpy() - np.asarray(value))

    def __repr__(self) -> str:
        return f"<Variable {self.path} {self.node.type}>"


def _zeros(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Zeros that take no memory."""
    return np.broadcast_to(np.zeros((), dtypes.named(dtype).numpy), shape)


_variables = WeakValueDictionary()


def variable_of(leaf: Node) -> Variable:
    """The Variable whose state a parameter leaf is. Raises GraphError if it is gone."""
    found = _variables.get(leaf)
    if found is None:
        name = leaf.op.name if isinstance(leaf.op, Parameter) else repr(leaf)
        raise GraphError(f"the variable {name!r} that the graph reads does not exist any more")
    return found


@contextmanager
def collecting_updates() -> Iterator[dict[Variable, Node]]:
    """Inside, `assign` records updates instead of changing values, and variables read as last assigned."""
    updates: dict[Variable, Node] = {}
    token = _updates.set(updates)
    try:
        yield updates
    finally:
        _updates.reset(token)


@contextmanager
def updates_where(condition: Any) -> Iterator[None]:
    """Inside `collecting_updates`: what is assigned within counts where the scalar `condition` is true."""
    outer = _updates.get()
    assert outer is not None, "updates_where is for traced programs"
    inner = outer.copy()
    token = _updates.set(inner)
    try:
        yield
    finally:
        _updates.reset(token)
    for variable, node in inner.items():
        before = outer.get(variable, variable.node)
        if node is before:
            continue
        if isinstance(node.op, WriteRows) and node.inputs[0] is before:  # no row, rather than the whole table again
            _, indices, rows = node.inputs
            none = build.full_like(indices, -1)
            outer[variable] = WriteRows()(before, build.apply("where", node_of(condition), indices, none), rows)
        else:
            outer[variable] = build.apply("where", node_of(condition), node, before)


@contextmanager
def rows_alone(indices: Mapping[Variable, Node]) -> Iterator[None]:
    """Inside `collecting_updates`: some variables are seen as some of their rows, and assigned as these.

    indices   int[n] for each of the variables: the rows, of which those below 0 are left out; no others may be equal
    """
    outer = _updates.get()
    assert outer is not None, "rows_alone is for traced programs"
    tables = {variable: outer.get(variable, variable.node) for variable in indices}
    inner = {**outer, **{v: build.gather(tables[v], at, 0) for v, at in indices.items()}}
    seen = {v: inner[v] for v in indices}
    token = _updates.set(inner)
    try:
        yield
    finally:
        _updates.reset(token)
    for variable, node in inner.items():
        if variable not in tables:
            outer[variable] = node
        elif node is not seen[variable]:
            outer[variable] = WriteRows()(tables[variable], indices[variable], node)


def is_tracing() -> bool:
    return _updates.get() is not None


def shared(value: Any, name: str | None = None, **options: Any) -> Variable:
    """Theano's name for a Variable; float64 stays float64."""
    return Variable(value, dtype=np.asarray(value).dtype, name=name, **options)
