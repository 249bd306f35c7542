"""What users write as sizes, shapes, axes and dtypes, as the graph has them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node, Shape
from gnomon.compiler.ops import build
from gnomon.compiler.sizes import Dim, Size
from gnomon.tensor import is_symbolic, node_of, polynomial, unknown


def as_size(value: Any) -> Dim:
    """A size from an int, a Size, or a scalar tensor computed from sizes (`ops.shape(x)[0] * 2`).

    Raises ShapeError for a tensor whose value is known only when the function runs.
    """
    if isinstance(value, Size):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iu":
        return int(value)
    if isinstance(value, Node) or is_symbolic(value):
        found = polynomial(value)
        if not unknown(found):
            return found
        raise ShapeError(
            f"a size must be known from shapes before the function runs, got the computed value {node_of(value).type}: "
            "use a number, or sizes from gnomon.ops.shape"
        )
    raise ShapeError(f"a size must be an integer, got {value!r}")


def as_shape(shape: Any) -> Shape:
    """A shape from one size or a sequence of sizes."""
    if isinstance(shape, np.ndarray):
        shape = shape.tolist()
    if not isinstance(shape, (list, tuple)):
        shape = (shape,)
    return tuple(as_size(d) for d in shape)


def as_axis(x: Node, axis: Any, extra: int = 0) -> int:
    """An axis counted from the front, of `extra` more axes than x has. Raises ShapeError if it is out of range."""
    rank = x.rank + extra
    if isinstance(axis, (int, np.integer)) and -rank <= axis < rank:
        return int(axis) % rank
    raise ShapeError(f"axis {axis!r} is out of range for {x.type}, which has {rank} axes")


def as_axes(x: Node, axis: Any) -> tuple[int, ...]:
    """Axes counted from the front; None means all."""
    if axis is None:
        return tuple(range(x.rank))
    given = axis if isinstance(axis, (list, tuple)) else (axis,)
    return tuple(as_axis(x, a) for a in given)


def as_dtype(dtype: Any, default: str) -> str:
    return default if dtype is None else dtypes.canonical(dtype)


def floating(x: Node) -> Node:
    """x, integers and bools as the default float."""
    from gnomon.config import floatx

    return x if dtypes.is_float(x.dtype) else build.cast(x, floatx())


def together(*values: Any) -> list[Node]:
    """Nodes of the dtype that all of them meet in; Python numbers take that of the others."""
    from gnomon.tensor import operand

    given = [operand(v) for v in values]
    dtype = build.promote(*given)
    return [build.cast(v, dtype) if isinstance(v, Node) else build.constant(v, dtype) for v in given]


def one_of(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """`value` if it is among `allowed`. Raises ArgumentError naming them."""
    if value in allowed:
        return value
    raise ArgumentError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def numbers(*names: str) -> Callable[[Callable], Callable]:
    """For a public function: its arguments called `names` are sizes, positions or the like, which must be known now.

    Arrays given for them become lists, where `op` would make tensors of them.
    """

    def decorate(public: Callable) -> Callable:
        parameters = tuple(inspect.signature(public).parameters)
        places = {parameters.index(name) for name in names}

        @functools.wraps(public)
        def fn(*args: Any, **kwargs: Any) -> Any:
            args = tuple(_plain(v) if k in places else v for k, v in enumerate(args))
            return public(*args, **{k: _plain(v) if k in names else v for k, v in kwargs.items()})

        return fn

    return decorate


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
