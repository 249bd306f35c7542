"""Symbolic tensors as users see them, and what turns arrays, numbers and variables into nodes.

A `Tensor` stands for a value that is known when a compiled function runs. Functions of `gnomon.ops` are written on
nodes and made public by `op`: given a Tensor or a Variable they return a Tensor; given only arrays and numbers they
compute at once, on NumPy, and return an array.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DataError, GnomonError, GraphError, ShapeError
from gnomon.compiler.graph import Node, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.elementwise import Cast, Elementwise
from gnomon.compiler.ops.leaves import Input, Literal, Parameter, SizeValue
from gnomon.compiler.ops.shape import Reshape
from gnomon.compiler.sizes import Dim, Size, floordiv, maximum, product, symbol, symbols
from gnomon.runtime.buffer import shown

_keys = count(1)


class Array(np.ndarray):
    """A NumPy array that also answers `.numpy()`: what computing at once returns."""

    def numpy(self) -> np.ndarray:
        return np.asarray(self)


def new_input(name: str, dtype: str, shape: Sequence[Dim]) -> Node:
    """A leaf of its own, bound when a function is called."""
    return Input(next(_keys), name, dtype, tuple(shape))()


def new_parameter(name: str, dtype: str, shape: Sequence[Dim]) -> Node:
    return Parameter(next(_keys), name, dtype, tuple(shape))()


def as_dims(shape: Sequence[Any], name: str, batch: bool = False) -> tuple[Dim, ...]:
    """Sizes of a shape as users write it: None becomes a named size, a string names one."""
    dims: list[Dim] = []
    for k, d in enumerate(shape):
        if d is None:
            dims.append(symbol("batch" if batch and k == 0 else f"{name}_{k}"))
        elif isinstance(d, str):
            dims.append(symbol(d))
        elif isinstance(d, Size):
            dims.append(d)
        elif isinstance(d, (int, np.integer)) and not isinstance(d, bool) and d >= 0:
            dims.append(int(d))
        else:
            raise ShapeError(f"a shape holds sizes >= 0, None for an open one, or names; got {d!r} in {tuple(shape)!r}")
    return tuple(dims)


class Tensor:
    """A symbolic array of known dtype and shape. Behaves like a NumPy array in expressions.

    node      the graph node whose value it is
    history   (layer, call number, output number) of the layer call that made it, None outside layers
    """

    __array_priority__ = 1000
    __slots__ = ("node", "history", "name", "mask", "__weakref__")
    mask: Any  # a bool Tensor that says which steps count, set by layers

    def __init__(self, node: Node, name: str = "", history: tuple | None = None):
        self.node, self.history, self.name, self.mask = node, history, name, None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Sizes; None where only a call decides."""
        return tuple(d if isinstance(d, int) else None for d in self.node.shape)

    @property
    def dtype(self) -> str:
        return self.node.dtype

    @property
    def ndim(self) -> int:
        return self.node.rank

    rank = ndim

    def __repr__(self) -> str:
        label = f" {self.name}" if self.name else ""
        return f"<Tensor{label} {self.node.type}>"

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        raise GraphError(
            f"{self!r} is symbolic and has no truth value before a function runs: "
            "use gnomon.ops.where or gnomon.ops.cond"
        )

    def __len__(self) -> int:
        if not self.node.shape or not isinstance(self.node.shape[0], int):
            raise GraphError(f"{self!r} has no length that is known before a function runs")
        return self.node.shape[0]

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def numpy(self) -> np.ndarray:
        """The value now, if it depends on variables and constants only. Raises GraphError otherwise."""
        return evaluate_now(self.node)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        value = self.numpy()
        return value if dtype is None else value.astype(dtype)

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def eval(self, values: dict[Tensor, Any] | None = None) -> np.ndarray:
        """The value when the inputs it depends on have `values`, computed on NumPy."""
        given = {}
        for t, v in (values or {}).items():
            given[t.node] = np.asarray(v, dtypes.named(t.dtype).numpy)
        return evaluate_now(self.node, given)

    def __getitem__(self, key) -> Tensor:
        return Tensor(getitem(node_of(self), key))

    @property
    def T(self) -> Tensor:
        return Tensor(build.transpose(node_of(self), range(self.ndim)[::-1]))

    def astype(self, dtype) -> Tensor:
        return Tensor(build.cast(node_of(self), dtypes.canonical(dtype)))

    def reshape(self, *shape) -> Tensor:
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return Tensor(reshape_to(node_of(self), wanted))

    def flatten(self) -> Tensor:
        return self.reshape(-1)

    def transpose(self, *axes) -> Tensor:
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        return Tensor(build.transpose(node_of(self), [a % self.ndim for a in order] or range(self.ndim)[::-1]))

    dimshuffle = transpose

    def sum(self, axis=None, keepdims=False) -> Tensor:
        return Tensor(build.sum(node_of(self), axis, keepdims))

    def mean(self, axis=None, keepdims=False) -> Tensor:
        return Tensor(build.mean(node_of(self), axis, keepdims))

    def prod(self, axis=None, keepdims=False) -> Tensor:
        return Tensor(build.prod(node_of(self), axis, keepdims))

    def max(self, axis=None, keepdims=False) -> Tensor:
        return Tensor(build.max(node_of(self), axis, keepdims))

    def min(self, axis=None, keepdims=False) -> Tensor:
        return Tensor(build.min(node_of(self), axis, keepdims))

    def dot(self, other) -> Tensor:
        return self @ other

    def __add__(self, other):
        return _binary("add", self, other)

    def __radd__(self, other):
        return _binary("add", other, self)

    def __sub__(self, other):
        return _binary("subtract", self, other)

    def __rsub__(self, other):
        return _binary("subtract", other, self)

    def __mul__(self, other):
        return _binary("multiply", self, other)

    def __rmul__(self, other):
        return _binary("multiply", other, self)

    def __truediv__(self, other):
        return _binary("divide", self, other)

    def __rtruediv__(self, other):
        return _binary("divide", other, self)

    def __floordiv__(self, other):
        return _binary("floor_divide", self, other)

    def __rfloordiv__(self, other):
        return _binary("floor_divide", other, self)

    def __mod__(self, other):
        return _binary("mod", self, other)

    def __rmod__(self, other):
        return _binary("mod", other, self)

    def __pow__(self, other):
        return _binary("power", self, other)

    def __rpow__(self, other):
        return _binary("power", other, self)

    def __matmul__(self, other):
        return _matmul(self, other)

    def __rmatmul__(self, other):
        return _matmul(other, self)

    def __neg__(self):
        return Tensor(build.apply("negative", node_of(self)))

    def __pos__(self):
        return self

    def __abs__(self):
        return Tensor(build.apply("abs", node_of(self)))

    def __invert__(self):
        return Tensor(build.apply("logical_not" if self.dtype == "bool" else "bitwise_not", node_of(self)))

    def __and__(self, other):
        return _binary("logical_and" if self.dtype == "bool" else "bitwise_and", self, other)

    __rand__ = __and__

    def __or__(self, other):
        return _binary("logical_or" if self.dtype == "bool" else "bitwise_or", self, other)

    __ror__ = __or__

    def __xor__(self, other):
        return _binary("logical_xor" if self.dtype == "bool" else "bitwise_xor", self, other)

    __rxor__ = __xor__

    def __eq__(self, other):  # elementwise, as NumPy's
        return _binary("equal", self, other)

    def __ne__(self, other):  # elementwise, as NumPy's
        return _binary("not_equal", self, other)

    def __lt__(self, other):
        return _binary("less", self, other)

    def __le__(self, other):
        return _binary("less_equal", self, other)

    def __gt__(self, other):
        return _binary("greater", self, other)

    def __ge__(self, other):
        return _binary("greater_equal", self, other)


def _binary(name: str, a: Any, b: Any):
    try:
        return Tensor(build.apply(name, operand(a), operand(b)))
    except TypeError as error:
        if isinstance(error, GnomonError):
            raise
        return NotImplemented


def _matmul(a: Any, b: Any) -> Tensor:
    return Tensor(build.matmul(node_of(a), node_of(b)))


def operand(value: Any) -> Any:
    """A node, or the Python number as it is, so that it takes the other side's dtype."""
    if isinstance(value, (bool, int, float)):
        return value
    return node_of(value)


def is_symbolic(value: Any) -> bool:
    """Whether `value` is a Tensor or a Variable."""
    return isinstance(value, Tensor) or hasattr(value, "__gnomon_node__")


def node_of(value: Any, dtype: str | None = None) -> Node:
    """The node of anything tensor-like: Tensor, Variable, array, number, nested list."""
    if isinstance(value, Node):
        node = value
    elif hasattr(value, "__gnomon_node__"):  # before Tensor: a Variable reads as last assigned
        node = value.__gnomon_node__()
    elif isinstance(value, Tensor):
        node = value.node
    elif isinstance(value, Size):
        return build.size(value, dtype or "int32")
    elif isinstance(value, (list, tuple)) and any(is_symbolic(v) for v in value):
        parts = [node_of(v, dtype) for v in value]
        common = dtype or build.promote(*parts)
        node = build.concat([build.reshape(build.cast(p, common), (1, *p.shape)) for p in parts], 0)
    else:
        array = np.asarray(value)
        if array.dtype == object or array.dtype.kind in "USOMm":
            raise DataError(f"cannot make a tensor of {type(value).__name__} {value!r:.80}: numbers are needed")
        if dtype is None and not isinstance(value, (np.ndarray, np.generic)):
            return build.constant(value)  # Python's floats and integers: float32 and int32
        return build.constant(array, dtype or dtypes.canonical(array.dtype))
    return node if dtype is None else build.cast(node, dtype)


def op(fn: Callable) -> Callable:
    """Make a function of nodes public: Tensors in give Tensors out; arrays alone are computed at once.

    Tensor-like arguments, also inside lists, tuples and dictionaries, arrive as nodes; Python numbers, strings and
    None arrive as they are. Nodes in what it returns (nested too) are wrapped.
    """

    @functools.wraps(fn)
    def public(*args, **kwargs):
        found: list[Any] = []
        _visit((args, kwargs), found.append)
        symbolic = any(is_symbolic(v) for v in found)
        values: dict[Node, np.ndarray] = {}

        def lower(v):
            if isinstance(v, np.ndarray) and not symbolic:
                leaf = new_input("array", dtypes.canonical(v.dtype), v.shape)
                values[leaf] = np.asarray(v)
                return leaf
            return node_of(v)

        args, kwargs = _map((args, kwargs), lower)
        result = fn(*args, **kwargs)
        if symbolic:
            return _wrap(result, Tensor)
        nodes: list[Node] = []
        _wrap(result, nodes.append)
        arrays = iter(evaluate_graph(nodes, values, {}))
        return _wrap(result, lambda node: np.array(shown(node.dtype, next(arrays))).view(Array))

    return public


def _is_tensor_like(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic, Node)) or is_symbolic(value)


def _visit(value: Any, found: Callable[[Any], Any]) -> None:
    if _is_tensor_like(value):
        found(value)
    elif isinstance(value, (list, tuple)):
        for v in value:
            _visit(v, found)
    elif isinstance(value, dict):
        for v in value.values():
            _visit(v, found)


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    if _is_tensor_like(value):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_map(v, change) for v in value)
    if type(value) is dict:
        return {k: _map(v, change) for k, v in value.items()}
    return value


def _wrap(value: Any, wrap: Callable[[Node], Any]) -> Any:
    if isinstance(value, Node):
        return wrap(value)
    if type(value) in (list, tuple):
        return type(value)(_wrap(v, wrap) for v in value)
    if type(value) is dict:
        return {k: _wrap(v, wrap) for k, v in value.items()}
    return value


def evaluate_now(node: Node, given: dict[Node, np.ndarray] | None = None) -> np.ndarray:
    """The value of a node that depends on `given`, variables and constants only."""
    from gnomon.variable import variable_of

    values = dict(given or {})
    for leaf in walk([node], stop=lambda n: n in values):
        if isinstance(leaf.op, Parameter):
            values[leaf] = variable_of(leaf).numpy()
        elif isinstance(leaf.op, Input) and leaf not in values:
            raise GraphError(
                f"{node.type} depends on the input {leaf.op.name!r}, whose value is known only when a function runs: "
                "compile it with gnomon.function, or pass values to eval"
            )
    return shown(node.dtype, evaluate_graph([node], values)[0])


# ---- shapes and indices as users write them


def reshape_to(x: Node, shape: Sequence[Any]) -> Node:
    """NumPy's reshape: one size may be -1, and a symbolic one None."""
    dims: list[Any] = [d if isinstance(d, Size) else -1 if d is None else int(d) for d in shape]
    if sum(isinstance(d, int) and d == -1 for d in dims) > 1:
        raise ShapeError(f"cannot reshape {x.type} to {tuple(shape)}: only one size can be open (-1)")
    open_at = [k for k, d in enumerate(dims) if isinstance(d, int) and d == -1]
    if open_at:
        rest = product(d for k, d in enumerate(dims) if k != open_at[0])
        total = product(x.shape)
        whole = floordiv(total, rest) if rest != 0 else 0
        if whole * rest != total:
            raise ShapeError(
                f"cannot reshape {x.type} to {tuple(shape)}: {total} elements are not a multiple of {rest}"
            )
        dims[open_at[0]] = whole
    return build.reshape(x, dims)


def getitem(x: Node, key: Any) -> Node:
    """NumPy's indexing: integers, slices, None, Ellipsis, one integer or bool-free index array per axis."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if sum(k is Ellipsis for k in keys) > 1:
        raise ShapeError(f"only one ellipsis can be in an index, got {key!r}")
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if used > x.rank:
        raise ShapeError(f"{x.type} has {x.rank} axes, too few for the index {key!r}")
    fill = [slice(None)] * (x.rank - used)
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    keys = [*keys[:at], *fill, *keys[at + (at < len(keys)) :]]
    axis = 0
    for i, k in enumerate(keys):
        if isinstance(k, slice) and any(is_symbolic(v) or isinstance(v, Node) for v in (k.start, k.stop)):
            x, keys[i] = _moving_slice(x, axis, k)
        axis += k is not None
    start: list[Dim] = []
    size: list[Dim] = []
    step: list[int] = []
    shape: list[Any] = []  # of the result; None marks a dropped axis, a node an axis to gather along
    axis = 0
    for k in keys:
        if k is None:
            shape.append(("new", 1))
            continue
        extent = x.shape[axis]
        if isinstance(k, slice):
            a, n, s = _slice(k, extent)
            part = (a, n, s)
            shape.append(("keep", n))
        elif isinstance(k, (int, np.integer)) and not isinstance(k, bool):
            if isinstance(extent, int) and not -extent <= k < extent:
                raise ShapeError(f"index {k} is out of range for axis {axis} of {x.type}")
            part = (int(k) if k >= 0 else extent + int(k), 1, 1)
            shape.append(("drop", 1))
        else:
            node = node_of(k)
            if not dtypes.is_integer(node.dtype):
                raise ShapeError(
                    f"an index must be integers or slices, got {node.type}; for a bool mask use gnomon.ops.where"
                )
            part = (0, extent, 1)
            shape.append(("gather", node))
        start.append(part[0])
        size.append(part[1])
        step.append(part[2])
        axis += 1
    x = build.slice(x, start, size, step)
    gathers = [(i, n) for i, (kind, n) in enumerate(shape) if kind == "gather"]
    if len(gathers) > 1:
        return _gather_together(x, shape)
    x = build.reshape(
        x, [n if kind != "gather" else n_of(x, shape, i) for i, (kind, n) in enumerate(shape) if kind != "drop"]
    )
    for i, node in gathers:
        at = sum(kind != "drop" for kind, _ in shape[:i])
        x = build.gather(x, _wrapped(node, x.shape[at]), at)
    return x


def _moving_slice(x: Node, axis: int, k: slice) -> tuple[Node, slice]:
    """x cut along an axis by a slice with tensors as bounds, and what is left of the slice: nothing, if they are sizes.

    Raises ShapeError unless the length is known without running: `data[i * 20 : (i + 1) * 20]` has 20 rows.
    """
    extent = x.shape[axis]
    first = polynomial(0 if k.start is None else k.start)
    last = polynomial(extent if k.stop is None else k.stop)
    if not unknown(first) and not unknown(last):
        return x, slice(first, last, k.step)
    step = 1 if k.step is None else int(k.step)
    size = build.strided_size(extent, first, last, step)
    if unknown(size):
        raise ShapeError(
            f"how long a slice is must be known before the function runs: of axis {axis} of {x.type} it is {size}, "
            "where each %number is an integer that is computed; use a mask with gnomon.ops.where, or fixed lengths"
        )
    begin = build.cast(build.reshape(node_of(0 if k.start is None else k.start), ()), "int64")
    place = build.add(build.multiply(build.iota((size,), 0, "int64"), step), begin)
    return build.gather(x, place, axis), slice(None)


def polynomial(value: Any) -> Dim:
    """An integer, size or scalar integer tensor as a polynomial of sizes, with symbols such as %7 for computed ones."""
    if isinstance(value, (int, np.integer, Size)):
        return value if isinstance(value, Size) else int(value)
    node = node_of(value)
    if product(node.shape) != 1 or not dtypes.is_integer(node.dtype):
        raise ShapeError(f"a bound or size is one integer, got {node.type}")
    match node.op:
        case SizeValue(size=size):
            return size
        case Literal():
            return int(node.op.value)
        case Cast() | Reshape() if dtypes.is_integer(node.inputs[0].dtype):
            return polynomial(node.inputs[0])
        case Elementwise(name=name) if name in ARITHMETIC:
            return ARITHMETIC[name](*map(polynomial, node.inputs))
    return symbol(f"%{node.serial}")


ARITHMETIC: dict[str, Callable[..., Dim]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "negative": lambda a: -a,
    "floor_divide": floordiv,
    "maximum": maximum,
}


def unknown(d: Dim) -> bool:
    """Whether a polynomial has computed integers in it."""
    return any(s.startswith("%") for s in symbols(d))


def n_of(x: Node, shape: list, i: int) -> Dim:
    """The extent of the axis of x that entry i of an index stands for."""
    return x.shape[sum(kind != "new" for kind, _ in shape[:i])]


def _wrapped(index: Node, extent: Dim) -> Node:
    """Negative indices count from the end."""
    if index.dtype.startswith("u"):
        return index
    wide = build.cast(index, "int64") if index.dtype in ("int8", "int16") else index
    return build.apply(
        "where", build.apply("less", wide, 0), build.apply("add", wide, build.size(extent, wide.dtype)), wide
    )


def _gather_together(x: Node, shape: list) -> Node:
    """Several index arrays: broadcast together, they pick single elements of their axes (which must be neighbours)."""
    if any(kind == "new" for kind, _ in shape):
        raise ShapeError("index arrays and None cannot be mixed in one index: use expand_dims")
    places = [i for i, (kind, _) in enumerate(shape) if kind == "gather"]
    if places != list(range(places[0], places[-1] + 1)):
        raise ShapeError("several index arrays must stand side by side in an index")
    first, last = places[0], places[-1] + 1
    linear: Any = 0
    for i in places:
        index = build.cast(_wrapped(shape[i][1], x.shape[i]), "int64")
        linear = (
            build.apply("add", build.apply("multiply", linear, build.size(x.shape[i], "int64")), index)
            if i > first
            else index
        )
    merged = build.reshape(x, (*x.shape[:first], product(x.shape[first:last]), *x.shape[last:]))
    result = build.gather(merged, linear, first)
    kept = [d for (kind, _), d in zip(shape[:first], result.shape[:first], strict=True) if kind != "drop"]
    after = len(result.shape) - (len(x.shape) - last)
    kept += list(result.shape[first:after])
    kept += [d for (kind, _), d in zip(shape[last:], result.shape[after:], strict=True) if kind != "drop"]
    return build.reshape(result, kept)


def _slice(k: slice, extent: Dim) -> tuple[Dim, Dim, int]:
    step = 1 if k.step is None else int(k.step)
    if step == 0:
        raise ShapeError("a slice's step cannot be 0")
    if isinstance(extent, int) and not any(isinstance(v, Size) for v in (k.start, k.stop)):
        first, stop, by = k.indices(extent)
        n = max(0, -(-(stop - first) // by) if by > 0 else -((stop - first) // -by))
        return (first if n else 0), n, by

    def place(v: Any, default: Dim) -> Dim:
        if v is None:
            return default
        return extent + v if isinstance(v, int) and v < 0 else v

    if step > 0:
        a, b = place(k.start, 0), place(k.stop, extent)
        return a, build.strided_size(extent, a, b, step), step
    a, b = place(k.start, extent - 1), place(k.stop, -1)
    return a, build.strided_size(extent, a, b, step), step
