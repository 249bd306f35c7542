"""Functions on tensors as such: conversion, shapes, control of gradients, control flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.ops.arguments import as_dtype
from gnomon.runtime.buffer import shown
from gnomon.tensor import Array, Tensor, is_symbolic, node_of, op


@op
def cast(x, dtype):
    """x converted to `dtype`; floats become integers by cutting towards 0."""
    return build.cast(node_of(x), dtypes.canonical(dtype))


@op
def saturate_cast(x, dtype):
    """x converted to `dtype`, what lies outside its range set to the nearest end."""
    x = node_of(x)
    wanted = dtypes.named(dtypes.canonical(dtype))
    if dtypes.is_float(x.dtype) and wanted.kind in "iu":
        return build.cast(x, wanted.name)  # casts of floats to integers keep within the range
    if wanted.kind in "iu" and x.dtype != "bool":
        limits, own = np.iinfo(wanted.numpy), np.iinfo(dtypes.named(x.dtype).numpy)
        if own.min < limits.min:
            x = build.maximum(x, int(limits.min))
        if own.max > limits.max:
            x = build.minimum(x, int(limits.max))
    elif wanted.kind == "f" and dtypes.is_float(x.dtype) and dtypes.named(x.dtype).bits > wanted.bits:
        top = dtypes.limits(wanted.name).max
        x = build.minimum(build.maximum(x, -top), top)
    return build.cast(x, wanted.name)


def convert_to_tensor(x: Any, dtype: Any = None, sparse: Any = None, ragged: Any = None) -> Any:
    """x as a tensor: symbolic values stay symbolic, all else becomes an array. Python's floats become float32."""
    wanted = None if dtype is None else dtypes.canonical(dtype)
    if is_symbolic(x) or isinstance(x, Node):
        node = node_of(x)
        return Tensor(node if wanted is None else build.cast(node, wanted))
    if isinstance(x, (list, tuple)) and _has_symbolic(x):
        return Tensor(node_of(x, wanted))
    if wanted is None and not isinstance(x, (np.ndarray, np.generic)):
        wanted = _plain_dtype(x)
    array = np.asarray(x)
    wanted = wanted or dtypes.canonical(array.dtype)
    return shown(wanted, dtypes.rounded(wanted, array)).view(Array)


array = convert_to_tensor


def _has_symbolic(x: Any) -> bool:
    return any(is_symbolic(v) or isinstance(v, (list, tuple)) and _has_symbolic(v) for v in x)


def _plain_dtype(x: Any) -> str:
    from gnomon.config import floatx

    found = np.asarray(x)
    if isinstance(x, (list, tuple)) and any(isinstance(v, (np.ndarray, np.generic)) for v in x):
        return dtypes.canonical(found.dtype)
    return {"b": "bool", "i": "int32", "u": "uint32", "f": floatx()}.get(found.dtype.kind, found.dtype.name)


def convert_to_numpy(x: Any) -> np.ndarray:
    """The value of x as a NumPy array. Raises GraphError if it depends on an input of a function."""
    return x.numpy() if is_symbolic(x) else np.asarray(x)


def is_tensor(x: Any) -> bool:
    """Whether x is a symbolic tensor, a variable or an array made by gnomon."""
    return is_symbolic(x) or isinstance(x, Array)


def shape(x: Any) -> tuple[Any, ...]:
    """The sizes of x: numbers, and scalar int32 tensors for those that only a call decides.

    Such a tensor, and sums and products of it, may be used as a size again (`ops.reshape(x, (n * 2, 3))`).
    """
    if not is_symbolic(x) and not isinstance(x, Node):
        return np.shape(x)
    return tuple(d if isinstance(d, int) else Tensor(build.size(d, "int32")) for d in node_of(x).shape)


def ndim(x: Any) -> int:
    """How many axes x has."""
    return node_of(x).rank if is_symbolic(x) or isinstance(x, Node) else np.ndim(x)


def dtype(x: Any) -> str:
    """The name of x's dtype."""
    return node_of(x).dtype


@op
def size(x):
    """How many elements x has, int32."""
    return build.size(build.product(node_of(x).shape), "int32")


def stop_gradient(variable: Any) -> Any:
    """The same value, which gradients do not pass. Lists, tuples and dictionaries are gone through."""
    if isinstance(variable, dict):
        return {k: stop_gradient(v) for k, v in variable.items()}
    if isinstance(variable, (list, tuple)):
        return type(variable)(stop_gradient(v) for v in variable)
    return _stop_gradient(variable)


@op
def _stop_gradient(x):
    return build.stop_gradient(node_of(x))


@op
def view(x, dtype=None):
    """x itself; its bits as another dtype are not there."""
    x = node_of(x)
    if as_dtype(dtype, x.dtype) != x.dtype:
        from gnomon.compiler.errors import ArgumentError

        raise ArgumentError(f"view of {x.type} as {dtype} is not there: use cast to convert values")
    return x


def cond(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """What `true_fn()` returns if `pred` is true, else what `false_fn()` returns; only one of them is computed."""
    from gnomon.control import cond as apply

    return apply(pred, true_fn, false_fn)


def vectorized_map(function: Callable[[Any], Any], elements: Any) -> Any:
    """`function` of every slice of `elements` along the first axis, as one batched computation; results are stacked."""
    from gnomon.calculus import vectorized_map as apply

    return apply(function, elements)


def map(f: Callable[[Any], Any], xs: Any) -> Any:
    """`f` of every slice of `xs` along the first axis, results stacked."""
    return vectorized_map(f, xs)


def vectorize(pyfunc: Callable[..., Any], *, excluded: Any = None, signature: Any = None) -> Callable[..., Any]:
    """A function of scalars as one of arrays that broadcast: `pyfunc` is applied as it stands, for ops are elementwise.

    With a `signature` such as "(n),(n)->()" the named axes are its operands' and the leading ones broadcast.
    """
    from gnomon.calculus import vectorize_function as apply

    return apply(pyfunc, excluded, signature)


def custom_gradient(f: Callable[..., tuple[Any, Callable[..., Any]]]) -> Callable[..., Any]:
    """A function with its own gradient: `f(*args)` returns (outputs, grad_fn), grad_fn(*cotangents) the gradients."""
    from gnomon.calculus import custom_gradient as apply

    return apply(f)


def jvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False) -> Any:
    """(fun(*primals), its Jacobian times `tangents`); with `has_aux`, what fun returns second is passed on."""
    from gnomon.calculus import jvp_of_function as apply

    return apply(fun, primals, tangents, has_aux)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """`branches[index](*operands)`, the index kept within range; only one is computed."""
    from gnomon.control import switch as apply

    return apply(index, branches, *operands)
