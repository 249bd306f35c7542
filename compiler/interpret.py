"""NumPy evaluation of a graph: what every other way of running it must agree with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DataError
from gnomon.compiler.graph import Env, Item, Node, TensorType, walk
from gnomon.compiler.ops.control import walks_subgraphs
from gnomon.compiler.ops.leaves import Input, size_of
from gnomon.compiler.sizes import Size, Symbol, evaluate


def bind_sizes(
    types: Sequence[TensorType], shapes: Sequence[tuple[int, ...]], names: Sequence[str] = ()
) -> dict[str, int]:
    """Values of the named sizes, read from the shapes of arguments. Raises DataError where they disagree."""
    values: dict[str, int] = {}
    label = lambda k: f"argument {names[k]!r}" if k < len(names) else f"argument {k}"
    for k, (t, shape) in enumerate(zip(types, shapes, strict=True)):
        if len(shape) != t.rank:
            raise DataError(f"{label(k)} must have {t.rank} axes, {t}, got an array of shape {shape}")
        for d, n in zip(t.shape, shape, strict=True):
            name = _symbol(d)
            if name is not None:
                values.setdefault(name, n)
    for k, (t, shape) in enumerate(zip(types, shapes, strict=True)):
        for axis, (d, n) in enumerate(zip(t.shape, shape, strict=True)):
            try:
                wanted = evaluate(d, values)
            except KeyError:
                continue
            if wanted != n:
                raise DataError(
                    f"{label(k)} must be {t}, got an array of shape {shape}: axis {axis} must have {wanted} elements"
                )
    return values


def bind(leaves: Sequence[Node], arrays: Sequence[Any], names: Sequence[str] = ()) -> dict[str, int]:
    """Values of the named sizes, read from arguments: from their shapes, and integers that are used as sizes."""
    values = bind_sizes([n.type for n in leaves], [np.shape(a) for a in arrays], names)
    for leaf, array in zip(leaves, arrays, strict=True):
        if leaf.type.shape == () and leaf.dtype in ("int32", "int64"):
            values[size_of(leaf)] = int(array)
    return values


def _symbol(d: Any) -> str | None:
    """The name of a dimension that is one named size."""
    if isinstance(d, Size) and len(d.terms) == 1:
        monomial, c = d.terms[0]
        if c == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
            return monomial[0].name
    return None


def as_held(dtype: str, value: Any) -> Any:
    """A value as ops' `numpy` takes it: each rounds its result itself but for bfloat16, which NumPy does not have."""
    return dtypes.rounded(dtype, value) if dtype == "bfloat16" else value


@walks_subgraphs
def evaluate_graph(
    outputs: Sequence[Node],
    values: Mapping[Node, np.ndarray],
    sizes: Mapping[str, int] | None = None,
    observe: Callable[[Node, Any], None] | None = None,
) -> list[np.ndarray]:
    """The values of `outputs`, given those of the inputs and parameters they depend on.

    sizes    values of the named sizes; read from the given arrays if left out
    observe  called with every node and its value, in order
    Numbers of bfloat16 come and go in float32 arrays.
    """
    if sizes is None:
        leaves = [n for n in values if isinstance(n.op, Input)]
        sizes = bind(leaves, [values[n] for n in leaves])
    env = Env(sizes)
    done: dict[Node, Any] = {}
    order = walk(outputs, stop=lambda n: n in values)
    remaining: dict[Node, int] = {}
    for node in order:
        for x in node.inputs if node not in values else ():
            remaining[x] = remaining.get(x, 0) + 1
    kept = set(outputs)
    for node in order:
        if node in values:
            value = values[node]
            if isinstance(node.type, TensorType):
                value = as_held(node.dtype, value)
        elif isinstance(node.op, Input):
            raise DataError(f"no value was given for {node!r}")
        else:
            value = node.op.numpy(env, *(done[x] for x in node.inputs))
            if isinstance(node.type, TensorType) and not isinstance(node.op, Item):
                value = as_held(node.dtype, np.asarray(value))
                assert value.dtype == dtypes.named(node.dtype).numpy, (node, value.dtype)
        done[node] = value
        if observe is not None:
            observe(node, value)
        for x in node.inputs if node not in values else ():
            remaining[x] -= 1
            if not remaining[x] and x not in kept:
                del done[x]
    return [done[o] for o in outputs]
