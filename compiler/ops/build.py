"""Making graphs: functions of nodes and Python numbers that broadcast, promote dtypes and check.

One function for each scalar function (`build.exp(x)`, `build.add(x, 1)`, see `ops/scalar.py`), and those below.
A Python number takes the dtype of the node beside it, but for a float beside integers, which gives float32.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DTypeError, ShapeError
from gnomon.compiler.graph import Node, Shape
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.elementwise import Cast, Elementwise, StopGradient
from gnomon.compiler.ops.index import Gather, GatherAlong, ScatterAdd, ScatterAlong
from gnomon.compiler.ops.leaves import Array, Iota, Literal, SizeValue
from gnomon.compiler.ops.patches import FirstMax, Patches, Unpatch
from gnomon.compiler.ops.random import RandomBits
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.ops.scalar import SCALAR
from gnomon.compiler.ops.shape import (
    Broadcast,
    Concat,
    Equate,
    Pad,
    Reshape,
    Slice,
    Transpose,
    strided_size,
    surely_differ,
)
from gnomon.compiler.sizes import Dim, product

Value = Node | int | float | bool | np.ndarray | np.generic

FLOATING = frozenset(
    "sqrt rsqrt reciprocal exp exp2 expm1 log log1p log2 log10 sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh "
    "arccosh arctanh sigmoid softplus log_sigmoid erf erfc erfinv lgamma digamma trigamma divide arctan2 hypot".split()
)  # of integers they give float32
BOOLEAN = frozenset("logical_and logical_or logical_xor logical_not".split())


# ---- numbers and constants


def constant(value: Any, dtype: str | None = None) -> Node:
    """A number or array as a node; Python floats are float32, integers int32."""
    if isinstance(value, Node):
        return value if dtype is None else cast(value, dtype)
    if dtype is None:
        dtype = _own_dtype(value)
    array = np.asarray(value)
    if array.ndim == 0:
        return Literal.of(dtype, array[()])()
    flat = np.ascontiguousarray(dtypes.rounded(dtype, array))
    if flat.size > 1 and (flat == flat.ravel()[0]).all():
        return full(flat.shape, flat.ravel()[0], dtype)
    return Array(dtype, flat.shape, dtypes.encoded(dtype, flat).tobytes())()


def _own_dtype(value: Any) -> str:
    if isinstance(value, (np.ndarray, np.generic)):
        return dtypes.canonical(value.dtype)
    kind = np.asarray(value).dtype.kind
    try:
        return {"b": "bool", "i": "int32", "u": "uint32", "f": "float32"}[kind]
    except KeyError:
        raise DTypeError(f"cannot make a tensor of {value!r}") from None


def full(shape: Sequence[Dim], value: Any, dtype: str = "float32") -> Node:
    """`value` everywhere."""
    return broadcast(constant(value, dtype), tuple(shape), ())


def full_like(x: Node, value: Any) -> Node:
    return full(x.shape, value, x.dtype)


def iota(shape: Sequence[Dim], axis: int = 0, dtype: str = "int32") -> Node:
    """0, 1, 2 … along `axis`."""
    return Iota(dtype, tuple(shape), axis)()


def size(d: Dim, dtype: str = "float32") -> Node:
    """A size as a number."""
    return constant(d, dtype) if isinstance(d, int) else SizeValue(dtype, d)()


# ---- dtypes and broadcasting


def promote(*values: Any) -> str:
    """The dtype that nodes and Python numbers meet in.

    NumPy's float64 scalars are Python floats (by inheritance too): `x / np.sqrt(64)` stays what x is.
    """
    typed = lambda v: isinstance(v, (np.ndarray, np.generic)) and not isinstance(v, float)
    strong = [v.dtype for v in values if isinstance(v, Node)]
    strong += [dtypes.canonical(v.dtype) for v in values if typed(v)]
    weak = [v for v in values if not isinstance(v, Node) and not typed(v)]
    if not strong:
        return dtypes.promote(*(_own_dtype(v) for v in weak))
    dtype = dtypes.promote(*strong)
    for v in weak:
        kind = np.asarray(v).dtype.kind
        if kind == "f" and not dtypes.is_float(dtype):
            dtype = "float32"
        elif kind in "iu" and dtype == "bool":
            dtype = "int32"
    return dtype


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's rule: align at the right; an axis of 1 repeats. Raises ShapeError naming the shapes."""
    rank = builtins.max(map(len, shapes), default=0)
    result: list[Dim] = []
    for k in range(rank):
        extent: Dim = 1
        for shape in shapes:
            at = k - rank + len(shape)
            d = shape[at] if at >= 0 else 1
            if d == 1 or d == extent:
                continue
            if extent != 1 and not surely_differ(d, extent):
                extent = d if isinstance(d, int) else extent  # taken to be equal: `broadcast_to` has it checked
                continue
            if extent != 1:
                shown = " and ".join(f"[{', '.join(map(str, s))}]" for s in shapes)
                raise ShapeError(
                    f"shapes {shown} cannot be broadcast together: axis {k - rank} has {extent} and {d} elements"
                )
            extent = d
        result.append(extent)
    return tuple(result)


def broadcast_to(x: Node, shape: Shape) -> Node:
    """NumPy's broadcast_to."""
    if x.shape == tuple(shape):
        return x
    offset = len(shape) - x.rank
    if offset >= 0:
        x = equate(x, [d if d == 1 else shape[offset + k] for k, d in enumerate(x.shape)])
    if offset < 0 or builtins.any(d not in (1, shape[offset + k]) for k, d in enumerate(x.shape)):
        raise ShapeError(f"cannot broadcast {x.type} to [{', '.join(map(str, shape))}]")
    kept = [k for k, d in enumerate(x.shape) if d == shape[offset + k]]
    squeezed = reshape(x, [x.shape[k] for k in kept])
    return broadcast(squeezed, shape, [offset + k for k in kept])


def broadcast(x: Node, shape: Sequence[Dim], axes: Sequence[int]) -> Node:
    """Axis i of x becomes axis `axes[i]`; the others repeat it."""
    shape, axes = tuple(shape), tuple(axes)
    if x.shape == shape and axes == tuple(range(len(shape))):
        return x
    return Broadcast(shape, axes)(x)


def repeat_first(x: Node, size: Dim) -> Node:
    """x repeated `size` times along a new first axis."""
    return Broadcast((size, *x.shape), tuple(range(1, x.rank + 1)))(x)


def equate(x: Node, shape: Sequence[Dim]) -> Node:
    """x with the sizes of `shape` for those that cannot be shown to be the same: checked at each call."""
    shape = tuple(shape)
    if x.shape == shape or builtins.any(surely_differ(a, b) for a, b in zip(x.shape, shape, strict=True)):
        return x
    return Equate(shape)(x)


def cast(x: Any, dtype: str) -> Node:
    if not isinstance(x, Node):
        return constant(x, dtype)
    return x if x.dtype == dtype else Cast(dtype)(x)


def apply(name: str, *values: Any) -> Node:
    """A scalar function of the elements of `values`, broadcast and promoted."""
    fn = SCALAR[name]
    if len(values) != fn.arity:
        raise ShapeError(f"{name} takes {fn.arity} arguments, got {len(values)}")
    if _are_alike(values) and name not in BOOLEAN and name != "where":
        if name not in FLOATING or dtypes.is_float(values[0].dtype):
            return Elementwise(name)(*values)  # nothing to convert or repeat: so it is with most
    operands = values[1:] if name == "where" else values
    dtype = promote(*operands)
    if name in FLOATING and not dtypes.is_float(dtype):
        dtype = "float32"
    if name in BOOLEAN:
        nodes = [_truth(v) for v in values]
    elif name == "where":
        nodes = [_truth(values[0]), *(cast(_node(v, dtype), dtype) for v in operands)]
    else:
        nodes = [cast(_node(v, dtype), dtype) for v in values]
    shape = broadcast_shapes(*(n.shape for n in nodes))
    return Elementwise(name)(*(broadcast_to(n, shape) for n in nodes))


def _are_alike(values: Sequence[Any]) -> bool:
    """Whether all are nodes of one type."""
    first = values[0]
    return isinstance(first, Node) and builtins.all(isinstance(v, Node) and v.type == first.type for v in values)


def _node(value: Any, dtype: str) -> Node:
    if isinstance(value, Node):
        return value
    return constant(value, dtypes.canonical(value.dtype) if isinstance(value, np.ndarray) else dtype)


def _truth(value: Any) -> Node:
    node = value if isinstance(value, Node) else constant(value)
    return node if node.dtype == "bool" else apply("not_equal", node, 0)


def __getattr__(name: str):
    if name in SCALAR:
        return partial(apply, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# ---- moving elements


def reshape(x: Node, shape: Sequence[Dim]) -> Node:
    shape = tuple(shape)
    return x if x.shape == shape else Reshape(shape)(x)


def transpose(x: Node, axes: Sequence[int]) -> Node:
    axes = tuple(axes)
    return x if axes == tuple(range(x.rank)) else Transpose(axes)(x)


def slice(x: Node, start: Sequence[Dim], size: Sequence[Dim], step: Sequence[int] | None = None) -> Node:
    step = tuple(step) if step is not None else (1,) * x.rank
    if tuple(size) == x.shape and builtins.all(s == 0 for s in start) and builtins.all(s == 1 for s in step):
        return x
    return Slice(tuple(start), tuple(size), step)(x)


def flip(x: Node, axes: Sequence[int]) -> Node:
    if not axes:
        return x
    start = [d - 1 if k in axes else 0 for k, d in enumerate(x.shape)]
    return Slice(tuple(start), x.shape, tuple(-1 if k in axes else 1 for k in range(x.rank)))(x)


def pad(
    x: Node, low: Sequence[Dim], high: Sequence[Dim], interior: Sequence[int] | None = None, value: Any = 0
) -> Node:
    interior = tuple(interior) if interior is not None else (0,) * x.rank
    if builtins.all(v == 0 for v in (*low, *high, *interior)):
        return x
    return Pad(tuple(low), tuple(high), interior)(x, constant(value, x.dtype))


def concat(parts: Sequence[Node], axis: int) -> Node:
    first = parts[0].shape
    if builtins.all(p.rank == len(first) for p in parts):
        parts = [equate(p, [d if k == axis else first[k] for k, d in enumerate(p.shape)]) for p in parts]
    return parts[0] if len(parts) == 1 else Concat(axis)(*parts)


# ---- reductions


def reduce(kind: str, x: Node, axes: Sequence[int]) -> Node:
    axes = tuple(sorted(axes))
    return Reduce(kind, axes)(x) if axes else x


def _axes(x: Node, axis: int | Sequence[int] | None) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.rank))
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    for a in axes:
        if not -x.rank <= a < x.rank:
            raise ShapeError(f"axis {a} is out of range for {x.type}, which has {x.rank} axes")
    return tuple(sorted({a % x.rank for a in axes}))


def _reduction(kind: str, x: Node, axis: int | Sequence[int] | None, keepdims: bool) -> Node:
    axes = _axes(x, axis)
    result = reduce(kind, x, axes)
    if keepdims:
        result = reshape(result, [1 if k in axes else d for k, d in enumerate(x.shape)])
    return result


def sum(x: Node, axis=None, keepdims: bool = False) -> Node:
    """Sum; bools are counted as int32."""
    return _reduction("sum", cast(x, "int32") if x.dtype == "bool" else x, axis, keepdims)


def prod(x: Node, axis=None, keepdims: bool = False) -> Node:
    return _reduction("prod", cast(x, "int32") if x.dtype == "bool" else x, axis, keepdims)


def max(x: Node, axis=None, keepdims: bool = False) -> Node:
    if x.dtype == "bool":
        return any(x, axis, keepdims)
    return _reduction("max", x, axis, keepdims)


def min(x: Node, axis=None, keepdims: bool = False) -> Node:
    if x.dtype == "bool":
        return all(x, axis, keepdims)
    return _reduction("min", x, axis, keepdims)


def any(x: Node, axis=None, keepdims: bool = False) -> Node:
    return _reduction("any", _truth(x), axis, keepdims)


def all(x: Node, axis=None, keepdims: bool = False) -> Node:
    return _reduction("all", _truth(x), axis, keepdims)


def count(x: Node, axis=None, dtype: str = "float32") -> Node:
    """How many elements `axis` has, as a number."""
    return size(product(x.shape[a] for a in _axes(x, axis)), dtype)


def mean(x: Node, axis=None, keepdims: bool = False) -> Node:
    """Mean; integers give float32."""
    if not dtypes.is_float(x.dtype):
        x = cast(x, "float32")
    return apply("divide", sum(x, axis, keepdims), count(x, axis, x.dtype))


def argmax(x: Node, axis: int, kind: str = "max") -> Node:
    """Position of the first largest (`kind` "min": smallest) element along `axis`, int32; NaN counts as largest."""
    (axis,) = _axes(x, axis)
    best = _reduction(kind, x, axis, True)
    hit = apply("equal", x, best)
    if dtypes.is_float(x.dtype):
        hit = apply("logical_or", hit, apply("isnan", x))
    place = apply("where", hit, iota(x.shape, axis), (1 << 31) - 1)
    return reduce("min", place, [axis])


# ---- products


def contract(x: Node, w: Node, x_axes: Sequence[int], w_axes: Sequence[int], out: Sequence[int]) -> Node:
    dtype = promote(x, w)
    return Contract(tuple(x_axes), tuple(w_axes), tuple(out))(cast(x, dtype), cast(w, dtype))


def matmul(x: Node, w: Node) -> Node:
    """NumPy's matmul: rows by columns, leading axes broadcast; a vector's missing axis is added and dropped."""
    if x.rank == 0 or w.rank == 0:
        raise ShapeError(f"matmul needs at least one axis on both sides, got {x.type} and {w.type}")
    inner = (x.shape[-1], w.shape[0] if w.rank == 1 else w.shape[-2])
    if inner[0] != inner[1] and not surely_differ(*inner):
        w = equate(w, inner[:1]) if w.rank == 1 else equate(w, (*w.shape[:-2], inner[0], w.shape[-1]))
    elif inner[0] != inner[1]:
        raise ShapeError(
            f"cannot multiply {x.type} and {w.type}: the last axis of the first has {inner[0]} elements, "
            f"the {'only' if w.rank == 1 else 'next to last'} axis of the second {inner[1]}"
        )
    if w.rank <= 2:
        axes = tuple(range(x.rank))
        k = x.rank - 1
        if w.rank == 1:
            return contract(x, w, axes, (k,), axes[:-1])
        return contract(x, w, axes, (k, k + 1), (*axes[:-1], k + 1))
    if x.rank == 1:
        rank = w.rank
        return contract(x, w, (rank - 2,), tuple(range(rank)), (*range(rank - 2), rank - 1))
    lead = broadcast_shapes(x.shape[:-2], w.shape[:-2])
    x = broadcast_to(x, (*lead, *x.shape[-2:]))
    w = broadcast_to(w, (*lead, *w.shape[-2:]))
    b = len(lead)
    batch = tuple(range(b))
    return contract(x, w, (*batch, b, b + 1), (*batch, b + 1, b + 2), (*batch, b, b + 2))


# ---- positions, bits, gradients


def gather(x: Node, indices: Node, axis: int = 0) -> Node:
    return Gather(axis)(x, indices)


def scatter_add(indices: Node, updates: Node, size: Dim, axis: int = 0) -> Node:
    return ScatterAdd(axis, size)(indices, updates)


def gather_along(x: Node, indices: Node, axis: int) -> Node:
    return GatherAlong(axis)(x, indices)


def scatter_along(indices: Node, updates: Node, size: Dim, axis: int) -> Node:
    return ScatterAlong(axis, size)(indices, updates)


def patches(
    x: Node, axis: int, windows: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int] | None = None
) -> Node:
    """All windows that fit into the axes of x from `axis` on: [lead, places, windows, rest]."""
    dilations = (1,) * len(windows) if dilations is None else tuple(dilations)
    return Patches(axis, tuple(windows), tuple(strides), dilations)(x)


def unpatch(
    x: Node, axis: int, sizes: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int] | None = None
) -> Node:
    """Windows [lead, places, windows, rest] laid over axes of `sizes` elements and added where they overlap."""
    dilations = (1,) * len(sizes) if dilations is None else tuple(dilations)
    return Unpatch(axis, tuple(sizes), tuple(strides), dilations)(x)


def first_max(x: Node, axes: Sequence[int]) -> Node:
    """The maximum over `axes`; of equal ones the first has the gradient."""
    return FirstMax(tuple(sorted(axes)))(x) if axes else x


def random_bits(state: Node, shape: Sequence[Dim]) -> Node:
    return RandomBits(tuple(shape))(state)


def stop_gradient(x: Node) -> Node:
    return StopGradient()(x)


__all__ = [
    "Value", "all", "any", "apply", "argmax", "broadcast", "broadcast_shapes", "broadcast_to", "cast", "concat",
    "constant", "contract", "count", "equate", "first_max", "flip", "full", "full_like", "gather", "gather_along",
    "iota", "matmul", "max", "mean", "min", "pad", "patches", "prod", "product", "promote", "random_bits", "reduce",
    "repeat_first", "reshape", "scatter_add", "scatter_along", "size", "slice", "stop_gradient", "strided_size", "sum",
    "transpose", "unpatch",
]  # fmt: skip
