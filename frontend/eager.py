"""Formulas on Tensors that also take arrays: what is given arrays alone is computed at once.

`gnomon.tensor.op` does the same for functions of nodes. Here the formula sees Tensors, so that operators work and
masks travel along.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Node, walk
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops.leaves import Parameter
from gnomon.runtime.buffer import shown
from gnomon.tensor import Array, Tensor, is_symbolic, new_input, node_of
from gnomon.variable import Variable, collecting_updates, is_tracing, variable_of

Values = dict[Node, np.ndarray]


def on_tensors(count: int = 1) -> Callable[[Callable], Callable]:
    """Make a formula whose first `count` parameters are tensors public: it then takes arrays, numbers and lists too."""

    def decorate(fn: Callable) -> Callable:
        names = tuple(inspect.signature(fn).parameters)[:count]

        @functools.wraps(fn)
        def public(*args: Any, **kwargs: Any) -> Any:
            if len(args) < count:
                if any(name not in kwargs for name in names[len(args) :]):
                    return fn(*args, **kwargs)  # Python's own TypeError names what is missing
                args = (*args, *(kwargs.pop(name) for name in names[len(args) :]))
            return compute(lambda tensors: fn(*tensors, *args[count:], **kwargs), list(args[:count]))

        return public

    return decorate


def compute(fn: Callable[[list], Any], given: list) -> Any:
    """`fn(given)`, the tensor-like leaves of `given` as Tensors; evaluated now if they are all arrays and numbers."""
    values: Values = {}
    symbolic = any(is_symbolic(leaf) for value in given for leaf in _leaves(value))
    result = fn([_map(value, lambda leaf: as_tensor(leaf, None if symbolic else values)) for value in given])
    return result if symbolic else evaluate(result, values)


def as_tensor(value: Any, values: Values | None = None) -> Tensor:
    """A Tensor of anything tensor-like. With `values`, arrays become inputs that are noted there with their values."""
    if isinstance(value, Tensor):
        return Tensor(node_of(value), value.name) if isinstance(value, Variable) else value
    if values is None or is_symbolic(value) or isinstance(value, Node):
        return Tensor(node_of(value))
    array = np.asarray(value)
    if not isinstance(value, (np.ndarray, np.generic)):  # Python's floats and integers: float32 and int32
        array = array.astype({"f": np.float32, "i": np.int32}.get(array.dtype.kind, array.dtype))
    leaf = new_input("array", dtypes.canonical(array.dtype), array.shape)
    values[leaf] = array
    return Tensor(leaf)


def evaluate(result: Any, values: Values) -> Any:
    """`result` with each Tensor in it replaced by its value, given those of inputs."""
    tensors = [leaf for leaf in _leaves(result) if isinstance(leaf, Tensor)]
    arrays = iter(evaluate_all([node_of(t) for t in tensors], values))
    return _map(result, lambda leaf: np.array(next(arrays)).view(Array) if isinstance(leaf, Tensor) else leaf)


def evaluate_all(nodes: Iterable[Node], values: Values) -> list[np.ndarray]:
    """The values of nodes that depend on `values`, variables and constants, as users get them."""
    nodes, known = list(nodes), dict(values)
    for leaf in walk(nodes):
        if isinstance(leaf.op, Parameter) and leaf not in known:
            known[leaf] = variable_of(leaf).numpy()
    return [shown(node.dtype, value) for node, value in zip(nodes, evaluate_graph(nodes, known), strict=True)]


def at_once(method: Callable) -> Callable:
    """Make a method that assigns Variables usable outside a traced program too.

    There all that it assigns is computed together and then stored. Inside (`collecting_updates`) it is left as it is.
    """

    @functools.wraps(method)
    def public(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_tracing():
            return method(self, *args, **kwargs)
        values: Values = {}
        with collecting_updates() as updates:
            args = tuple(_map(v, lambda leaf: as_tensor(leaf, values) if _is_data(leaf) else leaf) for v in args)
            kwargs = _map(kwargs, lambda leaf: as_tensor(leaf, values) if _is_data(leaf) else leaf)
            result = method(self, *args, **kwargs)
            nodes = [node_of(leaf) for leaf in _leaves(result) if isinstance(leaf, Tensor)]
        computed = evaluate_all([*updates.values(), *nodes], values)
        for variable, new in zip(updates, computed, strict=False):
            variable.buffer.set(new)
        rest = iter(computed[len(updates) :])
        return _map(result, lambda leaf: np.array(next(rest)).view(Array) if isinstance(leaf, Tensor) else leaf)

    return public


def _is_data(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic, list)) and not isinstance(value, Tensor)


def _is_structure(value: Any) -> bool:
    """Whether a list or tuple holds tensors, rather than being the numbers of one."""
    return any(v is None or isinstance(v, (np.ndarray, Tensor, dict)) for v in value)


def _leaves(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        for v in value.values():
            yield from _leaves(v)
    elif isinstance(value, (list, tuple)) and _is_structure(value):
        for v in value:
            yield from _leaves(v)
    elif value is not None:
        yield value


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {k: _map(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and _is_structure(value):
        return type(value)(_map(v, change) for v in value)
    return None if value is None else change(value)
